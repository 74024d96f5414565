"""Quantized weights in KerasHub's files (chapter 18, "Quantization").

A quantized layer has several variables where a float layer has one. KerasHub numbers them as Keras
does, and the config says in a map of dtype policies which layers are quantized, and how.
"""

from typing import Any

import keras
import numpy as np

from mistral_lib.config import Weight
from mistral_lib.keras_inside import quantized_variables
from mistral_lib.presets.hdf5 import StoredTensor


def stored_variables(
    weight: Weight, shape: tuple[int, ...], quantization: str
) -> list[tuple[str, tuple[int, ...], str]]:
    """The variables that hold a quantized matrix, in their order in the file.

    Args:
        weight: the matrix.
        shape: of the float matrix in the file, where heads are an axis of their own.
        quantization: "int8", or "int4/" and the block size.

    Returns:
        For each variable its name here, its shape in the file, and "int8" or "float".

    >>> from mistral_lib.config import MistralConfig
    >>> gate = MistralConfig(10, 1, 2, 8, 6, 1).weight(
    ...     "transformer_layer_{}.feedforward.gate.kernel"
    ... )
    >>> stored_variables(gate, (8, 6), "int8")[1]
    ('transformer_layer_0.feedforward.gate.kernel_scale', (6,), 'float')
    """
    found = quantized_variables(weight.attribute, weight.shape, quantization)
    if quantization == "int8" and weight.attribute == "kernel":
        (values, *_), (scale, *_) = found
        # Only layers with heads have scales with axes for batch and tokens in KerasHub.
        columns = shape[len(weight.axes[0]) :]
        scales = (1, 1, *columns) if len(shape) == 3 else columns
        found = [(values, shape, "int8"), (scale, scales, None)]
    return [
        (f"{weight.layer}.{attribute}", stored, "int8" if dtype == "int8" else "float")
        for attribute, stored, dtype in found
    ]


def write_policy(backbone: Any, layers: list[str]) -> dict[str, Any]:
    """The `dtype` of a quantized backbone for its config.json.

    Args:
        backbone: a `MistralBackbone`.
        layers: KerasHub's paths of the quantized layers.
    """
    policy = keras.dtype_policies.serialize(backbone.projection_policy)
    return {
        "module": "keras.dtype_policies",
        "class_name": "DTypePolicyMap",
        "config": {
            "default_policy": backbone.dtype_policy.name,
            "policy_map": dict.fromkeys(layers, policy),
        },
        "registered_name": None,
    }


def read_policy(content: Any) -> str | None:
    """The quantized dtype policy in the `dtype` of a config.json; `None` if there is none.

    Raises:
        ValueError: layers are quantized in different ways, or in one that is not known here.

    >>> policy = {"class_name": "QuantizedDTypePolicy", "config": {"mode": "int8"}}
    >>> read_policy({"class_name": "DTypePolicyMap", "config": {"policy_map": {"query": policy}}})
    'int8_from_float32'
    """
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
        return None
    if content.get("class_name") != "DTypePolicyMap":
        return None
    config, found = content["config"], set()
    for policy in _object(config, "policy_map").values():
        of_layer = _object(policy, "config")
        # KerasHub leaves the source out, and the default too.
        source = of_layer.get("source_name") or config.get("default_policy") or "float32"
        found.add(f"{of_layer.get('mode')}_from_{source}")
    if len(found) != 1:
        raise ValueError(
            f"dtype has layers of {len(found)} kinds ({', '.join(sorted(found)) or 'none'}), but a "
            "backbone is quantized as a whole, in one way."
        )
    policy = found.pop()
    if not policy.startswith(("int8_from_", "int4/")):
        raise ValueError(
            f"dtype is {policy!r}, but only int8 and int4 with a block size are known here. Load "
            "the weights from which they were quantized."
        )
    return policy


def _object(content: Any, name: str) -> dict[str, Any]:
    """An object in an object; empty where something else stands."""
    value = content.get(name) if isinstance(content, dict) else None
    return value if isinstance(value, dict) else {}


def check_groups(tensors: dict[str, StoredTensor], quantization: str | None) -> None:
    """Refuses rows in another order than Keras's, as other methods of quantization have them."""
    for name, tensor in tensors.items():
        if not name.endswith(".g_idx"):
            continue
        block_size = int(str(quantization).partition("/")[2])
        if not np.array_equal(tensor.read(), np.arange(tensor.shape[0]) // block_size):
            raise ValueError(
                f"{tensor.file}: {tensor.name!r} does not put every {block_size} rows in a group, "
                "in their order. Load the weights from which they were quantized."
            )
