"""Where every skip has to be meant: on continuous integration, any other skip is a failure."""

import gc
import os
import signal

import jax
import pytest

import mistral_lib  # noqa: F401 - it chooses JAX, before a test's own import of keras

REQUIRE_ALL = "MISTRAL_LIB_REQUIRE_ALL"


@pytest.fixture(autouse=True, scope="module")
def programs_of_one_file():
    """Lets go of the programs that the tests of a file compiled.

    Each is mapped into memory in several pieces, and Linux ends a process that has 65,530 of them.
    """
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(autouse=True, scope="module")
def ctrl_c_of_python():
    """Ctrl-C is Python's own again after every file, or later tests could not press it."""
    yield
    left = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert left is signal.default_int_handler


@pytest.fixture(scope="module")
def chromium():
    """A running browser."""
    import browser  # which needs Playwright, and most tests do not

    if browser.find_chromium() is None:
        pytest.skip("Chromium is not installed (Debian: sudo apt-get install chromium)")
    with browser.chromium() as running:
        yield running


def refuse_skip(report) -> None:
    """Turns a skipped test's report into a failed one."""
    reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = (
        f"{reason}\n{REQUIRE_ALL} is set, so nothing may be skipped here but tests marked peer. "
        "Install what is missing, or mark the test."
    )


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Looks at each test's report."""
    report = (yield).get_result()
    expected = hasattr(report, "wasxfail") or item.get_closest_marker("peer")
    if report.skipped and not expected and os.environ.get(REQUIRE_ALL):
        refuse_skip(report)


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector):
    """Looks at each file's report: `importorskip` at its top skips the whole file."""
    report = (yield).get_result()
    if report.skipped and os.environ.get(REQUIRE_ALL):
        refuse_skip(report)
