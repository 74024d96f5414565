"""Layers with windows of their own: what is cached gives what loops without a cache give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_models import (
    PROMPTS,
    VOCABULARY,
    finish,
    make_backbone,
    make_job,
    make_loop,
    new_tokens,
    uncached,
    write,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mistral_lib.generation import cache as cache_module
from mistral_lib.generation.beam import BeamSearch
from mistral_lib.generation.cache import RollingCache, extend, new_cache
from mistral_lib.generation.reading import PromptReader
from mistral_lib.generation.sampling import filter_logits, make_sampler
from mistral_lib.generation.speculative import SpeculativeLoop
from mistral_lib.layers import banded

WINDOWS = [3, None, 5]
LENGTH = 30


@pytest.fixture(scope="module")
def backbone():
    return make_backbone(layers=3, window=WINDOWS)


@pytest.fixture(scope="module")
def loop(backbone):
    return make_loop(backbone)


@pytest.fixture(scope="module")
def next_logits(backbone):
    return uncached(backbone)


@pytest.fixture(scope="module")
def read(backbone):
    return jax.jit(lambda *arguments: extend(backbone, *arguments))


@pytest.fixture(scope="module")
def ids():
    return np.random.default_rng(1).integers(0, VOCABULARY, (2, LENGTH))


@pytest.fixture(scope="module")
def whole(backbone, ids):
    """The hidden states of two rows, without a cache."""
    return np.array(backbone({"token_ids": ids, "padding_mask": np.ones_like(ids)}))


def in_pieces(read, cache, ids, sizes):
    states, begin = [], 0
    for size in sizes:
        part, cache = read(cache, ids[:, begin : begin + size])
        states.append(np.array(part))
        begin += size
    return np.concatenate(states, axis=1), cache


def test_every_layer_keeps_the_tokens_that_it_shows(backbone):
    def slots(cache):
        return [keys.shape[2] for keys, _ in cache.layers]

    assert slots(new_cache(backbone, 1, 100)) == [3, 100, 5]
    assert slots(new_cache(backbone, 1, 100, lookahead=4)) == [6, 100, 8]
    assert slots(new_cache(backbone, 1, 4)) == [3, 4, 4]


@pytest.mark.parametrize("size", [1, 2, 4, 6, LENGTH])  # below, between and above the windows
def test_chunks(backbone, read, ids, whole, size):
    sizes = [size] * (LENGTH // size) + [LENGTH % size] * (LENGTH % size > 0)
    got, _ = in_pieces(read, new_cache(backbone, 2, LENGTH), ids, sizes)
    np.testing.assert_allclose(got, whole, atol=1e-4)


def test_many_tokens_at_once_are_taken_in_tiles(monkeypatch, backbone, ids, whole):
    monkeypatch.setattr(cache_module, "IN_TILES_FROM", 2)
    monkeypatch.setattr(banded, "QUERIES", 4)
    monkeypatch.setattr(banded, "KEYS", 3)
    read = jax.jit(lambda *arguments: extend(backbone, *arguments))
    got, _ = in_pieces(read, new_cache(backbone, 2, LENGTH), ids, [9, 1, 13, 7])
    np.testing.assert_allclose(got, whole, atol=1e-4)


@pytest.mark.parametrize("wrong", [[4, None, 5], [3, None, 4], [3, 5, None], [3, 3, 3]])
def test_hidden_states_would_show_a_wrong_window(ids, whole, wrong):
    other = make_backbone(layers=3, window=wrong)
    got = np.array(other({"token_ids": ids, "padding_mask": np.ones_like(ids)}))
    assert abs(got - whole)[:, -1].max() > 1e-2  # 100 times the tolerance


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=4))
def test_ragged_rows(backbone, read, ids, whole, counts):
    """Rows that read different numbers of tokens at every call, none of them among the numbers."""
    cache, done = new_cache(backbone, 2, LENGTH), np.zeros(2, int)
    for pair in counts:
        chunk = np.zeros((2, 7), int)  # what is not real is token 0, and must leave no trace
        for row, count in enumerate(pair):
            chunk[row, :count] = ids[row, done[row] : done[row] + count]
        states, cache = read(cache, chunk, jnp.array(pair))
        for row, count in enumerate(pair):
            expected = whole[row, done[row] : done[row] + count]
            np.testing.assert_allclose(states[row, :count], expected, atol=1e-4)
        done += pair
    np.testing.assert_array_equal(cache.lengths, done)


def test_tokens_that_are_taken_back(backbone, read, ids, whole):
    """Write 4 tokens, take 3 of them back, write others: no layer has lost what it needs."""
    _, cache = read(new_cache(backbone, 2, LENGTH + 3, lookahead=4), ids[:, :20])
    draft = np.concatenate([ids[:, 20:21], (ids[:, 21:24] + 1) % VOCABULARY], axis=1)
    _, drafted = read(cache, draft)
    states, _ = read(RollingCache(drafted.layers, cache.lengths + 1), ids[:, 21:25])
    np.testing.assert_allclose(states, whole[:, 21:25], atol=1e-4)


def by_a_loop(next_logits, row, limit, sampler, seed):
    """One forward pass a token, without a cache."""
    row, key = list(row), jax.random.key(seed)
    for index in range(limit):
        logits = filter_logits(next_logits(row), sampler)[0]
        if sampler.temperature is None:
            two = np.sort(np.array(logits))[-2:]
            assert two[1] - two[0] > 1e-3  # rounding cannot decide
            row.append(int(jnp.argmax(logits)))
        else:
            row.append(int(jax.random.categorical(jax.random.fold_in(key, index), logits)))
    return row[-limit:]


@pytest.mark.parametrize("sampler", [make_sampler(), make_sampler(0.9, top_k=20, top_p=0.95)])
def test_greedy_and_sampling_equal_a_loop_without_a_cache(backbone, loop, next_logits, sampler):
    expected = [by_a_loop(next_logits, row, 12, sampler, seed=5) for row in PROMPTS]
    for each in (loop, make_loop(backbone, chunk_size=4)):
        assert write(each, PROMPTS, [12] * 3, [5] * 3, sampler) == expected
    assert write(loop, PROMPTS[2:], [12], [5], sampler) == expected[2:]


def beams_by_a_loop(next_logits, prompt, limit, beams, stop):
    """The best continuation, by the rules of transformers, one forward pass for each beam."""
    running, ended = [(0.0, [])], []
    for length in range(1, limit + 1):
        candidates = []
        for score, row in running:
            log_probs = np.array(jax.nn.log_softmax(next_logits(prompt + row)[0]))
            candidates += [(score + p, [*row, token]) for token, p in enumerate(log_probs)]
        candidates = sorted(candidates, reverse=True)[: (1 + len(stop)) * beams]
        ends = [row[-1] in stop or length == limit for _, row in candidates]
        running = [c for c, end in zip(candidates, ends) if not end][:beams]
        ended += [(s / length, row) for (s, row), end in list(zip(candidates, ends))[:beams] if end]
        ended = sorted(ended, reverse=True)[:beams]
        if len(ended) == beams and running and running[0][0] / length <= ended[-1][0]:
            break
    return ended[0][1]


def test_beams_equal_a_search_without_a_cache(backbone, next_logits):
    prompts, limits, stop = PROMPTS, [9, 6, 8], (7, 11)
    job = make_job(prompts, limits, stop=stop, num_beams=3)
    got = new_tokens(finish(BeamSearch(PromptReader(backbone)), job, steps=2)[0])
    for prompt, limit, row in zip(prompts, limits, got, strict=True):
        assert row == beams_by_a_loop(next_logits, prompt, limit, 3, stop)


@pytest.mark.parametrize("windows", [WINDOWS, [None, 4, 2], 3])
def test_speculation_equals_the_model_alone(backbone, loop, next_logits, windows):
    """The draft has the model's weights, nearly, and its own windows or others."""
    draft = make_backbone(layers=3, window=windows)
    rng = np.random.default_rng(1)
    for variable in draft.variables:
        variable.assign_add(0.02 * rng.normal(size=variable.shape))
    speculative = SpeculativeLoop(loop, PromptReader(draft), 3)
    job = make_job(PROMPTS, [15, 9, 12], log_probs=True)
    state, rounds = finish(speculative, job, steps=1)
    assert new_tokens(state)[0] == by_a_loop(next_logits, PROMPTS[0], 15, make_sampler(), 0)
    plain, _ = finish(loop, job)
    assert new_tokens(state) == new_tokens(plain)
    np.testing.assert_allclose(state.log_probs, plain.log_probs, atol=1e-4)
    if windows == WINDOWS:
        assert rounds < 10  # a wrong key in any layer would make the draft useless
