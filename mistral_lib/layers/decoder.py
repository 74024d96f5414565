"""The block and the residual stream (chapter 11, "The block and the residual stream")."""

import jax
import keras

from mistral_lib.layers.attention import MistralAttention
from mistral_lib.layers.chunks import in_chunks
from mistral_lib.layers.feedforward import SwiGLU
from mistral_lib.layers.quantizable import Composite
from mistral_lib.layers.rms_norm import RMSNorm


@keras.saving.register_keras_serializable(package="mistral_lib")
class MistralDecoder(Composite):
    """One Transformer block: attention, then a feed-forward network, each added to its input.

    Both parts read a normalised copy of the residual stream and add to the stream itself
    (pre-normalisation).

    Args:
        intermediate_dim: F, the width inside the feed-forward network.
        num_query_heads, num_key_value_heads, head_dim: see `MistralAttention`.
        rope_max_wavelength, rope_scaling_factor, sliding_window: see `MistralAttention`.
        dropout: rate, inside attention and on its output.
        layer_norm_epsilon: epsilon of both RMSNorms.
        **kwargs: `name`, `dtype` and `trainable`.

    Call arguments: as `MistralAttention`.

    Returns:
        A float array (B, S, D).
    """

    def __init__(
        self,
        intermediate_dim: int,
        num_query_heads: int,
        num_key_value_heads: int,
        head_dim: int,
        rope_max_wavelength: float = 10000.0,
        rope_scaling_factor: float = 1.0,
        layer_norm_epsilon: float = 1e-6,
        sliding_window: int | None = 512,
        dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.intermediate_dim = intermediate_dim
        self.num_query_heads = num_query_heads
        self.num_key_value_heads = num_key_value_heads
        self.head_dim = head_dim
        self.rope_max_wavelength = rope_max_wavelength
        self.rope_scaling_factor = rope_scaling_factor
        self.layer_norm_epsilon = layer_norm_epsilon
        self.sliding_window = sliding_window
        self.dropout = dropout
        self.rematerialize = False

    def build(self, hidden_states_shape):
        common = {"dtype": self.dtype_policy}
        self.self_attention_layernorm = RMSNorm(
            self.layer_norm_epsilon, name="self_attention_layernorm", **common
        )
        self.self_attention = MistralAttention(
            num_query_heads=self.num_query_heads,
            num_key_value_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            rope_max_wavelength=self.rope_max_wavelength,
            rope_scaling_factor=self.rope_scaling_factor,
            sliding_window=self.sliding_window,
            dropout=self.dropout,
            name="self_attention",
            dtype=self.projection_policy,
        )
        self.self_attention_dropout = keras.layers.Dropout(self.dropout, **common)
        self.feedforward_layernorm = RMSNorm(
            self.layer_norm_epsilon, name="feedforward_layernorm", **common
        )
        self.feedforward = SwiGLU(
            self.intermediate_dim,
            name="feedforward",
            dtype=self.projection_policy,
        )
        for part in (
            self.self_attention_layernorm,
            self.self_attention,
            self.feedforward_layernorm,
            self.feedforward,
        ):
            part.build(hidden_states_shape)

    def call(self, hidden_states, padding_mask=None, positions=None, attend=None, training=None):
        if not (self.rematerialize and training):
            return self._forward(hidden_states, padding_mask, positions, attend, training)
        variables = self.variables

        def forward(weights, hidden_states, padding_mask):
            with keras.StatelessScope(list(zip(variables, weights, strict=True))):
                return self._forward(hidden_states, padding_mask, positions, attend, training)

        weights = [variable.value for variable in variables]
        return _rematerialized(forward)(weights, hidden_states, padding_mask)

    def _forward(self, x, padding_mask, positions, attend, training):
        update = self.self_attention(
            self.self_attention_layernorm(x),
            padding_mask=padding_mask,
            positions=positions,
            attend=attend,
            training=training,
        )
        x = x + self.self_attention_dropout(update, training=training)
        return in_chunks(lambda x: x + self.feedforward(self.feedforward_layernorm(x)), x)

    def compute_output_spec(self, hidden_states, **kwargs):
        return keras.KerasTensor(hidden_states.shape, dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "intermediate_dim": self.intermediate_dim,
            "num_query_heads": self.num_query_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "rope_max_wavelength": self.rope_max_wavelength,
            "rope_scaling_factor": self.rope_scaling_factor,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "sliding_window": self.sliding_window,
            "dropout": self.dropout,
        }


def _rematerialized(function):
    """The function of (weights, x, mask), whose backward pass computes its inside a second time.

    As `jax.checkpoint`; but on CPUs XLA finds that the second computation equals the first, and
    keeps the first's results after all. Here it begins from an `x` that waits for the gradient.
    """

    @jax.custom_vjp
    def run(weights, x, mask):
        return function(weights, x, mask)

    def backward(inputs, gradient):
        weights, x, mask = inputs
        _, pull = jax.vjp(lambda weights, x: function(weights, x, mask), weights, x + 0 * gradient)
        return *pull(gradient), None

    run.defvjp(lambda *inputs: (run(*inputs), inputs), backward)
    return run
