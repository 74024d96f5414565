"""mistral_lib/forward.py: one pass, and what flows between the blocks."""

import jax
import numpy as np
import pytest
from small_presets import INPUTS, small_backbone, small_causal_lm

from mistral_lib.forward import forward
from mistral_lib.generation.cache import extend, new_cache


@pytest.fixture(scope="module")
def backbone():
    return small_backbone(num_layers=3, sliding_window=[3, None, 2])


def arrays():
    return INPUTS["token_ids"], INPUTS["padding_mask"]


@pytest.mark.slow
def test_training_scoring_and_writing_go_this_way(backbone, monkeypatch):
    """None of them has embeddings, blocks and norm of its own."""
    passes = []
    original = type(backbone.layer_norm).call
    monkeypatch.setattr(
        type(backbone.layer_norm), "call", lambda self, x: passes.append(self) or original(self, x)
    )
    expected = 2 * backbone.config.num_layers + 1
    ids, mask = arrays()
    model = small_causal_lm(preprocessor=None, num_layers=3, sliding_window=[3, None, 2])
    for run in (
        lambda: forward(backbone, ids, padding_mask=mask),
        lambda: backbone(INPUTS, training=True),
        lambda: extend(backbone, new_cache(backbone, 2, 16), ids),
        lambda: model.score(ids),
    ):
        passes.clear()
        run()
        assert len(passes) == expected


@pytest.mark.slow
def test_each_layer_has_its_own_window(backbone):
    """With cut attention everywhere, a token's reach is the sum of all windows less one."""
    ids, mask = np.arange(40)[None] % 300, np.ones((1, 40), bool)
    narrow = small_backbone(num_layers=3, sliding_window=[3, 5, 2])

    def reach(model):
        other = ids.copy()
        other[0, 10] = 299
        changed = np.abs(forward(model, ids, mask) - forward(model, other, mask)).max(axis=(0, 2))
        return np.flatnonzero(changed > 1e-7).tolist()

    assert reach(narrow) == list(range(10, 10 + 1 + 2 + 4 + 1))
    assert reach(backbone) == list(range(10, 40))  # the second layer sees all


@pytest.mark.parametrize("path", ["dense", "banded"])
def test_windows_that_differ_by_layer_on_both_paths(backbone, path):
    model = small_backbone(num_layers=3, sliding_window=[3, None, 2])
    expected = forward(model, *arrays())
    model.attention_path = path
    np.testing.assert_allclose(forward(model, *arrays()), expected, rtol=1e-4, atol=1e-5)


def test_what_flows_between_the_blocks_is_seen(backbone):
    seen = {}

    def look(hidden_states, index):
        seen[index] = hidden_states
        return hidden_states

    output = forward(backbone, *arrays(), intercept=look)
    assert list(seen) == [-1, 0, 1, 2]
    np.testing.assert_array_equal(seen[-1], backbone.token_embedding(INPUTS["token_ids"]))
    np.testing.assert_array_equal(backbone.layer_norm(seen[2]), output)
    block = backbone.transformer_layers[1]
    after = block(seen[0], padding_mask=INPUTS["padding_mask"])
    np.testing.assert_allclose(after, seen[1], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_what_flows_between_the_blocks_can_be_replaced(backbone):
    """From one place on, the states of another text give the output of the other text."""
    ids, mask = arrays()
    other = (ids + 5) % 300
    states = {}
    expected = forward(
        backbone, other, mask, intercept=lambda x, index: states.setdefault(index, x)
    )
    found = forward(backbone, ids, mask, intercept=lambda x, i: states[i] if i == 1 else x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    gradient = jax.grad(
        lambda shift: forward(
            backbone, ids, mask, intercept=lambda x, i: x + shift if i == 0 else x
        ).sum()
    )(0.0)
    assert abs(float(gradient)) > 0
