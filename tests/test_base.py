"""mistral_lib/base.py: the class that presets are loaded from."""

import pytest
from small_presets import CONFIG, INPUTS, small_backbone

from mistral_lib import Backbone, MistralBackbone


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
