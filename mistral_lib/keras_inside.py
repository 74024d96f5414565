"""The one door to what other libraries do not document (chapter 12, "The backbone").

Each function says what it relies on, and in which versions that was seen: of Keras, where no other
library is named. Its test fails with a clear sentence when a new version changes that.
"""

import contextlib

import jax
import jax.core
import keras
from keras.src.backend.common import global_state


@contextlib.contextmanager
def without_weights():
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
    # Those of a model built here must not be on the list: a later `fit` would initialise them.
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
    """Gives variables without a value their layouts, so that what they are assigned is split.

    Keras does so where it initialises a variable. One that was made without memory is not, until
    it is assigned.
    """
    distribution = keras.distribution.distribution()
    if distribution is not None:
        for variable in variables:
            variable._layout = distribution.get_variable_layout(variable)


def layout_of(variable):
    """How a variable is split over devices, a `TensorLayout`; `None` if it is not.

    Relies on the attribute `_layout` of Keras's variables on JAX (seen in 3.13 to 3.15).
    """
    return variable._layout


@contextlib.contextmanager
def unlocked(layer: keras.layers.Layer):
    """Lets a layer that is built already gain and lose weights inside the block.

    Relies on `Layer._tracker`, which locks a layer once it is built (seen in 3.13 to 3.15).
    """
    layer._tracker.unlock()
    try:
        yield
    finally:
        layer._tracker.lock()


def remove_weight(layer: keras.layers.Layer, name: str) -> None:
    """Takes a weight off a layer.

    As `delattr`, without the garbage collection that Keras starts after each: a fifth of a second,
    every time. The memory of a JAX array is free with the last reference to it.

    Relies on `Layer._untrack_variable` (seen in 3.13 to 3.15).
    """
    layer._untrack_variable(getattr(layer, name))
    object.__delattr__(layer, name)


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


def mark_as_float(layer: keras.layers.Layer) -> None:
    """Makes Keras forget that a layer was quantized, so that it can be quantized again.

    Relies on `Layer._is_quantized` (seen in 3.13 to 3.15).
    """
    layer._is_quantized = False


def unwrap_quantize(model: keras.Model) -> None:
    """Gives a new model the `quantize` of its class back.

    Relies on `Layer.__new__`, which puts a wrapper into every object: it checks the arguments, and
    knows no kind like "int4/64" (seen in 3.13 to 3.15).
    """
    model.__dict__.pop("quantize", None)


def layers_inside(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """All layers of a layer or model, at every depth, without itself.

    Relies on `Layer._flatten_layers` (seen in 3.13 to 3.15).
    """
    return list(layer._flatten_layers(include_self=False))


def optimizer_weights(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The variables for which an optimizer was built; empty before.

    Relies on `_trainable_variables`, and on `inner_optimizer` of a `LossScaleOptimizer` (seen in
    3.13 to 3.15).
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return list(getattr(inner, "_trainable_variables", []))


def compiled_metrics(model: keras.Model) -> list[keras.metrics.Metric]:
    """The metrics, weighted or not, with which a model evaluates.

    Where the last `compile` named none, Keras goes on with those of an earlier one.

    Relies on `Trainer._compile_metrics` and its lists of what the user gave (seen in 3.13 to 3.15).
    """
    metrics = model._compile_metrics
    if metrics is None:
        return []
    return [*(metrics._user_metrics or []), *(metrics._user_weighted_metrics or [])]


def compiled_arguments(model: keras.Model) -> dict:
    """The arguments of a model's last `compile`.

    Relies on `Trainer._compile_config` (seen in 3.13 to 3.15).
    """
    return model._compile_config.config


def is_traced(array) -> bool:
    """Whether an array is a placeholder in a function that JAX is tracing.

    Relies on `jax.core.Tracer` (seen in 0.7 to 0.12).
    """
    return isinstance(array, jax.core.Tracer)
