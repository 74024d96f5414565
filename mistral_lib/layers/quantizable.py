"""Which layers are quantized, and which are made of such (chapter 18, "Quantization")."""

from typing import Any

import jax.numpy as jnp
import keras
import numpy as np

from mistral_lib.checks import check_keras_for
from mistral_lib.keras_inside import (
    mark_as_float,
    matrix_attribute,
    remove_weight,
    unlocked,
    without_autocast,
)
from mistral_lib.layers.quantized import KernelLayout, QuantizedKernel, dequantize, quantize

MODES = ("int8", "int4")
INT4_BLOCK_SIZE = 128  # Keras's default


def dtype_policy(policy: Any) -> keras.DTypePolicy:
    """`keras.dtype_policies.get`, with a sentence of our own where Keras is too old for int4.

    >>> dtype_policy("bfloat16").name
    'bfloat16'
    """
    check_keras_for(policy)
    return keras.dtype_policies.get(policy)


def float_policy(policy: str | keras.DTypePolicy) -> keras.DTypePolicy:
    """What a quantized dtype policy was made from; a policy that is not quantized, itself.

    >>> float_policy("int8_from_bfloat16").name, float_policy("mixed_bfloat16").name
    ('bfloat16', 'mixed_bfloat16')
    """
    policy = dtype_policy(policy)
    if policy.quantization_mode is None:
        return policy
    return dtype_policy(policy.name.partition("_from_")[2])


def block_size_of(policy: str | keras.DTypePolicy) -> int | None:
    """Rows that share a scale in a policy such as "int4/128_from_float32"; `None` in any other.

    >>> print(block_size_of("int8_from_float32"))
    None
    """
    size = dtype_policy(policy).name.partition("_from_")[0].partition("/")[2]
    return int(size) if size else None


class Composite(keras.layers.Layer):
    """A layer with projections inside, which alone are quantized.

    Keras quantizes single layers: a layer made of layers under a quantized policy fails at its
    call. So a quantized `dtype` is for the projections, as `projection_policy`; the layer itself
    and its other parts have the float policy that it was made from.

    >>> layer = Composite(dtype="int8_from_float32")
    >>> layer.dtype_policy.name, layer.projection_policy.name
    ('float32', 'int8_from_float32')
    """

    def __init__(self, dtype: str | keras.DTypePolicy | None = None, **kwargs: Any):
        self.projection_policy = dtype_policy(dtype)
        super().__init__(dtype=float_policy(self.projection_policy), **kwargs)

    def get_config(self) -> dict[str, Any]:
        policy = keras.dtype_policies.serialize(self.projection_policy)
        return {**super().get_config(), "dtype": policy}


