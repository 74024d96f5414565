"""The gated feed-forward network (chapter 10, "SwiGLU")."""

from typing import Any

import jax
import jax.numpy as jnp
import keras

from mistral_lib.arrays import Array, Float
from mistral_lib.layers.projection import Projection
from mistral_lib.layers.quantizable import Composite


@keras.saving.register_keras_serializable(package="mistral_lib")
class SwiGLU(Composite):
    """`down(silu(gate(x)) * up(x))`: two projections, one of which decides how much of the other.

    Args:
        intermediate_dim: F, the width between `up` and `down`.
        **kwargs: `name`, `dtype` and `trainable`.

    Call arguments:
        hidden_states: float array (B, S, D).

    Returns:
        A float array (B, S, D).

    Source: Shazeer, "GLU Variants Improve Transformer", 2020, equation 6.

    >>> import numpy as np
    >>> SwiGLU(8)(np.ones((2, 3, 4))).shape
    (2, 3, 4)
    """

    def __init__(self, intermediate_dim: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.intermediate_dim = intermediate_dim

    def build(self, input_shape: tuple) -> None:
        policy = self.projection_policy
        self.gate = Projection(self.intermediate_dim, dtype=policy, name="gate")
        self.up = Projection(self.intermediate_dim, dtype=policy, name="up")
        self.down = Projection(input_shape[-1], dtype=policy, name="down")
        self.gate.build(input_shape)
        self.up.build(input_shape)
        self.down.build((*input_shape[:-1], self.intermediate_dim))

    def call(self, hidden_states: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        # silu in float32: in low precision its exponential would be rounded twice.
        gate = jax.nn.silu(jnp.asarray(self.gate(hidden_states), "float32"))
        return self.down(gate.astype(self.compute_dtype) * self.up(hidden_states))

    def compute_output_spec(self, hidden_states: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor(hidden_states.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "intermediate_dim": self.intermediate_dim}
