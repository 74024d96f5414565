"""mistral_lib/base.py: models without memory, and the class that presets are loaded from."""

import jax
import keras
import numpy as np
import pytest
from small_presets import CONFIG, INPUTS, small_backbone

from mistral_lib import Backbone, MistralBackbone, without_weights


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


def test_the_base_loads_the_class_that_the_config_names(tmp_path):
    small_backbone().save_to_preset(tmp_path / "preset")
    assert type(Backbone.from_preset(tmp_path / "preset")) is MistralBackbone
    assert "mistral_7b_en" in Backbone.presets
    assert "mistral_tiny_en" in MistralBackbone.presets


def test_the_token_embedding_goes_both_ways():
    backbone = small_backbone()
    states = backbone(INPUTS)
    assert backbone.token_embedding(INPUTS["token_ids"]).shape == states.shape
    logits = backbone.token_embedding(states, reverse=True)
    assert logits.shape == (*states.shape[:2], CONFIG["vocabulary_size"])


def test_inputs_are_checked_against_the_vocabulary():
    with pytest.raises(ValueError, match="from 0 to 299"):
        small_backbone()({"token_ids": [[1, 300]], "padding_mask": [[1, 1]]})
