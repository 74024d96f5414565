"""The shipped model with other windows: the same as the library's, and how its cost is counted."""

import numpy as np
import pytest

from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.teaching import windows


@pytest.fixture(scope="module")
def model():
    return MistralCausalLM.from_preset("mistral_tiny_en")


def test_texts_are_longer_than_the_window(model):
    texts = windows.long_texts(model.preprocessor.tokenizer)
    assert len(texts) == 26
    assert texts.token_ids.shape == (26, windows.TOKENS)
    assert (windows.beyond(texts).sum(axis=1) >= 20).all()
    assert not windows.beyond(texts)[:, :128].any()


@pytest.mark.slow
def test_a_window_is_the_librarys(model):
    tokenizer = model.preprocessor.tokenizer
    texts = windows.long_texts(tokenizer, "discover").where([True] * 2 + [False] * 24)
    for window in (None, 40):
        settings = model.backbone.get_config() | {"sliding_window": window}
        twin = MistralCausalLM(MistralBackbone.from_config(settings))
        twin.set_weights(model.get_weights())
        expected = np.asarray(twin(texts.inputs)).argmax(axis=-1)
        _, found = windows.read_with(model, texts, window or 1_000)
        assert (expected == found)[texts.padding_mask].mean() > 0.99


@pytest.mark.slow
def test_a_cost_counts_what_is_far_into_the_texts(model):
    tokenizer = model.preprocessor.tokenizer
    texts = windows.long_texts(tokenizer, "discover")
    bits = np.zeros((26, 255), "float32")
    near, far = bits.copy(), bits.copy()
    near[:, :128] = 1
    far[windows.beyond(texts)] = 1
    assert windows.more_bits(near, bits, texts, tokenizer).mean == 0
    assert 0.1 < windows.more_bits(far, bits, texts, tokenizer).mean < 1  # bytes of a token
