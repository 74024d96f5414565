"""Masks: the predicate against plain loops, everywhere that is small, and at random where not."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mistral_lib.masks import attention_mask, can_see


def loops(queries, keys, window, key_mask):
    """The definition, cell by cell."""
    mask = np.zeros((len(queries), len(keys)), bool)
    for row, query in enumerate(queries):
        for column, key in enumerate(keys):
            near = key <= query and (window is None or query - key < window)
            real = key_mask is None or key_mask[column]
            mask[row, column] = near and real
    return mask


def every_small_call():
    """Up to 5 keys: every number of late queries, every window, every padding mask."""
    for keys in range(1, 6):
        masks = [None, *itertools.product([False, True], repeat=keys)]
        for queries in range(1, keys + 1):
            for window in [None, *range(1, keys + 2)]:
                for key_mask in masks:
                    real = None if key_mask is None else np.array(key_mask)
                    yield np.arange(keys)[-queries:], np.arange(keys), window, real


def test_every_small_mask_equals_the_loops():
    count = 0
    for call in every_small_call():
        np.testing.assert_array_equal(attention_mask(*call), loops(*call), str(call))
        count += 1
    assert count == 1_747


@settings(deadline=None)
@given(
    first=st.integers(0, 10_000),
    queries=st.integers(1, 12),
    keys=st.integers(1, 24),
    window=st.none() | st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_positions_equal_the_loops(first, queries, keys, window, seed):
    # Positions far from zero, unordered and repeated, as in the slots of a rolling cache.
    random = np.random.default_rng(seed)
    query_positions = first + random.integers(0, 40, queries)
    key_positions = first + random.integers(0, 40, keys)
    call = (query_positions, key_positions, window, random.random(keys) < 0.7)
    np.testing.assert_array_equal(attention_mask(*call), loops(*call))


@settings(deadline=None)
@given(
    length=st.integers(1, 20),
    window=st.none() | st.integers(1, 24),
    chunk=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_chunks_of_queries_stack_up_to_the_whole_mask(length, window, chunk, seed):
    positions = np.arange(length)
    real = np.random.default_rng(seed).random(length) < 0.7
    whole = attention_mask(positions, positions, window, real)
    chunks = [
        attention_mask(positions[start : start + chunk], positions, window, real)
        for start in range(0, length, chunk)
    ]
    np.testing.assert_array_equal(np.concatenate(chunks), whole)


@settings(deadline=None)
@given(
    shift=st.integers(-1_000, 1_000),
    length=st.integers(1, 12),
    window=st.none() | st.integers(1, 9),
)
def test_only_distances_matter(shift, length, window):
    positions = np.arange(length)
    np.testing.assert_array_equal(
        attention_mask(positions + shift, positions + shift, window),
        attention_mask(positions, positions, window),
    )


def test_a_batch_has_its_own_positions_and_padding():
    queries = np.array([[3, 4], [7, 8]])
    keys = np.array([[2, 3, 4], [6, 7, 8]])
    real = np.array([[True, True, True], [False, True, True]])
    mask = attention_mask(queries, keys, 2, real)
    assert mask.shape == (2, 2, 3)
    for row in range(2):
        expected = loops(queries[row], keys[row], 2, real[row])
        np.testing.assert_array_equal(mask[row], expected)


@pytest.mark.parametrize("window", [1, 2, 4, 100, None])
def test_a_window_of_w_shows_w_tokens(window):
    seen = [int(can_see(50, np.arange(80), window).sum())]
    assert seen == [min(window or 51, 51)]


def test_jax_and_numpy_agree_and_keep_their_kind():
    positions = np.arange(5)
    ours = attention_mask(jnp.arange(5), jnp.arange(5), 3, jnp.arange(5) > 0)
    assert isinstance(ours, jnp.ndarray)
    np.testing.assert_array_equal(ours, attention_mask(positions, positions, 3, positions > 0))
