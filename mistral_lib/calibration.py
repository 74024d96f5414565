"""Rounding that looks at the inputs: GPTQ (chapter 18, "Quantization").

Rounding to the nearest of 16 numbers ignores how weights work together. GPTQ rounds the weights of
a column one after another, and adjusts the remaining ones so that the sums over typical inputs stay
right. Keras does the computation; the result is an ordinary model in `int4/B`.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import keras
import numpy as np

from mistral_lib import lora
from mistral_lib.arrays import Array, Float, Int
from mistral_lib.checks import check_keras_for
from mistral_lib.keras_inside import CalibratedMatrix, all_or_nothing, layers_inside
from mistral_lib.layers.projection import Projection


def check_config(config: Any) -> int:
    """The group size of a config for GPTQ that this library can store; -1 for whole columns.

    Raises:
        TypeError: it is not a `keras.quantizers.GPTQConfig`.
        ValueError: it has no data, a number of bits other than 4, or groups in another order.
    """
    check_keras_for("int4")
    if not isinstance(config, keras.quantizers.GPTQConfig):
        raise TypeError(f"config must be a keras.quantizers.GPTQConfig, but is {config!r:.80}.")
    if config.dataset is None:
        raise ValueError("The dataset of config must hold texts or token ids, but is None.")
    wanted = {"weight_bits": 4, "activation_order": False}
    for name, value in wanted.items():
        if getattr(config, name) != value:
            raise ValueError(
                f"{name} of config must be {value}, but is {getattr(config, name)}: the result is "
                "stored as int4, with neighbouring rows in a group."
            )
    if config.group_size != -1 and config.group_size % 2:
        raise ValueError(
            f"group_size of config must be an even number or -1, but is {config.group_size}: two "
            "rows share a byte."
        )
    return config.group_size


def token_windows(config: Any) -> Int[np.ndarray, "samples S"]:
    """Windows of `sequence_length` tokens, spread evenly over the whole dataset.

    >>> config = keras.quantizers.GPTQConfig([[1, 2, 3], [4, 5]], None, num_samples=2)
    >>> config.sequence_length = 3
    >>> token_windows(config).tolist()
    [[1, 2, 3], [3, 4, 5]]
    """
    rows = [
        config.tokenizer.tokenize(row) if isinstance(row, str) else np.ravel(row)
        for row in config.dataset
    ]
    ids, length = np.concatenate([np.asarray(row, "int32") for row in rows]), config.sequence_length
    if len(ids) < length:
        raise ValueError(
            f"The dataset of config must hold at least sequence_length tokens, {length}, but holds "
            f"{len(ids)}. Give it more text, or config a smaller sequence_length."
        )
    starts = np.linspace(0, len(ids) - length, config.num_samples).round().astype(int)
    return np.stack([ids[start : start + length] for start in starts])


def calibrate(backbone: Any, config: Any) -> int:
    """Quantizes all projections by GPTQ, each block on the outputs of the quantized ones before.

    Args:
        backbone: a float `MistralBackbone`; its embedding stays as it is.
        config: a `keras.quantizers.GPTQConfig`.

    Returns:
        The block size of int4.
    """
    group = check_config(config)
    layers = lora.projections(backbone).values()
    for layer in layers:
        layer.check_finite()
    block_size = group if group > 0 else max(layer.input_dim for layer in layers) // 2 * 2 + 2
    int4 = keras.quantizers.Int4QuantizationConfig(block_size=block_size)
    with all_or_nothing(backbone):
        states = [backbone.token_embedding(ids[None]) for ids in token_windows(config)]
        for block in backbone.transformer_layers:
            with _watched(block, config) as seen:
                for state in states:
                    block(state)
            for layer, matrix in seen:
                layer.quantize(config=int4)
                layer.assign_int4("kernel", *matrix.round())
            states = [block(state) for state in states]
    return block_size


@contextlib.contextmanager
def _watched(block: Any, config: Any) -> Iterator[list[tuple[Any, CalibratedMatrix]]]:
    """The projections of a block, each with a matrix that sees the inputs of the layer."""
    projections: list[Any] = [x for x in layers_inside(block) if isinstance(x, Projection)]
    seen = [(x, CalibratedMatrix(jnp.asarray(x.kernel.value), config)) for x in projections]

    def watch(layer, matrix):
        call = layer.call

        def watched(inputs: Float[Array, "B S D"], **kwargs: Any) -> Any:
            matrix.see(inputs)
            return call(inputs, **kwargs)

        layer.call = watched

    try:
        for layer, matrix in seen:
            watch(layer, matrix)
        yield seen
    finally:
        for layer in projections:
            layer.__dict__.pop("call", None)
