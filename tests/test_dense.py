"""Dense attention against plain loops, and a softmax that no mask can make infinite."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_loops import (
    QUICKLY,
    assert_equal,
    dtypes_of,
    inputs,
    largest_from,
    loops,
    padding_mask,
    with_gradients,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mistral_lib.layers.dense import dense_attention, masked_attention, masked_softmax

LENGTH = 9


def any_window(query, key, value, real, window):
    """Dense attention with the window as an input, so that one program serves all windows."""
    return dense_attention.__wrapped__(query, key, value, real, window)


@jax.jit
def windowed(query, key, value, cotangent, real, window):
    output, pullback = jax.vjp(lambda *a: any_window(*a, real, window), query, key, value)
    return output, *pullback(cotangent)


def test_the_loops_know_their_own_gradients():
    # Central differences in float64: the reference of all the tests below is right itself.
    query, key, value, cotangent = inputs(5, 1, 2, seed=3)
    arrays = [array.astype("float64") for array in (query, key, value)]
    real = padding_mask(5, seed=3)
    _, *gradients = loops(*arrays, real, 3, cotangent)
    random = np.random.default_rng(0)
    for place, gradient in enumerate(gradients):
        direction = random.normal(size=gradient.shape)
        around = []
        for step in (1e-5, -1e-5):
            moved = list(arrays)
            moved[place] = arrays[place] + step * direction
            around.append((loops(*moved, real, 3) * cotangent).sum())
        measured = (around[0] - around[1]) / 2e-5
        np.testing.assert_allclose((gradient * direction).sum(), measured, rtol=1e-8)


@pytest.mark.parametrize(("key_heads", "group"), [(1, 1), (2, 2), (1, 3)])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(window=st.integers(1, LENGTH + 3), seed=st.integers(0, 2**32 - 1))
def test_every_window_and_padding_equals_the_loops(key_heads, group, window, seed):
    *arrays, cotangent = inputs(LENGTH, key_heads, group, seed=seed)
    real = padding_mask(LENGTH, seed)
    found = windowed(*arrays, cotangent, real, window)
    assert_equal(found, loops(*arrays, real, window, cotangent))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("length", "window"), [(1, 1), (1, None), (2, 1), (7, 4), (7, 7), (7, 8), (7, None)]
)
def test_static_windows_equal_the_loops(length, window):
    *arrays, cotangent = inputs(length, 2, 2, seed=length)
    real = padding_mask(length, length)
    found = with_gradients(dense_attention, window=window)(*arrays, cotangent, real)
    assert_equal(found, loops(*arrays, real, window, cotangent))


def test_no_padding_mask_means_no_padding():
    *arrays, _ = inputs(6, 2, 2)
    every = np.ones((5, 6), bool)
    np.testing.assert_array_equal(
        dense_attention(*arrays, None, 3), dense_attention(*arrays, every, 3)
    )


def test_no_key_is_repeated():
    *arrays, _ = inputs(8, 2, 3)
    real = padding_mask(8)

    def repeating(query, key, value):
        key = jnp.broadcast_to(key[:, :, :, None], query.shape)
        return jnp.einsum("bskgh,btkgh->bkgst", query, key)

    assert largest_from(repeating, arrays, 1) == arrays[0].size  # what the check is to find
    for index in (1, 2):
        largest = largest_from(lambda *a: dense_attention(*a, real, 3), arrays, index)
        assert largest == arrays[index].size


@pytest.mark.slow
def test_the_compiled_program_repeats_no_key_either():
    # The sizes are primes, so that only a repeated key or value has their product.
    batch, length, keys, key_heads, group, head_dim = 1, 7, 11, 3, 5, 13
    shapes = (
        jax.ShapeDtypeStruct((batch, length, key_heads, group, head_dim), "float32"),
        jax.ShapeDtypeStruct((batch, keys, key_heads, head_dim), "float32"),
        jax.ShapeDtypeStruct((batch, keys, key_heads, head_dim), "float32"),
        jax.ShapeDtypeStruct((length, keys), "bool"),
    )
    compiled = jax.jit(masked_attention).lower(*shapes).compile()
    assert repeated_sizes(compiled, batch * keys * key_heads * group * head_dim) == []
    repeating = jax.jit(
        lambda q, k, v, mask: masked_attention(
            q.reshape(batch, length, -1, 1, head_dim),
            jnp.repeat(k, group, axis=2),
            jnp.repeat(v, group, axis=2),
            mask,
        )
    )
    compiled = repeating.lower(*shapes).compile()
    assert repeated_sizes(compiled, batch * keys * key_heads * group * head_dim) != []


def repeated_sizes(compiled, size):
    """The shapes in a compiled program that have `size` elements."""
    shapes = set(re.findall(r"f32\[([\d,]+)\]", compiled.as_text()))
    return [shape for shape in shapes if np.prod([int(n) for n in shape.split(",")]) == size]


@pytest.mark.slow
def test_scores_do_not_overflow_in_float16():
    # 60 * 60 * 64 is more than float16 can hold; the two keys weigh the same.
    query = jnp.full((1, 2, 1, 1, 64), 60, "float16")
    key = jnp.full((1, 2, 1, 64), 60, "float16")
    value = jnp.stack([jnp.ones((1, 64)), 3 * jnp.ones((1, 64))])[None].astype("float16")
    output = dense_attention(query, key, value)
    assert output.dtype == "float16"
    np.testing.assert_array_equal(output[0, :, 0, 0, 0], [1, 2])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_softmax_is_float32_in_low_precision(dtype):
    *arrays, _ = inputs(6, 1, 2)
    low = [jnp.asarray(array, dtype) for array in arrays]
    weights = jax.make_jaxpr(lambda *a: dense_attention(*a, None, 3))(*low)
    assert dtypes_of(weights, "exp") == {"float32"}
    # Only the inputs, the weights and the sum are rounded.
    exact = loops(*(np.asarray(a, "float64") for a in low), np.ones((5, 6), bool), 3)
    rounding = float(jnp.finfo(dtype).eps)
    found = np.asarray(dense_attention(*low, None, 3), "float64")
    np.testing.assert_allclose(found, exact, atol=4 * rounding)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.0, 1.0, 1e4, 1e30]))
def test_masked_softmax_is_softmax_of_the_visible(seed, scale):
    random = np.random.default_rng(seed)
    scores = (scale * random.normal(size=(4, 6))).astype("float32")
    mask = random.random((4, 6)) < 0.6
    mask[0] = False
    found = np.asarray(masked_softmax(jnp.array(scores), jnp.array(mask)))
    for row in range(4):
        visible = scores[row, mask[row]].astype("float64")
        weights = np.exp(visible - visible.max()) if visible.size else visible
        np.testing.assert_allclose(
            found[row, mask[row]], weights / weights.sum() if visible.size else [], atol=1e-6
        )
        assert not found[row, ~mask[row]].any()


def test_a_hidden_score_cannot_drown_the_visible():
    # With the maximum taken before masking, both visible weights would underflow to 0 / 0.
    scores = jnp.array([[-1e4, -1e4, 1e4]])
    weights = masked_softmax(scores, jnp.array([[True, True, False]]))
    np.testing.assert_array_equal(weights, [[0.5, 0.5, 0]])


@pytest.mark.parametrize("scale", [1.0, 1e18])
def test_gradients_of_all_masked_rows_are_zero(scale):
    scores = scale * jnp.array([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])
    mask = jnp.array([[False, False, False], [True, False, True]])
    gradient = jax.jit(
        jax.grad(lambda s: (masked_softmax(s, mask) ** 2).sum()), compiler_options=QUICKLY
    )(scores)
    assert np.isfinite(gradient).all()
    assert not gradient[0].any()
    assert gradient[1, 1] == 0
