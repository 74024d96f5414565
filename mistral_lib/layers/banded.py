"""Attention in blocks of queries, in memory linear in S (chapter 8, "Reach and banding")."""

from functools import partial

import jax
import jax.numpy as jnp

from mistral_lib.layers.dense import masked_attention
from mistral_lib.masks import attention_mask


@partial(jax.jit, static_argnames=("window", "block_size"))
def banded_attention(query, key, value, padding_mask=None, window=None, block_size=256):
    """Causal attention that computes only the band of scores that the window shows.

    Queries are taken in blocks. A block of `block_size` queries sees at most
    `window + block_size - 1` neighbouring keys, and only these are multiplied. One block is in
    memory at a time; the backward pass computes its scores again instead of keeping them.

    Args:
        query: float array (B, S, K, G, h).
        key: float array (B, S, K, h).
        value: float array (B, S, K, h).
        padding_mask: bool array (B, S), true for real tokens; `None` if all are.
        window: number of tokens that a query sees, its own included; `None` for all.
        block_size: number of queries in a block.

    Returns:
        A float array (B, S, K, G, h), equal to that of `dense_attention` up to rounding.
    """
    batch, length = query.shape[:2]
    num_blocks = -(-length // block_size)
    span = length if window is None else min(length, window + block_size - 1)
    missing = num_blocks * block_size - length
    query = jnp.pad(query, ((0, 0), (0, missing), (0, 0), (0, 0), (0, 0)))

    @jax.checkpoint
    def attend_block(first_query):
        # The span of the last key a block may need ends with its last query; it is moved inside
        # the sequence at both ends, and the mask, which knows positions, does the rest.
        first_key = jnp.clip(first_query + block_size - span, 0, length - span)
        key_positions = first_key + jnp.arange(span)
        mask = attention_mask(
            first_query + jnp.arange(block_size),
            key_positions,
            window,
            None if padding_mask is None else take(padding_mask, first_key, span),
        )
        return masked_attention(
            take(query, first_query, block_size),
            take(key, first_key, span),
            take(value, first_key, span),
            mask,
        )

    def take(array, start, size):
        return jax.lax.dynamic_slice_in_dim(array, start, size, axis=1)

    blocks = jax.lax.map(attend_block, jnp.arange(num_blocks) * block_size)  # (n, B, block, ...)
    output = jnp.moveaxis(blocks, 0, 1).reshape(batch, num_blocks * block_size, *query.shape[2:])
    return output[:, :length]
