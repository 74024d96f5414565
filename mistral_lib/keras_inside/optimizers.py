"""The variables that optimizers keep (chapter 12, "The backbone")."""

from typing import Any

import keras
import numpy as np


def optimizer_weights(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The variables for which an optimizer was built; empty if it is not built yet.

    Relies on `_trainable_variables`, and on `inner_optimizer` of a `LossScaleOptimizer` (seen in
    3.13 to 3.15).
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return list(getattr(inner, "_trainable_variables", []))


def take_path(variable: keras.Variable, other: keras.Variable) -> None:
    """Gives a variable the path of another; some optimizers use the path to choose its training.

    Relies on the attribute `_path` of Keras's variables (seen in 3.13 to 3.15).
    """
    variable._path = other.path


def exclude_as(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable, other: keras.Variable
) -> None:
    """Excludes `other` from weight decay if the optimizer was told to exclude `variable`.

    Relies on `Optimizer._exclude_from_weight_decay`, a set of `id`s, on `inner_optimizer` of a
    `LossScaleOptimizer` and `optimizers` of a `MultiOptimizer` (seen in 3.13 to 3.15).
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    for each in getattr(inner, "optimizers", [inner]):
        excluded = getattr(each, "_exclude_from_weight_decay", set())
        if id(variable) in excluded:
            excluded.add(id(other))


def optimizer_averages(optimizer: keras.optimizers.Optimizer) -> dict[int, keras.Variable]:
    """The moving averages that an optimizer keeps, by the `id` of the variable that it trains.

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
    """An optimizer around another one, whose averages `keras.callbacks.SwapEMAWeights` can swap.

    That callback sets each weight to its moving average for evaluation, and restores it
    afterwards. The averages that it finds here are also swapped with the master weight, so that
    neither is rounded.

    Relies on `_trainable_variables` and `_model_variables_moving_average`, through which the
    callback loops in pairs; and on what it assigns to an average: an array to swap, and a variable
    at the end of training (seen in 3.13 to 3.15).
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
    """The average of what an optimizer trains: a master weight, or the model's own weight."""

    def __init__(self, weight, trained, average):
        self.weight, self.trained, self.average = weight, trained, average

    def __array__(self, dtype=None, copy=None):
        shown = self.weight if self.average is None else self.average
        return np.asarray(shown.value, dtype)

    def assign(self, value):
        if self.average is None:  # this weight is trained by an optimizer without averages
            return
        if isinstance(value, keras.Variable):  # training has ended with the averages
            self.average.assign(self.trained.value)
        elif self.trained is self.weight:  # the callback has already set it to the average
            self.average.assign(value)
        else:
            swapped = self.trained.value, self.average.value
            self.average.assign(swapped[0])
            self.trained.assign(swapped[1])
