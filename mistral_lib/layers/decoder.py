"""The block and the residual stream (chapter 11, "The block and the residual stream")."""

from collections.abc import Callable
from typing import Any

import keras

from mistral_lib.arrays import Array, Bool, Float, Int
from mistral_lib.layers.attention import MistralAttention
from mistral_lib.layers.chunks import in_chunks
from mistral_lib.layers.configured import ConfiguredLayer
from mistral_lib.layers.feedforward import SwiGLU
from mistral_lib.layers.rms_norm import RMSNorm


@keras.saving.register_keras_serializable(package="mistral_lib")
class MistralDecoder(ConfiguredLayer):
    """One Transformer block: attention, then a feed-forward network, each added to its input.

    Both parts read a normalised copy of the residual stream and add to the stream itself
    (pre-normalisation).

    Args:
        config: the `MistralConfig` of the model.
        layer: which block this is, for its own window.
        **kwargs: `name`, `dtype` and `trainable`.

    Call arguments: as `MistralAttention`.

    Returns:
        A float array (B, S, D).
    """

    def build(self, input_shape: tuple) -> None:
        config = self.config
        epsilon, policy = config.layer_norm_epsilon, self.dtype_policy
        self.self_attention_layernorm = RMSNorm(
            epsilon, dtype=policy, name="self_attention_layernorm"
        )
        self.self_attention = MistralAttention(
            config, self.layer, dtype=self.projection_policy, name="self_attention"
        )
        self.self_attention_dropout = keras.layers.Dropout(config.dropout, dtype=policy)
        self.feedforward_layernorm = RMSNorm(epsilon, dtype=policy, name="feedforward_layernorm")
        self.feedforward = SwiGLU(
            config.intermediate_dim, dtype=self.projection_policy, name="feedforward"
        )
        for part in (
            self.self_attention_layernorm,
            self.self_attention,
            self.feedforward_layernorm,
            self.feedforward,
        ):
            part.build(input_shape)

    def call(
        self,
        hidden_states: Float[Array, "B S D"],
        padding_mask: Bool[Array, "B S"] | None = None,
        positions: Int[Array, "*#B S"] | None = None,
        text_lengths: Int[Array, "*#B #S"] | None = None,
        attend: Callable | None = None,
        training: bool | None = None,
    ) -> Float[Array, "B S D"]:
        update = self.self_attention(
            self.self_attention_layernorm(hidden_states),
            padding_mask=padding_mask,
            positions=positions,
            text_lengths=text_lengths,
            attend=attend,
            training=training,
        )
        hidden_states = hidden_states + self.self_attention_dropout(update, training=training)
        return in_chunks(
            lambda x: x + self.feedforward(self.feedforward_layernorm(x)), hidden_states
        )

    def compute_output_spec(
        self, hidden_states: keras.KerasTensor, **kwargs: Any
    ) -> keras.KerasTensor:
        return keras.KerasTensor(hidden_states.shape, dtype=self.compute_dtype)
