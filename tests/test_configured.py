"""mistral_lib/layers/configured.py: layers that take the config."""

import json

import pytest

from mistral_lib.config import MistralConfig
from mistral_lib.layers.attention import MistralAttention
from mistral_lib.layers.configured import ConfiguredLayer
from mistral_lib.layers.decoder import MistralDecoder

CONFIG = MistralConfig(10, 2, 4, 16, 32, 2, sliding_window=[3, None])


@pytest.mark.parametrize("cls", [ConfiguredLayer, MistralAttention, MistralDecoder])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "int8_from_bfloat16"])
def test_it_survives_json(cls, dtype):
    layer = cls(CONFIG, 1, dtype=dtype, name="mine")
    again = cls.from_config(json.loads(json.dumps(layer.get_config())))
    assert (again.config, again.layer, again.name) == (CONFIG, 1, "mine")
    assert again.projection_policy.name == dtype
    assert again.get_config() == layer.get_config()


def test_the_config_stays():
    layer = MistralDecoder(CONFIG)
    with pytest.raises(AttributeError, match="The config of a MistralDecoder cannot be replaced"):
        layer.config = CONFIG.changed(sliding_window=None)
    assert layer.config is CONFIG
    with pytest.raises(AttributeError, match="no config yet"):
        _ = MistralDecoder.__new__(MistralDecoder).config
