"""The only place that uses what Keras and JAX do not document (chapter 12, "The backbone").

Each function says what it relies on, and in which versions that was seen (versions of Keras, if no
other library is named). Its test fails with a clear sentence when a new version changes that.
"""

import contextlib
import copy
import functools
import inspect
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.models import cloning

from mistral_lib.interrupts import uninterrupted

SCOPES = (
    "autocast_scope",
    "current_call_ctx",
    "distribution",
    "name_scope_stack",
    "remat_scope_stack",
    "stateless_scope",
    "symbolic_scope",
    "tracking_on",
)


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


def layout_of(variable: keras.Variable) -> Any:
    """How a variable is split over devices, a `TensorLayout`; `None` if it is not.

    Relies on the attribute `_layout` of Keras's variables on JAX (seen in 3.13 to 3.15).
    """
    return variable._layout


@contextlib.contextmanager
def unlocked(layer: keras.layers.Layer) -> Iterator[None]:
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


def track_again(layer: keras.layers.Layer, variable: keras.Variable) -> None:
    """Makes a weight of a layer its last, as if it had just been added.

    Relies on `Layer._untrack_variable`, and on `Layer._track_variable`, which keeps trainable
    variables in front of others, in the order in which they come (seen in 3.13 to 3.15).
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


@contextlib.contextmanager
def all_or_nothing(model: keras.Model) -> Iterator[Callable[[keras.layers.Layer], None]]:
    """Changes a model as a whole: an error inside the block leaves it as it was; Ctrl-C waits.

    What is taken off a layer stays in memory until the block ends.

    Yields:
        A function to call with a layer whose weights will be assigned. It keeps their values, in
        the computer's memory: an accelerator has room for one of the two.

    Relies on layers that have everything in `__dict__`, but for the lists of their variables and
    the ids in `_tracker`, and on `_value` of variables (seen in 3.13 to 3.15).

    >>> from mistral_lib import MistralBackbone
    >>> backbone = MistralBackbone(10, 1, 2, 8, 16, 1)
    >>> with contextlib.suppress(MemoryError), all_or_nothing(backbone):
    ...     backbone.enable_lora(2)
    ...     raise MemoryError
    >>> [v.path for v in backbone.variables if "lora" in v.path]
    []
    """
    layers = [model, *layers_inside(model)]
    attributes = [dict(layer.__dict__) for layer in layers]
    lists = [
        (held, list(held))
        for layer in layers
        for held in (layer._trainable_variables, layer._non_trainable_variables)
    ]
    ids = [(held, set(held)) for layer in layers for held in layer._tracker.stored_ids.values()]
    trainable, values = [(v, v.trainable) for v in model.variables], []

    def keep(layer):
        held = [v for v in layer.variables if v._value is not None]
        values.extend((v, np.asarray(v._value)) for v in held)

    # Ctrl-C would leave a name scope of Keras open, and what is made later would get other paths.
    with uninterrupted():
        try:
            yield keep
        except BaseException:
            for layer, kept in zip(layers, attributes):
                layer.__dict__.clear()
                layer.__dict__.update(kept)
            for held, kept in lists:
                held[:] = kept
            for held, kept in ids:
                held.clear()
                held.update(kept)
            for variable, kept in values:
                variable.assign(kept)
            for variable, kept in trainable:
                variable.trainable = kept
            raise


def closing_scopes(function: Callable) -> Callable:
    """Wraps a function so that it leaves no scope of Keras open, wherever Ctrl-C comes.

    That may be in the middle of entering or leaving one. An open name scope is in the path of every
    later layer, and with an open `StatelessScope` no variable is ever assigned.

    Relies on the names of scopes in Keras's global state (seen in 3.13 to 3.15).
    """

    @functools.wraps(function)
    def run(*args, **kwargs):
        before = {name: global_state.get_global_attribute(name) for name in SCOPES}
        open_names = list(before["name_scope_stack"] or [])  # which is changed in place
        try:
            return function(*args, **kwargs)
        except BaseException:
            with uninterrupted():
                for name, value in {**before, "name_scope_stack": open_names}.items():
                    global_state.set_global_attribute(name, value)
            raise

    return run


def optimizer_weights(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The variables for which an optimizer was built; empty before.

    Relies on `_trainable_variables`, and on `inner_optimizer` of a `LossScaleOptimizer` (seen in
    3.13 to 3.15).
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return list(getattr(inner, "_trainable_variables", []))


def take_path(variable: keras.Variable, other: keras.Variable) -> None:
    """Gives a variable the path of another, by which some optimizers choose how to train it.

    Relies on the attribute `_path` of Keras's variables (seen in 3.13 to 3.15).
    """
    variable._path = other.path


def exclude_as(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable, other: keras.Variable
) -> None:
    """Takes weight decay off `other` where the optimizer was told to take it off `variable`.

    Relies on `Optimizer._exclude_from_weight_decay`, a set of `id`s, on `inner_optimizer` of a
    `LossScaleOptimizer` and `optimizers` of a `MultiOptimizer` (seen in 3.13 to 3.15).
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    for each in getattr(inner, "optimizers", [inner]):
        excluded = getattr(each, "_exclude_from_weight_decay", set())
        if id(variable) in excluded:
            excluded.add(id(other))


