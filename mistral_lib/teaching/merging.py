"""Making one key head of two, in a model that was trained with two (used by chapter 6).

What a head computes does not change if its values are turned by some matrix and its output kernel
is turned back, or if queries and keys are turned alike. So two heads may say nearly the same in
different coordinates. `turned_average` looks for the turn that brings one head closest to the
other, and averages after it.

Source: Jin et al., "Align Attention Heads Before Merging Them", 2024.
"""

import jax.numpy as jnp
import numpy as np

from mistral_lib import MistralCausalLM
from mistral_lib.arrays import Array, Float, Shaped
from mistral_lib.teaching.interventions import Edit, activations
from mistral_lib.teaching.panel import Rows


def value_turn(
    first: Float[np.ndarray, "N h"], second: Float[np.ndarray, "N h"]
) -> Float[np.ndarray, "h h"]:
    """The rotation that brings the rows of `second` closest to those of `first`.

    >>> quarter = np.array([[0.0, 1.0], [-1.0, 0.0]])
    >>> first = np.array([[1.0, 2.0], [3.0, 5.0]])
    >>> bool(np.allclose(value_turn(first, first @ quarter.T), quarter))
    True
    """
    left, _, right = np.linalg.svd(second.T @ first)
    return left @ right


def key_turn(
    first: Float[np.ndarray, "N h"], second: Float[np.ndarray, "N h"]
) -> Shaped[np.ndarray, " pairs"]:
    """The same for keys, pair by pair: rotary positions allow no other turns.

    Returns:
        For each pair of features a complex number of length 1 to multiply `second` with.
    """
    sums = np.asarray((as_pairs(first) * as_pairs(second).conj()).sum(axis=0))
    return sums / abs(sums)


def as_pairs(x: Float[Array, "*rows h"]) -> Array:
    """Rotary pairs as complex numbers (..., h / 2): turning one is multiplying it."""
    first, second = jnp.split(x, 2, axis=-1)
    return first + 1j * second


def turned_average(model: MistralCausalLM, rows: Rows) -> Edit:
    """An edit with which both key heads of a layer give their average, after turning the second.

    Each goes on in its own coordinates, since queries and output kernels stay what they are.

    Args:
        model: with two key heads in each layer.
        rows: the texts on which the turns are found; others than those that judge them.
    """
    found, real = activations(model, rows, "key", "value"), np.asarray(rows.padding_mask)
    keys, values = (
        np.moveaxis(found[site][:, real], 2, 0) for site in ("key", "value")
    )  # (2, L, N, h)
    key_turns = np.array([key_turn(*pair) for pair in zip(*keys)])
    value_turns = np.array([value_turn(*pair) for pair in zip(*values)])

    def edit(site, layer, x):
        if site == "key":
            turn = key_turns[layer]
            first, second = jnp.moveaxis(as_pairs(x), 2, 0)
            average = (first + second * turn) / 2
            both = jnp.stack([average, average / turn], axis=2)
            return jnp.concatenate([both.real, both.imag], axis=-1)
        if site == "value":
            turn = value_turns[layer]
            average = (x[:, :, 0] + x[:, :, 1] @ turn) / 2
            return jnp.stack([average, average @ turn.T], axis=2)
        return x

    return edit
