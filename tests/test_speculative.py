"""mistral_lib/generation/speculative.py: the text or the distribution of the model alone."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_models import (
    PROMPTS,
    WINDOW,
    finish,
    make_backbone,
    make_job,
    make_loop,
    new_tokens,
    write,
)

from mistral_lib import MistralCausalLM
from mistral_lib.generation.compiled import watch
from mistral_lib.generation.reading import PromptReader
from mistral_lib.generation.sampling import GREEDY, filter_logits, make_sampler
from mistral_lib.generation.speculative import SpeculativeLoop, _accept

LIMITS, SEEDS = [25, 9, 14], [0, 1, 2]


def near(backbone, noise, window=WINDOW):
    """A backbone whose weights differ a little: a draft that is often right."""
    other = make_backbone(0, backbone.num_layers, window)
    rng = np.random.default_rng(1)
    for mine, theirs in zip(other.variables, backbone.variables, strict=True):
        mine.assign(theirs + noise * rng.normal(size=theirs.shape))
    return other


@cache
def loops():
    """The model's loop, and drafts from the best to the worst."""
    backbone = make_backbone()
    return make_loop(backbone), {
        "itself": PromptReader(backbone),
        "often right": PromptReader(near(backbone, 0.02)),
        "other window": PromptReader(near(backbone, 0.02, window=3)),
        "always wrong": PromptReader(make_backbone(5, layers=1, window=None)),
    }


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("draft", ["itself", "often right", "other window", "always wrong"])
def test_greedy_text_is_that_of_the_model_alone(draft, number):
    loop, drafts = loops()
    job = make_job(PROMPTS, LIMITS)
    state, rounds = finish(SpeculativeLoop(loop, drafts[draft], number), job, steps=1)
    assert new_tokens(state) == write(loop, PROMPTS, LIMITS)
    if draft == "itself":  # the first token is the prefill's, each round writes number + 1
        assert rounds == -(-(max(LIMITS) - 1) // (number + 1))
    elif draft == "always wrong":
        assert rounds > 20
    elif (draft, number) == ("often right", 4):
        assert rounds < 16  # a wrong key behind the window would make the draft useless


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [GREEDY, make_sampler(1.0)])
def test_stop_tokens_and_penalty_and_log_probs(sampler):
    """A stop token in the middle of a round ends the row there; greedy equals the plain loop."""
    loop, drafts = loops()
    speculative = SpeculativeLoop(loop, drafts["often right"], 3)
    free = write(speculative, PROMPTS, LIMITS, SEEDS, sampler)
    stop = (free[0][6],)
    job = make_job(PROMPTS, LIMITS, SEEDS, sampler, stop, log_probs=True)
    state, _ = finish(speculative, job)
    for row, whole in zip(new_tokens(state), free):
        assert row == (whole[: whole.index(stop[0]) + 1] if stop[0] in whole else whole)
    if sampler.temperature is None:
        plain, _ = finish(loop, job)
        np.testing.assert_allclose(state.log_probs, plain.log_probs, atol=1e-4)
        penalised = make_sampler(repetition_penalty=1.7)
        expected = write(loop, PROMPTS, LIMITS, SEEDS, penalised)
        assert write(speculative, PROMPTS, LIMITS, SEEDS, penalised) == expected != free


@pytest.mark.slow
def test_a_row_does_not_depend_on_its_neighbours():
    loop, drafts = loops()
    speculative, sampler = SpeculativeLoop(loop, drafts["often right"], 3), make_sampler(1.0)
    together = write(speculative, PROMPTS, LIMITS, SEEDS, sampler, steps=2)
    alone = write(speculative, PROMPTS[1:2], LIMITS[1:2], [1], sampler)
    assert alone == together[1:2]


@pytest.mark.slow
@pytest.mark.parametrize("quality", [0.2, 2.0])
def test_accepted_and_replaced_tokens_follow_the_model(quality):
    """100,000 rounds of two proposals from fixed distributions: every position is the model's."""
    rounds, size, number = 100_000, 5, 2
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (number + 1, size)).astype("float32")
    draft_logits = (logits[:-1] + rng.normal(0, quality, (number, size))).astype("float32")
    keys = jax.random.split(jax.random.key(1), rounds)
    draws = jax.random.split(jax.random.key(2), rounds)
    proposed = jax.vmap(lambda key: jax.random.categorical(key, jnp.array(draft_logits)))(draws)
    tokens, accepted = jax.jit(_accept)(
        jnp.broadcast_to(logits, (rounds, *logits.shape)),
        jnp.broadcast_to(draft_logits, (rounds, *draft_logits.shape)),
        proposed,
        keys,
    )
    written = np.array(jnp.cumprod(accepted, axis=1).sum(axis=1)) + 1
    for place in range(number + 1):
        counts = np.bincount(np.array(tokens)[written > place, place], minlength=size)
        check_distribution(counts, jax.nn.softmax(logits[place]))
    overlap = np.minimum(jax.nn.softmax(logits[:-1]), jax.nn.softmax(draft_logits)).sum(axis=1)
    assert np.array(accepted).mean(axis=0) == pytest.approx(overlap, abs=0.01)


