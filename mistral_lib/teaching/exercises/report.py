"""How an answer is compared, and how a difference is shown (used by all chapters)."""

from __future__ import annotations

import numpy as np

from mistral_lib.teaching.exercises.answers import numbers, shown

# What float32 may cost: no mistake of an exercise is as small.
RELATIVE, ABSOLUTE = 1e-4, 1e-5
NEAR = 1e-3  # relative, for a known mistake that was rounded
WHOLE = 1e-3  # what rounding may have left of a whole number
SHOWN = 12  # a printed mask has at most this many rows and columns


def same(got: object, expected: object) -> bool:
    """Whether two answers agree: shapes exactly, numbers as `agree` says.

    >>> same([1, 2], np.array([1, 2])), same([[1, 2]], [1, 2]), same(14.9993, 15), same(True, 1)
    (True, False, True, False)

    Raises:
        Unreadable: one of them holds something else than numbers.
    """
    got, expected = numbers(got), numbers(expected)
    return got.shape == expected.shape and bool(agree(got, expected).all())


def agree(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Which cells of two arrays of one shape agree.

    Truth values may be given as 0 and 1, but not numbers as truth values.
    """
    if got.dtype == bool and expected.dtype != bool:
        return np.zeros(got.shape, bool)
    mine, right = got.astype(float), expected.astype(float)
    if expected.dtype.kind == "f":
        return np.isclose(mine, right, RELATIVE, ABSOLUTE, equal_nan=True)
    return np.isclose(mine, right, 0, WHOLE)


def near(got: np.ndarray, wrong: np.ndarray) -> bool:
    """Whether an answer is a known mistake, of which three digits may be left.

    >>> near(np.array(0.583), np.array(7 / 12)), near(np.array(1001), np.array(1000))
    (True, False)
    """
    if wrong.dtype.kind != "f" or got.shape != wrong.shape:
        return same(got, wrong)
    return bool(np.isclose(got.astype(float), wrong, NEAR, 0).all())


def direction(got: np.ndarray, expected: np.ndarray) -> str:
    """In which direction, or where, an answer is wrong.

    >>> direction(np.array(7), np.array(4)), direction(np.array(-4), np.array(4))
    ('It is too large.', 'Its sign is wrong.')
    >>> direction(np.array([8, 9, 7]), np.array([8, 9, 10]))
    '2 of 3 numbers are right. The first that is not is number 2, counted from 0.'
    """
    right = agree(got, expected)
    if expected.ndim:
        place = tuple(int(i) for i in np.argwhere(~right)[0])
        first = f"number {place[0]}" if len(place) == 1 else f"at {place}"
        if not right.any():
            return "None of its numbers is right."
        return (
            f"{right.sum()} of {right.size} numbers are right. The first that is not is {first}, "
            "counted from 0."
        )
    if agree(-got, expected).all():
        return "Its sign is wrong."
    return "It is too large." if got > expected else "It is too small."


def difference(got: np.ndarray, expected: np.ndarray) -> str:
    """A few lines that show where two arrays differ: the shape first, then the cells.

    >>> print(difference(np.tri(2, 3), np.tri(2)))
    Shape: yours is (2, 3), expected (2, 2).
    >>> print(difference(np.tri(2) > 5, np.tri(2) > 0))
    expected   yours      (# true, . false, X differs)
     # .        X .
     # #        X X
    3 of 4 cells differ, the first at (0, 0): yours is False, expected True.
    """
    if got.shape != expected.shape:
        return f"Shape: yours is {got.shape}, expected {expected.shape}."
    differs = ~agree(got, expected)
    lines = []
    if expected.ndim == 0:
        lines.append(f"Yours: {shown(got)}. Expected: {shown(expected)}.")
    else:
        if expected.dtype == bool and expected.ndim == 2:
            lines.append(_side_by_side(expected, differs))
        elif expected.size <= SHOWN:
            lines += [f"Yours:    {shown(got)}", f"Expected: {shown(expected)}"]
        where = tuple(int(i) for i in np.argwhere(differs)[0])
        lines.append(
            f"{differs.sum()} of {differs.size} cells differ, the first at "
            f"{where[0] if len(where) == 1 else where}: yours is {shown(got[where])}, "
            f"expected {shown(expected[where])}."
        )
    if got.dtype.kind == "f" and np.isnan(got).any():
        lines.append("nan is what NumPy makes of 0 / 0, inf / inf or inf - inf.")
    return "\n".join(lines)


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
