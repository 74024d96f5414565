"""mistral_lib/keras_inside.py: what Keras does not document is still as it was."""

import jax
import keras
import numpy as np
from small_presets import CONFIG, INPUTS, small_backbone

from mistral_lib import MistralBackbone, without_weights


def test_nothing_is_allocated():
    before = sum(array.nbytes for array in jax.live_arrays())
    with without_weights():
        backbone = MistralBackbone(32000, 32, 32, 4096, 14336, 8)
    assert backbone.count_params() == 7_241_732_096
    assert sum(array.nbytes for array in jax.live_arrays()) - before < 10**6


def test_a_model_without_weights_leaves_others_alone():
    """Keras initialises what waits when its next stateless scope ends, that of a `fit`, say."""
    with without_weights():
        empty = MistralBackbone(**CONFIG)
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(loss="mse")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    assert empty.token_embedding.embeddings._value is None


def test_values_come_by_assign():
    with without_weights():
        empty = MistralBackbone(**CONFIG)
    full = small_backbone()
    for variable, value in zip(empty.variables, full.variables, strict=True):
        variable.assign(value.value)
    np.testing.assert_array_equal(empty(INPUTS), full(INPUTS))