def check_distribution(counts, probabilities):
    expected = np.array(probabilities) * counts.sum()
    kept = expected > 5
    assert counts[~kept].sum() <= 5 * (~kept).sum() + 5
    chi_square = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
    freedom = kept.sum() - 1
    assert chi_square < freedom + 4.5 * np.sqrt(2 * freedom) + 6  # once in thousands


@pytest.mark.slow
def test_whole_texts_follow_the_model():
    """4,000 texts of three tokens over a vocabulary of 6, past a window of 2, all steps on."""
    backbone = make_backbone(0, 1, window=2, vocabulary_size=6)
    draft = PromptReader(make_backbone(3, 1, window=3, vocabulary_size=6))
    sampler = make_sampler(1.5, top_k=5, top_p=0.98, min_p=0.01, repetition_penalty=1.1)
    start, samples = [1, 4, 2], 4000
    speculative = SpeculativeLoop(make_loop(backbone), draft, 2)
    rows = write(speculative, [start], [3], range(samples), sampler, num_samples=samples)
    counts = np.zeros((6, 6, 6))
    for row in rows:
        counts[tuple(row)] += 1

    texts = np.array([[*start, *pair] for pair in np.ndindex(6, 6)])
    states = backbone({"token_ids": texts, "padding_mask": np.ones_like(texts)})
    logits = backbone.token_embedding(states, reverse=True)[:, 2:]  # (36, 3, 6)
    used = np.stack([(texts[:, : 3 + n, None] == np.arange(6)).any(1) for n in range(3)], 1)
    steps = np.array(jax.nn.softmax(filter_logits(logits, sampler, used))).reshape(6, 6, 3, 6)
    expected = steps[:1, :1, 0].reshape(6, 1, 1) * steps[:, :1, 1].reshape(6, 6, 1)
    expected = expected * steps[:, :, 2]
    assert expected.sum() == pytest.approx(1, abs=1e-5)
    check_distribution(counts.ravel(), expected.ravel())


@pytest.mark.slow
def test_generate_with_a_draft_model():
    loop, drafts = loops()
    model, draft = MistralCausalLM(loop.backbone), MistralCausalLM(drafts["often right"].backbone)
    expected = model.generate(PROMPTS, max_new_tokens=20)
    assert model.generate(PROMPTS, max_new_tokens=20, draft_model=draft) == expected
    with watch() as calls:
        model.generate(PROMPTS, max_new_tokens=18, draft_model=draft)
    assert calls[-1].name == "run_rounds"
    assert not any(call.compiled for call in calls)
    drawn = model.generate(PROMPTS[0], max_new_tokens=9, draft_model=draft, temperature=1.0)
    assert len(drawn) == len(PROMPTS[0]) + 9


def test_only_a_model_of_the_same_vocabulary():
    model = MistralCausalLM(loops()[0].backbone)
    small = MistralCausalLM(make_backbone(0, 1, vocabulary_size=30))
    with pytest.raises(ValueError, match="vocabulary of 50 tokens, but has one of 30"):
        model.generate([1], 5, draft_model=small)
    with pytest.raises(TypeError, match="draft_model must be a MistralCausalLM"):
        model.generate([1], 5, draft_model="small")
    with pytest.raises(ValueError, match="num_draft_tokens must be at least 1"):
        model.generate([1], 5, draft_model=model, num_draft_tokens=0)


@pytest.mark.slow
def test_with_integers_of_64_bits():
    """As the plain loop and the beams: nothing in a loop's state changes its dtype."""
    loop, drafts = loops()
    model, draft = MistralCausalLM(loop.backbone), MistralCausalLM(drafts["often right"].backbone)
    options = {"draft": {"draft_model": draft}, "plain": {}, "beams": {"num_beams": 2}}
    before = {
        name: model.generate(PROMPTS, max_new_tokens=6, **each) for name, each in options.items()
    }
    jax.config.update("jax_enable_x64", True)
    try:
        for name, each in options.items():
            assert model.generate(PROMPTS, max_new_tokens=6, **each) == before[name], name
        drawn = model.generate(PROMPTS, max_new_tokens=6, draft_model=draft, temperature=1.0)
    finally:
        jax.config.update("jax_enable_x64", False)
    assert [len(row) for row in drawn] == [len(row) + 6 for row in PROMPTS]
