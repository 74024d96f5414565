"""What an older Keras cannot do is listed by name, and the list is true."""

import ast
import re

import nbformat
import pytest

import house
import newer_keras

pytest_plugins = ["pytester"]

CONFTEST = """
import newer_keras

def pytest_collection_modifyitems(items):
    newer_keras.expect_failures(items, installed={installed!r})
"""
TESTS = """
import pytest

@pytest.mark.parametrize("kind", ["int8", "int4", "int4/8"])
def test_kind(kind):
    assert kind == "int8"

def test_other():
    pass
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Runs the tests above on some Keras, with some lines on the list."""

    def call(installed, *lines):
        monkeypatch.setattr(newer_keras, "LIST", pytester.path / "list.txt")
        newer_keras.LIST.write_text("# a comment\n" + "\n".join(lines))
        pytester.makeconftest(CONFTEST.format(installed=installed))
        name = pytester.makepyfile(TESTS).name
        newer_keras.LIST.write_text(newer_keras.LIST.read_text().replace("FILE", name))
        return pytester.runpytest_inprocess("-p", "no:cacheprovider")

    return call


def test_listed_tests_may_fail_on_an_older_keras(run):
    run("3.13.2", "FILE::test_kind[int4*]").assert_outcomes(passed=2, xfailed=2)


def test_no_other_test_may_fail_there(run):
    run("3.13.2", "FILE::test_kind[int4]").assert_outcomes(passed=2, xfailed=1, failed=1)


def test_a_listed_test_that_passes_is_a_failure(run):
    run("3.13.2", "FILE::test_kind[int4*]", "FILE::test_other").assert_outcomes(
        passed=1, xfailed=2, failed=1
    )


def test_a_cell_is_listed_by_one_of_its_lines(monkeypatch, tmp_path):
    class Item:
        nodeid = "book/a.ipynb::Cell 3"
        marks = ()

        def add_marker(self, mark):
            self.marks = (*self.marks, mark)

    item, other = Item(), Item()
    item.cell = nbformat.v4.new_code_cell("with x:\n    print(x[1])")
    other.cell = nbformat.v4.new_code_cell("print(x[2])")
    monkeypatch.setattr(newer_keras, "LIST", tmp_path / "list.txt")
    newer_keras.LIST.write_text("book/a.ipynb::print(x[1])")
    newer_keras.expect_failures([item, other], installed="3.13.0")
    assert [len(item.marks), len(other.marks)] == [1, 0]


def test_a_newer_keras_can_do_everything(run):
    run("3.14.0", "FILE::test_kind[*]").assert_outcomes(passed=2, failed=2)


@pytest.mark.parametrize("line", newer_keras.listed())
def test_what_is_listed_exists(line):
    file, name = line.split("::", 1)
    path = house.ROOT / file
    if path.suffix == ".ipynb":
        cells = [cell.source.splitlines() for cell in nbformat.read(path, 4).cells]
        assert sum(name in map(str.strip, lines) for lines in cells) == 1
    else:
        tree = ast.parse(path.read_text())
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert re.match(r"\w+", name)[0] in functions
