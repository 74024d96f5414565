"""The loss without all logits in memory (chapter 13, "Training a Mistral from nothing")."""

import dataclasses
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import keras

from mistral_lib.arrays import Array, Float, Float32, Int
from mistral_lib.batches import IGNORED_LABEL, CheckedBatches, without_ignored
from mistral_lib.keras_inside import compiled_arguments, compiled_metrics
from mistral_lib.layers.chunks import map_in_order, pad_axis
from mistral_lib.layers.embedding import TokenEmbedding

# Bytes of float32 logits, of a whole batch, from which on the loss takes them in chunks, and the
# most in a chunk.
DEFER_FROM = 2**26
CHUNK_BYTES = 2**26


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class DeferredLogits:
    """What `fit` gets from the model in place of logits.

    Attributes:
        hidden_states: (B, S, D), to be projected by the loss.
        predictions: the likeliest token ids (B, S), once the loss has been there.
    """

    hidden_states: jax.Array
    predictions: Any = None


class TrainingLoss(CheckedBatches):
    """`fit` and `evaluate` whose loss projects the hidden states chunk by chunk.

    With 2,048 tokens and a vocabulary of 32,000, the logits alone are 262 MB in float32, and their
    gradient as much again. Cross-entropy needs every row of them once: so a chunk of tokens is
    projected, its losses are kept, and the backward pass projects it again.

    This happens where the logits of a batch would take 64 MiB or more, with the loss
    `SparseCategoricalCrossentropy(from_logits=True)` and no metric but
    `SparseCategoricalAccuracy`, on one device; otherwise Keras's own way is taken. The numbers are
    the same, up to rounding. Calling the model and `predict` give logits in any case.
    """

    _defers = False  # in the middle of a step

    def compile(
        self,
        optimizer: Any = "auto",
        loss: Any = "auto",
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Keras's `compile`, where a cross-entropy given by name expects logits, as the model has.

        A label of -100 does not count in the loss or in `weighted_metrics`. Metrics in `metrics`
        get no weights, so Keras counts such labels there, and every prediction for one is wrong.

        "auto" means what a new model is compiled with: Adam with a learning rate of 2e-5 for
        `optimizer`, cross-entropy for `loss`, and, with that loss, accuracy for `weighted_metrics`.

        Raises:
            ValueError: a loss or a metric was made with `from_logits=False`.
        """
        if _is_auto(weighted_metrics) or (weighted_metrics is None and _is_auto(loss)):
            weighted_metrics = [keras.metrics.SparseCategoricalAccuracy()]
        super().compile(
            keras.optimizers.Adam(2e-5) if _is_auto(optimizer) else optimizer,
            _on_logits("crossentropy" if _is_auto(loss) else loss, keras.losses),
            loss_weights,
            _on_logits(metrics, keras.metrics),
            _on_logits(weighted_metrics, keras.metrics),
            **kwargs,
        )

    def compute_loss_and_updates(self, *args: Any, **kwargs: Any) -> tuple:
        step = super().compute_loss_and_updates
        labels = inspect.signature(step).bind(*args, **kwargs).arguments["y"]
        self._defers = (
            labels is not None
            and _is_usual(self)
            and 4 * labels.size * self.backbone.vocabulary_size >= DEFER_FROM
            and keras.distribution.distribution() is None
        )
        try:
            return step(*args, **kwargs)
        finally:
            self._defers = False

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not self._defers:
            return super().call(inputs, training=training, mask=mask)
        return DeferredLogits(self.backbone(inputs, training=training))

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        y, sample_weight = self._counted(y, sample_weight)
        if isinstance(y_pred, DeferredLogits):
            y = y.reshape(y_pred.hidden_states.shape[:2])
            losses, y_pred.predictions = token_losses(
                self.backbone.token_embedding, y_pred.hidden_states, y
            )
            loss = _Reduction(reduction=self.loss.reduction, dtype=self.loss.dtype)
            return loss(y, losses, sample_weight)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        _, sample_weight = self._counted(y, sample_weight)
        if isinstance(y_pred, DeferredLogits):
            # The metric takes the place of the highest score for the prediction. Of two scores the
            # first is highest, and right where the prediction is.
            y = y_pred.predictions != y.reshape(y_pred.predictions.shape)
            y_pred = jnp.broadcast_to(jnp.array([1.0, 0.0]), (*y.shape, 2))
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _counted(self, y, sample_weight):
        """Labels with -100 replaced, and weights of 0 there; for other losses both unchanged."""
        loss = self._token_loss()
        if y is None or loss is None or loss.get_config()["ignore_class"] == IGNORED_LABEL:
            return y, sample_weight
        return without_ignored(y, sample_weight)


def _is_auto(given: Any) -> bool:
    return isinstance(given, str) and given == "auto"


def _on_logits(given: Any, kinds: Any) -> Any:
    """Losses or metrics as `compile` takes them, where each cross-entropy expects logits.

    `kinds` is the module of Keras that looks up their names. A name says nothing about logits, so
    it gets a cross-entropy on logits; an object that was made for probabilities is refused.
    """
    if isinstance(given, list | tuple):
        return [_on_logits(each, kinds) for each in given]
    if isinstance(given, dict) and "class_name" not in given:
        return {name: _on_logits(each, kinds) for name, each in given.items()}
    made = given
    if isinstance(given, str) and given.lower() in ("crossentropy", "ce"):
        made = kinds.SparseCategoricalCrossentropy()
    elif isinstance(given, str | dict | type) and str(given).lower() not in ("accuracy", "acc"):
        made = kinds.get(given)
    name = getattr(made, "__name__", "")
    if name and getattr(keras.losses, name, None) is made:  # a loss function of Keras
        made = getattr(kinds, name.title().replace("_", ""), lambda: made)()
    if getattr(made, "from_logits", True):
        return given
    if made is given or isinstance(given, dict):
        kind = type(made).__name__
        raise ValueError(
            f"The model returns logits, but {kind} was made with from_logits=False, for "
            f"probabilities. Pass {kind}(from_logits=True)."
        )
    return type(made)(from_logits=True)


def _is_usual(model) -> bool:
    """Whether loss and metrics are among those that are computed from chunks here."""
    if type(model.loss) is not keras.losses.SparseCategoricalCrossentropy or model.losses:
        return False
    loss = model.loss.get_config()
    return (
        loss["from_logits"]
        and loss["ignore_class"] is None
        and compiled_arguments(model)["loss_weights"] is None
        and all(
            type(metric) is keras.metrics.SparseCategoricalAccuracy
            for metric in compiled_metrics(model)
        )
    )


class _Reduction(keras.losses.Loss):
    """Keras's weighting and reduction of losses that are known already."""

    def call(self, y_true, y_pred):
        return y_pred


def token_losses(
    token_embedding: TokenEmbedding,
    hidden_states: Float[Array, "B S D"],
    labels: Int[Array, "B S"],
    chunk_bytes: int = CHUNK_BYTES,
) -> tuple[Float32[Array, "B S"], Int[Array, "B S"]]:
    """Cross-entropy of every token, and the likeliest token, from hidden states.

    Args:
        token_embedding: a `TokenEmbedding`.
        hidden_states: float array (B, S, D).
        labels: integer array (B, S), token ids.
        chunk_bytes: the most bytes of float32 logits in memory at once, but at least one row.

    Returns:
        Float32 losses in nats and int32 token ids, both (B, S).

    >>> from mistral_lib import MistralBackbone
    >>> backbone = MistralBackbone(10, 1, 2, 8, 16, 1)
    >>> losses, likeliest = token_losses(
    ...     backbone.token_embedding, jnp.ones((2, 3, 8)), jnp.ones((2, 3), "int32")
    ... )
    >>> losses.shape, likeliest.shape
    ((2, 3), (2, 3))
    """
    tokens = labels.size
    size = min(tokens, max(1, chunk_bytes // (4 * token_embedding.input_dim)))
    count = -(-tokens // size)
    states = pad_axis(hidden_states.reshape(tokens, -1), 0, count * size)
    labels_row = pad_axis(jnp.ravel(jnp.asarray(labels, "int32")), 0, count * size)

    @jax.checkpoint
    def chunk(index):
        state, label = (
            jax.lax.dynamic_slice_in_dim(array, index * size, size)
            for array in (states, labels_row)
        )
        logits = token_embedding(state[None], reverse=True)[0]  # (size, V)
        chosen = jnp.take_along_axis(logits, label[:, None], axis=1)[:, 0]
        return jax.nn.logsumexp(logits, axis=1) - chosen, logits.argmax(axis=1).astype("int32")

    results = map_in_order(chunk, count, after=states)
    return tuple(result.reshape(-1)[:tokens].reshape(labels.shape) for result in results)
