"""Changing a model as a whole, and closing scopes (chapter 12, "The backbone")."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import keras
import numpy as np
from keras.src.backend.common import global_state

from mistral_lib.interrupts import uninterrupted
from mistral_lib.keras_inside.layers import layers_inside

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
def all_or_nothing(model: keras.Model) -> Iterator[Callable[[keras.layers.Layer], None]]:
    """Changes a model completely or not at all: an error undoes the changes, and Ctrl-C waits.

    Whatever is removed from a layer stays in memory until the block ends.

    Yields:
        A function to call with a layer before its weights are assigned. It keeps their old values
        in the computer's memory, because an accelerator may have no room for a second copy.

    Relies on layers that keep everything in `__dict__`, except the lists of their variables and
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

    # Ctrl-C could leave a Keras name scope open, and later layers would get wrong paths.
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
    """Wraps a function so that it leaves no Keras scope open, even if Ctrl-C interrupts it.

    Ctrl-C may come while a scope is being entered or left. A name scope that stays open becomes
    part of the path of every later layer, and an open `StatelessScope` keeps every variable from
    being assigned.

    Relies on the names of scopes in Keras's global state (seen in 3.13 to 3.15).
    """

    @functools.wraps(function)
    def run(*args, **kwargs):
        before = {name: global_state.get_global_attribute(name) for name in SCOPES}
        open_names = list(before["name_scope_stack"] or [])  # Keras changes this list in place
        try:
            return function(*args, **kwargs)
        except BaseException:
            with uninterrupted():
                for name, value in {**before, "name_scope_stack": open_names}.items():
                    global_state.set_global_attribute(name, value)
            raise

    return run
