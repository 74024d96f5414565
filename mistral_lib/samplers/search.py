"""Samplers that look at several continuations at a time (chapter 16, "Sampling").

`generate(num_beams=...)` has a beam search that is faster and has more options: see
`mistral_lib.generation.beam`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras

from mistral_lib.arrays import Array, Float, Int
from mistral_lib.samplers.sampler import Next, Sampler, all_stopped, put


@keras.saving.register_keras_serializable(package="mistral_lib")
class BeamSampler(Sampler):
    """Keeps the likeliest continuations, and returns the best of them.

    Args:
        num_beams: how many.
        return_all_beams: whether to return all, (B, num_beams, T), the best first, and the
            logarithms of their probabilities, (B, num_beams).
        **kwargs: `temperature`.

    Source: `keras_hub.samplers.BeamSampler`.
    """

    def __init__(self, num_beams: int = 5, return_all_beams: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_beams = num_beams
        self.return_all_beams = return_all_beams

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
        batch, beams = prompt.shape[0], self.num_beams
        mask = jnp.zeros(prompt.shape, bool) if mask is None else jnp.asarray(mask, bool)
        prompt, mask, cache = copies((prompt, mask, () if cache is None else cache), beams)
        # Only one beam counts at first: equal beams would all choose the same tokens.
        first = jnp.where(jnp.arange(beams) == 0, 0.0, -1e9)

        def unfinished(prompt, cache, index, scores):
            return ~all_stopped(prompt, stop_token_ids, mask)

        def step(prompt, cache, index, scores):
            logits, _, cache = next(prompt, cache, index)
            added = jnp.log(self.compute_probabilities(logits))
            size = added.shape[-1]
            candidates = scores.reshape(-1, 1) + added
            scores, best = jax.lax.top_k(candidates.reshape(batch, -1), beams)
            prompt, cache = chosen((prompt, cache), best // size)
            return put(prompt, index, (best % size).ravel(), mask), cache, index + 1, scores

        prompt, _, _, scores = self.run_loop(
            unfinished,
            step,
            model=model,
            loop_vars=(prompt, cache, jnp.asarray(index, "int32"), jnp.tile(first, (batch, 1))),
            maximum_iterations=prompt.shape[1] - index,
        )
        order = jnp.argsort(-scores, axis=1)
        prompts = chosen(prompt, order).reshape(batch, beams, -1)
        if self.return_all_beams:
            return prompts, jnp.take_along_axis(scores, order, axis=1)
        return prompts[:, 0]

    def get_config(self) -> dict[str, Any]:
        config = {"num_beams": self.num_beams, "return_all_beams": self.return_all_beams}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="mistral_lib")
class ContrastiveSampler(Sampler):
    """Prefers likely tokens whose hidden states do not resemble earlier ones.

    The score of a token is `(1 - alpha) * probability - alpha * similarity`, where the similarity
    is the largest cosine between its hidden state and those of the tokens before it.

    Args:
        k: how many of the likeliest tokens are tried.
        alpha: the weight of the similarity.
        **kwargs: `temperature`.

    Source: Su et al., "A Contrastive Framework for Neural Text Generation", 2022;
    `keras_hub.samplers.ContrastiveSampler`.
    """

    def __init__(self, k: int = 5, alpha: float = 0.6, **kwargs: Any):
        super().__init__(**kwargs)
        self.k = k
        self.alpha = alpha

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
        if hidden_states is None:
            raise ValueError("hidden_states must be those of the prompt, (B, T, D), but are None.")
        prompt, index = jnp.asarray(prompt), jnp.asarray(index, "int32")
        mask = jnp.zeros(prompt.shape, bool) if mask is None else jnp.asarray(mask, bool)
        logits, _, cache = next(prompt, cache, index)

        def unfinished(prompt, cache, index, logits, hidden_states):
            return ~all_stopped(prompt, stop_token_ids, mask)

        def step(prompt, cache, index, logits, hidden_states):
            k = min(self.k, logits.shape[-1])
            likeliest, tokens = jax.lax.top_k(self.compute_probabilities(logits), k)
            tried, tried_mask, tried_cache = copies((prompt, mask, cache), k)
            tried = put(tried, index, tokens.ravel(), tried_mask)
            logits, states, tried_cache = next(tried, tried_cache, index + 1)
            states = states.reshape(-1, k, states.shape[-1])
            similar = similarity(hidden_states, states)  # (B, k, T)
            similar = jnp.where(jnp.arange(prompt.shape[1]) < index, similar, -1.0).max(axis=-1)
            scores = (1 - self.alpha) * likeliest - self.alpha * similar
            best = jnp.argmax(scores, axis=1)[:, None]
            prompt, cache, logits = chosen((tried, tried_cache, logits), best)
            state = jnp.take_along_axis(states, best[..., None], axis=1)[:, 0]
            state = state.astype(hidden_states.dtype)
            return prompt, cache, index + 1, logits, hidden_states.at[:, index].set(state)

        prompt, *_ = self.run_loop(
            unfinished,
            step,
            model=model,
            loop_vars=(prompt, () if cache is None else cache, index, logits, hidden_states),
            maximum_iterations=prompt.shape[1] - index,
        )
        return prompt

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k, "alpha": self.alpha}


def copies(tree: Any, number: int) -> Any:
    """A tree of arrays with `number` copies of every row, next to one another."""
    return jax.tree.map(lambda array: jnp.repeat(array, number, axis=0), tree)


def chosen(tree: Any, index: Int[Array, "B M"]) -> Any:
    """The copies of each row that an index selects, M of each: a tree of B * M rows."""
    batch = index.shape[0]

    def choose(array):
        per_row = array.shape[0] // batch
        rows = jnp.arange(batch)[:, None] * per_row + index
        return array[rows.ravel()]

    return jax.tree.map(choose, tree)


def similarity(before: Float[Array, "B T D"], new: Float[Array, "B k D"]) -> Float[Array, "B k T"]:
    """The cosine between each new hidden state and each earlier one."""
    before, new = (jnp.asarray(states, "float32") for states in (before, new))
    sizes = [jnp.linalg.norm(states, axis=-1) for states in (before, new)]
    products = jnp.einsum("btd,bkd->bkt", before, new)
    return products / jnp.maximum(sizes[1][:, :, None] * sizes[0][:, None], 1e-30)
