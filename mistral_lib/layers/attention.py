"""Many query heads over fewer key heads (chapter 6, "Many heads, fewer keys")."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import keras
from jax.typing import DTypeLike

from mistral_lib.arrays import Array, Bool, Float, Int, Shaped
from mistral_lib.config import MistralConfig
from mistral_lib.layers.banded import banded_attention
from mistral_lib.layers.chunks import in_chunks
from mistral_lib.layers.configured import ConfiguredLayer
from mistral_lib.layers.dense import dense_attention
from mistral_lib.layers.fused import fused_attention, fused_is_available
from mistral_lib.layers.projection import Projection
from mistral_lib.layers.rotary import query_scale, rotary_angles, rotate, text_positions

PATHS = {"dense": dense_attention, "banded": banded_attention, "fused": fused_attention}


def choose_path(length: int, dtype: DTypeLike, head_dim: int) -> str:
    """The attention path for one shape: "fused", "banded" or "dense".

    Fused where the GPU has it; otherwise banded from 256 tokens on, where it is faster even if the
    window shows everything, and dense below.

    >>> choose_path(255, "float32", 32), choose_path(256, "float32", 32)
    ('dense', 'banded')
    """
    if fused_is_available(dtype, head_dim):
        return "fused"
    return "banded" if length >= 256 else "dense"


@keras.saving.register_keras_serializable(package="mistral_lib")
class MistralAttention(ConfiguredLayer):
    """Grouped-query attention with rotary positions and a sliding window.

    H query heads share K key-value heads in groups of G = H / K. The attribute `attention_path` is
    "auto" (see `choose_path`) or forces "dense", "banded" or "fused"; all give the same result.

    Args:
        config: the `MistralConfig` of the model.
        layer: which of its layers this is, for the layer's own window.
        attention_path: the attribute's first value.
        **kwargs: `name`, `dtype` and `trainable`.

    Call arguments:
        hidden_states: float array (B, S, D).
        padding_mask: bool array (B, S), true for real tokens.
        positions: integer array (S,) or (B, S), absolute; by default 0 to S - 1.
        text_lengths: integer array (B, 1) or (B, S), beside `positions`: see `rotary_angles`. By
            default what `padding_mask` says.
        attend: a function of query (B, S, K, G, h), key and value (B, S, K, h), which replaces
            attention over the sequence itself. Generation passes one that knows the cache.
        training: whether dropout is on.

    Returns:
        A float array (B, S, D).

    Source: Jiang et al., "Mistral 7B", 2023; Ainslie et al., "GQA", 2023.
    """

    def __init__(
        self, config: MistralConfig, layer: int = 0, attention_path: str = "auto", **kwargs: Any
    ):
        super().__init__(config, layer, **kwargs)
        self.attention_path = attention_path

    @property
    def sliding_window(self) -> int | None:
        """The number of tokens that a query sees; `None` for all."""
        return self.config.window(self.layer)

    def build(self, input_shape: tuple) -> None:
        config = self.config
        sizes = {
            "query": config.num_query_heads * config.head_dim,
            "key": config.num_key_value_heads * config.head_dim,
            "value": config.num_key_value_heads * config.head_dim,
            "attention_output": input_shape[-1],
        }
        heads_shape = (*input_shape[:-1], sizes["query"])
        for name, units in sizes.items():
            projection = Projection(units, dtype=self.projection_policy, name=name)
            projection.build(heads_shape if name == "attention_output" else input_shape)
            setattr(self, name, projection)
        self.dropout_layer = keras.layers.Dropout(config.dropout, dtype=self.dtype_policy)

    def call(
        self,
        hidden_states: Float[Array, "B S D"],
        padding_mask: Bool[Array, "B S"] | None = None,
        positions: Int[Array, "*#B S"] | None = None,
        text_lengths: Int[Array, "*#B #S"] | None = None,
        attend: Callable | None = None,
        training: bool | None = None,
    ) -> Float[Array, "B S D"]:
        config = self.config
        batch, length = hidden_states.shape[:2]
        if positions is None:
            positions = jnp.arange(length)
            if config.rope_scaling is not None and padding_mask is not None:
                positions, text_lengths = text_positions(padding_mask)
        angles = rotary_angles(
            positions,
            config.head_dim,
            config.rope_max_wavelength,
            config.rope_scaling_factor,
            config.rope_scaling,
            text_lengths,
        )
        angles = jnp.broadcast_to(angles, (batch, length, config.head_dim // 2))
        query, key, value = in_chunks(self._project, hidden_states, angles)
        scale = query_scale(positions, config.rope_scaling)
        if scale is not None:
            query = (query * scale[..., None, None, None]).astype(query.dtype)

        if attend is None:
            path = self.attention_path
            if path == "auto":
                path = choose_path(length, value.dtype, config.head_dim)
            output = PATHS[path](query, key, value, padding_mask, self.sliding_window)
        else:
            output = attend(query, key, value)
        output = self.dropout_layer(output, training=training)
        output = output.reshape(batch, length, config.num_query_heads * config.head_dim)
        return in_chunks(self.attention_output, output)

    def _project(
        self, hidden_states: Float[Array, "B S D"], angles: Shaped[Array, "B S p"]
    ) -> tuple[Float[Array, "B S K G h"], Float[Array, "B S K h"], Float[Array, "B S K h"]]:
        """Query (B, S, K, G, h) and key (B, S, K, h), turned by their angles, and value."""
        config, tokens = self.config, hidden_states.shape[:2]
        heads = (*tokens, config.num_query_heads, config.head_dim)
        key_heads = (*tokens, config.num_key_value_heads, config.head_dim)
        query = rotate(self.query(hidden_states).reshape(heads), angles)
        query = query.reshape(*key_heads[:3], config.num_groups, config.head_dim)
        key = rotate(self.key(hidden_states).reshape(key_heads), angles)
        return query, key, self.value(hidden_states).reshape(key_heads)

    def compute_output_spec(
        self, hidden_states: keras.KerasTensor, **kwargs: Any
    ) -> keras.KerasTensor:
        # The call branches on S, which is unknown while a functional model is being built.
        return keras.KerasTensor(hidden_states.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        forced = {} if self.attention_path == "auto" else {"attention_path": self.attention_path}
        return {**super().get_config(), **forced}
