"""A call as a reader would write it, for copying into a cell (used by all chapters)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def call(function: Callable, arguments: tuple) -> str:
    """The call of a reader's function, by its name.

    >>> call(lambda x, n: x, (np.array([[1, 0], [0, 2]]), 3))
    'mine(np.array([[1, 0], [0, 2]]), 3)'
    """
    name = getattr(function, "__name__", "")
    shown = name if name.isidentifier() else "mine"
    return f"{shown}({', '.join(map(literal, arguments))})"


def literal(value: object) -> str:
    """Python that makes a value again, where `np` is imported.

    >>> literal((np.array([True]), np.array([1, 2], "int8"), np.square, {b"a": 0}))
    '(np.array([True]), np.array([1, 2], "int8"), np.square, {b\\'a\\': 0})'
    """
    if isinstance(value, np.ndarray):
        cells = value.tolist()
        dtype = "" if np.array(cells).dtype == value.dtype else f', "{value.dtype}"'
        return f"np.array({cells}{dtype})"
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, np.ufunc):
        return f"np.{value.__name__}"
    if isinstance(value, tuple):
        inside = ", ".join(map(literal, value))
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    return repr(value)