def _separate(variables) -> None:
    """Gives each variable an array of its own; a step uses every one of them up.

    After `fit` with averages Keras leaves a weight and its average the same array.
    """
    seen = set()
    for variable in variables:
        if id(variable.value) in seen:
            variable._value = variable.value.copy()
        seen.add(id(variable.value))


def optimizer_averages(optimizer: keras.optimizers.Optimizer) -> dict[int, keras.Variable]:
    """The moving averages that an optimizer keeps, by the `id` of what it trains.

    Relies on `_trainable_variables` and `_model_variables_moving_average`, on `optimizers` of a
    `MultiOptimizer` and `inner_optimizer` of a `LossScaleOptimizer` (seen in 3.13 to 3.15).
    """
    inner, found = getattr(optimizer, "inner_optimizer", optimizer), {}
    for each in getattr(inner, "optimizers", [inner]):
        if each.use_ema and each.built:
            averages = each._model_variables_moving_average
            found |= {id(v): a for v, a in zip(each._trainable_variables, averages, strict=True)}
    return found


class SwappedAverages(keras.optimizers.Optimizer):
    """An optimizer around another, whose averages `keras.callbacks.SwapEMAWeights` can swap.

    That callback sets each weight to its moving average for evaluation, and back. Here it finds
    averages that swap with the master of a weight at the same time, so that neither is rounded.

    Relies on `_trainable_variables` and `_model_variables_moving_average`, which the callback goes
    through in pairs, and on its `assign` of an array to the average to swap and of a variable to
    finish (seen in 3.13 to 3.15).
    """

    optimizer: Any
    masters: list

    @property
    def _model_variables_moving_average(self) -> list:
        found = optimizer_averages(self.optimizer)
        if not found:
            raise AttributeError("None of the optimizers keeps averages.")
        seen = [v if m is None else m for v, m in zip(self._trainable_variables, self.masters)]
        return [
            _SwappedAverage(weight, variable, found.get(id(variable)))
            for weight, variable in zip(self._trainable_variables, seen)
        ]


class _SwappedAverage:
    """The average of what an optimizer trains: the master of a weight, or the weight itself."""

    def __init__(self, weight, trained, average):
        self.weight, self.trained, self.average = weight, trained, average

    def __array__(self, dtype=None, copy=None):
        shown = self.weight if self.average is None else self.average
        return np.asarray(shown.value, dtype)

    def assign(self, value):
        if self.average is None:  # an optimizer without averages trains this weight
            return
        if isinstance(value, keras.Variable):  # training ends with the averages in the weights
            self.average.assign(self.trained.value)
        elif self.trained is self.weight:  # which has been set to the average already
            self.average.assign(value)
        else:
            swapped = self.trained.value, self.average.value
            self.average.assign(swapped[0])
            self.trained.assign(swapped[1])


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


def _in_whole_batches(loop: Callable) -> Callable:
    """Has Keras send each device all rows of a batch: the step shares them, see `_shared_rows`.

    Keras cuts a batch before the step, and raises an error of JAX's if the devices cannot share its
    rows equally (keras-team/keras#21167). Token ids are small; what is computed from them is not.

    Relies on the `get_data_layout` of the distribution in use, which Keras asks how to cut a batch
    (seen in 3.13 to 3.15). Processes on several machines have their own rows already.
    """

    @closing_scopes
    @functools.wraps(loop)
    def run(*args, **kwargs):
        distribution = keras.distribution.distribution()
        if distribution is None or jax.process_count() > 1:
            return loop(*args, **kwargs)
        whole = copy.copy(distribution)
        whole.get_data_layout = lambda shape: keras.distribution.TensorLayout(
            [None] * len(shape), distribution.device_mesh
        )
        keras.distribution.set_distribution(whole)
        try:
            return loop(*args, **kwargs)
        finally:
            keras.distribution.set_distribution(distribution)

    return run


