"""Models that `keras.models.clone_model` can clone (chapter 12, "The backbone")."""

import functools
import inspect
from typing import Any

import keras
from keras.src.models import cloning


class Cloneable(keras.Model):
    """Models that `keras.models.clone_model` clones into another model of the same class.

    Keras would make a bare `Functional` from clones of the layers, in which the output does not
    share the embedding. It is meant to clone models that have their own `get_config` from their
    config, but a condition in its code is never false. So here `_run_through_graph`, which Keras
    calls to get the outputs, makes the clone from the config instead. Keras passes this clone to
    the constructor as the "outputs", and the constructor returns it.

    Relies on `_clone_functional_model`, which calls `_run_through_graph` with its own
    `operation_fn`, and then the class if `functional_like_constructor` finds that its `__init__`
    takes any arguments; and on the names of the functions inside (seen in 3.13 to 3.15).
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
    """A constructor that does nothing if its second argument is `self`, a finished clone."""

    @functools.wraps(init)
    def run(self, *args: Any, **kwargs: Any) -> None:
        if not (len(args) == 2 and args[1] is self):
            init(self, *args, **kwargs)

    return run
