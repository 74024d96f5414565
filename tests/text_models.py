"""A small model with a tokenizer, and weights that make its choices differ."""

import keras
import numpy as np
from vocabularies import trained_model

from mistral_lib import (
    MistralBackbone,
    MistralCausalLM,
    MistralCausalLMPreprocessor,
    MistralTokenizer,
)

LENGTH = 24


def make_model(dtype=None, **kwargs):
    tokenizer = MistralTokenizer(trained_model())
    keras.utils.set_random_seed(0)
    backbone = MistralBackbone(
        tokenizer.vocabulary_size(), 2, 4, 32, 48, 2, sliding_window=7, dtype=dtype
    )
    for variable in backbone.variables:
        if len(variable.shape) > 1:
            variable.assign(np.random.default_rng(0).normal(0, 0.3, variable.shape))
    return MistralCausalLM(backbone, MistralCausalLMPreprocessor(tokenizer, LENGTH), **kwargs)
