"""The layout of a model over a device mesh (chapter 20, "Many devices").

A mesh has two axes. Along the first the rows of a batch are split, and every device holds the same
weights; along the second the weights are split, and every device reads the same rows. Heads and
intermediate features are independent of one another, so that a block needs two sums over the second
axis, one after attention and one after the feed-forward network, and nothing else.
"""

import math

import jax
import keras

# Which axis of a variable is split over the model axis of the mesh, by its path. A projection into
# heads, features or the vocabulary is split by what comes out of it; the projection back by what
# goes in, so that each device adds up its own share. LoRA's factors are split as their kernel is.
# The token table is not split by hidden features, though its lookup would then be cheaper: XLA
# would leave the residual stream in parts, and gather it, or sum over it, in every norm.
SPLIT_AXES = {
    ".*token_embedding/embeddings": 0,
    ".*token_embedding/reverse_embeddings": 1,
    ".*self_attention/query/(kernel|lora_kernel_b)": 1,
    ".*self_attention/(key|value)/(kernel|lora_kernel_b)": 1,
    ".*self_attention/attention_output/(kernel|lora_kernel_a)": 0,
    ".*feedforward/(gate|up)/(kernel|lora_kernel_b)": 1,
    ".*feedforward/down/(kernel|lora_kernel_a)": 0,
}

# What has to be a multiple of the number of devices: the argument, a variable, and its axis.
SIZES = (
    ("num_query_heads", "transformer_layer_0/self_attention/query/kernel", 1),
    ("num_query_heads", "transformer_layer_0/self_attention/attention_output/kernel", 0),
    ("num_key_value_heads", "transformer_layer_0/self_attention/key/kernel", 1),
    ("num_key_value_heads", "transformer_layer_0/self_attention/value/kernel", 1),
    ("intermediate_dim", "transformer_layer_0/feedforward/gate/kernel", 1),
    ("intermediate_dim", "transformer_layer_0/feedforward/up/kernel", 1),
    ("intermediate_dim", "transformer_layer_0/feedforward/down/kernel", 0),
    ("vocabulary_size", "token_embedding/embeddings", 0),
    ("vocabulary_size", "token_embedding/reverse_embeddings", 1),
)


def layout_map(device_mesh, model_axis: str, data_axis: str) -> keras.distribution.LayoutMap:
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
    layouts = keras.distribution.LayoutMap(device_mesh)
    for path, axis in SPLIT_AXES.items():
        layouts[path] = tuple(model_axis if each == axis else None for each in range(2))
    return layouts


def check_sizes(**sizes: int) -> None:
    """Refuses a model that the distribution in use would cut in the middle of a head.

    Args:
        **sizes: `num_query_heads`, `num_key_value_heads`, `intermediate_dim`, `vocabulary_size`.

    Raises:
        ValueError: a size is not a multiple of the devices that share it.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return
    mesh = distribution.device_mesh
    for argument, path, axis in SIZES:
        layout = distribution.get_tensor_layout(path)
        name = None if layout is None else layout.axes[axis]
        count = 1 if name is None else mesh.shape[mesh.axis_names.index(name)]
        if sizes[argument] % count:
            raise ValueError(
                f"{argument} is {sizes[argument]}, which the {count} devices of the mesh's axis "
                f"{name!r} cannot share equally. Give that axis a size that divides it, or keep "
                f"{path.split('/', 1)[-1]} whole on every device: take its entry out of the layout "
                "map, del layout_map[...], before the model is made."
            )


def lay_out(variables) -> None:
    """Gives variables without a value their layouts, so that what they are assigned is split.

    Keras does so where it initialises a variable. One that was made without memory is not, until
    it is assigned.
    """
    distribution = keras.distribution.distribution()
    if distribution is not None:
        for variable in variables:
            variable._layout = distribution.get_variable_layout(variable)


def sharding_of(variable) -> jax.sharding.Sharding | None:
    """Where the parts of a variable belong; `None` without a distribution.

    `jax.device_put(array, sharding_of(variable))` sends each device its own part of a NumPy array.
    """
    layout = variable._layout
    return None if layout is None else layout.backend_layout


def cache_sharding(backbone, batch_size: int) -> jax.sharding.Sharding | None:
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


def numbers_in_memory(layer) -> int:
    """How many numbers of a layer's variables one memory must hold under the distribution in use.

    An accelerator has its own memory and holds its part; the CPU's virtual devices share one.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return layer.count_params()
    layouts = [distribution.get_variable_layout(v).backend_layout for v in layer.variables]
    parts = (
        math.prod(layout.shard_shape(variable.shape))
        for layout, variable in zip(layouts, layer.variables, strict=True)
    )
    return sum(parts) * _devices_in_one_memory(distribution.device_mesh.backend_mesh)


def _devices_in_one_memory(mesh: jax.sharding.Mesh) -> int:
    return mesh.devices.size if mesh.devices.flat[0].platform == "cpu" else 1


def bytes_per_device(model) -> dict[str, int]:
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
