"""One way through the model, for training, scoring and writing (chapter 12, "The backbone")."""

from collections.abc import Callable
from typing import Any, TypeVar

import keras

from mistral_lib.arrays import Array, Bool, Float, Int
from mistral_lib.rematerialization import rematerialized

# An array; or, while a backbone is being built, what Keras puts in its place.
Tensor = TypeVar("Tensor", Array, keras.KerasTensor)


def forward(
    backbone: Any,
    token_ids: Int[Tensor, "B S"],
    padding_mask: Bool[Tensor, "B S"] | None = None,
    positions: Int[Array, "*#B S"] | None = None,
    text_lengths: Int[Array, "*#B #S"] | None = None,
    attend: Callable | None = None,
    intercept: Callable | None = None,
    training: bool | None = None,
) -> Float[Tensor, "B S D"]:
    """Embedding, blocks and final norm of a backbone.

    Args:
        backbone: a `MistralBackbone`.
        token_ids: integer array (B, S); or, while the backbone is being built, a `KerasTensor`.
        padding_mask: bool array (B, S), true for real tokens; `None` if all are.
        positions: integer array (S,) or (B, S), absolute; by default 0 to S - 1.
        text_lengths: integer array (B, 1) or (B, S), beside `positions`: how long the text of each
            token is, where rotary positions depend on it (`rope_scaling` of the type "dynamic").
        attend: a function of a block's number, which returns the `attend` of that block's
            `MistralAttention`; generation passes one that knows the cache. By default attention is
            over the sequence itself.
        intercept: a function that sees what flows between the blocks and may replace it. It is
            called with hidden states (B, S, D) and an index, -1 for the embeddings and i after
            block i, and returns the hidden states to go on with.
        training: whether dropout is on, and whether the blocks are rematerialized if the backbone
            has been told to.

    Returns:
        Hidden states (B, S, D) in the compute dtype.
    """
    hidden_states = backbone.token_embedding(token_ids)
    if intercept is not None:
        hidden_states = intercept(hidden_states, -1)
    for index, block in enumerate(backbone.transformer_layers):
        run = rematerialized(block) if backbone.rematerialize and training else block
        hidden_states = run(
            hidden_states,
            padding_mask=padding_mask,
            positions=positions,
            text_lengths=text_lengths,
            attend=None if attend is None else attend(index),
            training=training,
        )
        if intercept is not None:
            hidden_states = intercept(hidden_states, index)
    return backbone.layer_norm(hidden_states)
