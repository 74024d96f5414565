"""Checks of arguments, with messages that say what was found and what was expected."""

import math
import numbers


def check_integer(name: str, value, minimum: int = 1) -> int:
    """`value` as an int, if it is an integer of at least `minimum`.

    >>> check_integer("num_layers", 0)
    Traceback (most recent call last):
    ValueError: num_layers must be at least 1, but is 0.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(
            f"{name} must be an integer, but is {value!r} of type {type(value).__name__}."
        )
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, but is {value}.")
    return int(value)


def check_number(name: str, value, zero: bool = False, below: float = math.inf) -> float:
    """`value`, if it is a number above 0 (or 0, with `zero`) and below `below`.

    >>> check_number("dropout", 1.5, zero=True, below=1)
    Traceback (most recent call last):
    ValueError: dropout must be at least 0 and below 1, but is 1.5.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"{name} must be a number, but is {value!r} of type {type(value).__name__}."
        )
    if not (0 < value < below or (zero and value == 0)):
        low = "at least 0" if zero else "above 0"
        high = "finite" if below == math.inf else f"below {below}"
        raise ValueError(f"{name} must be {low} and {high}, but is {value}.")
    return value


def check_choice(name: str, value, choices) -> object:
    """`value`, if it is one of `choices`.

    >>> check_choice("attention_path", "sparse", ("auto", "dense"))
    Traceback (most recent call last):
    ValueError: attention_path must be one of 'auto', 'dense', but is 'sparse'.
    """
    if not any(value is choice or value == choice for choice in choices):
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, choices))}, but is {value!r}."
        )
    return value
