"""Attention with the whole score matrix in memory (chapter 4, "One head")."""

from functools import partial

import jax
import jax.numpy as jnp

from mistral_lib.arrays import Array, Bool, Float, Float32, Int
from mistral_lib.masks import attention_mask


def masked_softmax(
    scores: Float32[Array, "*rows T"], mask: Bool[Array, "*#rows T"]
) -> Float32[Array, "*rows T"]:
    """Softmax over the last axis among the places where `mask` is true.

    A row whose places are all masked gets weights of zero (not NaN), and finite gradients.

    Args:
        scores: float32 array (..., T).
        mask: bool array that broadcasts against `scores`.

    Returns:
        A float32 array of the shape of `scores`; each row sums to 1, or to 0 if it is all masked.

    >>> scores = jnp.zeros((2, 3))
    >>> print(masked_softmax(scores, jnp.array([[True, True, False], [False, False, False]])))
    [[0.5 0.5 0. ]
     [0.  0.  0. ]]
    """
    scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    highest = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    weights = jnp.where(mask, jnp.exp(scores - highest), 0.0)
    total = weights.sum(axis=-1, keepdims=True)
    return weights / jnp.where(total == 0.0, 1.0, total)


def masked_attention(
    query: Float[Array, "B S K G h"],
    key: Float[Array, "B T K h"],
    value: Float[Array, "B T K h"],
    mask: Bool[Array, "S T"] | Bool[Array, "B S T"],
) -> Float[Array, "B S K G h"]:
    """Attention of every query over the keys that a mask shows it.

    The G query heads that share a key head are a dimension of their own, so that no key or value
    is repeated in memory.

    Args:
        query: float array (B, S, K, G, h).
        key: float array (B, T, K, h).
        value: float array (B, T, K, h).
        mask: bool array (S, T) or (B, S, T).

    Returns:
        A float array (B, S, K, G, h) in the dtype of `value`. Scores and softmax are float32.
    """
    scores = jnp.einsum("bskgh,btkh->bkgst", query, key, preferred_element_type="float32")
    scores = scores * query.shape[-1] ** -0.5
    weights = masked_softmax(scores, mask if mask.ndim == 2 else mask[:, None, None])
    return jnp.einsum("bkgst,btkh->bskgh", weights.astype(value.dtype), value)


@partial(jax.jit, static_argnames="window")
def dense_attention(
    query: Float[Array, "B S K G h"],
    key: Float[Array, "B S K h"],
    value: Float[Array, "B S K h"],
    padding_mask: Bool[Array, "B S"] | None = None,
    window: int | Int[Array, ""] | None = None,
) -> Float[Array, "B S K G h"]:
    """Causal attention over a whole sequence, all S x S scores at once.

    Args:
        query: float array (B, S, K, G, h).
        key: float array (B, S, K, h).
        value: float array (B, S, K, h).
        padding_mask: bool array (B, S), true for real tokens; `None` if all are.
        window: number of tokens that a query sees, its own included; `None` for all.

    Returns:
        A float array (B, S, K, G, h).
    """
    positions = jnp.arange(query.shape[1])
    return masked_attention(
        query, key, value, attention_mask(positions, positions, window, padding_mask)
    )
