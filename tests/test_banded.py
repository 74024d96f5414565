"""Banded attention: equal to plain loops for every length, window and block; linear memory."""

import functools

import jax
import numpy as np
import pytest
from attention_loops import (
    assert_equal,
    inputs,
    largest_from,
    loops,
    padding_mask,
    with_gradients,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mistral_lib.layers import banded
from mistral_lib.layers.banded import banded_attention
from mistral_lib.layers.dense import dense_attention


@pytest.mark.slow
@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    length=st.integers(1, 13),
    window=st.none() | st.integers(1, 16),
    queries=st.integers(1, 7),
    keys=st.integers(1, 9),
    heads=st.sampled_from([(1, 1), (2, 2), (1, 3)]),
    seed=st.integers(0, 2**32 - 1),
)
@example(length=12, window=5, queries=4, keys=9, heads=(2, 2), seed=1)  # whole blocks
@example(
    length=13, window=3, queries=4, keys=2, heads=(1, 2), seed=2
)  # one query in the last block
@example(length=11, window=1, queries=3, keys=1, heads=(2, 1), seed=3)  # each sees itself alone
@example(length=3, window=2, queries=8, keys=9, heads=(1, 2), seed=4)  # shorter than a block
@example(length=7, window=20, queries=3, keys=4, heads=(1, 2), seed=5)  # window beyond the length
@example(length=10, window=None, queries=4, keys=3, heads=(1, 2), seed=6)
@example(length=9, window=9, queries=1, keys=4, heads=(1, 1), seed=7)
def test_every_shape_equals_the_loops(length, window, queries, keys, heads, seed):
    *arrays, cotangent = inputs(length, *heads, seed=seed)
    real = padding_mask(length, seed)
    run = with_gradients(banded_attention, window=window, queries=queries, keys=keys)
    assert_equal(run(*arrays, cotangent, real), loops(*arrays, real, window, cotangent))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_padding_equals_the_loops(seed):
    *arrays, cotangent = inputs(10, 1, 2, seed=seed)
    real = padding_mask(10, seed)
    run = with_gradients(banded_attention, window=4, queries=3)
    assert_equal(run(*arrays, cotangent, real), loops(*arrays, real, 4, cotangent))


@pytest.mark.slow
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("tiles", [(128, 640), (3, 4)])
def test_keys_in_any_order(monkeypatch, window, tiles):
    monkeypatch.setattr(banded, "QUERIES", tiles[0])
    monkeypatch.setattr(banded, "KEYS", tiles[1])
    query, key, value, _ = inputs(13, 2, 2, seed=3)
    random = np.random.default_rng(3)
    order = np.stack([random.permutation(13) for _ in query])
    real = random.random(order.shape) < 0.8
    positions = 7 + np.broadcast_to(np.arange(13), order.shape)
    key_positions = 7 + order

    def shuffled(array):
        return np.moveaxis(np.take_along_axis(array, order[:, :, None, None], axis=1), 2, 1)

    output = banded.attend_by_position(
        query, shuffled(key), shuffled(value), positions, key_positions, window, real
    )
    in_place = np.zeros_like(real)
    np.put_along_axis(in_place, order, real, axis=1)
    expected = dense_attention(query, key, value, in_place, window)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)


def test_the_default_block_equals_dense_attention():
    *arrays, _ = inputs(600, 1, 1, seed=8)
    banded, dense = (path(*arrays, None, 200) for path in (banded_attention, dense_attention))
    np.testing.assert_allclose(banded, dense, rtol=1e-5, atol=1e-5)


def test_no_key_is_repeated():
    *arrays, _ = inputs(8, 2, 3)
    real = padding_mask(8)
    for index in (1, 2):
        largest = largest_from(lambda *a: banded_attention(*a, real, 3, queries=4), arrays, index)
        assert largest == arrays[index].size


@functools.cache
def workspace(path, length, window, differentiate):
    """Bytes that the compiled program needs beside its inputs and outputs."""
    query = jax.ShapeDtypeStruct((1, length, 1, 2, 8), "float32")
    key = jax.ShapeDtypeStruct((1, length, 1, 8), "float32")

    def run(query, key, value):
        return path(query, key, value, None, window).sum()

    program = jax.grad(run, (0, 1, 2)) if differentiate else run
    return jax.jit(program).lower(query, key, key).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
@pytest.mark.parametrize(("window", "differentiate"), [(300, False), (300, True), (None, True)])
def test_memory_is_linear_in_the_length(window, differentiate):
    shorter, longer = (
        workspace(banded_attention, length, window, differentiate) for length in (4096, 8192)
    )
    assert longer < 2.1 * shorter
    assert workspace(dense_attention, 4096, 300, False) > 4 * shorter


def test_queries_and_outputs_are_not_copied():
    """With four query heads to a key head, copies of these would be the larger part."""
    length, heads = 32_768, 2
    query = jax.ShapeDtypeStruct((1, length, heads, 4, 32), "float32")
    key = jax.ShapeDtypeStruct((1, length, heads, 32), "float32")
    program = jax.jit(lambda *arrays: banded_attention(*arrays, None, 128))
    planned = program.lower(query, key, key).compile().memory_analysis().temp_size_in_bytes
    # Keys and values once more, and tiles; newer compilers need a third copy on the way.
    assert 2 < planned / (4 * length * heads * 32) < 3.5


def test_dense_memory_is_quadratic():
    # What the test above compares with.
    longer, shorter = (workspace(dense_attention, length, 300, False) for length in (4096, 2048))
    assert 3.8 < longer / shorter < 4.2
