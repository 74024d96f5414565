"""What a model gives every token of a text (chapter 1, "One token")."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import keras
import numpy as np

from mistral_lib.arrays import Array, Float32
from mistral_lib.batches import IGNORED_LABEL
from mistral_lib.checks import check_choice
from mistral_lib.forward import forward
from mistral_lib.generation.prompts import read_prompts
from mistral_lib.inputs import as_array, check_token_ids, is_text, standardize_inputs
from mistral_lib.keras_inside import closing_scopes
from mistral_lib.training_loss import token_losses


class Scoring(keras.Model):
    """The base of `MistralCausalLM` that scores texts, and lets the caller in between the layers.

    Attributes:
        backbone: the `MistralBackbone`.
        preprocessor: the `MistralCausalLMPreprocessor`, or `None`.
    """

    @closing_scopes
    def score(
        self,
        token_ids: Any,
        padding_mask: Any = None,
        scoring_mode: str = "logits",
        layer_intercept_fn: Callable | None = None,
        target_ids: Any = None,
    ) -> Float32[Array, "B S V"] | Float32[Array, "B S"]:
        """Logits or loss at every token of texts that are there already.

        It can be differentiated with JAX, with respect to whatever `layer_intercept_fn` brings in.

        Args:
            token_ids: integers (B, S), as an array or nested lists; or a text or a list of texts,
                which begin with the start token and are padded on the right.
            padding_mask: ints or bools (B, S), true for real tokens; by default all are. Not with
                text.
            scoring_mode: "logits", or "loss" for the cross-entropy of each target in nats. The loss
                never holds the logits of a long text all at once.
            layer_intercept_fn: is called with the hidden states (B, S, D) and an index, -1 for the
                embeddings and i after block i, and returns the hidden states to go on with.
            target_ids: integers (B, S), what each position is to predict. By default the next
                token; the last real token of a row then has none, and its loss is 0, as that of
                padding is. -100 marks a position without a target: its loss is 0 too.

        Returns:
            Float32 logits (B, S, V), or losses (B, S).

        Raises:
            ValueError: an unknown mode, shapes that do not fit, an id outside the vocabulary, text
                without a preprocessor.

        Source: `keras_hub.models.MistralCausalLM.score`, with the same arguments.

        >>> from mistral_lib import MistralBackbone, MistralCausalLM
        >>> model = MistralCausalLM(MistralBackbone(10, 1, 2, 8, 16, 1))
        >>> model.score([[1, 2, 3]]).shape
        (1, 3, 10)
        >>> model.score([[1, 2, 3]], scoring_mode="loss").round(1).tolist()[0][-1]
        0.0
        """
        check_choice("scoring_mode", scoring_mode, ("logits", "loss"))
        inputs = self._scored(token_ids, padding_mask)
        mask = jnp.asarray(inputs["padding_mask"], bool)
        ids = jnp.asarray(inputs["token_ids"], "int32")
        hidden_states = forward(self.backbone, ids, padding_mask=mask, intercept=layer_intercept_fn)
        embedding = self.backbone.token_embedding
        if scoring_mode == "logits":
            return embedding(hidden_states, reverse=True)
        if target_ids is not None:
            targets = as_array("target_ids", target_ids)
            if targets.shape != mask.shape:
                raise ValueError(
                    f"target_ids must have the shape of token_ids, {mask.shape}, but have "
                    f"{targets.shape}."
                )
            counts = targets != IGNORED_LABEL
            targets = targets * counts
            check_token_ids(targets, self.backbone.vocabulary_size, "target_ids")
            losses, _ = token_losses(embedding, hidden_states, jnp.asarray(targets, "int32"))
            return jnp.where(counts, losses, 0.0)
        following = jnp.roll(ids, -1, axis=1)
        losses, _ = token_losses(embedding, hidden_states, following)
        has_next = mask & jnp.pad(mask[:, 1:], ((0, 0), (0, 1)))
        return jnp.where(has_next, losses, 0.0)

    def _scored(self, token_ids, padding_mask) -> dict:
        """`token_ids` and `padding_mask`, checked, from ids or text."""
        vocabulary_size = self.backbone.vocabulary_size
        if is_text(token_ids):
            if padding_mask is not None:
                raise ValueError("A text brings its own padding mask. Leave out padding_mask.")
            rows = read_prompts(token_ids, self.preprocessor, vocabulary_size).rows
            padding_mask = np.arange(max(map(len, rows))) < np.array([[len(row)] for row in rows])
            token_ids = np.zeros(padding_mask.shape, "int32")
            token_ids[padding_mask] = np.concatenate(rows)
        token_ids = as_array("token_ids", token_ids)
        if padding_mask is None:
            padding_mask = np.ones(token_ids.shape, bool)
        return standardize_inputs(
            {"token_ids": token_ids, "padding_mask": padding_mask}, vocabulary_size
        )
