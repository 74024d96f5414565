"""The layout of a model over a device mesh (chapter 20, "Many devices").

A mesh has two axes. Along the first the rows of a batch are split, and every device holds the same
weights; along the second the weights are split, and every device reads the same rows. Heads and
intermediate features are independent of one another, so that a block needs two sums over the second
axis, one after attention and one after the feed-forward network, and nothing else.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import keras

from mistral_lib.config import ARGUMENTS, WEIGHTS, MistralConfig
from mistral_lib.keras_inside import layout_of

# What is split over the model axis of the mesh, as the letters of `config.WEIGHTS`: heads,
# intermediate features and the vocabulary. A projection into them is split by what comes out of it;
# the projection back by what goes in, so that each device adds up its own share. The token table is
# not split by hidden features, though its lookup would then be cheaper: XLA would leave the
# residual stream in parts, and gather it, or sum over it, in every norm.
SPLIT = "HKFV"


def _split_axes() -> dict[str, int]:
    """Which axis of a variable is split, by a regular expression of its path.

    Projections that are alike share an entry. LoRA's factors are split as their kernel is: A has
    its rows, B its columns.
    """
    alike = {}
    for name, axes in WEIGHTS.items():
        axis = _split_axis(axes.split())
        if axis is not None:
            parent, layer, variable = ["", *name.split(".")][-3:]
            alike.setdefault((parent, axes, variable, axis), []).append(layer)
    found = {}
    for (parent, _, variable, axis), layers in alike.items():
        layer = layers[0] if len(layers) == 1 else f"({'|'.join(layers)})"
        if variable == "kernel":
            variable = f"(kernel|lora_kernel_{'b' if axis else 'a'})"
        found[".*" + "/".join(filter(None, (parent, layer, variable)))] = axis
    return found


def _split_axis(axes: Sequence[str]) -> int | None:
    """The axis with a letter of `SPLIT`."""
    return next((index for index, letters in enumerate(axes) if letters[0] in SPLIT), None)


SPLIT_AXES = _split_axes()


class _WholePaths(keras.distribution.LayoutMap):
    """A map whose keys match whole paths, as in newer versions of Keras.

    Before 3.14 a key matches wherever it stands in a path, that of a kernel also its scales.
    """

    def __getitem__(self, key: str) -> keras.distribution.TensorLayout | None:
        known = any(key == each or re.fullmatch(each, key) for each in self)
        return super().__getitem__(key) if known else None


def layout_map(
    device_mesh: keras.distribution.DeviceMesh, model_axis: str, data_axis: str
) -> keras.distribution.LayoutMap:
    """See `MistralBackbone.get_layout_map`."""
    if not isinstance(device_mesh, keras.distribution.DeviceMesh):
        raise TypeError(
            "device_mesh must be a keras.distribution.DeviceMesh, but is of type "
            f"{type(device_mesh).__name__}."
        )
    names = {"model_parallel_dim_name": model_axis, "data_parallel_dim_name": data_axis}
    for argument, name in names.items():
        if name not in device_mesh.axis_names:
            raise ValueError(
                f"{argument} is {name!r}, but the axes of the mesh are "
                f"{', '.join(map(repr, device_mesh.axis_names))}. For the model over all 8 of 8 "
                f"devices use DeviceMesh((1, 8), ({data_axis!r}, {model_axis!r}))."
            )
    if model_axis == data_axis:
        raise ValueError(
            f"model_parallel_dim_name and data_parallel_dim_name must be two axes of the mesh, but "
            f"both are {model_axis!r}."
        )
    layouts = _WholePaths(device_mesh)
    for path, axis in SPLIT_AXES.items():
        layouts[path] = tuple(model_axis if each == axis else None for each in range(2))
    return layouts


def check_sizes(config: MistralConfig) -> None:
    """Refuses a model that the distribution in use would cut in the middle of a head.

    Raises:
        ValueError: a size is not a multiple of the devices that share it.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return
    mesh = distribution.device_mesh
    for weight in config.kinds():
        axis = _split_axis(weight.axes)
        layout = distribution.get_tensor_layout(weight.path)
        name = None if layout is None or axis is None else layout.axes[axis]
        if axis is None or name is None:
            continue
        count, letter = mesh.shape[mesh.axis_names.index(name)], weight.axes[axis][0]
        if config.size(letter) % count:
            raise ValueError(
                f"{ARGUMENTS[letter]} is {config.size(letter)}, which the {count} devices of the "
                f"mesh's axis {name!r} cannot share equally. Give that axis a size that divides "
                f"it, or keep {weight.path.split('/', 1)[-1]} whole on every device: take its "
                "entry out of the layout map, del layout_map[...], before the model is made."
            )


def sharding_of(variable: keras.Variable) -> jax.sharding.Sharding | None:
    """Where the parts of a variable belong; `None` without a distribution.

    `jax.device_put(array, sharding_of(variable))` sends each device its own part of a NumPy array.
    """
    layout = layout_of(variable)
    return None if layout is None else layout.backend_layout


def cache_sharding(backbone: Any, batch_size: int) -> jax.sharding.Sharding | None:
    """How keys and values (B, K, slots, h) lie: rows as the data, heads as the key kernel.

    Args:
        backbone: a `MistralBackbone`.
        batch_size: number of rows, B. If the devices cannot share the rows equally, each has all.

    Returns:
        A sharding, or `None` for a backbone that was made without a distribution.
    """
    distribution = backbone.distribution
    if distribution is None:
        return None
    mesh, rows = distribution.device_mesh, distribution.batch_dim_name
    kernel = backbone.transformer_layers[0].self_attention.key.kernel
    heads = distribution.get_variable_layout(kernel).axes[1]
    if heads == rows or batch_size % mesh.shape[mesh.axis_names.index(rows)]:
        rows = None
    return keras.distribution.TensorLayout((rows, heads, None, None), mesh).backend_layout


def numbers_in_memory(path: str, shape: tuple[int, ...]) -> int:
    """How many numbers of a variable one memory must hold under the distribution in use.

    An accelerator has its own memory and holds its part; the CPU's virtual devices share one.

    Args:
        path: of the variable in Keras.
        shape: of the variable.

    >>> numbers_in_memory("token_embedding/embeddings", (10, 4))
    40
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return math.prod(shape)
    mesh, layout, part = distribution.device_mesh, distribution.get_tensor_layout(path), [*shape]
    for axis, name in enumerate(() if layout is None else layout.axes):
        if name is not None:
            part[axis] = -(-part[axis] // mesh.shape[mesh.axis_names.index(name)])
    return math.prod(part) * _devices_in_one_memory(mesh.backend_mesh)


def _devices_in_one_memory(mesh: jax.sharding.Mesh) -> int:
    return mesh.devices.size if mesh.devices.flat[0].platform == "cpu" else 1


def bytes_per_device(model: keras.layers.Layer) -> dict[str, int]:
    """How many bytes of a model's variables each device holds.

    Args:
        model: a Keras model or layer with weights.

    Returns:
        The sizes by the name of the device.

    >>> from mistral_lib import MistralBackbone
    >>> sizes = bytes_per_device(MistralBackbone(10, 1, 2, 8, 16, 1))
    >>> list(sizes.values())  # 760 float32 numbers
    [3040]
    """
    sizes = {}
    for variable in model.variables:
        array = variable.value
        part = math.prod(array.sharding.shard_shape(array.shape)) * array.dtype.itemsize
        for device in array.sharding.device_set:
            sizes[device] = sizes.get(device, 0) + part
    return {f"{d.platform}:{d.id}": sizes[d] for d in sorted(sizes, key=lambda d: d.id)}
