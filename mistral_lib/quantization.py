"""Weights in 8 or 4 bits (chapter 18, "Quantization").

A quantization is named as in Keras: "int8" has one scale a column of a kernel, "int4/128" one for
every 128 rows of a column, and "int4" is short for that. Only weights are quantized: the tables of
the embedding and every projection. Norms stay float, and so do activations, which Keras would
round to 8 bits too: `benchmarks/quantization_quality.py` measures what that costs.
"""

import re
from collections.abc import Hashable
from typing import Any

import keras

from mistral_lib import lora
from mistral_lib.calibration import calibrate
from mistral_lib.checks import check_keras_for
from mistral_lib.interrupts import uninterrupted
from mistral_lib.keras_inside import Cloneable, Steps, all_or_nothing, unwrap_quantize
from mistral_lib.layers.quantizable import (
    INT4_BLOCK_SIZE,
    MODES,
    Quantizable,
    block_size_of,
    dtype_policy,
    float_policy,
)

FLOAT_DTYPES = {"float32", "bfloat16", "float16"}


class QuantizableModel(Steps, Cloneable):
    """The base of models that can be quantized."""

    def __new__(cls, *args: Any, **kwargs: Any):
        model = super().__new__(cls, *args, **kwargs)
        unwrap_quantize(model)
        return model

    def quantize(  # pyright: ignore[reportIncompatibleMethodOverride]  # Keras's takes a mode first
        self, quantization: str | None = None, *, mode: str | None = None, config: Any = None
    ) -> None:
        """Quantizes the weights: embedding and projections, one matrix after the other.

        Norms stay as they are. LoRA may be enabled before or after, and is kept in float32. A
        second call with the same argument does nothing. A model that has been trained must be
        compiled again before it is trained on; only norms and LoRA can be trained then.

        Args:
            quantization: "int8"; "int4", or "int4/B" for a scale every B rows, an even number
                (128 in "int4"); or "gptq", with a `config`: int4, rounded to suit typical texts,
                which takes some minutes and loses less accuracy.
            mode: Keras's name for the same argument.
            config: for "gptq" a `keras.quantizers.GPTQConfig` with a dataset of texts and their
                tokenizer, or of token ids.

        Raises:
            TypeError: both quantization and mode are given, or a config of another kind.
            MemoryError: there is too little memory. Some layers are quantized then, and the others
                are not. The model still works, and the same call continues where it stopped.
            ValueError: an unknown quantization, a model that is already quantized in another way,
                int8 with float16, or weights that are not finite. Nothing has changed then.

        >>> from mistral_lib import MistralBackbone
        >>> backbone = MistralBackbone(10, 1, 2, 8, 16, 1)
        >>> backbone.quantize("int8")
        >>> str(backbone.transformer_layers[0].feedforward.gate.kernel.dtype)
        'int8'
        """
        if None not in (quantization, mode):
            raise TypeError(
                "mode is Keras's name for quantization: give one of them, not "
                f"{quantization!r} and {mode!r}."
            )
        backbone: Any = getattr(self, "backbone", self)
        quantization = quantization or mode or getattr(config, "mode", None)
        if quantization == "gptq" and backbone.quantization is None:
            quantization = f"int4/{calibrate(backbone, config)}"
        elif config is not None:
            raise ValueError(
                f"config goes with 'gptq' and a float model, but quantization is {quantization!r} "
                f"and the model's {backbone.quantization!r}. Leave it out: 'int4/64' names a "
                "block size."
            )
        quantize(backbone, quantization)

    def dequantize(self) -> None:
        """Makes every weight float again, in the dtype policy that it was quantized from.

        The errors of quantization stay. Without quantization the call does nothing.

        Raises:
            MemoryError: there is too little memory. Some layers are float then, and the others are
                not. The model still works, and the same call continues where it stopped.
        """
        dequantize(getattr(self, "backbone", self))

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Keras's `load_weights`. An error leaves the model as it was.

        The old weights are kept in the computer's memory until the new ones are loaded.
        """
        with all_or_nothing(self) as keep:
            keep(self)
            super().load_weights(filepath, *args, **kwargs)

    def compiled_with(self) -> Hashable:
        variables = self.trainable_variables, self.non_trainable_variables
        backbone: Any = getattr(self, "backbone", self)
        paths = (tuple(v.path for v in each) for each in variables)
        return backbone.traced_settings(), *paths


def check_dtype(dtype: Any) -> keras.DTypePolicy:
    """A dtype policy that a model can have.

    Args:
        dtype: a dtype or a Keras dtype policy; `None` is Keras's global policy.

    Raises:
        ValueError: anything but float dtypes, alone or quantized.

    >>> check_dtype("int8_from_bfloat16").name
    'int8_from_bfloat16'
    >>> check_dtype("float64")
    Traceback (most recent call last):
    ValueError: dtype must be 'float32', 'bfloat16', 'float16', 'mixed_bfloat16', ...
    """
    expected = (
        "dtype must be 'float32', 'bfloat16', 'float16', 'mixed_bfloat16', 'mixed_float16' or a "
        "Keras dtype policy of these dtypes, alone or after 'int8_from_' or 'int4/128_from_' (int8 "
        "does not go with float16)"
    )
    check_keras_for(dtype)
    try:
        policy = keras.dtype_policies.get(dtype)
        quantization = quantization_of(policy)
        known = quantization is None or check_quantization(quantization) == quantization
    except (ValueError, TypeError) as error:
        raise ValueError(f"{expected}, but is {dtype!r}.") from error
    if not (known and {policy.compute_dtype, policy.variable_dtype} <= FLOAT_DTYPES):
        raise ValueError(f"{expected}, but is {dtype!r}.")
    return policy


def check_quantization(quantization: Any) -> str:
    """The full name of a quantization, if it is one.

    >>> check_quantization("int8"), check_quantization("int4"), check_quantization("int4/64")
    ('int8', 'int4/128', 'int4/64')
    >>> check_quantization("float8")
    Traceback (most recent call last):
    ValueError: quantization must be one of 'int8', 'int4' or 'int4/B' with an even block size ...
    """
    if quantization == "int8":
        return "int8"
    match = re.fullmatch(r"int4(?:/([1-9]\d{0,8}))?", str(quantization))
    if match:
        block_size = int(match[1] or INT4_BLOCK_SIZE)
        if block_size % 2 == 0:
            return f"int4/{block_size}"
    if quantization == "awq":
        raise ValueError(
            "AWQ is not supported: as Keras computes it, this library's own model loses no less "
            "than with 'int4'. Use 'gptq' with a keras.quantizers.GPTQConfig, or 'int4/64'."
        )
    raise ValueError(
        f"quantization must be one of {', '.join(map(repr, MODES))} or 'int4/B' with an even block "
        f"size B, but is {quantization!r}."
    )


def quantized_policy(
    policy: str | keras.DTypePolicy, quantization: str | None
) -> keras.DTypePolicy:
    """The dtype policy that quantizes what is float in another.

    Args:
        policy: a dtype or a Keras dtype policy, quantized already or not.
        quantization: as in `MistralBackbone.quantize`; `None` leaves the policy as it is.

    Raises:
        ValueError: the policy has another quantization, or the two do not go together.

    >>> quantized_policy("bfloat16", "int8").name
    'int8_from_bfloat16'
    """
    policy = dtype_policy(policy)
    if quantization is None:
        return policy
    quantization = check_quantization(quantization)
    present = quantization_of(policy)
    if present not in (None, quantization):
        raise ValueError(
            f"The dtype {policy.name!r} contradicts the quantization {quantization!r}."
        )
    source = float_policy(policy)
    if quantization == "int8" and source.compute_dtype == "float16":
        raise ValueError(
            f"int8 does not go with the dtype {source.name}: Keras has no such policy. Use "
            "bfloat16 or float32, or quantize to int4."
        )
    return dtype_policy(f"{quantization}_from_{source.name}")


def quantization_of(policy: str | keras.DTypePolicy) -> str | None:
    """The quantization in a dtype policy: "int8", "int4/128", or `None`.

    >>> quantization_of("int8_from_float32"), quantization_of("float32")
    ('int8', None)
    """
    policy = dtype_policy(policy)
    if policy.quantization_mode is None:
        return None
    return policy.name.partition("_from_")[0]


def quantize(backbone: Any, quantization: str | None) -> None:
    """See `MistralBackbone.quantize`. Everything is checked before anything changes."""
    quantization = check_quantization(quantization)
    present = backbone.quantization
    if present == quantization:
        return
    if present is not None:
        raise ValueError(
            f"This backbone is quantized to {present} already; asked for was {quantization}. "
            "Quantize the float model, or call dequantize first, which keeps the first errors."
        )
    policy = quantized_policy(backbone.projection_policy, quantization)
    block_size = block_size_of(policy)
    if block_size is None:
        config = keras.quantizers.Int8QuantizationConfig(activation_quantizer=None)  # pyright: ignore[reportArgumentType]  # None is Keras's word for no quantizer
    else:
        config = keras.quantizers.Int4QuantizationConfig(block_size=block_size)
    layers = [x for x in _quantizable(backbone) if not _is_quantized(x, quantization)]
    for layer in layers:
        layer.check_finite()
    with uninterrupted():
        for layer in layers:
            with all_or_nothing(layer):
                layer.quantize(config=config)
        _set_policy(backbone, policy)


def dequantize(backbone: Any) -> None:
    """See `MistralBackbone.dequantize`."""
    with uninterrupted():
        for layer in _quantizable(backbone):
            if layer.quantization_mode is not None:
                with all_or_nothing(layer):
                    layer.dequantize()
        if backbone.quantization is not None:
            _set_policy(backbone, float_policy(backbone.projection_policy))


def _is_quantized(layer, quantization) -> bool:
    """Whether an earlier call has quantized a layer, before it ran out of memory."""
    present = quantization_of(layer.dtype_policy)
    if present not in (None, quantization):
        raise ValueError(
            f"An earlier, unfinished call has quantized {layer.path} to {present}, so that it "
            f"cannot be quantized to {quantization}. Call dequantize first."
        )
    return present is not None


def _set_policy(backbone, policy):
    backbone.projection_policy = policy
    for block in backbone.transformer_layers:
        for layer in (block, block.self_attention, block.feedforward):
            layer.projection_policy = policy


def _quantizable(backbone) -> list[Quantizable]:
    return [backbone.token_embedding, *lora.projections(backbone).values()]
