"""mistral_lib/models.py: the names of KerasNLP's `models` module."""

import numpy as np

import mistral_lib
from mistral_lib import models


def test_names():
    assert mistral_lib.models is models
    for name in models.__all__:
        assert getattr(models, name) is getattr(mistral_lib, name)


def test_documented_example():
    """The documentation's own call, with the import changed."""
    keras_nlp = mistral_lib
    input_data = {
        "token_ids": np.ones(shape=(1, 12), dtype="int32"),
        "padding_mask": np.array([[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]]),
    }
    model = keras_nlp.models.MistralBackbone(
        vocabulary_size=10,
        hidden_dim=512,
        num_layers=2,
        num_query_heads=32,
        num_key_value_heads=8,
        intermediate_dim=1024,
        sliding_window=512,
        layer_norm_epsilon=1e-6,
        dtype="float32",
    )
    assert model(input_data).shape == (1, 12, 512)
