"""Keras's calibrated quantization of one matrix (chapter 18, "Quantization")."""

from typing import Any

import jax.numpy as jnp
import keras
import numpy as np
from keras.src.quantizers.gptq import GPTQ

from mistral_lib.arrays import Array, Float, Int


class CalibratedMatrix:
    """A matrix that GPTQ rounds to 4 bits according to the inputs that it is multiplied by.

    Relies on the class `GPTQ` of Keras, its `update_hessian_with_batch` and its
    `quantize_and_correct_layer`, and on the variables of a `Dense` layer quantized by it:
    `quantized_kernel` (pairs of columns in a byte), `kernel_scale` and `kernel_zero`, all
    transposed (seen in 3.13 to 3.15). Keras's own loop over a model cannot be used: it watches the
    `call` of layers that it has made to run `quantized_call`, so it sees no input at all.

    Args:
        kernel: float array (D, N).
        config: a `keras.quantizers.GPTQConfig`.

    >>> random = np.random.default_rng(0)
    >>> kernel, inputs = random.normal(size=(8, 6)), random.normal(size=(20, 8))
    >>> matrix = CalibratedMatrix(kernel, keras.quantizers.GPTQConfig(None, None, group_size=4))
    >>> matrix.see(inputs)
    >>> values, scale, zero = matrix.round()
    >>> values.shape, scale.shape, int(values.min()), int(values.max())
    ((8, 6), (2, 6), -8, 7)
    """

    def __init__(self, kernel: Any, config: Any):
        layer: Any = keras.layers.Dense(kernel.shape[1], use_bias=False, dtype="float32")
        layer.build((None, kernel.shape[0]))
        layer.kernel.assign(kernel)
        layer.quantize("gptq", config=config)
        self._layer = layer
        self._gptq = GPTQ(self._layer, config)

    def see(self, inputs: Float[Array, "*rows D"]) -> None:
        """Takes some inputs (..., D) into account."""
        self._gptq.update_hessian_with_batch(jnp.asarray(inputs, "float32"))

    def round(
        self,
    ) -> tuple[Int[np.ndarray, "D N"], Float[np.ndarray, "G N"], Int[np.ndarray, "G N"]]:
        """Values from -8 to 7, scale and zero: an element is `(value - zero) * scale`."""
        self._gptq.quantize_and_correct_layer()
        layer = self._layer
        values = keras.quantizers.unpack_int4(
            layer.quantized_kernel.value, layer.units, axis=0, dtype="uint8"
        )
        values, zero = (
            np.asarray(array).astype("int8").T - np.int8(8)
            for array in (values, layer.kernel_zero.value)
        )
        return values, np.asarray(layer.kernel_scale.value, "float32").T, zero
