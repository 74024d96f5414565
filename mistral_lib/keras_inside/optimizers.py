"""What optimizers keep (chapter 12, "The backbone")."""

from typing import Any

import keras
import numpy as np


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
