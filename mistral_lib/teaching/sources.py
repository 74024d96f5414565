"""The library's code as a chapter shows it (used by all chapters).

Chapters never paste code of the library: they print it from its file, so that it cannot grow old.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable


def show_source(*functions: Callable | type, numbers: bool = False) -> None:
    """Prints functions or classes from their files, without their docstrings.

    Args:
        *functions: functions, methods or classes written in Python.
        numbers: whether to number the lines of each body, for questions about single lines.

    Raises:
        TypeError: something has no Python source.

    >>> from mistral_lib.masks import can_see
    >>> show_source(can_see)
    def can_see(query_positions, key_positions, window=None):
        distance = query_positions - key_positions
        visible = distance >= 0
        if window is not None:
            visible = visible & (distance < window)
        return visible
    """
    for index, function in enumerate(functions):
        if index:
            print()
        # Decorators such as jax.jit wrap a function; its source is the wrapped one's.
        head, body = _without_docstrings(inspect.getsource(inspect.unwrap(function)))
        print("\n".join(head))
        for number, line in enumerate(body, 1):
            print(f"{number} {line}" if numbers else line)


def _without_docstrings(source: str) -> tuple[list[str], list[str]]:
    """The lines of a definition up to its first statement, and the lines from there on."""
    source = textwrap.dedent(source)
    lines = source.splitlines()
    definition = ast.parse(source).body[0]
    documented = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in ast.walk(definition):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            for number in range(node.body[0].lineno - 1, node.body[0].end_lineno):
                lines[number] = None
    first = definition.body[0]
    end_of_head = first.lineno - 1
    head = [line for line in lines[:end_of_head] if line is not None]
    body = [line for line in lines[end_of_head:] if line is not None]
    while body and not body[0].strip():
        del body[0]
    return head, body
