"""mistral_lib/generation/cache.py: what is cached gives what would be computed anew."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mistral_lib import MistralBackbone
from mistral_lib.generation import cache as cache_module
from mistral_lib.generation.cache import (
    RollingCache,
    extend,
    new_cache,
    slot_positions,
    write_slots,
)
from mistral_lib.layers import banded

VOCABULARY, WINDOW = 50, 7


@functools.cache
def make_backbone(window=WINDOW, **kwargs):
    """A small model with weights large enough for a wrong key to show in every output."""
    backbone = MistralBackbone(VOCABULARY, 2, 4, 32, 48, 2, sliding_window=window, **kwargs)
    rng = np.random.default_rng(0)
    for variable in backbone.variables:
        if len(variable.shape) > 1:
            scale = variable.shape[0] ** -0.5 if "token" not in variable.path else 1.0
            variable.assign(rng.normal(0, 1.5 * scale, variable.shape))
    return backbone


@pytest.fixture(scope="module")
def backbone():
    return make_backbone()


@functools.cache
def compiled_extend(backbone):
    """`extend`, compiled once for each shape."""
    return jax.jit(lambda *args: extend(backbone, *args))


def ids_of(batch, length, seed=1):
    return np.random.default_rng(seed).integers(0, VOCABULARY, (batch, length))


@functools.cache
def compiled_backbone(backbone):
    return jax.jit(lambda inputs: backbone(inputs))


def uncached_logits(backbone, ids):
    """Padded to one length, so that one compilation serves all."""
    padded = np.zeros((len(ids), 60), int)
    padded[:, : ids.shape[1]] = ids
    inputs = {
        "token_ids": padded,
        "padding_mask": np.arange(60) < np.full((len(ids), 1), ids.shape[1]),
    }
    states = compiled_backbone(backbone)(inputs)[:, : ids.shape[1]]
    return np.array(backbone.token_embedding(states, reverse=True))


def cached_logits(backbone, ids, chunks, max_length=100, lookahead=1):
    """Logits of the same tokens, read in chunks of the sizes given."""
    assert sum(chunks) == ids.shape[1]
    cache = new_cache(backbone, len(ids), max_length, lookahead)
    logits, begin = [], 0
    for size in chunks:
        states, cache = compiled_extend(backbone)(cache, ids[:, begin : begin + size])
        logits.append(np.array(backbone.token_embedding(states, reverse=True)))
        begin += size
    return np.concatenate(logits, axis=1), cache


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW])
@pytest.mark.parametrize("length", [WINDOW - 2, WINDOW, 4 * WINDOW])
def test_chunks_equal_the_whole_sequence(backbone, size, length):
    ids = ids_of(2, length)
    chunks = [size] * (length // size) + ([length % size] if length % size else [])
    got, cache = cached_logits(backbone, ids, chunks)
    np.testing.assert_allclose(got, uncached_logits(backbone, ids), atol=1e-4)
    assert cache.layers[0][0].shape[2] == WINDOW
    np.testing.assert_array_equal(cache.lengths, length)


@pytest.mark.slow
@pytest.mark.parametrize("window", [1, WINDOW, 50, None])
def test_many_tokens_at_once_are_taken_in_tiles(monkeypatch, window):
    monkeypatch.setattr(cache_module, "IN_TILES_FROM", 2)
    monkeypatch.setattr(banded, "QUERIES", 4)
    monkeypatch.setattr(banded, "KEYS", 3)
    compiled_extend.cache_clear()
    backbone, ids = make_backbone(window), ids_of(2, 30)
    got, _ = cached_logits(backbone, ids, [9, 1, 13, 7], max_length=30)
    compiled_extend.cache_clear()
    np.testing.assert_allclose(got, uncached_logits(backbone, ids), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("window", [1, 2, 50, None])
def test_other_windows(window):
    backbone, ids = make_backbone(window), ids_of(2, 20)
    got, _ = cached_logits(backbone, ids, [9, 1, 1, 9], max_length=20)
    np.testing.assert_allclose(got, uncached_logits(backbone, ids), atol=1e-4)


def test_logits_would_show_a_wrong_window(backbone):
    ids = ids_of(2, 40)
    right = uncached_logits(backbone, ids)
    for window in (WINDOW - 1, WINDOW + 1):
        wrong = uncached_logits(make_backbone(window), ids)
        assert abs(wrong - right)[:, -1].max() > 1e-2  # 100 times the tolerance above


@pytest.mark.slow
def test_several_turns_on_one_cache(backbone):
    ids = ids_of(1, 33)
    turns = [5, 1, 1, 1, 12, 1, 12]  # read, write three, read, write one, read
    got, _ = cached_logits(backbone, ids, turns)
    np.testing.assert_allclose(got, uncached_logits(backbone, ids), atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=6))
def test_ragged_rows_equal_rows_alone(counts):
    """Rows that read different numbers of tokens at every call, none of them among the numbers."""
    backbone, ids = make_backbone(), ids_of(2, 60)
    cache, read = new_cache(backbone, 2, 60), np.zeros(2, int)
    got = [[np.zeros((0, 32))], [np.zeros((0, 32))]]
    for pair in counts:
        chunk = np.zeros((2, 9), int)  # what is not real is token 0, and must leave no trace
        for row, count in enumerate(pair):
            chunk[row, :count] = ids[row, read[row] : read[row] + count]
        states, cache = compiled_extend(backbone)(cache, chunk, jnp.array(pair))
        for row, count in enumerate(pair):
            got[row].append(np.array(states[row, :count]))
        read += pair
    np.testing.assert_array_equal(cache.lengths, read)
    real = np.arange(60) < read[:, None]
    whole = np.array(compiled_backbone(backbone)({"token_ids": ids, "padding_mask": real}))
    for row in range(2):
        np.testing.assert_allclose(np.concatenate(got[row]), whole[row, : read[row]], atol=1e-4)


def test_lookahead_keeps_what_rejected_tokens_would_overwrite(backbone):
    """Write 4 tokens, take 3 of them back, write others: nothing that was needed is gone."""
    ids = ids_of(1, 30)
    cache = new_cache(backbone, 1, 100, lookahead=4)
    assert cache.layers[0][0].shape[2] == WINDOW + 3
    step = compiled_extend(backbone)
    _, cache = step(cache, ids[:, :20])
    draft = np.concatenate([ids[:, 20:21], (ids[:, 21:24] + 1) % VOCABULARY], axis=1)
    _, drafted = step(cache, draft)
    accepted = RollingCache(drafted.layers, cache.lengths + 1)
    states, _ = step(accepted, ids[:, 21:25])
    got = np.array(backbone.token_embedding(states, reverse=True))
    np.testing.assert_allclose(got, uncached_logits(backbone, ids[:, :25])[:, 21:], atol=1e-4)


def test_slots_hold_the_newest_positions():
    for length in range(12):
        expected = [-1] * 5
        for position in range(length):
            expected[position % 5] = position
        got = np.array(slot_positions(jnp.array([length]), 5))[0]
        np.testing.assert_array_equal(np.maximum(got, -1), expected)


def test_write_slots_puts_rows_at_their_own_positions():
    array = jnp.zeros((2, 1, 3, 1))
    new = jnp.arange(1.0, 5.0).reshape(2, 1, 2, 1)
    positions = jnp.array([[2, 3], [4, 5]])
    keep = jnp.array([[True, True], [True, False]])
    got = write_slots(array, new, positions, keep)[:, 0, :, 0]
    np.testing.assert_array_equal(got, [[2, 0, 1], [0, 3, 0]])


def test_cache_memory_does_not_grow_past_the_window(backbone):
    short, long = new_cache(backbone, 1, WINDOW), new_cache(backbone, 1, 10**6)
    assert jax.tree.map(jnp.shape, short) == jax.tree.map(jnp.shape, long)
    assert new_cache(backbone, 1, 4).layers[0][0].shape[2] == 4  # nor is it larger than needed


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_bfloat16"])
def test_cache_has_the_compute_dtype(dtype):
    backbone = make_backbone(dtype=dtype)
    ids = ids_of(1, 20)
    cache = new_cache(backbone, 1, 20)
    assert cache.layers[0][0].dtype == backbone.compute_dtype
    states, cache = extend(backbone, cache, jnp.array(ids))
    assert cache.layers[0][0].dtype == backbone.compute_dtype
    whole = backbone({"token_ids": ids, "padding_mask": np.ones_like(ids)})
    error = np.abs(np.array(states, "float32") - np.array(whole, "float32"))
    assert error.mean() < 0.05 * np.abs(np.array(whole, "float32")).mean()


def test_no_key_is_repeated_for_its_query_heads(backbone):
    """4 query heads on 2 key heads: no array of a decoding step has 4 heads of cached keys."""
    cache = new_cache(backbone, 1, 100)
    text = jax.jit(lambda cache, ids: extend(backbone, cache, ids)).lower(
        cache, jnp.zeros((1, 1), int)
    )
    assert f"1x2x{WINDOW}x8xf32" in text.as_text()
    assert f"1x4x{WINDOW}x8xf32" not in text.as_text()
