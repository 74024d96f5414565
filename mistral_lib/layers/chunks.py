"""Long sequences through token-wise layers, a chunk at a time (chapter 10, "SwiGLU")."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import keras

from mistral_lib.arrays import Array, Shaped
from mistral_lib.keras_inside import is_traced

CHUNK_SIZE = 1024  # tokens


def in_chunks(
    function: Callable, *arrays: Shaped[Array, "B S ..."], chunk_size: int = CHUNK_SIZE
) -> Any:
    """Applies a function that treats every token alone to one chunk of tokens after the other.

    On a CPU a matrix product of a thousand rows runs from the cache; one of ten thousand waits for
    memory, and so do the activations between two products. This happens in compiled code only,
    beyond two chunks; otherwise, on GPUs, and where tokens lie on several devices, the function is
    called once.

    Args:
        function: of arrays (B, S, ...), returns an array (B, S, ...) or a tuple of such.
        *arrays: each (B, S, ...), with the same B and S.
        chunk_size: the most tokens in a chunk, whatever rows they are from.

    Returns:
        What `function(*arrays)` returns.

    >>> double = jax.jit(lambda x: in_chunks(lambda x: 2 * x, x, chunk_size=4))
    >>> double(jnp.ones((2, 5, 1))).shape
    (2, 5, 1)
    """
    batch, length = arrays[0].shape[:2]
    tokens = batch * length
    if not (tokens > 2 * chunk_size and _runs_from_cache(arrays[0])):
        return function(*arrays)
    count = -(-tokens // chunk_size)
    size = -(-tokens // count)
    rows = [array.reshape(1, tokens, *array.shape[2:]) for array in arrays]
    rows = [pad_axis(array, 1, count * size) for array in rows]

    def one(index):
        take = jax.lax.dynamic_slice_in_dim
        return function(*(take(array, index * size, size, axis=1) for array in rows))

    def join(chunks):  # (count, 1, size, ...)
        return chunks.reshape(-1, *chunks.shape[3:])[:tokens].reshape(
            batch, length, *chunks.shape[3:]
        )

    return jax.tree.map(join, map_in_order(one, count, after=arrays[0]))


def map_in_order(function: Callable, count: int, after: Shaped[Array, "..."]) -> Any:
    """The results of `function(0)` to `function(count - 1)`, stacked; as `jax.lax.map`.

    The memory of the results is taken when `after` is there. Left to itself, XLA fills the results
    of every loop of a model with zeros before the first loop begins.
    """
    shapes = jax.eval_shape(function, jnp.int32(0))
    anything = jax.lax.stop_gradient(jnp.ravel(after)[0])
    empty = jax.tree.map(
        lambda shape: jnp.full((count, *shape.shape), anything.astype(shape.dtype)), shapes
    )

    def step(index, results):
        return jax.tree.map(
            lambda stack, new: jax.lax.dynamic_update_index_in_dim(stack, new, index, 0),
            results,
            function(index),
        )

    return jax.lax.fori_loop(0, count, step, empty)


def pad_axis(array: Shaped[Array, "..."], axis: int, length: int) -> Shaped[Array, "..."]:
    """The array with zeros at the end of an axis, so that it has at least this length."""
    missing = max(0, length - array.shape[axis])
    return jnp.pad(array, [(0, missing if i == axis else 0) for i in range(array.ndim)])


def _runs_from_cache(array) -> bool:
    return (
        is_traced(array)
        and jax.default_backend() == "cpu"
        and keras.distribution.distribution() is None
    )
