"""Checking the data for training (chapter 13, "Training a Mistral from nothing")."""

from collections.abc import Collection
from typing import Any

import jax.numpy as jnp
import keras
import numpy as np

from mistral_lib.arrays import Array, Int, Shaped
from mistral_lib.inputs import (
    as_array,
    as_texts,
    at_hand,
    check_batch_ids,
    check_preprocessor,
    check_vocabulary,
    is_text,
    narrow_integers,
    standardize_inputs,
)
from mistral_lib.lora import check_compiled
from mistral_lib.master_weights import MasterWeightsModel
from mistral_lib.pipelines import preprocessed

IGNORED_LABEL = -100  # as in PyTorch and transformers


def check_labels(
    labels: np.ndarray, vocabulary_size: int, ignored: Collection[int] = (IGNORED_LABEL,)
) -> None:
    """Refuses labels that are not token ids.

    Args:
        labels: numbers (B, S) or (B, S, 1).
        vocabulary_size: what every label must be below.
        ignored: labels of positions that do not count.

    Raises:
        ValueError: a label is neither a token id nor ignored; the message names it and its row.

    >>> check_labels(np.array([[1, -100], [3, 10]]), vocabulary_size=10)
    Traceback (most recent call last):
    ValueError: labels must be from 0 to 9 (the vocabulary_size is 10), or -100 for positions to...
    """
    check_vocabulary("labels", labels, vocabulary_size, ignored)


def without_ignored(
    labels: Shaped[Array, "*labels"], sample_weight: Any = None
) -> tuple[Int[Array, "*labels"], Shaped[Array, "B S"]]:
    """Labels that are all token ids, and weights that are 0 where a label was -100.

    Args:
        labels: token ids or -100, (B, S) or (B, S, 1).
        sample_weight: (B, S), (B, S, 1), (B, 1) or (B,); `None` for 1 everywhere.

    Returns:
        The labels with 0 in place of -100, and weights (B, S).

    >>> labels, weights = without_ignored(np.array([[5, -100]]))
    >>> labels.tolist(), weights.tolist()
    ([[5, 0]], [[True, False]])
    """
    counts = labels != IGNORED_LABEL
    labels = jnp.where(counts, labels, 0).astype("int32")
    counts = counts.reshape(counts.shape[:2])
    if sample_weight is None:
        return labels, counts
    sample_weight = jnp.asarray(sample_weight)
    if sample_weight.ndim == 1:
        sample_weight = sample_weight[:, None]
    sample_weight = sample_weight.reshape(sample_weight.shape[:2])
    return labels, jnp.where(counts, sample_weight, jnp.zeros_like(sample_weight))


class CheckedBatches(MasterWeightsModel):
    """The part of `MistralCausalLM` that checks the data for training and evaluation.

    Text is converted to arrays. Token ids and labels outside the vocabulary are refused before they
    reach a step: arrays are checked as a whole, and every batch, whatever its source, once more
    before its step.

    Attributes:
        backbone: the `MistralBackbone`.
    """

    backbone: Any

    @property
    def preprocessor(self) -> Any:
        """The `MistralCausalLMPreprocessor`, or `None`."""
        return self._preprocessor

    @preprocessor.setter
    def preprocessor(self, preprocessor: Any) -> None:
        if preprocessor is not None:
            size = preprocessor.tokenizer.vocabulary_size()
            if size > self.backbone.vocabulary_size:
                raise ValueError(
                    f"The tokenizer has {size:,} ids, but the backbone's vocabulary_size is "
                    f"{self.backbone.vocabulary_size:,}: they belong to different models. Take the "
                    "tokenizer that the backbone was trained with."
                )
        self._preprocessor = preprocessor

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Keras's `train_on_batch`, on text too."""
        self._check_trainable(kwargs.get("class_weight"))
        x, y, sample_weight = self._arrays(x, y, sample_weight)
        return super().train_on_batch(x, y, sample_weight, *args, **kwargs)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Keras's `test_on_batch`, on text too."""
        x, y, sample_weight = self._arrays(x, y, sample_weight)
        return super().test_on_batch(x, y, sample_weight, *args, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        """Keras's `predict_on_batch`, on text too."""
        return super().predict_on_batch(self._arrays(x)[0])

    def check_batch(self, data: Any) -> None:
        """Refuses a batch with ids or labels outside the vocabulary before its step."""
        self._check_batch(*keras.utils.unpack_x_y_sample_weight(data)[:2])

    def _arrays(self, x: Any, y: Any = None, sample_weight: Any = None) -> tuple[Any, Any, Any]:
        """Inputs, labels and weights as Keras takes them, also from text; a dataset unchanged."""
        if is_text(x):
            check_preprocessor(self.preprocessor)
            x, y, sample_weight = self.preprocessor(as_texts(x)[0], y, sample_weight)
        x = preprocessed(x, self.preprocessor)
        x = standardize_inputs(x, self.backbone.vocabulary_size)
        if isinstance(x, dict):
            if x["token_ids"].shape[0] == 0:
                raise ValueError("The inputs must hold at least one row, but are empty.")
            if isinstance(y, list | tuple):
                y = as_array("labels", y)
            if hasattr(y, "shape") and tuple(y.shape[:1]) != tuple(x["token_ids"].shape[:1]):
                raise ValueError(
                    "labels must have a row for each row of token_ids, whose shape is "
                    f"{x['token_ids'].shape}, but have the shape {y.shape}."
                )
            if isinstance(sample_weight, list | tuple):
                sample_weight = as_array("sample_weight", sample_weight)
        x, y = narrow_integers((x, y))
        self._check_batch(x, y)
        return x, y, sample_weight

    def _validation_arrays(self, data: Any) -> Any:
        """The same for `validation_data`: texts, or a tuple that begins with texts or inputs."""
        if is_text(data) and not (isinstance(data, tuple | list) and None in data):
            return self._arrays(data)
        if isinstance(data, tuple | list) and 0 < len(data) <= 3:
            return self._arrays(*data)
        return preprocessed(data, self.preprocessor)

    def _check_trainable(self, class_weight: Any) -> None:
        if class_weight is not None:
            raise ValueError(
                "class_weight must be None: Keras would take labels (B, S) for one class a row. "
                "Weigh tokens by sample_weight, of shape (B, S)."
            )
        check_compiled(self)
        if not self.trainable_variables:
            raise ValueError(
                "Nothing can be trained: every weight of this model is frozen. Set trainable = "
                "True, or call backbone.enable_lora(rank)."
            )

    def _check_batch(self, x: Any, y: Any) -> None:
        size = self.backbone.vocabulary_size
        check_batch_ids(x, size)
        loss = self._token_loss()
        if loss is not None and y is not None and at_hand(y):
            ignored = {IGNORED_LABEL, loss.get_config()["ignore_class"]} - {None}
            check_labels(np.asarray(y), size, ignored)

    def _token_loss(self) -> keras.losses.SparseCategoricalCrossentropy | None:
        """The loss that was given to `compile`, if its labels are token ids."""
        losses = keras.tree.flatten(getattr(self, "loss", None))
        known = [x for x in losses if isinstance(x, keras.losses.SparseCategoricalCrossentropy)]
        return known[0] if known else None
