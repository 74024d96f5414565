"""No skip passes unseen where everything has to run."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TESTS = """
import pytest

@pytest.mark.peer
def test_peer():
    pytest.skip("no such library")

def test_other():
    pytest.skip("no browser")

@pytest.mark.xfail
def test_xfail():
    assert False
"""


@pytest.fixture
def house(pytester):
    """A folder with this project's conftest."""
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text())
    pytester.makeini("[pytest]\nmarkers = peer\n")
    return pytester


def test_skips_are_allowed_on_a_readers_machine(house, monkeypatch):
    monkeypatch.delenv("MISTRAL_LIB_REQUIRE_ALL", raising=False)
    house.makepyfile(TESTS)
    house.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(skipped=2, xfailed=1)


def test_only_peers_may_skip_where_everything_is_required(house, monkeypatch):
    monkeypatch.setenv("MISTRAL_LIB_REQUIRE_ALL", "1")
    house.makepyfile(TESTS)
    result = house.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(skipped=1, failed=1, xfailed=1)
    result.stdout.fnmatch_lines(["*no browser*", "*MISTRAL_LIB_REQUIRE_ALL is set*"])


def test_a_file_that_skips_itself_is_refused(house, monkeypatch):
    monkeypatch.setenv("MISTRAL_LIB_REQUIRE_ALL", "1")
    house.makepyfile("import pytest\npytest.importorskip('no_such_library')")
    result = house.runpytest_inprocess("-p", "no:cacheprovider")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*no_such_library*"])
