"""What cannot pass on Keras 3.13, whose int4 has no blocks: versions/needs_keras_3_14.txt.

There each test that needs Keras 3.14 has a line, with `*` for any characters, and so has each such
cell of a notebook, which is named by one of its lines. On an older Keras these have to fail, and a
listed one that passes is a failure too, so that the list cannot grow stale. Nothing else may fail
or be skipped there.
"""

import re
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

NEEDED = "3.14"
LIST = Path(__file__).parent.parent / "versions" / "needs_keras_3_14.txt"


def listed() -> list[str]:
    """The lines of the list without its comments."""
    lines = LIST.read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def matches(line: str, name: str) -> bool:
    """Whether a line of the list names a test.

    >>> matches("tests/test_a.py::test_b[*int4*]", "tests/test_a.py::test_b[True-int4/8]")
    True
    """
    return re.fullmatch(re.escape(line).replace(r"\*", ".*"), name) is not None


def names(item: pytest.Item) -> list[str]:
    """What a test can be listed as: its name, or the file and a line of a notebook's cell."""
    if not hasattr(item, "cell"):
        return [item.nodeid]
    file = item.nodeid.partition("::")[0]
    return [f"{file}::{line.strip()}" for line in item.cell.source.splitlines()]


def expect_failures(items: list[pytest.Item], installed: str | None = None) -> None:
    """Marks the listed tests, if the installed Keras is too old for them."""
    if Version(installed or version("keras")) >= Version(NEEDED):
        return
    mark = pytest.mark.xfail(reason=f"needs Keras {NEEDED}", strict=True)
    lines = listed()
    for item in items:
        if any(matches(line, name) for line in lines for name in names(item)):
            item.add_marker(mark)
