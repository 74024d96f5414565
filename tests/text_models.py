"""A small model with a tokenizer, and weights that make its choices differ; and a small corpus."""

import keras
import numpy as np
from vocabularies import trained_model

from mistral_lib import (
    MistralBackbone,
    MistralCausalLM,
    MistralCausalLMPreprocessor,
    MistralTokenizer,
)
from mistral_lib.teaching import corpus

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


def small_corpus() -> corpus.Corpus:
    """Documents of random words, split as the real corpus is."""
    words = "window key query value head token layer mask slides over sees every next".split()
    random = np.random.default_rng(0)
    documents = [
        corpus.Document("stdlib", f"m.py:{i}", f"{i}: {' '.join(random.choice(words, 30))}.\n")
        for i in range(120)
    ]
    return corpus.split(documents)
