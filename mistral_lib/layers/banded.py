"""Attention in blocks of queries, in memory linear in S (chapter 8, "Reach and banding")."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from mistral_lib.arrays import Array, Bool, Float, Int
from mistral_lib.layers.chunks import map_in_order, pad_axis
from mistral_lib.masks import attention_mask

QUERIES = 128  # in a block
KEYS = 640  # at most, in a tile: with 128 queries the scores of a few heads stay in the CPU's cache


@partial(jax.jit, static_argnames=("window", "queries", "keys"))
def banded_attention(
    query: Float[Array, "B S K G h"],
    key: Float[Array, "B S K h"],
    value: Float[Array, "B S K h"],
    padding_mask: Bool[Array, "B S"] | None = None,
    window: int | None = None,
    queries: int = QUERIES,
    keys: int = KEYS,
) -> Float[Array, "B S K G h"]:
    """Causal attention that computes only the band of scores that the window shows.

    Queries are taken in blocks. A block sees at most `window + queries - 1` neighbouring keys, and
    only these are multiplied, a tile at a time, with a running softmax: no more scores than those
    of one block and one tile are in memory. The backward pass computes the scores of a block again
    instead of keeping them.

    Args:
        query: float array (B, S, K, G, h).
        key: float array (B, S, K, h).
        value: float array (B, S, K, h).
        padding_mask: bool array (B, S), true for real tokens; `None` if all are.
        window: number of tokens that a query sees, its own included; `None` for all.
        queries: number of queries in a block.
        keys: the most keys in a tile.

    Returns:
        A float array (B, S, K, G, h), equal to that of `dense_attention` up to rounding.

    Source: Dao et al., "FlashAttention", 2022, section 3.1, for the running softmax.
    """
    length = query.shape[1]
    blocks = -(-length // queries)
    span = length if window is None else min(length, window + queries - 1)
    tiles = -(-span // keys)
    keys = -(-span // tiles)
    query = pad_axis(query, 1, blocks * queries)
    # Heads before tokens: a tile is then one piece of memory, and no product has to transpose it.
    key, value = (pad_axis(jnp.moveaxis(array, 2, 1), 2, tiles * keys) for array in (key, value))
    if padding_mask is not None:
        padding_mask = pad_axis(padding_mask, 1, tiles * keys)

    @jax.checkpoint
    def attend_block(index):
        first_query = index * queries
        # The keys of a block end with its last query. They are moved inside the sequence at both
        # ends, and the mask, which knows positions, does the rest.
        last_start = key.shape[2] - tiles * keys
        first_key = jnp.clip(first_query + queries - tiles * keys, 0, last_start)

        def mask(start):
            positions = first_query + jnp.arange(queries), start + jnp.arange(keys)
            # The padding has no say: its rows may lie on several devices, which would have to ask
            # each other.
            used = attention_mask(*positions, window).any()
            real = None if padding_mask is None else _take(padding_mask, start, keys, axis=1)
            return attention_mask(*positions, window, real), used

        block = _take(query, first_query, queries, axis=1)
        return attend_in_tiles(block, key, value, mask, first_key, tiles, keys)

    return _joined(map_in_order(attend_block, blocks, after=query))[:, :length]


def attend_by_position(
    query: Float[Array, "B S K G h"],
    key: Float[Array, "B K T h"],
    value: Float[Array, "B K T h"],
    query_positions: Int[Array, "B S"],
    key_positions: Int[Array, "B T"],
    window: int | None,
    visible: Bool[Array, "B T"],
    skip: bool = True,
) -> Float[Array, "B S K G h"]:
    """Attention of many queries over keys in any order, no more than a tile of scores in memory.

    Args:
        query: float array (B, S, K, G, h).
        key: float array (B, K, T, h), heads before tokens.
        value: float array (B, K, T, h).
        query_positions: integer array (B, S), absolute.
        key_positions: integer array (B, T).
        window: number of tokens that a query sees, its own included; `None` for all.
        visible: bool array (B, T), false for keys that no query may see.
        skip: whether to skip tiles in which no row sees anything. If the rows lie on several
            devices, these would have to ask each other.

    Returns:
        A float array (B, S, K, G, h).
    """
    length, places = query.shape[1], key.shape[2]
    blocks, tiles = -(-length // QUERIES), -(-places // KEYS)
    queries, keys = -(-length // blocks), -(-places // tiles)
    query = pad_axis(query, 1, blocks * queries)
    query_positions = pad_axis(query_positions, 1, blocks * queries)
    key, value = (pad_axis(array, 2, tiles * keys) for array in (key, value))
    key_positions, visible = (
        pad_axis(array, 1, tiles * keys) for array in (key_positions, visible)
    )

    def attend_block(index):
        def mask(start):
            shown = attention_mask(
                _take(query_positions, index * queries, queries, axis=1),
                _take(key_positions, start, keys, axis=1),
                window,
                _take(visible, start, keys, axis=1),
            )
            return shown, shown.any() if skip else True

        block = _take(query, index * queries, queries, axis=1)
        return attend_in_tiles(block, key, value, mask, 0, tiles, keys)

    return _joined(map_in_order(attend_block, blocks, after=query))[:, :length]


def attend_in_tiles(
    query: Float[Array, "B s K G h"],
    key: Float[Array, "B K T h"],
    value: Float[Array, "B K T h"],
    mask: Callable,
    first_key: Int[Array, ""] | int,
    tiles: int,
    keys: int,
) -> Float[Array, "B s K G h"]:
    """Attention of a block of queries over tiles of keys, with a running softmax.

    Args:
        query: float array (B, s, K, G, h).
        key: float array (B, K, T, h).
        value: float array (B, K, T, h).
        mask: a function of the index of a tile's first key. It returns a bool array (s, t) or
            (B, s, t), true where a query sees a key, and whether the tile is used at all.
        first_key: index of the first tile's first key.
        tiles: number of tiles.
        keys: number of keys in a tile, t.

    Returns:
        A float array (B, s, K, G, h); zero for a query that sees no key.
    """

    def step(so_far, start):
        visible, used = mask(start)

        def attend_tile(so_far):
            tile_keys = _take(key, start, keys, axis=2)
            tile_values = _take(value, start, keys, axis=2)
            for_heads = visible[:, None] if visible.ndim == 2 else visible[:, None, :, None]
            return _attend(so_far, query, tile_keys, tile_values, for_heads)

        return jax.lax.cond(used, attend_tile, lambda so_far: so_far, so_far), None

    query = jnp.moveaxis(query, 2, 1)  # of one block: a copy of all would take memory
    rows = query.shape[:-1]
    empty = (
        jnp.zeros(query.shape, "float32"),
        jnp.zeros((*rows, 1), "float32"),
        jnp.full((*rows, 1), jnp.finfo("float32").min),
    )
    (output, total, _), _ = jax.lax.scan(step, empty, first_key + keys * jnp.arange(tiles))
    output = (output / jnp.where(total == 0.0, 1.0, total)).astype(value.dtype)
    return jnp.moveaxis(output, 1, 2)


def _attend(so_far, query, key, value, mask):
    """One more tile of keys: query (B, K, s, G, h), key and value (B, K, t, h).

    `so_far` is the sum of the values, weighted with `exp(score - highest)`, the sum of the weights
    and the highest score of every query. A higher score in this tile shrinks the sums before it.
    """
    output, total, highest = so_far
    # As one axis of queries: with two, JAX has no such product of bfloat16 on CPUs before 0.8.3.
    folded = query.reshape(*query.shape[:2], -1, query.shape[-1])  # (B, K, s * G, h)
    scores = jnp.einsum("bkqh,bkth->bkqt", folded, key, preferred_element_type="float32")
    scores = scores.reshape(*query.shape[:-1], -1)
    scores = jnp.where(mask, scores * query.shape[-1] ** -0.5, jnp.finfo("float32").min)
    new_highest = jax.lax.stop_gradient(jnp.maximum(highest, scores.max(axis=-1, keepdims=True)))
    weights = jnp.where(mask, jnp.exp(scores - new_highest), 0.0)
    shrunk = jnp.exp(highest - new_highest)
    update = jnp.einsum(
        "bksgt,bkth->bksgh", weights.astype(value.dtype), value, preferred_element_type="float32"
    )
    return (
        shrunk * output + update,
        shrunk * total + weights.sum(axis=-1, keepdims=True),
        new_highest,
    )


def _joined(blocks):
    """Blocks of outputs (n, B, s, K, G, h) as one array (B, n * s, K, G, h)."""
    output = jnp.moveaxis(blocks, 0, 1)
    return output.reshape(output.shape[0], -1, *output.shape[3:])


def _take(array, start, size, axis):
    return jax.lax.dynamic_slice_in_dim(array, start, size, axis)
