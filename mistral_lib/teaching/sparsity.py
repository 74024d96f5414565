"""Which of many numbers are the largest (used by chapter 10, "SwiGLU")."""

import jax
import jax.numpy as jnp

from mistral_lib.arrays import Array, Bool, Float, Int

HALVINGS = 24


def largest(
    sizes: Float[Array, "*rows F"], count: int | Int[Array, ""]
) -> Bool[jax.Array, "*rows F"]:
    """Where the `count` largest numbers along the last axis are.

    Nothing is sorted, which would take a CPU several times as long: a bound is searched by halving,
    for all rows at once. `count` may be traced, so that one compiled program serves many counts.

    Args:
        sizes: numbers that are not negative.
        count: how many, from 0 to F.

    Returns:
        A bool array of the same shape. Numbers that differ by less than a millionth of the row's
        largest count as equal, and of equal ones at the bound none is taken.

    >>> largest(jnp.array([3.0, 0.5, 2.0, 1.0]), 2).tolist()
    [True, False, True, False]
    """
    sizes = jnp.asarray(sizes)

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        too_many = (sizes > middle).sum(axis=-1, keepdims=True) > count
        return jnp.where(too_many, middle, low), jnp.where(too_many, high, middle)

    high = sizes.max(axis=-1, keepdims=True)
    low = jnp.full_like(high, -1.0)
    return sizes > jax.lax.fori_loop(0, HALVINGS, halve, (low, high))[1]