class Quantizable(keras.layers.Layer):
    """A layer of Keras whose matrices can be quantized, one at a time and back again.

    The quantized variables are Keras's own, and so are their numbers. What differs from Keras:
    activations are never quantized, only weights; no float copy of a whole matrix is made for a
    product (see `mistral_lib.layers.quantized`); and scales stay float32 in a mixed policy.

    A subclass has two properties: `matrices`, by the name of each matrix how Keras stores it
    (`pairs` and `transposed` of a `KernelLayout`), and `matrix_shape`, (D, N) of all.

    Attributes:
        untrained: the names of the matrices that `dequantize` will freeze.
    """

    def __init__(self, *args: Any, dtype: str | keras.DTypePolicy | None = None, **kwargs: Any):
        check_keras_for(dtype)
        super().__init__(*args, dtype=dtype, **kwargs)
        self.untrained = () if self.trainable else tuple(self.matrices)

    @property
    def trainable(self) -> bool:
        """Whether the layer is trained; of a quantized one, whether it would be, were it float."""
        return super().trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras.layers.Layer.trainable.__set__(self, value)
        self.untrained = () if value else tuple(self.matrices)

    def quantize(
        self,
        mode: str | None = None,
        type_check: bool = True,
        config: keras.quantizers.QuantizationConfig | None = None,
    ) -> None:
        """Replaces the float matrices by quantized ones: see `MistralBackbone.quantize`."""
        block_size = getattr(config, "block_size", INT4_BLOCK_SIZE)
        _check_kind(mode, block_size)
        floats, untrained = {}, []
        for name in reversed(self.matrices):
            attribute = matrix_attribute(name)
            floats[name] = np.asarray(getattr(self, attribute).value)
            if not getattr(self, attribute).trainable:
                untrained.append(name)
            remove_weight(self, attribute)
        self.untrained = tuple(untrained)
        first = next(iter(self.matrices))  # as Keras does
        self.quantized_build(floats[first].shape, mode, config)
        kind = mode if mode == "int8" else f"int4/{block_size}"
        self.dtype_policy = f"{kind}_from_{self.dtype_policy.name}"
        for name in list(floats):
            self.assign_float(name, floats.pop(name))

    def quantized_build(  # pyright: ignore[reportIncompatibleMethodOverride]  # Layer's has no config
        self,
        shape: tuple[int, ...],
        mode: str | None,
        config: keras.quantizers.QuantizationConfig | None = None,
    ) -> None:
        _check_kind(mode, getattr(config, "block_size", block_size_of(self.dtype_policy)))
        super().quantized_build(shape, mode, config)  # pyright: ignore[reportCallIssue]  # not Layer's
        for name in self.matrices:
            # In a mixed policy a product would get the scale rounded to the compute dtype.
            without_autocast(getattr(self, f"{name}_scale"))

    def quantized_matrix(self, name: str) -> QuantizedKernel:
        """A matrix as it is stored, for products."""
        scale, zero = getattr(self, f"{name}_scale").value, getattr(self, f"{name}_zero", None)
        return QuantizedKernel(
            values=getattr(self, matrix_attribute(name)).value,
            # Keras gives the scales of an int8 kernel axes of size 1 for batch and tokens.
            scale=scale.reshape(-1) if zero is None else scale,
            zero=None if zero is None else zero.value,
            layout=self._layout(name),
        )

    def _layout(self, name) -> KernelLayout:
        storage = self.matrices[name]
        if self.quantization_mode == "int8":
            storage = {**storage, "pairs": None}
        else:
            storage = {**storage, "block_size": block_size_of(self.dtype_policy)}
        return KernelLayout(self.matrix_shape, **storage)

    def assign_float(self, name: str, matrix: np.ndarray) -> None:
        """Quantizes a float matrix and stores it; the layer is quantized already.

        Args:
            name: of the matrix.
            matrix: as many float numbers as the matrix has, in its order.

        Raises:
            ValueError: the matrix holds NaN, infinity, or more than the dtype can hold.
        """
        layout = self._layout(name)
        matrix = matrix.reshape(layout.shape[::-1] if layout.transposed else layout.shape)
        with np.errstate(over="ignore", invalid="ignore"):  # which the scale will tell
            matrix = matrix.astype(self.variable_dtype, copy=False)
            values, scale, zero = quantize(matrix, layout)
        if not np.isfinite(scale.astype("float32")).all():
            raise self._not_finite(name)
        scale_variable = getattr(self, f"{name}_scale")
        scale_variable.assign(scale.reshape(scale_variable.shape))
        getattr(self, matrix_attribute(name)).assign(values)
        if layout.block_size is not None:
            getattr(self, f"{name}_zero").assign(zero)
            self.g_idx.assign(np.arange(layout.shape[0]) // layout.block_size)

    def assign_int4(
        self, name: str, values: np.ndarray, scale: np.ndarray, zero: np.ndarray
    ) -> None:
        """Stores a matrix that has been rounded already, in a layer that is quantized to int4.

        Args:
            name: the name of the matrix, which is not stored transposed.
            values: int8 (D, N), from -8 to 7.
            scale: float (G, N).
            zero: int8 (G, N).
        """
        axis = 0 if self._layout(name).pairs == "rows" else 1
        packed = np.asarray(keras.quantizers.pack_int4(values, axis=axis)[0])
        getattr(self, matrix_attribute(name)).assign(packed)
        getattr(self, f"{name}_scale").assign(scale)
        getattr(self, f"{name}_zero").assign(zero)

    def check_finite(self) -> None:
        """Refuses to quantize a float layer whose matrices are not finite, before it changes.

        Raises:
            ValueError: one of them holds NaN or infinity.
        """
        for name in self.matrices:
            if not jnp.isfinite(getattr(self, matrix_attribute(name)).value).all():
                raise self._not_finite(name)

    def _not_finite(self, name) -> ValueError:
        return ValueError(
            f"{self.path} cannot be quantized: in {self.variable_dtype} its {name} are not all "
            "finite numbers."
        )

    def dequantize(self) -> None:
        """Makes the layer a float layer again, with the values that the quantized one had."""
        with unlocked(self):
            for name, storage in self.matrices.items():
                value = dequantize(self.quantized_matrix(name)).astype(self.variable_dtype)
                self._replace_by_float(name, value.T if storage.get("transposed") else value)
            if hasattr(self, "g_idx"):
                remove_weight(self, "g_idx")
        mark_as_float(self)
        self.dtype_policy = float_policy(self.dtype_policy)

    def _replace_by_float(self, name, value):
        attribute = matrix_attribute(name)
        for other in (attribute, f"{name}_scale", f"{name}_zero"):
            if hasattr(self, other):
                remove_weight(self, other)
        weight = self.add_weight(name=name, shape=value.shape, initializer=lambda *_, **__: value)
        weight.trainable = name not in self.untrained
        setattr(self, attribute, weight)


def _check_kind(mode, block_size) -> None:
    """Refuses what products cannot multiply, before anything changes."""
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(map(repr, MODES))}, but is {mode!r}.")
    check_keras_for(mode)
    whole = isinstance(block_size, int) and block_size > 0 and block_size % 2 == 0
    if mode == "int4" and not whole:
        raise ValueError(
            f"The block size of int4 must be an even number of rows, but is {block_size!r}: two "
            f"rows share a byte, and a scale. Keras's default is {INT4_BLOCK_SIZE}."
        )
