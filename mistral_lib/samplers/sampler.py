"""Samplers as objects, in KerasHub's protocol (chapter 16, "Sampling").

`generate` has a faster loop of its own for everything that `RandomSampler` and similar samplers can
do. These objects tell that loop what to do; they also work alone, with any function `next`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import keras
import numpy as np

from mistral_lib.arrays import Array, Bool, Float, Int

# `next(prompt, cache, index)`: the logits (B, V) of the token at `index`, the hidden states
# (B, D) of the one before it, and the cache after it.
Next = Callable[[Any, Any, Any], tuple[Any, Any, Any]]


class Sampler:
    """Chooses tokens from probabilities; a subclass says how, in `get_next_token`.

    Args:
        temperature: logits are divided by it.

    Call arguments:
        next: a function of prompt, cache and an index, which returns the logits (B, V) of the token
            at this index, hidden states, and the new cache.
        prompt: integers (B, T); from `index` on they are overwritten, except where `mask` is true.
        cache: any tree of arrays, which only `next` reads; or `None`.
        index: where to begin.
        mask: bools (B, T), true for tokens that stay; by default no token from `index` on stays.
        stop_token_ids: the loop ends when every row has written one of them; `None` for never.
        hidden_states: those of the prompt, for samplers that compare them.
        model: the Keras model whose weights `next` uses, if there is one.

    Returns:
        The prompt, continued to its end.

    Source: `keras_hub.samplers.Sampler`, with the same protocol.

    >>> class Forbidding(Sampler):
    ...     def get_next_token(self, probabilities):
    ...         return jnp.argmax(probabilities.at[:, 2].set(0), axis=-1)
    >>> logits = jnp.array([[0.0, 1.0, 2.0, 0.5]])
    >>> print(Forbidding()(lambda *state: (logits, None, ()), jnp.zeros((1, 4), "int32"), index=2))
    [[0 0 1 1]]
    """

    def __init__(self, temperature: float = 1.0):
        self.temperature = temperature

    @property
    def variables(self) -> list[keras.Variable]:
        """The states of all `keras.random.SeedGenerator` that are attributes of the sampler."""
        held = vars(self).values()
        return [each.state for each in held if isinstance(each, keras.random.SeedGenerator)]

    def __call__(
        self,
        next: Next,
        prompt: Any,
        cache: Any = None,
        index: Any = 0,
        mask: Any = None,
        stop_token_ids: Sequence[int] | None = None,
        hidden_states: Any = None,
        model: Any = None,
    ) -> Any:
        prompt = jnp.asarray(prompt)
        mask = jnp.zeros(prompt.shape, bool) if mask is None else jnp.asarray(mask, bool)

        def unfinished(prompt, cache, index):
            return ~all_stopped(prompt, stop_token_ids, mask)

        def step(prompt, cache, index):
            logits, _, cache = next(prompt, cache, index)
            token = self.get_next_token(self.compute_probabilities(logits))
            return put(prompt, index, token, mask), cache, index + 1

        prompt, _, _ = self.run_loop(
            unfinished,
            step,
            model=model,
            loop_vars=(prompt, () if cache is None else cache, jnp.asarray(index, "int32")),
            maximum_iterations=prompt.shape[1] - index,
        )
        return prompt

    def get_next_token(self, probabilities: Float[Array, "B V"]) -> Int[Array, " B"]:
        """The next token of each row, from the probabilities of all; subclasses define this."""
        raise NotImplementedError(
            f"{type(self).__name__} must define get_next_token(probabilities), which returns a "
            "token id for every row."
        )

    def compute_probabilities(self, logits: Float[Array, "B V"]) -> Float[Array, "B V"]:
        """Softmax of the logits, divided by the temperature, in float32."""
        return jax.nn.softmax(jnp.asarray(logits, "float32") / self.temperature)

    def run_loop(
        self,
        cond: Callable,
        body: Callable,
        model: Any = None,
        loop_vars: Any = None,
        maximum_iterations: Any = None,
    ) -> tuple:
        """`while cond(*loop_vars): loop_vars = body(*loop_vars)`, in which the seeds advance.

        Args:
            cond: a function of the loop's variables, true as long as the loop goes on.
            body: a function of the variables, which returns new ones.
            model: see `Sampler`.
            loop_vars: the variables at the start, a tuple of trees of arrays.
            maximum_iterations: how often `body` may run; by default any number.
        """
        variables = self.variables
        weights = [] if model is None else [(v, v.value) for v in model.variables]

        def unfinished(state):
            done, _, loop_vars = state
            goes_on = cond(*loop_vars)
            return goes_on if maximum_iterations is None else goes_on & (done < maximum_iterations)

        def step(state):
            done, values, loop_vars = state
            with keras.StatelessScope([*weights, *zip(variables, values, strict=True)]) as scope:
                loop_vars = tuple(body(*loop_vars))
                values = [jnp.asarray(scope.get_current_value(v)) for v in variables]
            return done + 1, values, loop_vars

        # Numbers become arrays such as `step` returns, since a loop's types must not change.
        loop_vars = jax.tree.map(jnp.asarray, tuple(loop_vars))
        start = 0, [jnp.asarray(v.value) for v in variables], loop_vars
        _, values, loop_vars = jax.lax.while_loop(unfinished, step, start)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return loop_vars

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"temperature": self.temperature}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A sampler from `get_config()`."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="mistral_lib")
class GreedySampler(Sampler):
    """Takes the likeliest token.

    Args:
        **kwargs: `temperature`, which changes nothing here.

    Source: `keras_hub.samplers.GreedySampler`.
    """

    def get_next_token(self, probabilities: Float[Array, "B V"]) -> Int[Array, " B"]:
        return jnp.argmax(probabilities, axis=-1)


@keras.saving.register_keras_serializable(package="mistral_lib")
class RandomSampler(Sampler):
    """Draws among all tokens.

    Args:
        seed: the first of the seeds from which it draws; `None` for any. Every call goes on to new
            seeds, so a second call draws other tokens.
        **kwargs: `temperature`.

    Source: `keras_hub.samplers.RandomSampler`.
    """

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def get_next_token(self, probabilities: Float[Array, "B V"]) -> Int[Array, " B"]:
        return self._draw(probabilities)

    def next_seed(self) -> int:
        """A seed for the loop of `generate`, a different one at each call."""
        state = np.asarray(self.seed_generator.next()).tolist()
        return int(np.random.SeedSequence(state).generate_state(1)[0]) >> 1

    def _draw(self, probabilities):
        logits = jnp.log(jnp.asarray(probabilities, "float32"))
        drawn = keras.random.categorical(logits, 1, dtype="int32", seed=self.seed_generator)
        return jnp.asarray(drawn)[:, 0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable(package="mistral_lib")
class TopKSampler(RandomSampler):
    """Draws among the k likeliest tokens.

    Args:
        k: how many.
        seed: see `RandomSampler`.
        **kwargs: `temperature`.

    Source: `keras_hub.samplers.TopKSampler`.
    """

    def __init__(self, k: int = 5, seed: int | None = None, **kwargs: Any):
        super().__init__(seed, **kwargs)
        self.k = k

    def get_next_token(self, probabilities: Float[Array, "B V"]) -> Int[Array, " B"]:
        likeliest, tokens = jax.lax.top_k(probabilities, min(self.k, probabilities.shape[-1]))
        return pick(tokens, self._draw(likeliest))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k}


@keras.saving.register_keras_serializable(package="mistral_lib")
class TopPSampler(RandomSampler):
    """Draws among the likeliest tokens whose probabilities together reach `p`.

    Args:
        p: the probability to reach.
        k: how many of the likeliest tokens to look at; `None` for all.
        seed: see `RandomSampler`.
        **kwargs: `temperature`.

    Source: `keras_hub.samplers.TopPSampler`.
    """

    def __init__(
        self, p: float = 0.1, k: int | None = None, seed: int | None = None, **kwargs: Any
    ):
        super().__init__(seed, **kwargs)
        self.p = p
        self.k = k

    def get_next_token(self, probabilities: Float[Array, "B V"]) -> Int[Array, " B"]:
        size = probabilities.shape[-1]
        likeliest, tokens = jax.lax.top_k(probabilities, min(self.k or size, size))
        before = jnp.cumsum(likeliest, axis=-1) - likeliest
        return pick(tokens, self._draw(jnp.where(before <= self.p, likeliest, 0.0)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "p": self.p, "k": self.k}


def pick(tokens: Int[Array, "B M"], index: Int[Array, " B"]) -> Int[Array, " B"]:
    """One of M tokens of each row."""
    return jnp.take_along_axis(tokens, index[:, None], axis=-1)[:, 0]


def put(
    prompt: Int[Array, "B T"],
    index: Int[Array, ""],
    token: Int[Array, " B"],
    mask: Bool[Array, "B T"],
) -> Int[Array, "B T"]:
    """The prompt with a new token at an index, in the rows whose mask is not true there."""
    token = jnp.where(mask[:, index], prompt[:, index], jnp.asarray(token, prompt.dtype))
    return jnp.asarray(prompt).at[:, index].set(token)


def all_stopped(
    prompt: Int[Array, "B T"],
    stop_token_ids: Sequence[int] | None,
    mask: Bool[Array, "B T"],
) -> Bool[Array, ""]:
    """Whether every row has a stop token that was not there before."""
    if stop_token_ids is None:
        return jnp.array(False)
    stops = (prompt[..., None] == jnp.array(stop_token_ids, "int32")).any(axis=-1) & ~mask
    return stops.any(axis=1).all()
