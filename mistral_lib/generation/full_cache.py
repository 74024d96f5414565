"""Generation as in KerasHub, where a sampler calls the model (chapter 16, "Sampling").

`generate` needs this only for what its own loop cannot do: samplers with a loop of their own,
and models whose `call_with_cache` or `generate_step` has been replaced.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras

from mistral_lib.arrays import Array, Float, Int
from mistral_lib.backbone import MistralBackbone
from mistral_lib.forward import forward
from mistral_lib.generation.cache import IN_TILES_FROM
from mistral_lib.generation.compiled import CompiledFunction
from mistral_lib.generation.reading import logits_of
from mistral_lib.layers.banded import attend_by_position
from mistral_lib.layers.dense import masked_attention
from mistral_lib.masks import attention_mask
from mistral_lib.samplers.sampler import GreedySampler

REPLACEABLE = ("call_with_cache", "generate_step", "make_generate_function")


class CachedCalls(keras.Model):
    """The base of `MistralCausalLM` with the methods that KerasHub's samplers need.

    Attributes:
        backbone: the `MistralBackbone`.
        sampler: the sampler that `compile` was given, as an object.
        generate_function: the compiled `generate_step`; after `compile`, `None` until it is needed.
    """

    backbone: MistralBackbone
    sampler: Any = GreedySampler()
    generate_function: Callable | None = None

    def call_with_cache(
        self,
        token_ids: Int[Array, "B S"],
        cache: Float[Array, "B L 2 T K h"],
        cache_update_index: int | Int[Array, ""],
    ) -> tuple[Float[Array, "B S V"], Float[Array, "B S D"], Float[Array, "B L 2 T K h"]]:
        """Reads S tokens of every row, all rows at the same position.

        The cache holds all T positions, also those that have left every window. See
        `mistral_lib.generation.cache.extend` for a cache that holds no more than the window.

        Args:
            token_ids: integers (B, S).
            cache: floats (B, layers, 2, T, key-value heads, head size): keys and values.
            cache_update_index: the position of the first of the S tokens.

        Returns:
            Logits, hidden states, and the cache with the tokens in it.

        Source: `keras_hub.models.MistralCausalLM.call_with_cache`.

        >>> from mistral_lib import MistralBackbone, MistralCausalLM
        >>> model = MistralCausalLM(MistralBackbone(10, 1, 2, 8, 16, 1))
        >>> cache = jnp.zeros((1, 1, 2, 5, 1, 4))
        >>> logits, hidden_states, cache = model.call_with_cache(jnp.array([[1, 2]]), cache, 0)
        >>> logits.shape, hidden_states.shape
        ((1, 2, 10), (1, 2, 8))
        """
        token_ids, layers = jnp.asarray(token_ids), []
        length = token_ids.shape[1]
        positions = cache_update_index + jnp.arange(length)

        def attend(index):
            def attend_block(query, key, value):
                new = jnp.stack([key, value], axis=1).astype(cache.dtype)
                place = (0, 0, cache_update_index, 0, 0)
                layers.append(jax.lax.dynamic_update_slice(cache[:, index], new, place))
                keys, values = layers[-1][:, 0], layers[-1][:, 1]
                window = self.backbone.config.window(index)
                return _attend(query, keys, values, positions, window)

            return attend_block

        rows = jnp.broadcast_to(positions, token_ids.shape)
        hidden_states = forward(self.backbone, token_ids, positions=rows, attend=attend)
        hidden_states = jnp.asarray(hidden_states)
        return logits_of(self.backbone, hidden_states), hidden_states, jnp.stack(layers, axis=1)

    def _build_cache(self, token_ids):
        """Hidden states of some tokens, and the cache that holds them; KerasHub's name."""
        config, (batch, length) = self.backbone.config, token_ids.shape
        shape = (batch, config.num_layers, 2, length, config.num_key_value_heads, config.head_dim)
        cache = jnp.zeros(shape, self.backbone.compute_dtype)
        _, hidden_states, cache = self.call_with_cache(token_ids, cache, 0)
        return hidden_states, cache

    def generate_step(
        self, inputs: dict[str, Any], stop_token_ids: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """Continues a padded batch to its width with the sampler of `compile`; can be compiled.

        Args:
            inputs: `token_ids` and `padding_mask` (B, T), padded on the right.
            stop_token_ids: ids that end a row, as its last token.

        Returns:
            A dictionary of the same form.

        Source: `keras_hub.models.MistralCausalLM.generate_step`.
        """
        token_ids = jnp.asarray(inputs["token_ids"])
        given = jnp.asarray(inputs["padding_mask"], bool)
        hidden_states, cache = self._build_cache(token_ids)

        def next(prompt, cache, index):
            token = jax.lax.dynamic_slice_in_dim(prompt, index - 1, 1, axis=1)
            logits, hidden_states, cache = self.call_with_cache(token, cache, index - 1)
            return jnp.asarray(logits)[:, 0], jnp.asarray(hidden_states)[:, 0], cache

        token_ids = self.sampler(
            next=next,
            prompt=token_ids,
            cache=cache,
            index=given.sum(axis=1).min(),
            mask=given,
            stop_token_ids=stop_token_ids,
            hidden_states=hidden_states,
            model=self,
        )
        if getattr(token_ids, "shape", None) != given.shape:
            raise ValueError(
                f"The sampler of compile must return token ids of the prompt's shape {given.shape},"
                f" but {type(self.sampler).__name__} returned {token_ids!r:.80}."
            )
        padding_mask = jnp.ones_like(given)
        if stop_token_ids is not None:
            stops = (token_ids[..., None] == jnp.array(stop_token_ids)).any(axis=-1) & ~given
            padding_mask = jnp.cumsum(stops, axis=1) - stops == 0
        return {"token_ids": token_ids, "padding_mask": padding_mask}

    def make_generate_function(self) -> Callable:
        """The compiled `generate_step`, in which the sampler's seeds advance with every call."""
        if self.generate_function is None:
            self.generate_function = _compiled(self)
        return self.generate_function

    def _is_replaced(self) -> bool:
        """Whether a subclass, or an assignment to this one model, has replaced a method."""
        return any(
            name in vars(self) or getattr(type(self), name) is not getattr(CachedCalls, name)
            for name in REPLACEABLE
        )


def _attend(query, keys, values, positions, window):
    """Attention of S tokens at their positions over the T slots of a cache, (B, T, K, h)."""
    slots = jnp.arange(keys.shape[1])
    if len(positions) < IN_TILES_FROM:
        return masked_attention(query, keys, values, attention_mask(positions, slots, window))
    return attend_by_position(
        query,
        jnp.swapaxes(keys, 1, 2),
        jnp.swapaxes(values, 1, 2),
        jnp.broadcast_to(positions, (len(keys), len(positions))),
        jnp.broadcast_to(slots, (len(keys), len(slots))),
        window,
        jnp.ones(keys.shape[:2], bool),
    )


def _compiled(model: CachedCalls) -> Callable:
    """A function of inputs and stop tokens that runs a model's `generate_step` compiled by JAX."""

    @functools.cache
    def steps(stop_token_ids):
        def generate_step(inputs, states):
            variables = _variables(model.sampler)
            weights = [(v, v.value) for v in model.backbone.variables]
            with keras.StatelessScope([*weights, *zip(variables, states, strict=True)]) as scope:
                outputs = model.generate_step(inputs, stop_token_ids)
                states = [jnp.asarray(scope.get_current_value(v)) for v in variables]
            return outputs, states

        return CompiledFunction(generate_step, model.backbone, donate=False)

    def generate_function(inputs, stop_token_ids=None):
        variables = _variables(model.sampler)
        stop_token_ids = None if stop_token_ids is None else tuple(stop_token_ids)
        inputs = {name: jnp.asarray(array) for name, array in inputs.items()}
        outputs, states = steps(stop_token_ids)(inputs, [v.value for v in variables])
        for variable, state in zip(variables, states, strict=True):
            variable.assign(state)
        return outputs

    return generate_function


def _variables(sampler: Any) -> list[keras.Variable]:
    return getattr(sampler, "variables", [])
