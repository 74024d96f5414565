"""From logits to the next token (chapter 16, "Sampling")."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mistral_lib.arrays import Bool, Float, Int, Key
from mistral_lib.checks import check_integer, check_number, check_range
from mistral_lib.generation.compiled import array_tree


@array_tree
class Sampler:
    """How the next token is chosen. `None` leaves a step out; no temperature takes the likeliest.

    A JAX tree whose leaves are the numbers: another temperature needs no new compilation, another
    set of steps does. A step that is left out costs nothing: greedy decoding sorts no vocabulary.

    Attributes:
        temperature: logits are divided by it; `None` is greedy.
        top_k: only the k likeliest tokens stay (more if they tie with the k-th).
        top_p: only the likeliest tokens that together reach this probability stay.
        min_p: only tokens stay that are at least this fraction as probable as the likeliest.
        repetition_penalty: logits of tokens that the text holds already are divided by it where
            positive and multiplied where negative.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


GREEDY = Sampler()

# Any lower or higher one draws the same tokens, but divided by it logits could become infinite.
TEMPERATURES = 1e-20, 1e20


def make_sampler(
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
) -> Sampler:
    """A checked sampler; a temperature of 0, or `None`, is greedy.

    >>> make_sampler(0.8, top_p=0.9).top_p
    0.9
    >>> make_sampler(0.8, top_p=1.1)
    Traceback (most recent call last):
    ValueError: top_p must be above 0 and at most 1, but is 1.1.
    """
    # One type for each number: an int here and a float there would be two compilations.
    temperature = 0.0 if temperature is None else temperature
    temperature = float(check_number("temperature", temperature, zero=True))
    if top_k is not None:
        top_k = check_integer("top_k", top_k)
    top_p, min_p = _check_probability("top_p", top_p), _check_probability("min_p", min_p)
    if repetition_penalty is not None:
        repetition_penalty = float(check_range("repetition_penalty", repetition_penalty, 1e-6, 1e6))
    if temperature == 0:
        for name, value in (("top_k", top_k), ("top_p", top_p), ("min_p", min_p)):
            if value is not None:
                raise ValueError(
                    f"temperature must be above 0 where there is a {name}, but is 0, which draws "
                    "nothing and takes the likeliest token. Pass a temperature such as 1.0, or no "
                    f"{name}."
                )
        return Sampler(repetition_penalty=repetition_penalty)
    temperature = min(max(temperature, TEMPERATURES[0]), TEMPERATURES[1])
    if top_p is not None and np.float32(top_p) == 1:
        top_p = float("inf")  # rounded sums of probabilities can exceed 1 before the last token
    return Sampler(temperature, top_k, top_p, min_p, repetition_penalty)


def _check_probability(name: str, value) -> float | None:
    if value is None:
        return None
    if check_number(name, value) > 1:
        raise ValueError(f"{name} must be above 0 and at most 1, but is {value}.")
    return max(float(value), float(np.finfo("float32").tiny))  # 0 would leave no token


def filter_logits(
    logits: Float[Array, "*rows V"],
    sampler: Sampler,
    used_tokens: Bool[Array | np.ndarray, "*rows V"] | None = None,
) -> Float[Array, "*rows V"]:
    """Logits after all steps of the sampler; what is left out is -inf.

    The order is that of transformers: repetition penalty, temperature, top-k, top-p, min-p. Each
    step sees what the one before it left.

    Args:
        logits: float32 array (..., V).
        sampler: the steps.
        used_tokens: bool array (..., V), which tokens the text holds; for repetition_penalty.

    Returns:
        A float32 array (..., V).

    Source: Keskar et al., "CTRL", 2019, for the penalty; Holtzman et al., "The Curious Case of
    Neural Text Degeneration", 2020, for top-p; Nguyen et al., "Turning Up the Heat: Min-p Sampling
    for Creative and Coherent LLM Outputs", 2024, for min-p.

    >>> logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))
    >>> kept = filter_logits(logits, Sampler(temperature=1.0, top_p=0.7))
    >>> print(jax.nn.softmax(kept).round(2))
    [[0.62 0.38 0.   0.  ]]
    """
    if sampler.repetition_penalty is not None:
        if used_tokens is None:
            raise ValueError("used_tokens must be given for a repetition_penalty, but is None.")
        penalty = sampler.repetition_penalty
        penalised = jnp.where(logits < 0, logits * penalty, logits / penalty)
        logits = jnp.where(used_tokens, penalised, logits)
    if sampler.temperature is not None:
        logits = logits / sampler.temperature
    if sampler.top_k is not None or sampler.top_p is not None:
        logits = _keep_likeliest(logits, sampler.top_k, sampler.top_p)
    if sampler.min_p is not None:
        threshold = logits.max(axis=-1, keepdims=True) + jnp.log(sampler.min_p)
        logits = jnp.where(logits >= threshold, logits, -jnp.inf)
    return logits


def _keep_likeliest(
    logits: Float[Array, "*rows V"],
    top_k: int | Int[Array, ""] | None,
    top_p: float | Float[Array, ""] | None,
) -> Float[Array, "*rows V"]:
    ranked = jnp.sort(logits, axis=-1, descending=True)
    if top_k is not None:
        last = jnp.minimum(top_k, ranked.shape[-1]) - 1
        threshold = jnp.take(ranked, last, axis=-1)[..., None]
        logits = jnp.where(logits >= threshold, logits, -jnp.inf)
        ranked = jnp.where(ranked >= threshold, ranked, -jnp.inf)
    if top_p is not None:
        probabilities = jax.nn.softmax(ranked)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        # The likeliest token always stays: nothing comes before it.
        threshold = jnp.where(before < top_p, ranked, jnp.inf).min(axis=-1, keepdims=True)
        logits = jnp.where(logits >= threshold, logits, -jnp.inf)
    return logits


def draw(logits: Float[Array, "B V"], sampler: Sampler, keys: Key[Array, " B"]) -> Int[Array, " B"]:
    """One token for every row, of logits that are already filtered.

    Args:
        logits: float32 array (B, V).
        sampler: draws, or takes the likeliest.
        keys: JAX random keys (B,), one a row, so that no row's draw depends on its neighbours.

    Returns:
        An int32 array (B,).
    """
    if sampler.temperature is None:
        return jnp.argmax(logits, axis=-1).astype("int32")
    return jax.vmap(jax.random.categorical)(keys, logits).astype("int32")


def token_log_probs(
    logits: Float[Array, "*rows V"], tokens: Int[Array, "*rows"]
) -> Float[Array, "*rows"]:
    """What the model gave some tokens: the logarithms of their probabilities, no step applied.

    Args:
        logits: float32 array (..., V).
        tokens: integer array (...).

    Returns:
        A float32 array (...).

    >>> logits = jnp.log(jnp.array([0.25, 0.75])) + 10
    >>> round(float(jnp.exp(token_log_probs(logits, jnp.array(1)))), 3)
    0.75
    """
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)
