"""Locally typical sampling, a filter that the library does not have (used by chapter 16).

It keeps the tokens whose surprise is nearest to the surprise that the model expects, so it may
leave out the likeliest one.
"""

import jax
import jax.numpy as jnp

from mistral_lib.arrays import Array, Float


def typical(logits: Float[Array, "*rows V"], typical_p: float) -> Float[Array, "*rows V"]:
    """Logits of the most typical tokens; what is left out is -inf.

    The surprise of a token is -log p. Its mean is the entropy, and tokens are ranked by how far
    their surprise is from it. The first ones that together have the probability `typical_p` stay.

    Args:
        logits: float array (..., V); -inf where a step before has left out a token.
        typical_p: above 0 and at most 1.

    Source: Meister et al., "Locally Typical Sampling", 2023.

    >>> logits = jnp.log(jnp.array([0.5, 0.25, 0.125, 0.125]))
    >>> print(jax.nn.softmax(typical(logits, 0.2)))  # the entropy is 1.75 bits, the surprises
    [0. 1. 0. 0.]
    """
    log_p = jax.nn.log_softmax(logits)
    p = jnp.exp(log_p)
    entropy = -jnp.where(p > 0, p * log_p, 0.0).sum(axis=-1, keepdims=True)
    distance = jnp.where(p > 0, abs(-log_p - entropy), jnp.inf)
    order = jnp.argsort(distance, axis=-1)
    ranked = jnp.take_along_axis(p, order, axis=-1)
    before = jnp.cumsum(ranked, axis=-1) - ranked
    kept = jnp.take_along_axis(before < typical_p, jnp.argsort(order, axis=-1), axis=-1)
    return jnp.where(kept, logits, -jnp.inf)
