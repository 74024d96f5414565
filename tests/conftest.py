"""Where every skip has to be meant: on continuous integration, any other skip is a failure."""

import os

import pytest

import mistral_lib  # noqa: F401 - it chooses JAX, before a test's own import of keras

REQUIRE_ALL = "MISTRAL_LIB_REQUIRE_ALL"


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
