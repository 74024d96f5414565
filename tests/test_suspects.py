"""Damaged models: each differs from the shipped one first where its damage is."""

import jax.numpy as jnp
import numpy as np
import pytest

from mistral_lib import MistralCausalLM
from mistral_lib.teaching import panel, suspects


def streams(model):
    """The residual stream of a text before the first block and after each, (L + 1, S, D)."""
    documents = panel.documents(model.preprocessor.tokenizer)
    ids = documents.token_ids[documents.padding_mask.sum(axis=1).argmax()][None]
    states = [model.backbone.token_embedding(ids)]
    for block in model.backbone.transformer_layers:
        states.append(block(states[-1], padding_mask=ids >= 0))
    return np.asarray(jnp.concatenate(states))


@pytest.fixture(scope="module")
def sound():
    return streams(MistralCausalLM.from_preset("mistral_tiny_en"))


@pytest.mark.parametrize(("name", "block", "place"), [("A", 4, 0), ("B", 1, 1), ("C", 0, 127)])
def test_the_first_difference_is_where_the_damage_is(sound, name, block, place):
    apart = abs(streams(suspects.load(name)) - sound).max(axis=-1)  # (L + 1, S)
    wrong = apart > 1e-5 * abs(sound).max(axis=(1, 2))[:, None]
    assert not wrong[: block + 1].any()
    assert np.flatnonzero(wrong[block + 1])[0] == place


def test_an_unknown_suspect_is_refused():
    with pytest.raises(ValueError, match="'A', 'B'"):
        suspects.load("D")
