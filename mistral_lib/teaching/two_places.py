"""A task that takes two things from two places, for one head or for several (used by chapter 6).

Each text has a few tokens, and each token carries four numbers. One token is marked as the first
that is asked for, another as the second. At the end, attention has to write the numbers of the
first, and then those of the second.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mistral_lib.arrays import Array, Float

TOKENS, NUMBERS, TEXTS = 6, 4, 512
STEPS, RATE, DECAYS = 300, 0.03, (0.9, 0.99)

Weights = dict[str, Array]


def texts(
    seed: int, number: int = TEXTS
) -> tuple[Float[np.ndarray, "n T D"], Float[np.ndarray, "n o"]]:
    """Tokens, with their two marks as the last features, and what is to be written.

    >>> tokens, wanted = texts(0, number=1)
    >>> first = tokens[0, :, -2].argmax()
    >>> bool((wanted[0, :4] == tokens[0, first, :4]).all())
    True
    """
    random = np.random.default_rng(seed)
    numbers = random.normal(size=(number, TOKENS, NUMBERS))
    places = random.permuted(np.tile(np.arange(TOKENS), (number, 1)), axis=1)[:, :2]
    marks = np.eye(TOKENS)[places].swapaxes(1, 2)
    wanted = np.take_along_axis(numbers, places[..., None], axis=1).reshape(number, -1)
    return np.concatenate([numbers, marks], axis=2).astype("float32"), wanted.astype("float32")


def written(weights: Weights, tokens: Float[Array, "n T D"]) -> Float[Array, "n o"]:
    """What all heads together write: each has a query, and projections like those of a model."""
    key = jnp.einsum("ntd,dhk->nthk", tokens, weights["key"])
    value = jnp.einsum("ntd,dhk->nthk", tokens, weights["value"])
    scores = jnp.einsum("hk,nthk->nht", weights["query"], key) / key.shape[-1] ** 0.5
    collected = jnp.einsum("nht,nthk->nhk", jax.nn.softmax(scores), value)
    return jnp.einsum("nhk,hko->no", collected, weights["output"])


def lost(heads: int, size: int, seeds: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    """The share of what is asked for that is lost, after training, on new texts.

    It is the mean square of the error divided by that of the right answer: 1 for a model that
    writes nothing, 0 for a perfect one.

    Args:
        heads: how many heads.
        size: how many numbers the query, the key and the value of each have.
        seeds: of the first weights and of the texts, one for each run.

    Returns:
        A float32 array with a number for each seed.

    >>> lost(2, 4, seeds=(0,)) < 0.05
    array([ True])
    """
    starts = [_start(heads, size, seed) for seed in seeds]
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *starts)
    seen = [texts(seed) for seed in seeds]
    unseen = [texts(1000 + seed) for seed in seeds]
    return np.asarray(
        _train(stacked, *(tuple(map(np.stack, zip(*rows))) for rows in (seen, unseen)))
    )


def _start(heads, size, seed) -> Weights:
    random = np.random.default_rng(seed)
    width = NUMBERS + 2
    shapes = {
        "query": (heads, size),
        "key": (width, heads, size),
        "value": (width, heads, size),
        "output": (heads, size, 2 * NUMBERS),
    }
    return {
        name: jnp.asarray(random.normal(size=shape) / shape[0] ** 0.5, "float32")
        for name, shape in shapes.items()
    }


def _loss(weights, tokens, wanted):
    return ((written(weights, tokens) - wanted) ** 2).mean() / (wanted**2).mean()


@jax.jit
@jax.vmap
def _train(weights, seen, unseen):
    """Adam on all texts at once, and the loss on other texts."""

    def step(state, number):
        weights, means, squares = state
        gradients = jax.grad(_loss)(weights, *seen)
        means = jax.tree.map(lambda m, g: DECAYS[0] * m + (1 - DECAYS[0]) * g, means, gradients)
        squares = jax.tree.map(
            lambda s, g: DECAYS[1] * s + (1 - DECAYS[1]) * g**2, squares, gradients
        )
        first, second = (1 - decay ** (number + 1) for decay in DECAYS)
        weights = jax.tree.map(
            lambda w, m, s: w - RATE * (m / first) / (jnp.sqrt(s / second) + 1e-8),
            weights,
            means,
            squares,
        )
        return (weights, means, squares), None

    nothing = jax.tree.map(jnp.zeros_like, weights)
    (weights, _, _), _ = jax.lax.scan(step, (weights, nothing, nothing), jnp.arange(STEPS))
    return _loss(weights, *unseen)
