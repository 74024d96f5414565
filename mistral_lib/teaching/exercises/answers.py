"""What an answer says, in whatever form it was given (used by all chapters).

A reader may answer with a list, a tuple, an array of NumPy or JAX, a NumPy scalar, or a text such
as "1/2" or "line 5". Here all of them become NumPy arrays. What cannot be read raises `Unreadable`,
whose message says in words what it is.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

THOUSANDS = re.compile(r"(?<=\d)[,_](?=\d{3}(?!\d))")  # the commas of "7,241,732,096"
BETWEEN = re.compile(r"[\s,;()\[\]]+")
NAMES = {
    dict: "a dictionary",
    bytes: "bytes",
    set: "a set",
    frozenset: "a set",
    type(None): "None",
    type(...): "`...`",
    bool: "a truth value",
    int: "one number",
    float: "one number",
}


class Unreadable(ValueError):
    """An answer in a form that is not asked for; the message says what it is."""


def numbers(answer: object) -> np.ndarray:
    """An answer as an array of numbers or truth values.

    Raises:
        Unreadable: it holds something else.

    >>> numbers(("1/2", 3)), numbers("line 5"), numbers("[8, 9]")
    (array([0.5, 3. ]), array(5.), array([8., 9.]))
    >>> numbers({3, 4})
    Traceback (most recent call last):
    mistral_lib.teaching.exercises.answers.Unreadable: a set
    """
    try:
        array = np.asarray(answer)
        if array.dtype.kind in "fV":  # V is bfloat16, of which NumPy knows no more than its size
            return array.astype(float)
    except Exception as error:  # rows of several lengths, an object that refuses
        raise Unreadable(f"{named(answer)} that cannot be read as numbers") from error
    if array.dtype.kind == "b":
        return array
    if array.dtype.kind in "iu":  # int8 would overflow in what follows
        return array.astype(np.result_type(array, np.int64))
    if array.dtype.kind == "U" and not array.ndim:
        return _numbers_in(str(array))
    try:
        cells = [_number(cell) for cell in array.ravel().tolist()]
    except Unreadable as what:
        raise Unreadable(f"{named(answer)} with {what} in it" if array.ndim else what) from None
    return np.array(cells, float).reshape(array.shape)


def words(answer: object) -> str:
    """The words of a text, or of a list of texts, in small letters with one blank between them.

    Raises:
        Unreadable: it is no text.

    >>> words("`B  a`, na"), words(["b", "a", "na"])
    ('b a na', 'b a na')
    """
    parts = [answer] if isinstance(answer, str) else texts(answer)
    return " ".join(re.findall(r"\w+", " ".join(parts).casefold()))


def whole(answer: object) -> int:
    """An answer as a whole number.

    Raises:
        Unreadable: it is no number, or none without a rest.

    >>> whole(np.int64(3)), whole("line 5"), whole([4.0])
    (3, 5, 4)
    """
    found = numbers(answer)
    if found.size != 1 or found.dtype == bool:
        raise Unreadable(described(found))
    number = float(found.item())
    if not number.is_integer():
        raise Unreadable(f"{number:g}")
    return int(number)


def text(answer: object) -> str:
    """An answer that has to be a text.

    Raises:
        Unreadable: it is something else.
    """
    if not isinstance(answer, str):
        raise Unreadable(named(answer))
    return str(answer)


def texts(answer: object) -> list[str]:
    """An answer that has to be a list of texts.

    Raises:
        Unreadable: it is something else, or something else is in it.
    """
    if isinstance(answer, np.ndarray):
        answer = answer.tolist()
    if not isinstance(answer, list | tuple):
        raise Unreadable(named(answer))
    return [text(part) for part in answer]


def named(answer: object) -> str:
    """What an answer is, in words.

    >>> named("many"), named(None), named([1, 2]), named(print)
    ('the text "many"', 'None', 'a list', 'a function')
    """
    if isinstance(answer, str):
        return f'the text "{cut(answer)}"'
    if callable(answer):
        return "a function"
    if hasattr(answer, "__array__"):
        return "an array"
    name = type(answer).__name__
    return NAMES.get(type(answer), f"{'an' if name[0] in 'aeiou' else 'a'} {name}")


def described(array: np.ndarray) -> str:
    """The form of numbers, in words.

    >>> described(np.array(3)), described(np.zeros(4)), described(np.zeros((2, 3)))
    ('one number', 'a list of 4 numbers', 'a table of 2 × 3 numbers')
    """
    if array.dtype == bool:
        return "a truth value" if array.ndim == 0 else "a list of truth values"
    if array.ndim == 0:
        return "one number"
    if array.ndim == 1:
        return f"a list of {len(array)} number{'s' * (len(array) != 1)}"
    return f"a table of {' × '.join(map(str, array.shape))} numbers"


def shown(array: np.ndarray) -> str:
    """Numbers as a message shows them: six digits of each, and not too many of them.

    >>> shown(np.array([1 / 3, 7])), shown(np.array(131072))
    ('[0.333333, 7.0]', '131,072')
    """
    if array.ndim == 0:
        number = array.item()
        if isinstance(number, bool):
            return str(number)
        return f"{float(f'{number:.6g}'):,.15g}" if isinstance(number, float) else f"{number:,}"
    if array.dtype.kind == "f":
        array = np.array([float(f"{x:.6g}") for x in array.ravel()]).reshape(array.shape)
    return cut(str(array.tolist()), 200)


def cut(text: str, length: int = 60) -> str:
    """A text, or its beginning."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _number(cell: Any) -> float:
    """One number out of a list: a text, or what Python can make a float of."""
    if isinstance(cell, str):
        found = _numbers_in(cell)
        if found.ndim == 0:
            return float(found)
        raise Unreadable(named(cell))
    try:
        return float(cell)  # a Fraction, a large int
    except Exception as error:
        raise Unreadable(named(cell)) from error


def _numbers_in(text: str) -> np.ndarray:
    """The number, or the numbers, that a text consists of."""
    cleaned = THOUSANDS.sub("", text.casefold().replace("−", "-"))
    cleaned = re.sub(r"^\s*line\b", "", re.sub(r"\s*/\s*", "/", cleaned))
    parts = [part for part in BETWEEN.split(cleaned) if part]
    try:
        found = [_quotient(*part.split("/")) for part in parts]
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise Unreadable(named(text)) from error
    if not found:
        raise Unreadable(named(text))
    return np.array(found[0] if len(found) == 1 else found)


def _quotient(numerator: str, denominator: str = "1") -> float:
    return float(numerator) / float(denominator)
