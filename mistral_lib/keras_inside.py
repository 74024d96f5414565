"""The only place that uses what other libraries do not document (chapter 12, "The backbone").

Each function says what it relies on, and in which versions that was seen (versions of Keras, if no
other library is named). Its test fails with a clear sentence when a new version changes that.
"""

import contextlib
import copy
import functools
import os
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import jax
import jax.core
import jax.numpy as jnp
import keras
import numpy as np
from huggingface_hub import constants
from keras.src.backend.common import global_state

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


def is_traced(array: Any) -> bool:
    """Whether an array is a placeholder in a function that JAX is tracing.

    Relies on `jax.core.Tracer` (seen in 0.7 to 0.12).
    """
    return isinstance(array, jax.core.Tracer)


def is_known_to_be_missing(model: str, name: str, commit: str) -> bool:
    """Whether Hugging Face has said before that a commit of a model has no such file.

    Relies on `huggingface_hub._CACHED_NO_EXIST` (seen in huggingface_hub 1.27 to 2.4).
    """
    known = huggingface_hub.try_to_load_from_cache(model, name, revision=commit)
    return known is huggingface_hub._CACHED_NO_EXIST


def is_downloaded_at_once(model: str, commit: str) -> bool:
    """Whether a commit of a model was put into the cache as a whole, as `hf download` does.

    A program that asks for one file after the other also asks for some that do not exist, and the
    client writes those down.

    Relies on the folders `snapshots` and `.no_exist` in the cache of `huggingface_hub` (seen in
    huggingface_hub 0.34 to 2.4).
    """
    folder = _cached(model)
    return (folder / "snapshots" / commit).is_dir() and not (folder / ".no_exist" / commit).exists()


def cached_commit(model: str, revision: str) -> str | None:
    """The commit for which a branch or tag stood when Hugging Face was last asked.

    Relies on the file `models--user--name/refs/…` in the cache of `huggingface_hub` (seen in
    huggingface_hub 1.27 to 2.4).
    """
    file = _ref(model, revision)
    return file.read_text(encoding="utf-8") if file.is_file() else None


def remember_commit(model: str, revision: str, commit: str) -> None:
    """Has `cached_commit` and the client itself find a commit when there is no network.

    The client writes this down too, but only with a file that it asks for by the branch: another
    commit could come between its two requests.

    Relies on what `cached_commit` does (seen in huggingface_hub 1.27 to 2.4).
    """
    file = _ref(model, revision)
    if file.is_file() and file.read_text(encoding="utf-8") == commit:
        return
    with contextlib.suppress(OSError):  # a cache that cannot be written
        file.parent.mkdir(parents=True, exist_ok=True)
        written = file.with_name(f"{file.name}.{os.getpid()}.tmp")
        written.write_text(commit, encoding="utf-8")
        written.replace(file)


def _ref(model: str, revision: str) -> Path:
    return _cached(model) / "refs" / revision


def _cached(model: str) -> Path:
    return Path(constants.HF_HUB_CACHE, "--".join(("models", *model.split("/"))))


def kaggle_models_folder() -> Path:
    """Where Kaggle's client keeps the models that it has downloaded, `user/model/…/version`.

    Relies on `kagglehub.config.get_cache_folder` and its folder `models` (seen in kagglehub 0.4 to
    1.0).
    """
    from kagglehub import config  # an optional dependency

    return Path(config.get_cache_folder(), "models")
