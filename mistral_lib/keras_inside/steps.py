"""The steps of `fit`, `evaluate` and `predict` (chapter 12, "The backbone")."""

import copy
import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from mistral_lib.interrupts import uninterrupted
from mistral_lib.keras_inside.changes import closing_scopes
from mistral_lib.keras_inside.layers import is_traced


def _separate_values(kinds: list[list[keras.Variable]]) -> tuple[list[jax.Array], ...]:
    """The values of all variables, no array twice, because a training step donates them to JAX.

    After a `fit` with averages, Keras leaves a weight and its average with the same array.
    """
    seen = set()

    def own(variable):
        value = variable.value
        if id(value) in seen:
            value = variable._value = value.copy()
        seen.add(id(value))
        return value

    return tuple([own(variable) for variable in kind] for kind in kinds)


def compiled_metrics(model: keras.Model) -> list[keras.metrics.Metric]:
    """The metrics, weighted or not, with which a model evaluates.

    If the last `compile` named none, Keras still uses those of an earlier one.

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
    """Makes Keras send all rows of a batch to each device; `_shared_rows` splits them in the step.

    Keras splits a batch before the step, which ends in an error from JAX if the rows do not divide
    equally among the devices (keras-team/keras#21167). Sending all rows costs little, because token
    ids are small compared with what is computed from them.

    Relies on the `get_data_layout` of the distribution in use, from which Keras learns how to split
    a batch (seen in 3.13 to 3.15). Processes on several machines already have only their own rows.
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
    """How the rows of a batch are split over the devices of the distribution in use."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return None
    rows = jax.sharding.PartitionSpec(distribution.batch_dim_name)
    return jax.sharding.NamedSharding(distribution.device_mesh.backend_mesh, rows)


def _shared_rows(data: Any) -> Any:
    """In a compiled step, a batch split by rows; XLA may give some devices one row less."""
    rows = _rows_sharding()
    if rows is None:
        return data
    return jax.tree.map(
        lambda x: jax.lax.with_sharding_constraint(x, rows) if is_traced(x) else x, data
    )


def _weights_at_hand(x: Any, sample_weight: Any) -> Any:
    """Weights of 1 in place of `None`, which Keras 3.13 cannot send to several devices."""
    if sample_weight is not None or keras.distribution.distribution() is None:
        return sample_weight
    return np.ones(len(keras.tree.flatten(x)[0]), "float32")


class Steps(keras.Model):
    """The steps of `fit`, `evaluate`, `predict` and `*_on_batch`: never outdated, never half done.

    A step is compiled again if `compiled_with` has changed. Each step reads the values of the
    variables and sets them afterwards. Keras itself removes the values from the variables and
    passes them from step to step, so that callbacks find no weights, and none are left after an
    error or Ctrl-C (keras-team/keras#19054, #21019).

    Relies on the methods that `Trainer` on JAX calls: before a loop `make_train_function` and those
    for testing and prediction, `_get_jax_state` for the first state, `_make_function` for the body,
    and `jax_state_sync` to put the values back (seen in 3.13 to 3.15).
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
        if rows is not None and jax.process_count() == 1:  # otherwise JAX would choose the devices
            x = jax.device_put(
                x, jax.sharding.NamedSharding(rows.mesh, jax.sharding.PartitionSpec())
            )
        return super().predict_on_batch(x)

    def compiled_with(self) -> Hashable:
        """Everything on which a compiled step depends, besides shapes and dtypes."""
        raise NotImplementedError

    def stateless_call(
        self, trainable_variables: Any, non_trainable_variables: Any, inputs: Any, **kwargs: Any
    ) -> Any:
        """Keras's `stateless_call`; in a step on several devices, rows are padded to a multiple.

        If the number of rows is no multiple of the number of devices, XLA cannot split an array
        (rows * tokens, features) into equal parts of whole rows, and would give every device all of
        it. The padding rows are removed from the outputs.
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
            return logs, ((), (), metrics)  # the weights are unchanged, and not donated

        if force or self._is_stale(self.test_function):
            self.test_function = self._make_function(self._compiled(test))

    def make_predict_function(self, force: bool = False) -> None:
        def predict(values, data):
            return self.predict_step(values, data)[0], ()

        if force or self._is_stale(self.predict_function):
            self.predict_function = self._make_function(self._compiled(predict), True)

    def check_batch(self, data: Any) -> None:
        """Checks a batch before its step; an error raised here leaves everything as it was."""

    def jax_state_sync(self) -> None:
        """Makes the next step read the variables, which already have their values."""
        self._jax_state_synced = True

    def _is_stale(self, function) -> bool:
        return getattr(function, "compiled_with", None) != (self.compiled_with(), _rows_sharding())

    def _compiled(self, step):
        return jax.jit(step) if self.jit_compile and not self.run_eagerly else step

    def _get_jax_state(self, optimizer_variables=False, purge_model_variables=False, **wanted):
        kinds = [list(getattr(self, kind)) for kind in wanted if wanted[kind]]
        if optimizer_variables:  # Keras expects them third of four
            kinds.insert(2, list(self.optimizer.variables))
        # Functions, not lists: Keras would track variables in an attribute as the model's own.
        return tuple(functools.partial(list, kind) for kind in kinds)

    def _make_function(self, step_function, concatenate_outputs=False):
        def step(variables, data):
            self.check_batch(data)
            kinds = [kind() for kind in variables]
            values = _separate_values(kinds)
            with uninterrupted():  # training donates the old values
                outputs, results = step_function(values, data)
                for kind, new in zip(kinds, results):
                    for variable, value in zip(kind, new):
                        variable._value = value
            return outputs, variables

        function = super()._make_function(step, concatenate_outputs)
        function.compiled_with = self.compiled_with(), _rows_sharding()
        return function
