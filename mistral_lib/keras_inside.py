"""The one door to what Keras does not document (chapter 12, "The backbone").

Each function names what it relies on, and the versions of Keras in which it was seen. Its tests
fail with a clear sentence when Keras changes that.
"""

import contextlib

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
    waiting = list(global_state.get_global_attribute("uninitialized_variables", []))
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
        made = global_state.get_global_attribute("uninitialized_variables", [])[len(waiting) :]
        _lay_out(made)
    finally:
        global_state.set_global_attribute("uninitialized_variables", waiting)


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
