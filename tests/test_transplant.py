"""Transplants: right parts change no logit, wrong ones do, and everything is put back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.layers.attention import PATHS
from mistral_lib.layers.dense import masked_attention, masked_softmax
from mistral_lib.layers.rotary import rotary_angles, rotate
from mistral_lib.masks import attention_mask
from mistral_lib.teaching.transplant import PARTS, transplanted


@pytest.fixture(scope="module")
def model():
    model = MistralCausalLM(MistralBackbone(20, 2, 4, 16, 24, 2, sliding_window=3))
    random = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(random.normal(size=variable.shape))
    return model


TOKENS = np.array([[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 0, 0]])
INPUTS = {"token_ids": TOKENS, "padding_mask": TOKENS > 0}


def attend(query, key, value, mask):
    scores = query @ key.T / query.shape[-1] ** 0.5
    return masked_softmax(scores, mask) @ value


def heads(query, key, value, mask):
    return masked_attention(query[None], key[None], value[None], mask)[0]


def turn(x, positions):
    return rotate(x[None, :, None], rotary_angles(positions, x.shape[-1]))[0, :, 0]


def norm(x, scale, epsilon):
    return x / jnp.sqrt((x**2).mean(axis=-1, keepdims=True) + epsilon) * scale


def feed(x, gate, up, down):
    return (jax.nn.silu(x @ gate) * (x @ up)) @ down


def block(x, attention_norm, attention, feedforward_norm, feedforward):
    x = x + attention(attention_norm(x))
    return x + feedforward(feedforward_norm(x))


RIGHT = {
    "embedding": lambda token_ids, table: table[token_ids],
    "logits": lambda hidden_states, kernel: hidden_states @ kernel,
    "projection": lambda x, kernel: x @ kernel,
    "attention": attend,
    "positions": turn,
    "heads": heads,
    "mask": attention_mask,
    "norm": norm,
    "feedforward": feed,
    "block": block,
}
WRONG = {
    "embedding": lambda token_ids, table: table[token_ids - 1],
    "logits": lambda hidden_states, kernel: hidden_states @ -kernel,
    "projection": lambda x, kernel: x @ (2 * kernel),
    "attention": lambda q, k, v, mask: attend(2 * q, k, v, mask),
    "positions": lambda x, positions: turn(x, 2 * positions),
    "heads": lambda q, k, v, mask: heads(q, k[:, ::-1], v, mask),
    "mask": lambda q, k, window, real: attention_mask(q, k, window + 1, real),
    "norm": lambda x, scale, epsilon: norm(x, 1.0, epsilon),
    "feedforward": lambda x, gate, up, down: feed(x, up, gate, down),
    "block": lambda x, n1, attention, n2, feedforward: x + feedforward(n2(x)) + attention(n1(x)),
}


def real_logits(model):
    return np.asarray(model(INPUTS))[INPUTS["padding_mask"]]


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_a_right_part_changes_no_logit_and_a_wrong_one_does(model, name):
    before = real_logits(model)
    with transplanted(model, **{name: RIGHT[name]}):
        assert abs(real_logits(model) - before).max() < 1e-3
    with transplanted(model, **{name: WRONG[name]}):
        assert abs(real_logits(model) - before).max() > 0.1
    assert np.array_equal(real_logits(model), before)
    assert "transplant" not in PATHS


@pytest.mark.slow
def test_all_parts_together(model):
    before = real_logits(model)
    with transplanted(model, **{k: v for k, v in RIGHT.items() if k != "attention"}):
        assert abs(real_logits(model) - before).max() < 1e-3


def test_numpy_will_do(model):
    before = real_logits(model)
    attended = []

    def in_numpy(query, key, value, mask):
        attended.append(mask)
        scores = np.where(mask, np.asarray(query) @ np.asarray(key).T / 2, -1e30)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True) @ np.asarray(value)

    with transplanted(model, attention=in_numpy):
        assert abs(real_logits(model) - before).max() < 1e-3
    assert len(attended) == 2 * 2 * 4  # rows, layers, heads


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_a_compiled_part_is_the_same(model, name):
    with transplanted(model, **{name: WRONG[name]}):
        called = real_logits(model)
        compiled = model.predict(INPUTS, verbose=0)[INPUTS["padding_mask"]]
    assert abs(compiled - called).max() < 1e-3


@pytest.mark.slow
def test_a_padded_query_that_sees_nothing_does_no_harm(model):
    """As at the end of a row whose padding is longer than the window."""
    tokens = np.array([[1, 2, 3, 4, 5, 6, 7], [7, 8, 0, 0, 0, 0, 0]])
    inputs = {"token_ids": tokens, "padding_mask": tokens > 0}

    def with_infinity(query, key, value, mask):
        scores = jnp.where(mask, query @ key.T / query.shape[-1] ** 0.5, -jnp.inf)
        return jax.nn.softmax(scores, axis=-1) @ value

    before = np.asarray(model(inputs))
    with transplanted(model, attention=with_infinity):
        for after in (np.asarray(model(inputs)), model.predict(inputs, verbose=0)):
            assert abs(after - before)[tokens > 0].max() < 1e-3


@pytest.mark.parametrize("name", ["attention", "heads", "positions", "mask"])
def test_a_compiled_part_is_called_once_a_layer_for_all_sequences(model, name):
    calls = []

    def listen(*arguments):
        calls.append(arguments)
        return RIGHT[name](*arguments)

    with transplanted(model, **{name: listen}):
        model.predict(INPUTS, verbose=0)
    assert len(calls) == 2 * (2 if name == "positions" else 1)  # layers; queries and keys


@pytest.mark.slow
def test_compiled_programs_are_made_anew(model):
    before = model.predict(INPUTS, verbose=0)
    with transplanted(model, norm=WRONG["norm"]):
        assert abs(model.predict(INPUTS, verbose=0) - before).max() > 0.1
    assert np.array_equal(model.predict(INPUTS, verbose=0), before)


@pytest.mark.slow
def test_generation_is_compiled_anew(model):
    options = {"max_new_tokens": 4, "stop_token_ids": ()}
    before = model.generate([1, 2, 3], **options)
    with transplanted(model, logits=WRONG["logits"]):
        assert model.generate([1, 2, 3], **options) != before
    assert model.generate([1, 2, 3], **options) == before


def test_a_backbone_will_do(model):
    before = model.backbone(INPUTS)
    with transplanted(model.backbone, block=block):
        assert np.allclose(model.backbone(INPUTS), before, atol=1e-4)


def test_a_part_that_was_never_called_is_an_error(model):
    with (
        pytest.raises(RuntimeError, match=r"norm was never called\. Call the model inside"),
        transplanted(model, norm=norm),
    ):
        pass


def test_an_error_inside_is_shown_and_the_model_is_whole_again(model):
    before = real_logits(model)
    with (
        pytest.raises(ValueError, match=r"mask returned the shape \(6,\), expected \(6, 6\)"),
        transplanted(model, mask=lambda queries, keys, window, real: real),
    ):
        model(INPUTS)
    assert np.array_equal(real_logits(model), before)


def test_an_unknown_part_lists_those_that_exist(model):
    with (
        pytest.raises(ValueError, match=r"No part is called 'rotary': there are embedding, "),
        transplanted(model, rotary=turn),
    ):
        pass


def test_one_head_or_all_of_them(model):
    with (
        pytest.raises(ValueError, match="give one of the two"),
        transplanted(model, attention=attend, heads=heads),
    ):
        pass
