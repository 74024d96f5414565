"""The library's code as a chapter shows it (used by all chapters).

Chapters never paste code of the library: they print it from its file, so that it cannot grow old.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any

from IPython.core.getipython import get_ipython
from IPython.display import display

# A comment that is meant for pyright, and tells a reader nothing about the code.
TO_CHECKER = re.compile(r"  # pyright: ignore\[.*")


def show_source(*functions: Callable | type, numbers: bool = False) -> None:
    """Shows functions or classes from their files, without their docstrings.

    In a notebook their code is highlighted; elsewhere it is printed.

    Args:
        *functions: functions, methods or classes written in Python.
        numbers: whether to number the lines of each body, for questions about single lines.

    Raises:
        TypeError: something has no Python source.

    >>> from mistral_lib.masks import can_see
    >>> show_source(can_see)
    def can_see(
        query_positions: Int[Array, "..."] | int,
        key_positions: Int[Array, "..."] | int,
        window: int | Int[Array, ""] | None = None,
    ) -> Bool[Array, "..."] | bool:
        distance = query_positions - key_positions
        visible = distance >= 0
        if window is not None:
            visible = visible & (distance < window)
        return visible
    """
    definitions = []
    for function in functions:
        # Decorators such as jax.jit wrap a function; its source is the wrapped one's.
        head, body = _without_docstrings(inspect.getsource(inspect.unwrap(function)))
        if numbers:
            body = [f"{number} {line}" for number, line in enumerate(body, 1)]
        definitions.append("\n".join([*head, *body]))
    text = "\n\n".join(definitions)
    if get_ipython() is None:
        print(text)
    else:
        display({"text/markdown": f"```python\n{text}\n```", "text/plain": text}, raw=True)


def line_number(function: Callable, part: str) -> int:
    """The number that `show_source(function, numbers=True)` prints before a line.

    Args:
        function: a function or method written in Python.
        part: text that is in one line of the body.

    Raises:
        ValueError: no line has it, or several have.

    >>> from mistral_lib.masks import can_see
    >>> line_number(can_see, "visible = distance >= 0")
    2
    """
    found = [number for number, line in enumerate(body_lines(function), 1) if part in line]
    if len(found) != 1:
        raise ValueError(
            f"{part!r} must be in one line of {function.__qualname__}, but is in {len(found)}."
        )
    return found[0]


def body_lines(function: Callable) -> list[str]:
    """The lines that `show_source(function, numbers=True)` numbers.

    >>> from mistral_lib.masks import can_see
    >>> body_lines(can_see)[1]
    '    visible = distance >= 0'
    """
    return _without_docstrings(inspect.getsource(inspect.unwrap(function)))[1]


def _without_docstrings(source: str) -> tuple[list[str], list[str]]:
    """The lines of a definition up to its first statement, and the lines from there on."""
    source = textwrap.dedent(TO_CHECKER.sub("", source))
    definition: Any = ast.parse(source).body[0]
    hidden = set()
    documented = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in ast.walk(definition):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            first: Any = node.body[0]
            hidden.update(range(first.lineno, first.end_lineno + 1))
    lines = enumerate(source.splitlines(), 1)
    shown = [(number, line) for number, line in lines if number not in hidden]
    head = [line for number, line in shown if number < definition.body[0].lineno]
    body = [line for number, line in shown if number >= definition.body[0].lineno]
    while body and not body[0].strip():
        del body[0]
    return head, body
