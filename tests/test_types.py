"""Type hints: every parameter has one, and pyright agrees with them in `make lint`."""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import chapter_map
import house

# What pyright does not see is said at the line itself, with the rule and why.
IGNORE = re.compile(r"# pyright: ignore\[\w+(?:, \w+)*\]  # \w.+")
MOST_IGNORES = 30
TO_CHECKER = re.compile(r"#\s*(?:pyright|mypy|type):")


def public_functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """The functions that a module or class offers, with the names of their classes in front."""
    for part in ast.iter_child_nodes(node):
        name = getattr(part, "name", "_")
        if name.startswith("_") and name not in ("__init__", "__call__", "__new__"):
            continue
        if isinstance(part, ast.ClassDef):
            yield from public_functions(part, f"{prefix}{name}.")
        elif isinstance(part, ast.FunctionDef):
            yield prefix + name, part


def without_hints(source: str) -> list[str]:
    """The parameters of public functions that have no hint, as `function(parameter)`."""
    missing = []
    for name, function in public_functions(ast.parse(source)):
        arguments = function.args
        listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        listed += [part for part in (arguments.vararg, arguments.kwarg) if part is not None]
        static = any(ast.unparse(part) == "staticmethod" for part in function.decorator_list)
        listed = listed[1:] if "." in name and not static else listed
        missing += [f"{name}({part.arg})" for part in listed if part.annotation is None]
    return missing


def words_to_checkers(source: str) -> Iterator[tuple[str, str]]:
    """The comments that turn a checker of types on or off, each with the code in front of it."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and TO_CHECKER.search(token.string):
            yield token.line[: token.start[1]].strip(), token.string


def unexplained(source: str) -> list[str]:
    """Those that ignore a whole file, or that lack the rule or the reason."""
    return [
        comment
        for code, comment in words_to_checkers(source)
        if not code or not IGNORE.fullmatch(comment)
    ]


@pytest.mark.parametrize("module", chapter_map.modules(), ids=str)
def test_every_parameter_of_a_public_function_has_a_hint(module):
    assert without_hints((house.ROOT / module).read_text()) == []


@pytest.mark.parametrize("module", chapter_map.modules(), ids=str)
def test_every_ignored_line_names_the_rule_and_the_reason(module):
    assert unexplained((house.ROOT / module).read_text()) == []


def test_few_lines_are_ignored():
    sources = [(house.ROOT / module).read_text() for module in chapter_map.modules()]
    assert sum(len(list(words_to_checkers(source))) for source in sources) <= MOST_IGNORES


def test_lint_runs_pyright_and_ends_with_its_errors():
    command = ["make", "--dry-run", "lint"]
    lines = subprocess.run(command, cwd=house.ROOT, capture_output=True, text=True).stdout
    assert re.search(r"-m pyright\b.*exit 1", lines)
    assert Path(house.ROOT, "mistral_lib/py.typed").exists()


def test_a_missing_hint_is_found():
    source = """
def public(a, b: int, *c, **d: str): ...
def _private(a): ...
class Layer:
    def __init__(self, size): ...
    @classmethod
    def make(cls, config): ...
    @staticmethod
    def count(number): ...
    def _own(self, x): ...
"""
    expected = ["public(a)", "public(c)", "Layer.__init__(size)", "Layer.make(config)"]
    assert without_hints(source) == [*expected, "Layer.count(number)"]


@pytest.mark.parametrize(
    "line",
    [
        "# pyright: basic",
        "# pyright: ignore[reportCallIssue]  # alone in its line it is for the whole file",
        "x = f()  # pyright: ignore",
        "x = f()  # pyright: ignore[reportCallIssue]",
        "x = f()  # type: ignore[call-arg]  # not the checker that runs",
    ],
)
def test_an_unexplained_ignore_is_found(line):
    assert len(unexplained(f"{line}\ny = 1  # a type: no word to a checker\n")) == 1
    assert unexplained("x = f()  # pyright: ignore[reportCallIssue]  # the stub is wrong") == []
