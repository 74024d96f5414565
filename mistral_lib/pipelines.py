"""Text inside pipelines of `tf.data` and `grain` (chapter 2, "Tokens").

TensorFlow is not a dependency. A program that passes its tensors has imported it; a program
without TensorFlow can use `grain`, or lists and arrays of text.
"""

import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from mistral_lib.inputs import check_preprocessor, is_text


def in_graph(value: Any) -> bool:
    """Whether a value is a symbolic tensor in a graph that TensorFlow is building.

    `tf.data.Dataset.map` calls its function with such tensors.

    >>> in_graph("text")
    False
    """
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None:
        return False
    flat = getattr(value, "flat_values", value)  # of a ragged tensor
    return tensorflow.is_symbolic_tensor(flat)


def run_in_graph(
    function: Callable, tensor: Any, shapes: Sequence[Sequence[int | None]], dtypes: Sequence[str]
) -> list[Any]:
    """Makes a graph of TensorFlow call a Python function with the values of a tensor.

    Args:
        function: takes a NumPy array, or bytes for a single text, and returns a tuple of arrays.
        tensor: a tensor in the graph.
        shapes: the shapes of the results, as far as they are known.
        dtypes: the types of the results.
    """
    tensorflow = sys.modules["tensorflow"]
    kinds = [tensorflow.as_dtype(dtype) for dtype in dtypes]
    results = tensorflow.numpy_function(function, [tensor], kinds)
    for result, shape in zip(results, shapes, strict=True):
        result.set_shape(shape)
    return results


def encode_in_graph(encode: Callable, text: Any) -> Any:
    """The ids of a text as an int32 tensor, or those of a batch of texts as a ragged tensor."""

    def flat(text):
        rows = [encode(text)] if isinstance(text, bytes) else encode(text)
        ids = [id for row in rows for id in row]
        return np.array(ids, "int32"), np.array([len(row) for row in rows], "int64")

    ids, lengths = run_in_graph(flat, text, [[None], text.shape or [1]], ["int32", "int64"])
    if text.shape.rank == 0:
        return ids
    return sys.modules["tensorflow"].RaggedTensor.from_row_lengths(ids, lengths)


def decode_in_graph(decode: Callable, ids: Any) -> Any:
    """The text of a row of ids, or the texts of a batch, as a string tensor."""

    def texts(ids):
        found = decode(ids)
        return (np.array(found, object),)

    ids = ids.to_tensor() if hasattr(ids, "flat_values") else ids  # 0 decodes to nothing
    (text,) = run_in_graph(texts, ids, [ids.shape[:-1]], ["string"])
    return text


def preprocessed(dataset: Any, preprocessor: Any) -> Any:
    """A dataset of texts, from `tf.data` or `grain`, as batches to train on; others unchanged.

    Args:
        dataset: anything that Keras trains on.
        preprocessor: what turns texts into batches, or `None`.

    Raises:
        ValueError: a dataset of texts without a preprocessor.
        TypeError: a `grain.DataLoader` of texts.
    """
    if not _holds_text(dataset):
        return dataset
    check_preprocessor(preprocessor)
    if not hasattr(dataset, "map"):
        raise TypeError(
            f"A dataset of texts must have a map, in which they become token ids, but a "
            f"{type(dataset).__name__} has none. Use a grain.MapDataset, or put the preprocessor "
            "among the operations."
        )
    return dataset.map(preprocessor)


def _holds_text(dataset) -> bool:
    """Whether the elements of a dataset are texts, or batches of texts."""
    package = type(dataset).__module__.partition(".")[0]
    if package == "tensorflow" and hasattr(dataset, "element_spec"):
        first = keras.tree.flatten(dataset.element_spec)[0]
        return getattr(first, "dtype", None) == "string"
    if package != "grain":
        return False
    first = dataset[0] if hasattr(dataset, "__getitem__") else next(iter(dataset))
    return is_text(first)


class InPipelines:
    """The base of a tokenizer whose methods `tokenize` and `detokenize` work in pipelines too."""

    def tokenize(self, text: Any, add_bos: bool | None = None, add_eos: bool | None = None) -> Any:
        """Does what `encode` does, also as the function for `map` of `tf.data` or `grain`.

        In a graph of TensorFlow the ids are an int32 tensor, and those of a batch a ragged one.
        """
        if in_graph(text):
            return encode_in_graph(lambda text: self.encode(text, add_bos, add_eos), text)
        return self.encode(text, add_bos, add_eos)

    __call__ = tokenize

    def detokenize(self, ids: Any) -> Any:
        """Does what `decode` does, also as the function for `map` of `tf.data` or `grain`."""
        if in_graph(ids):
            return decode_in_graph(self.decode, ids)
        return self.decode(ids.to_list() if hasattr(ids, "flat_values") else ids)  # if ragged

    @abstractmethod
    def encode(self, text: Any, add_bos: bool | None = None, add_eos: bool | None = None) -> Any:
        """Token ids of a text, or of each text of a batch."""

    @abstractmethod
    def decode(self, ids: Any) -> Any:
        """The text of token ids, or of each row of a batch."""
