"""Measures: each against a loop over texts and tokens."""

import math

import numpy as np
import pytest

from mistral_lib import MistralCausalLM
from mistral_lib.teaching import measures, panel, repeats
from mistral_lib.teaching.interventions import activations
from mistral_lib.tokenizer import MistralTokenizer

TOKENIZER = MistralTokenizer.from_preset("mistral_tiny_en")
PROMPTS = panel.docstrings(TOKENIZER).where([number % 9 == 0 for number in range(72)])
REPEATS = repeats.sentences(TOKENIZER).where([number < 4 for number in range(24)])
V = TOKENIZER.vocabulary_size()


def drawn(rows) -> np.ndarray:
    """Logits that no model gave."""
    shape = (*rows.token_ids.shape, V)
    return np.random.default_rng(0).normal(size=shape).astype("float32") * 2


def softmax(z):
    weights = np.exp(z - z.max())
    return weights / weights.sum()


LOGITS = drawn(PROMPTS)
REPEATED = drawn(REPEATS)


def names():
    """For each prompt the row of its end, and its name's pieces."""
    for row, (end, answer) in enumerate(zip(PROMPTS.ends, PROMPTS.answers)):
        yield row, end, [piece for piece in answer if piece >= 0]


def test_bits_are_those_of_all_tokens_but_the_first():
    expected = []
    for z, ids, real in zip(LOGITS, PROMPTS.token_ids, PROMPTS.padding_mask):
        places = range(1, real.sum())
        expected.append(-sum(math.log2(softmax(z[i - 1])[ids[i]]) for i in places))
    assert np.allclose(measures.bits(LOGITS, PROMPTS), expected, rtol=1e-4)


def test_chance_is_that_of_the_first_piece():
    expected = [softmax(LOGITS[row, end])[name[0]] for row, end, name in names()]
    assert np.allclose(measures.chance(LOGITS, PROMPTS), expected, rtol=1e-4)


def test_chance_of_the_rival_is_zero_where_there_is_none():
    found = measures.chance(LOGITS, PROMPTS, PROMPTS.rivals)
    for row, end, _ in names():
        rival = PROMPTS.rivals[row]
        expected = softmax(LOGITS[row, end])[rival] if rival >= 0 else 0
        assert np.isclose(found[row], expected, rtol=1e-4)
    assert 0 < (PROMPTS.rivals >= 0).sum() < len(PROMPTS)


def test_the_chance_of_a_name_is_that_of_its_pieces():
    expected = [
        math.prod(softmax(LOGITS[row, end + i])[piece] for i, piece in enumerate(name))
        for row, end, name in names()
    ]
    assert np.allclose(measures.name_chance(LOGITS, PROMPTS), expected, rtol=1e-4)
    assert max(len(name) for *_, name in names()) > 1


def test_the_lead_is_over_the_partner():
    expected = [
        LOGITS[row, end, name[0]] - LOGITS[row, end, PROMPTS.partners[row, 0]]
        for row, end, name in names()
    ]
    assert np.allclose(measures.logit_difference(LOGITS, PROMPTS), expected, atol=1e-4)


def test_rank_one_is_the_likeliest():
    expected = [
        1 + sorted(-LOGITS[row, end]).index(-LOGITS[row, end, name[0]])
        for row, end, name in names()
    ]
    assert measures.rank(LOGITS, PROMPTS).tolist() == expected


def test_repeats_are_judged_where_they_can_be_known():
    again, first = [], []
    for z, ids, period in zip(REPEATED, REPEATS.token_ids, REPEATS.periods):
        chances = [softmax(z[i])[ids[i + 1]] for i in range(2 * period)]
        first.append(np.mean(chances[1:period]))
        again.append(np.mean(chances[period + 1 :]))
    assert np.allclose(measures.repeat_chance(REPEATED, REPEATS), again, rtol=1e-4)
    assert np.allclose(measures.first_chance(REPEATED, REPEATS), first, rtol=1e-4)


def test_induction_is_the_weight_on_the_token_that_came_after():
    S = REPEATS.token_ids.shape[1]
    weights = np.random.default_rng(1).random((2, len(REPEATS), 3, S, S)).astype("float32")
    found = measures.induction(weights, REPEATS)
    assert found.shape == (2, 3, len(REPEATS))
    for row, (ids, period) in enumerate(zip(REPEATS.token_ids, REPEATS.periods)):
        looked = []
        for i in range(period + 1, 2 * period):
            earlier = i - period
            assert ids[earlier] == ids[i]
            looked.append(weights[1, row, 2, i, earlier + 1])
        assert np.isclose(found[1, 2, row], np.mean(looked), rtol=1e-4)


def test_attention_to_the_name_is_from_the_end_to_its_first_mention():
    S = PROMPTS.token_ids.shape[1]
    weights = np.random.default_rng(2).random((2, len(PROMPTS), 3, S, S))
    found = measures.attention_to_name(weights, PROMPTS)
    for row, end, name in names():
        mention = PROMPTS.mentions[row]
        assert PROMPTS.token_ids[row, mention] == name[0]
        assert np.array_equal(found[:, :, row], weights[:, row, :, end, mention])


@pytest.mark.slow
def test_direct_effects_and_the_rest_of_the_stream_make_the_lead():
    model = MistralCausalLM.from_preset("mistral_tiny_en")
    effects = measures.direct_effects(model, PROMPTS)
    assert effects.shape == (6, 6, len(PROMPTS))
    found = activations(model, PROMPTS, "stream", "attention")
    texts, backbone = np.arange(len(PROMPTS)), model.backbone
    last = found["stream"][-1][texts, PROMPTS.ends]
    rest = last - found["attention"][:, texts, PROMPTS.ends].sum(axis=0)
    factor = np.asarray(backbone.layer_norm(last)) / last  # scale and size of the last norm
    logits = np.asarray(backbone.token_embedding(rest[:, None] * factor[:, None], reverse=True))
    lead = [
        z[0, name[0]] - z[0, partner[0]]
        for z, name, partner in zip(logits, PROMPTS.answers, PROMPTS.partners)
    ]
    whole = measures.logit_difference(model.predict(PROMPTS.inputs, verbose=0), PROMPTS)
    assert np.allclose(effects.sum(axis=(0, 1)) + lead, whole, atol=1e-3)
    assert abs(effects).max() > 0.5


@pytest.mark.slow
def test_the_shipped_model_knows_more_the_second_time():
    model = MistralCausalLM.from_preset("mistral_tiny_en")
    logits = model.predict(REPEATS.inputs, verbose=0)
    again, first = measures.repeat_chance(logits, REPEATS), measures.first_chance(logits, REPEATS)
    assert np.mean(again) > np.mean(first)
    weights = activations(model, REPEATS, "weights")["weights"]
    assert 0.1 < measures.induction(weights, REPEATS).max() < 1
