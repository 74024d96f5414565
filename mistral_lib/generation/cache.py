"""Keys and values of the last W tokens, and no more (chapter 15, "The rolling cache")."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mistral_lib.arrays import Bool, Float, Int
from mistral_lib.backbone import MistralBackbone
from mistral_lib.config import MistralConfig
from mistral_lib.distribution import cache_sharding
from mistral_lib.forward import forward
from mistral_lib.generation.compiled import array_tree
from mistral_lib.layers.banded import attend_by_position
from mistral_lib.layers.dense import masked_softmax
from mistral_lib.masks import attention_mask

IN_TILES_FROM = 32  # new tokens; fewer have so few scores that all fit in the cache of a CPU

# Of one block: keys after RoPE, and values. A block with a wider window has more slots.
KeysAndValues = tuple[Float[Array, "B K slots h"], Float[Array, "B K slots h"]]
Tree = TypeVar("Tree")


@array_tree
class RollingCache:
    """What attention must remember of the tokens that a model has read.

    The token at position p lives in slot `p % slots`; a newer token overwrites the one that no
    query can see any more. Every row of a batch stands at its own position.

    The slots of one head lie side by side in memory. A batched product over heads reads them where
    they are; in the order (B, slots, K, h) it would transpose the whole cache first, at every step.

    Attributes:
        layers: for each block a pair of arrays, keys after RoPE and values, (B, K, slots, h).
        lengths: the number of tokens that each row has read.
    """

    layers: tuple[KeysAndValues, ...]
    lengths: Int[Array, " B"]


def new_cache(
    backbone: MistralBackbone, batch_size: int, max_length: int, lookahead: int = 1
) -> RollingCache:
    """An empty cache for rows of up to `max_length` tokens.

    Args:
        backbone: the `MistralBackbone` that will fill it.
        batch_size: number of rows, B.
        max_length: the most tokens that a row will read.
        lookahead: the most tokens written at once before they are final (speculative decoding);
            `lookahead - 1` slots are kept beyond the window, so that the rejected ones have
            overwritten nothing.

    Returns:
        A cache in the backbone's compute dtype. A layer with a window has
        `min(window + lookahead - 1, max_length)` slots, one without has `max_length`.

    >>> from mistral_lib import MistralBackbone
    >>> backbone = MistralBackbone(10, 2, 4, 16, 32, 2, sliding_window=[3, None])
    >>> cache = new_cache(backbone, batch_size=1, max_length=100)
    >>> [keys.shape for keys, values in cache.layers]
    [(1, 2, 3, 4), (1, 2, 100, 4)]
    """
    config, dtype = backbone.config, backbone.compute_dtype
    device = cache_sharding(backbone, batch_size)

    def empty(slots):
        shape = (batch_size, config.num_key_value_heads, slots, config.head_dim)
        return jnp.zeros(shape, dtype, device=device)

    sizes = num_slots(config, max_length, lookahead)
    layers = tuple((empty(slots), empty(slots)) for slots in sizes)
    return RollingCache(layers, jnp.zeros(batch_size, "int32"))


def num_slots(config: MistralConfig, max_length: int, lookahead: int = 1) -> list[int]:
    """How many slots the cache of each layer has: see `new_cache`."""
    windows = map(config.window, range(config.num_layers))
    return [max_length if w is None else min(w + lookahead - 1, max_length) for w in windows]


def slot_positions(lengths: Int[Array, " B"], slots: int) -> Int[Array, "B slots"]:
    """The position of the token in each slot, for rows that have read `lengths` tokens.

    Args:
        lengths: integer array (B,).
        slots: number of slots.

    Returns:
        An integer array (B, slots): the newest position p below the length with
        `p % slots == slot`, or a negative number where the slot is empty.

    >>> print(slot_positions(jnp.array([2, 5]), slots=3))
    [[ 0  1 -1]
     [ 3  4  2]]
    """
    newest = lengths[:, None] - 1
    return newest - (newest - jnp.arange(slots)) % slots


def select_rows(tree: Tree, rows: Int[Array | np.ndarray, " R"]) -> Tree:
    """Some rows of a cache, in a new order: samples and beams go on from what others have read.

    Args:
        tree: a `RollingCache` of B rows, or any tree of arrays (B, ...).
        rows: integer array (R,), below B; the same row may come more than once.

    Returns:
        The same tree, of R rows.
    """
    return jax.tree.map(lambda array: array.at[rows].get(mode="clip"), tree)


def update_rows(tree: Tree, rows: Int[Array, " R"], new: Tree) -> Tree:
    """Puts rows that `select_rows` took out back in their places.

    Args:
        tree: as `select_rows`.
        rows: integer array (R,) without repetition; what is not below B is dropped.
        new: a tree of R rows.
    """
    return jax.tree.map(lambda old, new: old.at[rows].set(new, mode="drop"), tree, new)


def write_slots(
    array: Float[Array, "B K slots h"],
    new: Float[Array, "B K C h"],
    positions: Int[Array, "B C"],
    keep: Bool[Array, "B C"],
    by_head: bool = False,
) -> Float[Array, "B K slots h"]:
    """Puts new keys or values in their slots, in place where XLA owns the memory.

    Args:
        array: (B, K, slots, h).
        new: (B, K, C, h).
        positions: integer array (B, C) of the new tokens.
        keep: bool array (B, C); at most `slots` consecutive positions of a row may be kept, so
            that no slot is written twice.
        by_head: whether each head is written by itself, so that heads on many devices need nothing
            from one another. On one device, older versions of JAX would copy the array for that.

    Returns:
        The updated array. Rows are scattered to, so that each can stand at its own position.
    """
    slots = array.shape[2]
    index = jnp.where(keep, positions % slots, slots)  # `slots` is out of bounds: dropped
    # A second place, always dropped: a scatter to one place alone XLA would turn into an update
    # that copies the array.
    index = jnp.pad(index, ((0, 0), (0, 1)), constant_values=slots)
    new = jnp.pad(new.astype(array.dtype), ((0, 0), (0, 0), (0, 1), (0, 0)))

    if not by_head:
        rows, heads = (jnp.arange(size) for size in array.shape[:2])
        places = rows[:, None, None], heads[None, :, None], index[:, None, :]
        return array.at[places].set(new, mode="drop")

    def write_head(head, index, new):
        return head.at[index].set(new, mode="drop")

    return jax.vmap(jax.vmap(write_head, (0, None, 0)))(array, index, new)


def attend_cached(
    layer: KeysAndValues,
    query: Float[Array, "B C K G h"],
    key: Float[Array, "B C K h"],
    value: Float[Array, "B C K h"],
    lengths: Int[Array, " B"],
    counts: Int[Array, " B"],
    window: int | None,
    one_device: bool = True,
) -> tuple[Float[Array, "B C K G h"], KeysAndValues]:
    """Attention of C new tokens over the cache and each other, and the cache after it.

    Args:
        layer: the pair of arrays of one block, (B, K, slots, h).
        query: (B, C, K, G, h), after RoPE.
        key: (B, C, K, h), after RoPE.
        value: (B, C, K, h).
        lengths: integer array (B,), tokens read before these.
        counts: integer array (B,), how many of the C tokens of each row are real (the first ones).
        window: number of tokens that a query sees, its own included; `None` for all.
        one_device: whether the rows and heads are all on one device, see `write_slots` and
            `mistral_lib.layers.banded.attend_by_position`.

    Returns:
        The output (B, C, K, G, h), without meaning for tokens that are not real, and the new pair.
    """
    slots, new = layer[0].shape[2], key.shape[1]
    fresh = jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)  # (B, K, C, h)
    positions = lengths[:, None] + jnp.arange(new)  # (B, C)
    real = jnp.arange(new) < counts[:, None]
    total = lengths + counts
    keep = real & (positions >= total[:, None] - slots)
    keys, values = (
        write_slots(*pair, positions, keep, by_head=not one_device) for pair in zip(layer, fresh)
    )
    written = keys, values
    # Where the slots hold the window of the first new token beside the last one, or never wrap,
    # the new tokens can be written first, and attention reads the cache alone.
    if window is None or slots < window or slots >= window + new - 1:
        key_positions = slot_positions(total, slots)
        visible = key_positions >= 0
    else:
        key_positions = slot_positions(lengths, slots)
        keys, values = (
            jnp.concatenate([old, new.astype(old.dtype)], axis=2) for old, new in zip(layer, fresh)
        )
        visible = jnp.concatenate([key_positions >= 0, real], axis=1)
        key_positions = jnp.concatenate([key_positions, positions], axis=1)
    arguments = (query, keys, values, positions, key_positions, window, visible)
    if new < IN_TILES_FROM:
        return _attend_at_once(*arguments), written
    return jnp.asarray(attend_by_position(*arguments, skip=one_device)), written


def _attend_at_once(
    query: Float[Array, "B C K G h"],
    keys: Float[Array, "B K T h"],
    values: Float[Array, "B K T h"],
    positions: Int[Array, "B C"],
    key_positions: Int[Array, "B T"],
    window: int | None,
    visible: Bool[Array, "B T"],
) -> Float[Array, "B C K G h"]:
    """As `mistral_lib.layers.dense.masked_attention`, for keys and values (B, K, T, h).

    The products are written out because `einsum` may swap their operands, and XLA then transposes
    the larger one.
    """
    mask = attention_mask(positions, key_positions, window, visible)
    batch, length, heads, group, size = query.shape
    rows = query.transpose(0, 2, 3, 1, 4).reshape(batch, heads, group * length, size)
    over_heads = ((0, 1), (0, 1))
    scores = jax.lax.dot_general(
        rows, keys, (((3,), (3,)), over_heads), preferred_element_type="float32"
    )
    scores = scores.reshape(batch, heads, group, length, -1) * size**-0.5
    weights = masked_softmax(scores, mask[:, None, None]).astype(values.dtype)
    output = jax.lax.dot_general(
        weights.reshape(batch, heads, group * length, -1), values, (((3,), (2,)), over_heads)
    )
    return output.reshape(batch, heads, group, length, size).transpose(0, 3, 1, 2, 4)


def extend(
    backbone: MistralBackbone,
    cache: RollingCache,
    token_ids: Int[Array | np.ndarray, "B C"],
    counts: Int[Array | np.ndarray, " B"] | None = None,
    text_lengths: Int[Array, "B #C"] | None = None,
) -> tuple[Float[Array, "B C D"], RollingCache]:
    """Reads C more tokens of every row, whatever was read before.

    Prefill, chunks of a long prompt, a further turn and a decoding step are all this one call.

    Args:
        backbone: a `MistralBackbone`.
        cache: its cache, from `new_cache` or an earlier call.
        token_ids: integer array (B, C).
        counts: integer array (B,), how many of the C tokens of each row are real; the others, on
            the right, leave no trace in the cache. By default all are.
        text_lengths: integer array (B, 1) or (B, C): how long the text of each token is, where
            rotary positions depend on it. By default its length after this call.

    Returns:
        Hidden states (B, C, D), and the new cache. Equal to the hidden states of the backbone on
        the whole sequence, up to rounding.

    >>> from mistral_lib import MistralBackbone
    >>> backbone = MistralBackbone(10, 2, 4, 16, 32, 2, sliding_window=3)
    >>> cache = new_cache(backbone, batch_size=1, max_length=100)
    >>> hidden_states, cache = extend(backbone, cache, jnp.array([[1, 2, 3, 4, 5]]))
    >>> hidden_states, cache = extend(backbone, cache, jnp.array([[6, 7]]))
    >>> hidden_states.shape, int(cache.lengths[0])
    ((1, 2, 16), 7)
    """
    if counts is None:
        counts = jnp.full(token_ids.shape[:1], token_ids.shape[1], "int32")
    counts, layers = jnp.asarray(counts), []

    def attend(index):
        def attend_block(query, key, value):
            output, layer = attend_cached(
                cache.layers[index],
                query,
                key,
                value,
                cache.lengths,
                counts,
                backbone.config.window(index),
                one_device=backbone.distribution is None,
            )
            layers.append(layer)
            return output

        return attend_block

    lengths = cache.lengths + counts
    hidden_states = forward(
        backbone,
        token_ids,
        positions=next_positions(cache, token_ids.shape[1]),
        text_lengths=lengths[:, None] if text_lengths is None else text_lengths,
        attend=attend,
        training=False,
    )
    return jnp.asarray(hidden_states), RollingCache(tuple(layers), lengths)


def next_positions(cache: RollingCache, number: int) -> Int[Array, "B C"]:
    """The positions of the next tokens of each row, as many as `number`."""
    return cache.lengths[:, None] + jnp.arange(number)
