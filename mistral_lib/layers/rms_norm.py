"""Root-mean-square normalisation (chapter 9, "RMSNorm")."""

from typing import Any

import jax
import jax.numpy as jnp
import keras

from mistral_lib.arrays import Array, Float


@keras.saving.register_keras_serializable(package="mistral_lib")
class RMSNorm(keras.layers.Layer):
    """Divides every vector by its root mean square, then scales each feature.

    `x / sqrt(mean(x**2) + epsilon) * scale`, computed in float32 whatever the dtype policy: the
    square of a float16 activation above 255 would be infinite.

    Args:
        epsilon: added to the mean square, so that a zero vector stays zero.
        **kwargs: `name`, `dtype` and `trainable`, as for every Keras layer.

    Call arguments:
        hidden_states: float array (..., D).

    Returns:
        An array of the same shape, in the policy's compute dtype.

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, equation 4.

    >>> import numpy as np
    >>> norm = RMSNorm(epsilon=0.0)
    >>> print(np.array(norm(np.array([[3.0, 4.0]]))).round(4))  # divided by sqrt(12.5)
    [[0.8485 1.1314]]
    """

    def __init__(self, epsilon: float = 1e-6, **kwargs: Any):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape: tuple) -> None:
        # autocast=False: a mixed policy would round the float32 scale before it is used.
        self.scale = self.add_weight(
            name="scale", shape=(input_shape[-1],), initializer="ones", autocast=False
        )

    def call(self, hidden_states: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        x = jnp.asarray(hidden_states, "float32")
        mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(mean_square + self.epsilon)
        return (x * jnp.asarray(self.scale, "float32")).astype(self.compute_dtype)

    def compute_output_spec(self, hidden_states: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor(hidden_states.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}
