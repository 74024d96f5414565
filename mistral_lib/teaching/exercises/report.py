"""How an answer is compared, and how a difference is shown (used by all chapters)."""

from __future__ import annotations

import numpy as np

TOLERANCE = 1e-5  # relative and absolute, for floating-point answers
SHOWN = 12  # a printed mask has at most this many rows and columns


def same(got: object, expected: object) -> bool:
    """Whether two answers agree: shapes exactly, numbers within the tolerance.

    >>> same([1, 2], np.array([1, 2])), same([[1, 2]], [1, 2]), same(True, 1)
    (True, False, True)
    """
    if isinstance(expected, str) or isinstance(got, str):
        return str(got).strip().casefold() == str(expected).strip().casefold()
    try:
        got, expected = np.asarray(got), np.asarray(expected)
        if got.shape != expected.shape:
            return False
        if expected.dtype == bool or expected.dtype.kind in "iu":
            return bool(np.all(got == expected))
        return bool(np.allclose(got, expected, TOLERANCE, TOLERANCE, equal_nan=True))
    except (TypeError, ValueError):  # ragged lists, objects
        return False


def difference(got: object, expected: object) -> str:
    """A few lines that show where `got` and `expected` differ: the shape first, then the cells.

    >>> print(difference(np.tri(2, 3), np.tri(2)))
    Shape: yours is (2, 3), expected (2, 2).
    >>> print(difference(np.tri(2) > 5, np.tri(2) > 0))
    expected   yours      (# true, . false, X differs)
     # .        X .
     # #        X X
    3 of 4 cells differ, the first at (0, 0): yours is False, expected True.
    """
    try:
        got_array, expected_array = np.asarray(got), np.asarray(expected)
    except ValueError:
        return f"Yours: {got!r}. Expected: {expected!r}."
    if got_array.shape != expected_array.shape:
        return f"Shape: yours is {got_array.shape}, expected {expected_array.shape}."
    if expected_array.ndim == 0:
        return f"Yours: {got!r}. Expected: {expected!r}."
    if got_array.dtype.kind not in "biuf":
        return f"Yours has dtype {got_array.dtype}, expected {expected_array.dtype}."
    differs = ~np.isclose(got_array, expected_array, TOLERANCE, TOLERANCE, equal_nan=True)
    where = tuple(int(i) for i in np.argwhere(differs)[0])
    place = where[0] if len(where) == 1 else where
    sentence = (
        f"{differs.sum()} of {differs.size} cells differ, the first at {place}: "
        f"yours is {got_array[where]}, expected {expected_array[where]}."
    )
    if expected_array.dtype == bool and expected_array.ndim == 2:
        return f"{_side_by_side(expected_array, differs)}\n{sentence}"
    if expected_array.size <= SHOWN:
        return f"Yours:    {got_array.tolist()}\nExpected: {expected_array.tolist()}\n{sentence}"
    return sentence


def _side_by_side(expected: np.ndarray, differs: np.ndarray) -> str:
    """Two small pictures of a mask, the wrong cells of the second marked X."""
    expected, differs = expected[:SHOWN, :SHOWN], differs[:SHOWN, :SHOWN]
    width = max(11, 2 * expected.shape[1] + 4)
    lines = ["expected".ljust(width) + "yours".ljust(width) + "(# true, . false, X differs)"]
    for row, wrong in zip(expected, differs, strict=True):
        left = "".join(" #" if cell else " ." for cell in row)
        right = "".join(
            " X" if bad else (" #" if cell else " .") for cell, bad in zip(row, wrong, strict=True)
        )
        lines.append((left.ljust(width) + right).rstrip())
    return "\n".join(lines)
