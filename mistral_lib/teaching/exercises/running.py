"""A reader's function, called for a case of an exercise (used by all chapters)."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable

import numpy as np

from mistral_lib.teaching.exercises.answers import Unreadable, named, numbers
from mistral_lib.teaching.exercises.report import agree


class NotTried(Exception):
    """A stub that still returns `...`."""


def result(function: Callable, case: tuple) -> np.ndarray | str:
    """What a function returns for copies of its arguments, or a sentence if that is no array.

    Raises:
        NotTried: it returns `...`.

    >>> result(np.square, (np.array([2, 3]),))
    array([4, 9])
    >>> result(lambda x: None, (1,))
    'It returns None: is a `return` missing?'
    """
    try:
        returned = function(*copy.deepcopy(case))
        if returned is ...:
            raise NotTried
        if returned is None:
            return "It returns None: is a `return` missing?"
        return numbers(returned)
    except NotTried:
        raise
    except Unreadable as what:
        return f"It returns {what}."
    except Exception as error:
        kind = type(error).__name__
        return f"It stops there with an error ({kind}). Run this call to see in which line."


def alike(mine: np.ndarray | str, other: np.ndarray | str, *, finite: bool = False) -> bool:
    """Whether two results agree, everywhere or where the first has finite numbers."""
    if isinstance(mine, str) or isinstance(other, str):
        return isinstance(mine, str) and isinstance(other, str) and mine == other
    if mine.shape != other.shape:
        return False
    agrees = agree(mine, other)
    return bool((agrees | ~np.isfinite(mine)).all() if finite else agrees.all())


def parameters(function: Callable) -> str:
    """The names of a function's arguments; options that have to be named are none.

    >>> parameters(lambda x, scale, *, epsilon=1: x)
    '(x, scale)'
    """
    kinds = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD
    found = inspect.signature(function).parameters.values()
    return f"({', '.join(parameter.name for parameter in found if parameter.kind not in kinds)})"


def check_arguments(function: object, count: int) -> None:
    """Raises unless something is a function that can be called with so many arguments.

    Raises:
        Unreadable: it is no function, or one of another number of arguments.
    """
    if not callable(function):
        raise Unreadable(named(function))
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError as error:
        raise Unreadable(f"a function of {parameters(function)}") from error
    except ValueError:  # some functions that are written in C do not say
        return
