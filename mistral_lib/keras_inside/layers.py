"""Weights and layers (chapter 12, "The backbone")."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.core
import keras
from keras.src.backend.common import global_state


@contextlib.contextmanager
def without_weights() -> Iterator[None]:
    """Builds models whose variables have shapes and dtypes but no memory.

    For counting parameters, and for loading: a variable built here takes its first value from
    `assign`, and its initializer never runs.

    Relies on the attribute "uninitialized_variables" of Keras's global state: the variables that
    Keras initialises when the next stateless scope ends (seen in 3.13 to 3.15).

    >>> from mistral_lib import MistralBackbone
    >>> with without_weights():
    ...     model = MistralBackbone(32000, 32, 32, 4096, 14336, 8)
    >>> f"{model.count_params():,}"
    '7,241,732,096'
    """
    # Variables of a model built here must not stay on the list, or `fit` would initialise them.
    waiting = list(_waiting_variables())
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
        _lay_out(_waiting_variables()[len(waiting) :])
    finally:
        global_state.set_global_attribute("uninitialized_variables", waiting)


def _waiting_variables() -> list:
    return global_state.get_global_attribute("uninitialized_variables", []) or []


def _lay_out(variables) -> None:
    """Gives variables without a value their layouts, so that assigned values are split.

    Keras does this when it initialises a variable, but a variable without memory is not
    initialised before it is assigned.
    """
    distribution = keras.distribution.distribution()
    if distribution is not None:
        for variable in variables:
            variable._layout = distribution.get_variable_layout(variable)


def layout_of(variable: keras.Variable) -> Any:
    """How a variable is split over devices, as a `TensorLayout`; `None` if it is not split.

    Relies on the attribute `_layout` of Keras's variables on JAX (seen in 3.13 to 3.15).
    """
    return variable._layout


@contextlib.contextmanager
def unlocked(layer: keras.layers.Layer) -> Iterator[None]:
    """Lets weights be added to and removed from a built layer inside the block.

    Relies on `Layer._tracker`, which locks a layer once it is built (seen in 3.13 to 3.15).
    """
    layer._tracker.unlock()
    try:
        yield
    finally:
        layer._tracker.lock()


def remove_weight(layer: keras.layers.Layer, name: str) -> None:
    """Removes a weight from a layer.

    It does the same as `delattr`, but without the garbage collection that Keras runs after each
    deletion, which takes a fifth of a second every time. The memory of a JAX array is freed with
    the last reference to it anyway.

    Relies on `Layer._untrack_variable` (seen in 3.13 to 3.15).
    """
    layer._untrack_variable(getattr(layer, name))
    object.__delattr__(layer, name)


def track_again(layer: keras.layers.Layer, variable: keras.Variable) -> None:
    """Moves a weight to the end of its layer's weights, as if it had just been added.

    Relies on `Layer._untrack_variable`, and on `Layer._track_variable`, which keeps trainable
    variables before the others, in the order in which they were added (seen in 3.13 to 3.15).
    """
    trainable = variable.trainable
    layer._untrack_variable(variable)
    variable.trainable = True
    layer._track_variable(variable)
    variable.trainable = trainable


def without_autocast(variable: keras.Variable) -> None:
    """Lets a variable keep its own dtype in a mixed policy, which would cast it before its use.

    Relies on the attribute that `add_weight(autocast=False)` sets (seen in 3.13 to 3.15); this is
    for variables that Keras has added itself.
    """
    variable._autocast = False


def matrix_attribute(name: str) -> str:
    """The attribute in which Keras's layers keep the matrix of that name, also when quantized.

    `EinsumDense.kernel` and `Embedding.embeddings` are other arrays with LoRA: the merged ones.

    Relies on `_kernel`, `_embeddings` and `reverse_embeddings` (seen in 3.13 to 3.15).
    """
    return name if name == "reverse_embeddings" else f"_{name}"


def quantized_variables(
    name: str, shape: tuple[int, ...], quantization: str
) -> list[tuple[str, tuple[int, ...], str | None]]:
    """The variables in which Keras's layers keep a quantized matrix, in the order of their files.

    Args:
        name: of the matrix: "kernel", "embeddings" or "reverse_embeddings".
        shape: of the matrix in float, (rows, columns).
        quantization: "int8", or "int4/" and the block size.

    Returns:
        For each variable the layer's attribute, its shape, and its dtype: "int8", "float32", or
        `None` for the dtype that float weights of the layer have.

    Relies on what `EinsumDense`, for inputs (B, S, D), and `ReversibleEmbedding` add in
    `quantized_build` (seen in 3.14 and 3.15).

    >>> quantized_variables("kernel", (8, 6), "int8")
    [('_kernel', (8, 6), 'int8'), ('kernel_scale', (1, 1, 6), None)]
    """
    values, (rows, columns) = matrix_attribute(name), shape
    if quantization == "int8":
        # The scales of a kernel have axes for batch and tokens.
        scale = {"kernel": (1, 1, columns), "embeddings": (rows,)}.get(name, (columns,))
        return [(values, shape, "int8"), (f"{name}_scale", scale, None)]
    block_size = int(quantization.partition("/")[2])
    table, reverse = name == "embeddings", name == "reverse_embeddings"
    packed = (-(-rows // 2), columns) if reverse else (rows, -(-columns // 2))
    groups = (rows, -(-columns // block_size)) if table else (-(-rows // block_size), columns)
    found = [
        (values, packed, "int8"),
        (f"{name}_scale", groups, None),
        (f"{name}_zero", groups, None if reverse else "int8"),
    ]
    # Which group a row belongs to; the two matrices of an embedding share the list.
    return found if reverse else [*found, ("g_idx", (columns if table else rows,), "float32")]


def mark_as_float(layer: keras.layers.Layer) -> None:
    """Makes Keras forget that a layer was quantized, so that it can be quantized again.

    Relies on `Layer._is_quantized` (seen in 3.13 to 3.15).
    """
    layer._is_quantized = False


def unwrap_quantize(model: keras.Model) -> None:
    """Restores the `quantize` of its class on a new model.

    Relies on `Layer.__new__`, which puts a wrapper into every object: the wrapper checks the
    arguments, and does not accept modes such as "int4/64" (seen in 3.13 to 3.15).
    """
    model.__dict__.pop("quantize", None)


def layers_inside(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """All layers of a layer or model, at every depth, without itself.

    Relies on `Layer._flatten_layers` (seen in 3.13 to 3.15).
    """
    return list(layer._flatten_layers(include_self=False))


def is_traced(array: Any) -> bool:
    """Whether an array is a placeholder in a function that JAX is tracing.

    Relies on `jax.core.Tracer` (seen in 0.7 to 0.12).
    """
    return isinstance(array, jax.core.Tracer)
