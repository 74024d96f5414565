"""Training weights of 16 bits (chapter 13, "Training a Mistral from nothing")."""

import warnings
from collections.abc import Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import keras

from mistral_lib.keras_inside import (
    SwappedAverages,
    exclude_as,
    layout_of,
    optimizer_weights,
    take_path,
)

LOW_PRECISION = ("bfloat16", "float16")


@keras.saving.register_keras_serializable(package="mistral_lib")
class MasterWeights(SwappedAverages):
    """An optimizer that trains 16-bit weights through float32 copies, their *master weights*.

    A bfloat16 number has 8 significant bits: an update is lost if it is less than a 512th of the
    weight, and Adam's `beta_2` of 0.999 is rounded to 1. So the optimizer that does the work
    updates the master weights instead. It computes in float32, and keeps its moments in float32
    too. After each step the model gets the master weights, rounded once.

    `compile` of a model with 16-bit weights wraps the optimizer in a `MasterWeights`. Each
    trainable 16-bit weight then has a master weight, 4 bytes per parameter, and the optimizer's own
    state in float32: 8 bytes with Adam, AdamW and Nadam, 4 with Lion and with SGD with momentum,
    and none with plain SGD. So Adam takes 12 bytes per parameter, in addition to 2 for the weight
    and 2 for its gradient. Frozen weights cost nothing, and trainable float32 weights, such as the
    factors of LoRA, have no master weight.

    If a weight has been changed since the last step, by `load_weights`, `assign`, `merge_lora` or a
    callback, it no longer equals its rounded master weight. The next step then starts from the
    changed weight.

    Your own model around a backbone has Keras's `compile`: pass it a `MasterWeights` yourself.

    Args:
        optimizer: the optimizer that does the work, any optimizer of Keras. It is used as it is, so
            its learning rate can be set on either object.
        name: of this optimizer.

    Source: Micikevicius et al., "Mixed Precision Training", 2018, section 3.1.

    >>> import numpy as np
    >>> weight = keras.Variable(1.0, dtype="bfloat16")
    >>> optimizer = MasterWeights(keras.optimizers.SGD(0.001))
    >>> for _ in range(5):  # each step alone is too small for bfloat16
    ...     optimizer.apply([np.ones(())], [weight])
    >>> print(f"{float(optimizer.masters[0].value):.4f} {float(weight.value):.4f}")
    0.9950 0.9961
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, name: str | None = None):
        super().__init__(learning_rate=0.0, name=name)
        self.optimizer = optimizer
        self.masters: list[keras.Variable | None] = []  # None for a weight that is float32 itself

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Makes the master weights, and builds the optimizer for them."""
        if self.built:
            return
        variables = list(variables)
        self.masters = [self._master_of(variable) for variable in variables]
        self.optimizer.build(self._in_float32(variables))
        for variable, master in zip(variables, self.masters):
            if master is not None:
                exclude_as(self.optimizer, variable, master)
        super().build(variables)

    def _master_of(self, variable):
        if variable.dtype not in LOW_PRECISION:
            return None
        master = self.add_variable(
            shape=variable.shape,
            dtype="float32",
            layout=layout_of(variable),  # split over devices as the weight is
            name=variable.name,
        )
        master.assign(variable.value)
        master.constraint = variable.constraint
        take_path(master, variable)
        return master

    def _in_float32(self, variables):
        """The variables that the optimizer trains: the master weights where there are any."""
        return [v if master is None else master for v, master in zip(variables, self.masters)]

    def stateless_apply(
        self, optimizer_variables: list, grads: list, trainable_variables: list
    ) -> tuple[list, list]:
        """One step: see `keras.optimizers.Optimizer.stateless_apply`."""
        if not self.built:
            raise ValueError("MasterWeights must be built before a step: call its build first.")
        state = {id(v): value for v, value in zip(self.variables, optimizer_variables, strict=True)}
        weights = [
            weight if master is None else _up_to_date(state[id(master)], jnp.asarray(weight))
            for master, weight in zip(self.masters, trainable_variables, strict=True)
        ]
        grads = [None if grad is None else jnp.asarray(grad, "float32") for grad in grads]
        inside = self.optimizer.variables
        weights, values = self.optimizer.stateless_apply(
            [state[id(v)] for v in inside], grads, weights
        )
        state |= {id(v): value for v, value in zip(inside, values, strict=True)}
        state |= {id(master): weight for master, weight in zip(self.masters, weights)}
        rounded = [jnp.asarray(new, old.dtype) for new, old in zip(weights, trainable_variables)]
        return rounded, [state[id(v)] for v in self.variables]

    def apply(
        self, grads: Sequence, trainable_variables: Sequence[keras.Variable] | None = None
    ) -> None:
        """One step that changes the variables in place, for training loops that you write."""
        if not self.built:
            if trainable_variables is None:
                raise ValueError("The optimizer is not built yet: pass trainable_variables too.")
            self.build(trainable_variables)
        known = optimizer_weights(self)
        given = {id(v): grad for v, grad in zip(trainable_variables or known, grads, strict=True)}
        if given.keys() - {id(v) for v in known}:
            raise ValueError(
                "The optimizer was built for other variables. Make a new one for these variables."
            )
        weights, values = self.stateless_apply(
            [v.value for v in self.variables],
            [given.get(id(v)) for v in known],
            [v.value for v in known],
        )
        for variable, value in zip([*known, *self.variables], [*weights, *values], strict=True):
            variable.assign(value)

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """Sets the weights to their moving averages, if the optimizer keeps any."""
        if not self.built:
            return
        targets = self._in_float32(var_list)
        before = [target.value for target in targets]
        self.optimizer.finalize_variable_values(targets)
        for variable, target, value in zip(var_list, targets, before):
            if target.value is not value:
                variable.assign(target.value)

    @property
    def variables(self) -> list[keras.Variable]:
        """Two scalars that every optimizer has, the master weights, and the optimizer's own."""
        return [*super().variables, *self.optimizer.variables]

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the optimizer."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.optimizer.learning_rate = learning_rate

    @property
    def iterations(self) -> Any:
        """The number of steps that the optimizer has made."""
        return self.optimizer.iterations

    def scale_loss(self, loss: Any) -> Any:
        """The loss times the factor by which the optimizer will divide the gradients."""
        return self.optimizer.scale_loss(loss)

    def set_weights(self, weights: Sequence) -> None:
        """Sets all `variables`."""
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def save_own_variables(self, store: Any) -> None:
        """Saves the master weights. Keras itself saves the optimizer inside."""
        for index, master in enumerate(master for master in self.masters if master is not None):
            store[str(index)] = master.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Loads the master weights; if the file has none, training continues from the weights."""
        masters = [master for master in self.masters if master is not None]
        if len(store.keys()) != len(masters):
            warnings.warn(
                f"The file has {len(store.keys())} master weights, but this model trains "
                f"{len(masters)}: training goes on from the rounded weights.",
                stacklevel=2,
            )
            return
        for index, master in enumerate(masters):
            master.assign(store[str(index)])

    def get_config(self) -> dict[str, Any]:
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> Self:
        optimizer = keras.saving.deserialize_keras_object(
            config["optimizer"], custom_objects=custom_objects
        )
        return cls(optimizer, name=config["name"])


def _up_to_date(master, weight):
    """The master weight, or the weight itself if it no longer equals the rounded master weight."""

    # Bits are compared, because XLA may leave out a rounding before it compares numbers.
    def bits(array):
        return jax.lax.bitcast_convert_type(array, "uint16")

    unchanged = bits(master.astype(weight.dtype)) == bits(weight)
    return jnp.where(unchanged, master, weight.astype("float32"))


def with_master_weights(optimizer: Any, model: keras.Model) -> keras.optimizers.Optimizer | None:
    """The optimizer with which a model is trained.

    Args:
        optimizer: whatever Keras's `compile` takes.
        model: the model, whose weights must exist already.

    Returns:
        The optimizer itself for float32 weights, and a `MasterWeights` around it for 16-bit
        weights. For float16, in which gradients can be too small or too large, a
        `LossScaleOptimizer` is put in between, unless the caller scales the loss already. If the
        model has been compiled with the same optimizer before, the state of the optimizer is kept.

    >>> from mistral_lib import MistralBackbone
    >>> backbone = MistralBackbone(10, 1, 2, 8, 16, 1, dtype="bfloat16")
    >>> type(with_master_weights("adam", backbone)).__name__
    'MasterWeights'
    """
    optimizer = keras.optimizers.get(optimizer)
    dtypes = {variable.dtype for variable in model.variables}
    if optimizer is None or not dtypes & {*LOW_PRECISION} or isinstance(optimizer, MasterWeights):
        return optimizer
    present = getattr(model, "optimizer", None)
    if isinstance(present, MasterWeights):
        inside = present.optimizer
        if optimizer in (inside, getattr(inside, "inner_optimizer", None)):
            return present
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if "float16" in dtypes and not scaled and optimizer.loss_scale_factor is None:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return MasterWeights(optimizer)


class MasterWeightsModel(keras.Model):
    """A model whose `compile` takes care of 16-bit weights: see `MasterWeights`."""

    def compile(self, optimizer: Any = "rmsprop", *args: Any, **kwargs: Any) -> None:
        """Keras's `compile`."""
        super().compile(with_master_weights(optimizer, self), *args, **kwargs)

    def get_compile_config(self) -> dict[str, Any]:
        """Keras's config, and the weights for which the optimizer was built, if all still exist."""
        config = super().get_compile_config()
        if not config or self.optimizer is None:
            return config
        known, present = optimizer_weights(self.optimizer), {id(v) for v in self.variables}
        stale = any(id(variable) not in present for variable in known)
        return {**config, "built_for": [] if stale else [variable.path for variable in known]}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as the saved model was. Keras skips models that override `compile`."""
        config = dict(config)
        variables = {variable.path: variable for variable in self.variables}
        trained = [variable.path for variable in self.trainable_variables]
        built_for = config.pop("built_for", trained)  # older files lack it
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built and built_for:
            self.optimizer.build([variables[path] for path in built_for])
