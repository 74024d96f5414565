"""Quantized weights in KerasHub's files (chapter 18, "Quantization").

A quantized layer has several variables where a float layer has one. KerasHub numbers them as Keras
does, and the config says in a map of dtype policies which layers are quantized, and how.
"""

import math

import keras
import numpy as np


def parts(name: str, axes: str, sizes: dict[str, int], quantization: str) -> list[tuple]:
    """The variables of a quantized matrix, in their order in the file.

    Args:
        name: of the matrix in its layer: "kernel", "embeddings" or "reverse_embeddings".
        axes: of the float matrix in the file, a letter each.
        sizes: of the axes.
        quantization: "int8", or "int4/" and the block size.

    Returns:
        For each variable its attribute in the layer, its shape in the file, and "int8" or "float".

    >>> parts("kernel", "DF", {"D": 8, "F": 6}, "int8")
    [('_kernel', (8, 6), 'int8'), ('kernel_scale', (6,), 'float')]
    """
    table, reverse = name == "embeddings", name == "reverse_embeddings"
    values = name if reverse else f"_{name}"
    shape = tuple(sizes[axis] for axis in axes)
    summed = 2 if axes.startswith("Hh") else 1  # how many axes a product sums over
    if quantization == "int8":
        # Of a layer with heads, the scales have axes for batch and tokens.
        scale = (1, 1, *shape[summed:]) if len(axes) == 3 else (shape[0 if table else 1],)
        return [(values, shape, "int8"), (f"{name}_scale", scale, "float")]
    block_size = int(quantization.partition("/")[2])
    rows, columns = math.prod(shape[:summed]), math.prod(shape[summed:])
    packed = (-(-rows // 2), columns) if reverse else (rows, -(-columns // 2))
    groups = (rows, -(-columns // block_size)) if table else (-(-rows // block_size), columns)
    found = [
        (values, packed, "int8"),
        (f"{name}_scale", groups, "float"),
        (f"{name}_zero", groups, "float" if reverse else "int8"),
    ]
    # Which group a row belongs to; the two matrices of an embedding share the list.
    return found if reverse else [*found, ("g_idx", (columns if table else rows,), "float")]


def write_policy(backbone, layers: list[str]) -> dict:
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


def read_policy(content) -> str | None:
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
    policies = content["config"].get("policy_map")
    found = set()
    for policy in policies.values() if isinstance(policies, dict) else ():
        config = policy.get("config") if isinstance(policy, dict) else None
        mode = config.get("mode") if isinstance(config, dict) else None
        # KerasHub leaves the source out, and the default too.
        source = mode and (config.get("source_name") or content["config"].get("default_policy"))
        found.add(f"{mode}_from_{source or 'float32'}")
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


def check_groups(tensor, block_size: int) -> None:
    """Refuses rows in another order than Keras's, as other methods of quantization have them."""
    if not np.array_equal(tensor.read(), np.arange(tensor.shape[0]) // block_size):
        raise ValueError(
            f"{tensor.file}: {tensor.name!r} does not put every {block_size} rows in a group, in "
            "their order. Load the weights from which they were quantized."
        )
