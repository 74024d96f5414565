"""From logits to the next token (chapter 16, "Sampling")."""

import dataclasses

import jax
import jax.numpy as jnp

from mistral_lib.checks import check_integer, check_number


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sampler:
    """How the next token is chosen. `None` leaves a step out; no temperature takes the likeliest.

    A JAX tree whose leaves are the numbers: another temperature needs no new compilation, another
    set of steps does.

    Attributes:
        temperature: logits are divided by it; `None` is greedy.
        top_k: only the k likeliest tokens stay (more if they tie with the k-th).
        top_p: only the likeliest tokens that together reach this probability stay.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None


def make_sampler(temperature: float = 0.0, top_k=None, top_p=None) -> Sampler:
    """A checked sampler; a temperature of 0 is greedy.

    >>> make_sampler(0.8, top_p=0.9)
    Sampler(temperature=0.8, top_k=None, top_p=0.9)
    >>> make_sampler(0.8, top_p=1.1)
    Traceback (most recent call last):
    ValueError: top_p must be above 0 and at most 1, but is 1.1.
    """
    check_number("temperature", temperature, zero=True)
    if top_k is not None:
        check_integer("top_k", top_k)
    if top_p is not None and check_number("top_p", top_p) > 1:
        raise ValueError(f"top_p must be above 0 and at most 1, but is {top_p}.")
    if temperature == 0:
        if top_k is not None or top_p is not None:
            raise ValueError(
                "top_k and top_p choose among tokens to draw from, but a temperature of 0 draws "
                "nothing: it takes the likeliest token. Pass a temperature such as 1.0, or neither."
            )
        return Sampler()
    return Sampler(temperature, top_k, top_p)


def filter_logits(logits, sampler: Sampler):
    """Logits after temperature, top-k and top-p, in this order; what is left out is -inf.

    Args:
        logits: float32 array (B, V).
        sampler: with a temperature.

    Returns:
        A float32 array (B, V).

    Source: Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020, for top-p.

    >>> logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))
    >>> kept = filter_logits(logits, Sampler(temperature=1.0, top_p=0.7))
    >>> print(jax.nn.softmax(kept).round(2))
    [[0.62 0.38 0.   0.  ]]
    """
    logits = logits / sampler.temperature
    if sampler.top_k is None and sampler.top_p is None:
        return logits
    ranked = jnp.sort(logits, axis=-1, descending=True)
    if sampler.top_k is not None:
        last = jnp.minimum(sampler.top_k, ranked.shape[-1]) - 1
        threshold = jnp.take(ranked, last, axis=-1)[:, None]
        logits = jnp.where(logits >= threshold, logits, -jnp.inf)
        ranked = jnp.where(ranked >= threshold, ranked, -jnp.inf)
    if sampler.top_p is not None:
        probabilities = jax.nn.softmax(ranked)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        # The likeliest token always stays: nothing comes before it.
        threshold = jnp.where(before < sampler.top_p, ranked, jnp.inf).min(axis=-1, keepdims=True)
        logits = jnp.where(logits >= threshold, logits, -jnp.inf)
    return logits


def sample(logits, sampler: Sampler, keys):
    """One token for every row.

    Args:
        logits: float32 array (B, V).
        sampler: the steps.
        keys: JAX random keys (B,), one a row, so that no row's draw depends on its neighbours.

    Returns:
        An int32 array (B,).
    """
    if sampler.temperature is None:
        return jnp.argmax(logits, axis=-1).astype("int32")
    return jax.vmap(jax.random.categorical)(keys, filter_logits(logits, sampler)).astype("int32")