def _rows_sharding() -> jax.sharding.NamedSharding | None:
    """How a batch lies over the devices of the distribution in use."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return None
    rows = jax.sharding.PartitionSpec(distribution.batch_dim_name)
    return jax.sharding.NamedSharding(distribution.device_mesh.backend_mesh, rows)


def _shared_rows(data: Any) -> Any:
    """A batch whose rows the devices share, in a compiled step; XLA gives some a row less."""
    rows = _rows_sharding()
    if rows is None:
        return data
    return jax.tree.map(
        lambda x: jax.lax.with_sharding_constraint(x, rows) if is_traced(x) else x, data
    )


def _weights_at_hand(x: Any, sample_weight: Any) -> Any:
    """Weights of 1 in place of none: Keras 3.13 cannot send `None` to many devices."""
    if sample_weight is not None or keras.distribution.distribution() is None:
        return sample_weight
    return np.ones(len(keras.tree.flatten(x)[0]), "float32")


class Steps(keras.Model):
    """The steps of `fit`, `evaluate`, `predict` and `*_on_batch`: never stale, never torn.

    A step is compiled anew where `compiled_with` has changed. It reads the variables and sets them.
    Keras takes the values off them and hands values from step to step: the closures of callbacks
    find no weights, and an error or Ctrl-C leaves none (keras-team/keras#19054, #21019).

    Relies on what `Trainer` on JAX calls before a loop (`make_train_function` and its sisters), for
    its first state (`_get_jax_state`) and its body (`_make_function`), and to put values back
    (`jax_state_sync`) (seen in 3.13 to 3.15).
    """

    fit = _in_whole_batches(keras.Model.fit)
    evaluate = _in_whole_batches(keras.Model.evaluate)
    predict = _in_whole_batches(keras.Model.predict)

    @_in_whole_batches
    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        **kwargs: Any,
    ) -> Any:
        if class_weight is None:
            sample_weight = _weights_at_hand(x, sample_weight)
        return super().train_on_batch(x, y, sample_weight, class_weight, **kwargs)

    @_in_whole_batches
    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, **kwargs: Any) -> Any:
        return super().test_on_batch(x, y, _weights_at_hand(x, sample_weight), **kwargs)

    @closing_scopes
    def predict_on_batch(self, x: Any) -> Any:
        rows = _rows_sharding()
        if rows is not None and jax.process_count() == 1:  # Keras leaves it to JAX where they go
            x = jax.device_put(
                x, jax.sharding.NamedSharding(rows.mesh, jax.sharding.PartitionSpec())
            )
        return super().predict_on_batch(x)

    def compiled_with(self) -> Hashable:
        """What a step depends on besides shapes and dtypes."""
        raise NotImplementedError

    def stateless_call(
        self, trainable_variables: Any, non_trainable_variables: Any, inputs: Any, **kwargs: Any
    ) -> Any:
        """Keras's, in steps; where devices share the rows, of a multiple of the devices.

        XLA would give every device all rows of an array (rows * tokens, features), of which no
        equal parts are whole rows. The rows that are added are padding, and taken off the outputs.
        """
        sharding, arrays = _rows_sharding(), jax.tree.leaves(inputs)
        call = functools.partial(
            super().stateless_call, trainable_variables, non_trainable_variables, **kwargs
        )
        if sharding is None or not all(map(is_traced, arrays)):
            return call(inputs)
        rows, devices = len(arrays[0]), sharding.mesh.shape[sharding.spec[0]]
        more = [(0, -rows % devices), (0, 0)]
        outputs, *others = call(_shared_rows(jax.tree.map(lambda x: jnp.pad(x, more), inputs)))
        return (jax.tree.map(lambda x: x[:rows], outputs), *others)

    def train_step(self, state: Any, data: Any) -> Any:
        return super().train_step(state, _shared_rows(data))

    def test_step(self, state: Any, data: Any) -> Any:
        return super().test_step(state, _shared_rows(data))

    def predict_step(self, state: Any, data: Any) -> Any:
        return super().predict_step(state, _shared_rows(data))

    def make_train_function(self, force: bool = False) -> None:
        if force or self._is_stale(self.train_function):
            super().make_train_function(force=True)

    def make_test_function(self, force: bool = False) -> None:
        def test(values, data):
            logs, (*_, metrics) = self.test_step(values, data)
            return logs, ((), (), metrics)  # weights stay what they are, and are not used up

        if force or self._is_stale(self.test_function):
            self.test_function = self._make_function(self._compiled(test))

    def make_predict_function(self, force: bool = False) -> None:
        def predict(values, data):
            return self.predict_step(values, data)[0], ()

        if force or self._is_stale(self.predict_function):
            self.predict_function = self._make_function(self._compiled(predict), True)

    def check_batch(self, data: Any) -> None:
        """Looks at a batch before its step; what it raises leaves everything as it was."""

    def jax_state_sync(self) -> None:
        """Has the next step ask for the variables. The values are where they belong."""
        self._jax_state_synced = True

    def _is_stale(self, function) -> bool:
        return getattr(function, "compiled_with", None) != (self.compiled_with(), _rows_sharding())

    def _compiled(self, step):
        return jax.jit(step) if self.jit_compile and not self.run_eagerly else step

    def _get_jax_state(self, optimizer_variables=False, purge_model_variables=False, **wanted):
        kinds = [list(getattr(self, kind)) for kind in wanted if wanted[kind]]
        if optimizer_variables:  # the third of four
            kinds.insert(2, list(self.optimizer.variables))
        # As functions: Keras would take variables in an attribute for the model's own.
        return tuple(functools.partial(list, kind) for kind in kinds)

    def _make_function(self, step_function, concatenate_outputs=False):
        def step(variables, data):
            self.check_batch(data)
            _separate([variable for kind in variables for variable in kind()])
            values = tuple([variable.value for variable in kind()] for kind in variables)
            with uninterrupted():  # training uses the old values up
                outputs, results = step_function(values, data)
                for kind, new in zip(variables, results):
                    for variable, value in zip(kind(), new):
                        variable._value = value
            return outputs, variables

        function = super()._make_function(step, concatenate_outputs)
        function.compiled_with = self.compiled_with(), _rows_sharding()
        return function


class Cloneable(keras.Model):
    """Models of which `keras.models.clone_model` makes another one of the same class.

    Keras would make a bare `Functional` of clones of the layers, in which the output does not share
    the embedding. It means to ask models with a `get_config` of their own for it, but its condition
    is never false. So the graph that it runs to get the outputs makes the clone from the config,
    and the constructor, which Keras then calls with "outputs", gives it back.

    Relies on `_clone_functional_model`, which calls `_run_through_graph` with its own
    `operation_fn`, and then the class if `functional_like_constructor` finds that its `__init__`
    takes any arguments; and on what the functions inside are named (seen in 3.13 to 3.15).
    """

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _unless_cloned(cls.__init__)

    def __new__(cls, *args: Any, **kwargs: Any):
        clone = args[1] if len(args) == 2 else None
        return clone if isinstance(clone, cls) else super().__new__(cls, *args, **kwargs)

    def _run_through_graph(self, inputs, operation_fn=lambda op: op, call_fn=None):
        if getattr(operation_fn, "__module__", "") != cloning.__name__:
            return super()._run_through_graph(inputs, operation_fn, call_fn)
        wrapped = inspect.getclosurevars(operation_fn).nonlocals["clone_function"]
        clone_layer = inspect.getclosurevars(wrapped).nonlocals["clone_function"]
        own = [(x.name, x.shape) for x in keras.tree.flatten(self.input)]
        given = [(x.name, x.shape) for x in keras.tree.flatten(inputs)]
        if call_fn or clone_layer.__module__ != cloning.__name__ or given != own:
            kind = type(self).__name__
            raise ValueError(
                f"keras.models.clone_model takes a {kind} alone, without input_tensors, "
                "clone_function or call_function: a clone is made from the config. To change it, "
                f"call {kind}.from_config({{**model.get_config(), ...}})."
            )
        return type(self).from_config(self.get_config())


def _unless_cloned(init):
    """A constructor that leaves a finished clone, given as its second argument, as it is."""

    @functools.wraps(init)
    def run(self, *args: Any, **kwargs: Any) -> None:
        if not (len(args) == 2 and args[1] is self):
            init(self, *args, **kwargs)

    return run


def is_traced(array: Any) -> bool:
    """Whether an array is a placeholder in a function that JAX is tracing.

    Relies on `jax.core.Tracer` (seen in 0.7 to 0.12).
    """
    return isinstance(array, jax.core.Tracer)
