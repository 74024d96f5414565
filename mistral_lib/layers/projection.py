"""A linear map of every token (chapter 14, "LoRA")."""

from typing import Any

import jax.numpy as jnp
import keras

from mistral_lib.arrays import Array, Float, Float32
from mistral_lib.keras_inside import matrix_attribute, remove_weight, track_again, unlocked
from mistral_lib.layers.quantizable import Quantizable
from mistral_lib.layers.quantized import matmul


@keras.saving.register_keras_serializable(package="mistral_lib")
class Projection(Quantizable, keras.layers.EinsumDense):  # pyright: ignore[reportIncompatibleMethodOverride]  # in Keras, shapes have other names
    """`x @ kernel` for every token, with a 2-D kernel and no bias, and LoRA on demand.

    Heads are made by a reshape afterwards, never by a 3-D kernel: the LoRA factors of a 2-D kernel
    have the shapes of the paper and of PEFT, and decoding is a plain matrix-vector product.

    With LoRA the output is `x @ kernel + (alpha / rank) * (x @ A) @ B`. Keras's own layer adds
    `A @ B` to the kernel first: that is a second kernel in memory, and in bfloat16 a small update
    is rounded away. Here A and B stay float32, and only the sum is rounded. The kernel may be
    quantized, before or after.

    Args:
        units: size of the output.
        **kwargs: `name`, `dtype`, `trainable` and `kernel_initializer`, which by default draws
            from a normal distribution of standard deviation 0.02.

    Call arguments:
        inputs: float array (B, S, D).

    Returns:
        A float array (B, S, units).

    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, section 4.1.

    >>> import numpy as np
    >>> layer = Projection(6)
    >>> layer(np.ones((2, 3, 4))).shape
    (2, 3, 6)
    >>> layer.enable_lora(rank=2)
    >>> layer.lora_kernel_a.shape, layer.lora_kernel_b.shape
    ((4, 2), (2, 6))
    """

    def __init__(self, units: int, **kwargs: Any):
        kwargs.setdefault("kernel_initializer", keras.initializers.RandomNormal(stddev=0.02))
        super().__init__("bsd,df->bsf", output_shape=(None, units), **kwargs)
        self.units = units

    def build(self, input_shape: tuple) -> None:
        self.input_dim = input_shape[-1]
        super().build(input_shape)

    @property
    def matrices(self) -> dict:
        """The kernel, and how Keras stores it."""
        return {"kernel": {"pairs": "columns"}}

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(D, units)."""
        return self.input_dim, self.units

    def call(
        self, inputs: Float[Array, "B S D"], training: bool | None = None
    ) -> Float[Array, "B S units"]:
        inputs = jnp.asarray(inputs, self.compute_dtype)
        # As rows of one matrix: for a batch of matrices XLA transposes the gradient's activations.
        rows = inputs.reshape(-1, self.input_dim)
        if self.quantization_mode is not None:
            outputs = matmul(rows, self.quantized_matrix("kernel"))
        else:
            kernel = jnp.asarray(self.kernel, self.compute_dtype)
            dtype = "float32" if self.lora_enabled else None
            outputs = jnp.matmul(rows, kernel, preferred_element_type=dtype)
        if self.lora_enabled:
            outputs += self._lora_update(rows)
        return outputs.astype(self.compute_dtype).reshape(*inputs.shape[:-1], self.units)

    quantized_call = call

    @property
    def kernel(self) -> keras.Variable:
        """The variable of the base kernel, as stored. Keras would return it merged with LoRA."""
        return getattr(self, matrix_attribute("kernel"))

    @property
    def lora_scale(self) -> float:
        """What LoRA's update is multiplied by; 0 without LoRA."""
        alpha, rank = self.lora_alpha, self.lora_rank
        return 0.0 if alpha is None or rank is None else alpha / rank

    def lora_factors(self) -> list[keras.Variable]:
        """The variables A and B, or nothing without LoRA."""
        return [self.lora_kernel_a, self.lora_kernel_b] if self.lora_enabled else []

    def _lora_update(self, inputs):
        """What LoRA adds to the output, float32 (..., units)."""
        inner = jnp.asarray(inputs, "float32") @ jnp.asarray(self.lora_kernel_a)  # (..., rank)
        return self.lora_scale * (inner @ jnp.asarray(self.lora_kernel_b))

    def enable_lora(self, rank: int, lora_alpha: float | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # Keras's takes initializers too
        """Freezes the kernel and adds the trainable factors A (D, rank) and B (rank, units).

        B starts at zero, so that the output is unchanged.

        Args:
            rank: inner size of the factors.
            lora_alpha: the update is multiplied by `lora_alpha / rank`; by default `rank`.
        """
        if self.lora_enabled:
            raise ValueError(f"The layer {self.path} has LoRA of rank {self.lora_rank} already.")
        # autocast=False: a low-precision policy would round the factors before their use.
        common = {"dtype": "float32", "autocast": False}
        with unlocked(self):
            self.lora_kernel_a = self.add_weight(
                (self.input_dim, rank), "he_uniform", name="lora_kernel_a", **common
            )
            self.lora_kernel_b = self.add_weight(
                (rank, self.units), "zeros", name="lora_kernel_b", **common
            )
        self.kernel.trainable = False
        self.untrained = ("kernel",)  # once it is float, if it is quantized now
        self.lora_enabled = True
        self.lora_rank = rank
        self.lora_alpha = rank if lora_alpha is None else lora_alpha

    def merged_kernel(self) -> Float32[Array, "D units"]:
        """The kernel and LoRA's update, which `merge_lora` rounds to the kernel's dtype."""
        update = jnp.asarray(self.lora_kernel_a) @ jnp.asarray(self.lora_kernel_b)
        return jnp.asarray(self.kernel.value, "float32") + self.lora_scale * update

    def merge_lora(self) -> None:
        """Adds the update to the kernel, in float32, and takes LoRA off again.

        Raises:
            ValueError: the kernel's dtype cannot hold the sum. Nothing has changed then.
        """
        merged = self.merged_kernel()
        if not jnp.isfinite(merged.astype(self.variable_dtype)).all():
            largest = float(jnp.abs(merged).max())
            raise ValueError(
                f"LoRA of {self.path} cannot be merged: in {self.variable_dtype} the kernel would "
                f"not be finite, since its largest number would be {largest:g}. "
                "Nothing has changed. Load model and adapter with dtype='bfloat16' or 'float32', "
                "or keep LoRA beside the kernels."
            )
        self.kernel.assign(merged)
        with unlocked(self):
            remove_weight(self, "lora_kernel_a")
            remove_weight(self, "lora_kernel_b")
        self.kernel.trainable = True
        self.lora_enabled = False
        self.lora_rank = self.lora_alpha = None

    def dequantize(self) -> None:
        """See `MistralBackbone.dequantize`."""
        super().dequantize()
        with unlocked(self):
            for factor in self.lora_factors():
                track_again(self, factor)  # as if the layer had never been quantized

    def save_own_variables(self, store: Any) -> None:
        # Keras would save the merged kernel. The base stays as it is, the factors beside it.
        enabled, self.lora_enabled = self.lora_enabled, False
        try:
            super().save_own_variables(store)
        finally:
            self.lora_enabled = enabled
        if enabled:
            store["lora_kernel_a"] = self.lora_kernel_a
            store["lora_kernel_b"] = self.lora_kernel_b

    def load_own_variables(self, store: Any) -> None:
        super().load_own_variables(store)  # which sets the factors to zero
        if self.lora_enabled and "lora_kernel_a" in store:
            self.lora_kernel_a.assign(store["lora_kernel_a"])
            self.lora_kernel_b.assign(store["lora_kernel_b"])

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for name in ("equation", "output_shape", "bias_axes", "activation"):
            config.pop(name, None)
        return {**config, "units": self.units}
