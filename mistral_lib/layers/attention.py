"""Many query heads over fewer key heads (chapter 6, "Many heads, fewer keys")."""

import jax.numpy as jnp
import keras

from mistral_lib.layers.banded import banded_attention
from mistral_lib.layers.chunks import in_chunks
from mistral_lib.layers.dense import dense_attention
from mistral_lib.layers.fused import fused_attention, fused_is_available
from mistral_lib.layers.projection import Projection
from mistral_lib.layers.quantizable import Composite
from mistral_lib.layers.rotary import rotary_angles, rotate

PATHS = {"dense": dense_attention, "banded": banded_attention, "fused": fused_attention}


def choose_path(length: int, dtype, head_dim: int) -> str:
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
class MistralAttention(Composite):
    """Grouped-query attention with rotary positions and a sliding window.

    H query heads share K key-value heads in groups of G = H / K. The attribute `attention_path` is
    "auto" (see `choose_path`) or forces "dense", "banded" or "fused"; all give the same result.

    Args:
        num_query_heads: H.
        num_key_value_heads: K, a divisor of H.
        head_dim: h, even.
        rope_max_wavelength: base of the rotary frequencies.
        rope_scaling_factor: positions are divided by it.
        sliding_window: number of tokens that a query sees, itself included; `None` for all.
        dropout: rate, applied to the heads' outputs before their projection.
        **kwargs: `name`, `dtype` and `trainable`.

    Call arguments:
        hidden_states: float array (B, S, D).
        padding_mask: bool array (B, S), true for real tokens.
        positions: integer array (S,) or (B, S), absolute; by default 0 to S - 1.
        attend: a function of query (B, S, K, G, h), key and value (B, S, K, h), which replaces
            attention over the sequence itself. Generation passes one that knows the cache.
        training: whether dropout is on.

    Returns:
        A float array (B, S, D).

    Source: Jiang et al., "Mistral 7B", 2023; Ainslie et al., "GQA", 2023.
    """

    def __init__(
        self,
        num_query_heads: int,
        num_key_value_heads: int,
        head_dim: int,
        rope_max_wavelength: float = 10000.0,
        rope_scaling_factor: float = 1.0,
        sliding_window: int | None = 512,
        dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_query_heads = num_query_heads
        self.num_key_value_heads = num_key_value_heads
        self.head_dim = head_dim
        self.rope_max_wavelength = rope_max_wavelength
        self.rope_scaling_factor = rope_scaling_factor
        self.sliding_window = sliding_window
        self.dropout = dropout
        self.attention_path = "auto"

    def build(self, hidden_states_shape):
        sizes = {
            "query": self.num_query_heads * self.head_dim,
            "key": self.num_key_value_heads * self.head_dim,
            "value": self.num_key_value_heads * self.head_dim,
            "attention_output": hidden_states_shape[-1],
        }
        heads_shape = (*hidden_states_shape[:-1], sizes["query"])
        for name, units in sizes.items():
            projection = Projection(units, dtype=self.projection_policy, name=name)
            projection.build(heads_shape if name == "attention_output" else hidden_states_shape)
            setattr(self, name, projection)
        self.dropout_layer = keras.layers.Dropout(self.dropout, dtype=self.dtype_policy)

    def call(self, hidden_states, padding_mask=None, positions=None, attend=None, training=None):
        batch, length = hidden_states.shape[:2]
        angles = rotary_angles(
            jnp.arange(length) if positions is None else positions,
            self.head_dim,
            self.rope_max_wavelength,
            self.rope_scaling_factor,
        )
        angles = jnp.broadcast_to(angles, (batch, length, self.head_dim // 2))
        query, key, value = in_chunks(self._project, hidden_states, angles)

        if attend is None:
            path = self.attention_path
            if path == "auto":
                path = choose_path(length, value.dtype, self.head_dim)
            output = PATHS[path](query, key, value, padding_mask, self.sliding_window)
        else:
            output = attend(query, key, value)
        output = self.dropout_layer(output, training=training)
        output = output.reshape(batch, length, self.num_query_heads * self.head_dim)
        return in_chunks(self.attention_output, output)

    def _project(self, hidden_states, angles):
        """Query (B, S, K, G, h) and key (B, S, K, h), turned by their angles, and value."""
        tokens = hidden_states.shape[:2]
        key_heads = (*tokens, self.num_key_value_heads, self.head_dim)
        groups = self.num_query_heads // self.num_key_value_heads
        query = self.query(hidden_states).reshape(*tokens, self.num_query_heads, self.head_dim)
        query = rotate(query, angles).reshape(*key_heads[:3], groups, self.head_dim)
        key = rotate(self.key(hidden_states).reshape(key_heads), angles)
        return query, key, self.value(hidden_states).reshape(key_heads)

    def compute_output_spec(self, hidden_states, **kwargs):
        # The call branches on S, which is unknown while a functional model is being built.
        return keras.KerasTensor(hidden_states.shape, dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "num_query_heads": self.num_query_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "rope_max_wavelength": self.rope_max_wavelength,
            "rope_scaling_factor": self.rope_scaling_factor,
            "sliding_window": self.sliding_window,
            "dropout": self.dropout,
        }
