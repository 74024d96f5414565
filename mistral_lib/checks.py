"""Checks of arguments and inputs: messages say what was found and what was expected."""

import math
import numbers
import os
from collections.abc import Collection, Sequence
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
    number = int(value) if isinstance(value, numbers.Integral) else float(value)
    if not (0 < number < below or (zero and number == 0)):
        low = "at least 0" if zero else "above 0"
        high = "finite" if below == math.inf else f"below {below}"
        raise ValueError(f"{name} must be {low} and {high}, but is {value}.")
    return number


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


def check_text(name: str, text: Any) -> str:
    """`text` as a str, if it is one that UTF-8 can hold; bytes stand for the str that they spell.

    >>> check_text("the text", 5)
    Traceback (most recent call last):
    TypeError: Expected a str, but the text is int: 5.
    """
    try:
        if isinstance(text, bytes):
            return text.decode("utf-8")
        if not isinstance(text, str):
            raise TypeError(f"Expected a str, but {name} is {type(text).__name__}: {text!r:.80}.")
        text.encode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Expected UTF-8, but {name} has the byte 0x{error.object[error.start]:02x} at "
            f"position {error.start}. Decode it yourself: data.decode('utf-8', errors='replace')."
        ) from error
    except UnicodeEncodeError as error:
        raise ValueError(
            f"Expected Unicode text, but {name} has the lone surrogate "
            f"{error.object[error.start]!r} at position {error.start}. Replace such characters: "
            "text.encode('utf-8', errors='replace').decode('utf-8')."
        ) from error
    return text


def as_texts(text: str | Sequence[str] | np.ndarray) -> tuple[list[str], bool]:
    """A text or a batch of texts as a list of str, checked.

    Args:
        text: as `MistralTokenizer.encode` takes it.

    Returns:
        The texts, and whether they came as a batch.

    Raises:
        TypeError, ValueError: as `MistralTokenizer.encode`.

    >>> as_texts("one"), as_texts(("one", b"two"))
    ((['one'], False), (['one', 'two'], True))
    """
    if isinstance(text, np.ndarray):
        text = text.tolist()  # a str where the array has no dimension
    batched = isinstance(text, list | tuple)
    if not batched and not isinstance(text, str | bytes):
        raise TypeError(f"Expected a str or a list of str, got {type(text).__name__}.")
    if not batched:
        return [check_text("the text", text)], False
    return [check_text(f"text {index}", row) for index, row in enumerate(text)], True


def standardize_call_inputs(inputs: Any, vocabulary_size: int | None = None) -> dict[str, Any]:
    """As `standardize_inputs`, where nothing but a dictionary can be meant."""
    if not isinstance(inputs, dict):
        raise ValueError(
            "The inputs must be a dictionary of token_ids and padding_mask, each of shape (batch, "
            f"length), but are of the type {type(inputs).__name__}."
        )
    return standardize_inputs(inputs, vocabulary_size)


def standardize_inputs(inputs: Any, vocabulary_size: int | None = None) -> Any:
    """Nested lists become arrays; a wrong key, shape, type or token id is refused by name.

    Anything but a dictionary (a dataset, say) is returned as it is. Token ids are compared with
    `vocabulary_size`, if it is given, where they are at hand: in lists and NumPy arrays.
    """
    if not isinstance(inputs, dict):
        return inputs
    expected = ("token_ids", "padding_mask")
    if set(inputs) != set(expected):
        raise ValueError(
            f"The inputs must have the keys {expected}, but have {tuple(inputs)}. A padding mask "
            "is 1 for real tokens and 0 for padding, in the shape of token_ids."
        )
    arrays = {}
    for name in expected:
        value = inputs[name]
        if not hasattr(value, "dtype"):
            try:
                value = np.array(value)
            except ValueError as error:
                raise ValueError(
                    f"{name} has rows of different lengths. Pad them on the right to one length, "
                    "and mark the padding with 0 in padding_mask."
                ) from error
        arrays[name] = value
    shapes = [tuple(arrays[name].shape) for name in expected]
    if len(shapes[0]) != 2 or shapes[0] != shapes[1]:
        raise ValueError(
            f"token_ids and padding_mask must both have the shape (batch, length), but have the "
            f"shapes {shapes[0]} and {shapes[1]}."
        )
    if shapes[0][1] == 0:
        raise ValueError(
            f"token_ids and padding_mask must hold at least one token a row, but have the shape "
            f"{shapes[0]}."
        )
    check_token_ids(arrays["token_ids"], vocabulary_size)
    return arrays


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


def narrow_integers(data: Any) -> Any:
    """The same data with every NumPy array of int64 as int32, in which JAX computes in any case.

    Where Keras traces a first step, newer versions of JAX would warn of each such array. What is
    no nested structure of arrays (a dataset, say) is returned as it is.

    >>> [array.dtype for array in narrow_integers((np.arange(3), np.ones(3)))]
    [dtype('int32'), dtype('float64')]
    """

    def narrow(value):
        wide = isinstance(value, np.ndarray) and value.dtype == "int64"
        return value.astype("int32") if wide else value

    return keras.tree.map_structure(narrow, data)


def check_token_ids(token_ids: Any, vocabulary_size: int | None) -> None:
    """Refuses token ids that are not integers, or that the embedding does not have."""
    if "int" not in str(token_ids.dtype) and not isinstance(token_ids, keras.KerasTensor):
        raise TypeError(f"token_ids must be integers, but their dtype is {token_ids.dtype}.")
    if vocabulary_size is None or not isinstance(token_ids, np.ndarray) or not token_ids.size:
        return
    # JAX would look up NaN for an id that is too large, and another token for a negative one.
    outside = first_outside(token_ids, vocabulary_size)
    if outside is not None:
        row, token_id = outside
        raise ValueError(
            f"token_ids must be from 0 to {vocabulary_size - 1} (the vocabulary_size is "
            f"{vocabulary_size}), but one is {token_id}, in row {row}. Ids of another model's "
            "tokenizer?"
        )


def first_outside(ids: np.ndarray, vocabulary_size: int) -> tuple[int, Any] | None:
    """The row and value of the first number that is no id of a vocabulary; `None` if all are.

    >>> first_outside(np.array([[1, 2], [10, 3]]), vocabulary_size=10)
    (1, 10)
    """
    if not ids.size or (ids.min() >= 0 and ids.max() < vocabulary_size):
        return None
    where = np.argwhere(~((ids >= 0) & (ids < vocabulary_size)))[0]  # NaN is outside, too
    return int(where[0]), ids[tuple(where)].item()
