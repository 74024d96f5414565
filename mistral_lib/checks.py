"""Checks of arguments: messages say what was found and what was expected."""

import math
import numbers
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import keras
import numpy as np


def check_integer(name: str, value: Any, minimum: int = 1) -> int:
    """`value` as an int, if it is an integer of at least `minimum` that JAX can hold (int32).

    >>> check_integer("num_layers", 0)
    Traceback (most recent call last):
    ValueError: num_layers must be at least 1, but is 0.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(
            f"{name} must be an integer, but is {value!r} of type {type(value).__name__}."
        )
    number = int(value)
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, but is {value}.")
    if number >= 2**31:
        raise ValueError(f"{name} must be below 2**31, but is {value}.")
    return number


def check_number(name: str, value: Any, zero: bool = False, below: float = math.inf) -> float:
    """`value` as an int or a float, if it is above 0 (or 0, with `zero`) and below `below`.

    >>> check_number("dropout", 1.5, zero=True, below=1)
    Traceback (most recent call last):
    ValueError: dropout must be at least 0 and below 1, but is 1.5.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"{name} must be a number, but is {value!r} of type {type(value).__name__}."
        )
    # NumPy's numbers become Python's, which a JSON file can hold.
    number = int(value) if isinstance(value, numbers.Integral) else _as_float(value)
    if not (0 < _as_float(number) < below or (zero and number == 0)):
        low = "at least 0" if zero else "above 0"
        high = "finite" if below == math.inf else f"below {below}"
        raise ValueError(f"{name} must be {low} and {high}, but is {value}.")
    return number


def check_range(name: str, value: Any, low: float, high: float) -> float:
    """`value` as an int or a float, if it is in a range with which float32 can compute.

    >>> check_range("repetition_penalty", 1e-40, 1e-6, 1e6)
    Traceback (most recent call last):
    ValueError: repetition_penalty must be from 1e-06 to 1e+06, but is 1e-40. Outside this...
    """
    number = check_number(name, value)
    if not low <= number <= high:
        raise ValueError(
            f"{name} must be from {low:g} to {high:g}, but is {value}. Outside this range, "
            "results in float32 become 0, infinite or NaN."
        )
    return number


def _as_float(value) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def check_boolean(name: str, value: Any) -> bool:
    """`value` as a bool, if it is one.

    >>> check_boolean("tie_word_embeddings", "no")
    Traceback (most recent call last):
    TypeError: tie_word_embeddings must be True or False, but is 'no'.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, but is {value!r}.")
    return bool(value)


def check_choice(name: str, value: Any, choices: Collection[str]) -> str:
    """`value`, if it is one of the strings `choices`.

    >>> check_choice("attention_path", "sparse", ("auto", "dense"))
    Traceback (most recent call last):
    ValueError: attention_path must be one of 'auto', 'dense', but is 'sparse'.
    """
    if not (isinstance(value, str) and value in choices):
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, choices))}, but is {value!r}."
        )
    return value


def check_name(argument: str, name: Any) -> str | None:
    """`name`, if it is one that Keras gives to a model, or `None`.

    >>> check_name("name", "a/b")
    Traceback (most recent call last):
    ValueError: name must be a str without '/', but is 'a/b'.
    """
    if not (name is None or (isinstance(name, str) and "/" not in name)):
        raise ValueError(f"{argument} must be a str without '/', but is {name!r}.")
    return name


def as_path(path: str | os.PathLike) -> Path:
    """A path that a user gave, where `~` is the home folder, as in a shell.

    >>> as_path("~/adapters/a.lora.h5").is_absolute()
    True
    """
    return Path(os.path.expanduser(path))


def keras_knows(quantization: Any) -> bool:
    """Whether this Keras has a quantization: int4 with scales for blocks came with version 3.14.

    Args:
        quantization: whatever names one: a mode, a dtype, a policy or its serialized form.

    >>> keras_knows("int8_from_float32"), keras_knows("bfloat16")
    (True, True)
    """
    return "int4" not in str(quantization) or hasattr(keras.dtype_policies, "Int4DTypePolicy")


def check_keras_for(quantization: Any) -> None:
    """Refuses a quantization that only a newer Keras has: see `keras_knows`."""
    if not keras_knows(quantization):
        raise ValueError(
            f"int4 needs Keras 3.14 or newer, but this is Keras {keras.version()}. Upgrade it (pip "
            "install --upgrade keras) and start Python again, or quantize to int8."
        )
