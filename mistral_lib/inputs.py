"""What counts as text and as token ids in every function: see `is_text` and `as_rows`."""

import numbers
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from mistral_lib.checks import check_integer
from mistral_lib.keras_inside import is_traced

# What cannot be a dataset, and so has to be text or a dictionary.
PLAIN = (type(None), bool, numbers.Number, str, bytes, list, tuple, set)


def check_text(name: str, text: Any) -> str:
    """`text` as a str, if UTF-8 can encode it; bytes are decoded.

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


def is_text(inputs: Any) -> bool:
    """Whether something is a text (str or UTF-8 bytes), or a list, tuple or array of texts.

    An array may be a NumPy array of strings or objects, or a pandas column. A single text in a list
    is enough: if other things are among the texts, `as_texts` raises an error that names them.

    >>> is_text("one"), is_text([b"one", "two"]), is_text(np.array(["one"], object)), is_text([1])
    (True, True, True, False)
    """
    if _is_array(inputs):
        kind = np.dtype(inputs.dtype).kind if isinstance(inputs.dtype, np.dtype) else "O"
        if kind != "O":
            return kind in "UST"
        inputs = without_arrays(inputs)
    if isinstance(inputs, list | tuple):
        return any(isinstance(part, str | bytes) for part in inputs)
    return isinstance(inputs, str | bytes)


def as_texts(text: Any, name: str = "text") -> tuple[list[str], bool]:
    """A text or a batch of texts as a list of str, checked.

    Args:
        text: one that `is_text` accepts, or an empty list or array.
        name: what each text is called in an error.

    Returns:
        The texts, and whether they were given as a batch.

    Raises:
        TypeError, ValueError: as `MistralTokenizer.encode`.

    >>> as_texts("one"), as_texts(("one", b"two"))
    ((['one'], False), (['one', 'two'], True))
    """
    text = without_arrays(text)
    batched = isinstance(text, list | tuple)
    if not batched and not isinstance(text, str | bytes):
        raise TypeError(f"Expected a str or a list of str, got {type(text).__name__}.")
    if not batched:
        return [check_text(f"the {name}", text)], False
    return [check_text(f"{name} {index}", row) for index, row in enumerate(text)], True


def as_rows(ids: Any) -> tuple[list, bool]:
    """Token ids as lists, not yet checked, and whether they were given as a batch.

    A row is a list, a tuple, or an array of NumPy, JAX or pandas. It holds integers, or arrays with
    no dimensions. A batch is a list or tuple of rows of any lengths, or an array (B, S).

    Raises:
        TypeError: `ids` is neither a list nor an array.

    >>> as_rows([1, np.int64(2)]), as_rows((np.array([1, 2]), [3]))
    (([[1, 2]], False), ([[1, 2], [3]], True))
    """
    ids = without_arrays(ids)
    if not isinstance(ids, list | tuple):
        raise TypeError(f"Expected a list or an array of token ids, got {type(ids).__name__}.")
    rows = [without_arrays(row) for row in ids]
    batched = bool(rows) and all(isinstance(row, list | tuple) for row in rows)
    return (
        ([[without_arrays(id) for id in row] for row in rows], True) if batched else ([rows], False)
    )


def check_ids(name: str, ids: Any, vocabulary_size: int) -> tuple[int, ...]:
    """One id, or a list, set or array of them, as a tuple of ints inside the vocabulary.

    >>> check_ids("stop_token_ids", np.array([0, 2]), 10), check_ids("stop_token_ids", 0, 10)
    ((0, 2), (0,))
    """
    ids = without_arrays(ids)
    if not isinstance(ids, list | tuple | set | frozenset | range):
        ids = [ids]
    checked = tuple(check_integer(f"an id in {name}", without_arrays(id), -(2**31)) for id in ids)
    check_vocabulary(name, np.array(checked, "int64"), vocabulary_size)
    return checked


def without_arrays(value: Any) -> Any:
    """An array of NumPy, JAX or pandas as nested lists or one number; anything else unchanged."""
    return np.asarray(value).tolist() if _is_array(value) else value


def _is_array(value) -> bool:
    # pandas calls itself an array too; a NumPy number and a class do not count.
    return hasattr(value, "__array__") and hasattr(value, "dtype") and not isinstance(value, type)


def as_array(name: str, value: Any) -> Any:
    """Nested lists as an array; an array unchanged.

    >>> as_array("labels", [[1, 2], [3]])
    Traceback (most recent call last):
    ValueError: labels has rows of different lengths. Pad them on the right to one length, ...
    """
    if hasattr(value, "dtype"):
        return value
    try:
        return np.array(value)
    except ValueError as error:
        raise ValueError(
            f"{name} has rows of different lengths. Pad them on the right to one length, and mark "
            "the padding with 0 in padding_mask."
        ) from error


def standardize_call_inputs(inputs: Any, vocabulary_size: int | None = None) -> dict[str, Any]:
    """Does what `standardize_inputs` does, but accepts nothing except a dictionary."""
    if not isinstance(inputs, dict):
        raise ValueError(
            "The inputs must be a dictionary of token_ids and padding_mask, each of shape (batch, "
            f"length), but are of the type {type(inputs).__name__}."
        )
    return standardize_inputs(inputs, vocabulary_size)


def standardize_inputs(inputs: Any, vocabulary_size: int | None = None) -> Any:
    """Turns nested lists into arrays, and refuses a wrong key, shape, type or token id by name.

    A dataset is returned unchanged. If `vocabulary_size` is given and the values of the token ids
    are available (see `at_hand`), the ids are compared with it.
    """
    if isinstance(inputs, PLAIN) or _is_array(inputs):
        return standardize_call_inputs(inputs)
    if not isinstance(inputs, dict):
        return inputs
    expected = ("token_ids", "padding_mask")
    if set(inputs) != set(expected):
        raise ValueError(
            f"The inputs must have the keys {expected}, but have {tuple(inputs)}. A padding mask "
            "is 1 for real tokens and 0 for padding, in the shape of token_ids."
        )
    arrays = {name: as_array(name, inputs[name]) for name in expected}
    shapes = [tuple(arrays[name].shape) for name in expected]
    if shapes[0] == (0,):
        raise ValueError("token_ids must hold at least one row, but is empty.")
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
    if any(isinstance(array, jax.Array) for array in arrays.values()):  # Keras mixes no kinds
        arrays = {
            name: jnp.asarray(array) if isinstance(array, np.ndarray) else array
            for name, array in arrays.items()
        }
    return arrays


def narrow_integers(data: Any) -> Any:
    """The same data with every NumPy int64 array as int32, in which JAX computes anyway.

    When Keras traces the first step, newer versions of JAX would warn about each such array. Data
    that is no nested structure of arrays, such as a dataset, is returned unchanged.

    >>> [array.dtype for array in narrow_integers((np.arange(3), np.ones(3)))]
    [dtype('int32'), dtype('float64')]
    """

    def narrow(value):
        wide = isinstance(value, np.ndarray) and value.dtype == "int64"
        return value.astype("int32") if wide else value

    return keras.tree.map_structure(narrow, data)


def as_dictionary(rows: Sequence[Sequence[int]], width: int) -> dict[str, np.ndarray]:
    """Rows of token ids as `token_ids`, padded on the right with 0, and their `padding_mask`.

    >>> as_dictionary([[1, 2], [3]], width=3)["token_ids"].tolist()
    [[1, 2, 0], [3, 0, 0]]
    """
    token_ids = np.zeros((len(rows), width), "int32")
    mask = np.arange(width) < np.array([[len(row)] for row in rows]).reshape(-1, 1)
    token_ids[mask] = [id for row in rows for id in row]
    return {"token_ids": token_ids, "padding_mask": mask}


def at_hand(array: Any) -> bool:
    """Whether this process can read the values of an array; it cannot while JAX traces."""
    if not hasattr(array, "dtype") or isinstance(array, keras.KerasTensor) or is_traced(array):
        return False
    return getattr(array, "is_fully_addressable", True)


def check_token_ids(token_ids: Any, vocabulary_size: int | None, name: str = "token_ids") -> None:
    """Refuses token ids that are not integers or that are outside the vocabulary."""
    if "int" not in str(token_ids.dtype) and not isinstance(token_ids, keras.KerasTensor):
        raise TypeError(f"{name} must be integers, but their dtype is {token_ids.dtype}.")
    if vocabulary_size is not None and at_hand(token_ids):
        check_vocabulary(name, np.asarray(token_ids), vocabulary_size)


def check_batch_ids(x: Any, vocabulary_size: int) -> None:
    """Refuses token ids outside the vocabulary in the inputs of a batch, if they are there."""
    if isinstance(x, dict) and at_hand(x.get("token_ids")):
        check_token_ids(x["token_ids"], vocabulary_size)


def check_preprocessor(preprocessor: Any) -> None:
    """Refuses text for a model without a preprocessor."""
    if preprocessor is None:
        raise ValueError(
            "Text needs a tokenizer, and this model has no preprocessor. Pass token ids, or "
            "build the model with a MistralCausalLMPreprocessor."
        )


def check_vocabulary(
    name: str, ids: np.ndarray, vocabulary_size: int, ignored: Collection[int] = ()
) -> None:
    """Refuses ids outside the vocabulary, with the same message in every function.

    JAX would look up NaN for an id that is too large, and another token for a negative id.

    >>> check_vocabulary("token_ids", np.array([[1, 2], [10, 3]]), vocabulary_size=10)
    Traceback (most recent call last):
    ValueError: token_ids must be from 0 to 9 (the vocabulary_size is 10), but one is 10, in row...
    """
    if ignored:
        ids = np.where(np.isin(ids, list(ignored)), 0, ids)
    if not ids.size or (ids.min() >= 0 and ids.max() < vocabulary_size):
        return
    place = np.argwhere(~((ids >= 0) & (ids < vocabulary_size)))[0]  # NaN is also outside
    where = f", in row {place[0]}" if ids.ndim > 1 else ""
    known = f"from 0 to {vocabulary_size - 1} (the vocabulary_size is {vocabulary_size})"
    if ignored:
        others = " or ".join(map(str, sorted(ignored)))
        known += f", or {others} for positions to ignore"
    raise ValueError(
        f"{name} must be {known}, but one is {ids[tuple(place)].item()}{where}. Were they "
        "made with another model's tokenizer?"
    )


def check_rows(rows: Sequence[Sequence[Any]], vocabulary_size: int) -> list[list[int]]:
    """Checks rows of ids, of any lengths but not empty, and returns them as lists of int."""
    if not rows:
        raise ValueError("The inputs must hold at least one prompt, but are empty.")
    checked = []
    for index, row in enumerate(rows):
        if not row:
            raise ValueError(
                f"Prompt {index} must hold at least one token, but is empty. Begin with the start "
                "token."
            )
        for part in row:
            if isinstance(part, list | tuple):
                raise TypeError(f"A row of token ids must hold integers, but holds {part!r:.80}.")
        checked.append([check_integer("a token id", id, minimum=-(2**31)) for id in row])
    longest = max(map(len, checked))
    padded = np.array([row + row[-1:] * (longest - len(row)) for row in checked])
    check_vocabulary("token_ids", padded, vocabulary_size)
    return checked
