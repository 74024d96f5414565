"""Fused attention: the same call without a GPU, the rules of when a GPU has it."""

import types

import jax
import jax.numpy as jnp
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
from hypothesis import given, settings
from hypothesis import strategies as st

from mistral_lib.layers import fused
from mistral_lib.layers.fused import fused_attention, fused_is_available

LENGTH = 8


def right_padding(seed, length=LENGTH):
    """Five rows of random lengths, the last wholly padded."""
    lengths = np.random.default_rng(seed).integers(1, length + 1, 5)
    lengths[-1] = 0
    return np.arange(length) < lengths[:, None]


@pytest.mark.slow
@pytest.mark.parametrize(("length", "window"), [(8, 1), (8, 3), (7, 3), (8, 12), (7, None)])
@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), right=st.booleans())
def test_every_padding_equals_the_loops_at_real_tokens(length, window, seed, right):
    *arrays, cotangent = inputs(length, 2, 2, seed=seed)
    real = right_padding(seed, length) if right else padding_mask(length, seed)
    # What stands at padded queries is not compared: it is zero, and so are its gradients.
    shown = real[:, :, None, None, None]
    output, *gradients = loops(*arrays, real, window, cotangent * shown)
    run = with_gradients(fused_attention, window=window, implementation="xla")
    assert_equal(run(*arrays, cotangent, real), (output * shown, *gradients))


def test_no_padding_mask_means_no_padding():
    *arrays, cotangent = inputs(LENGTH, 1, 3)
    run = with_gradients(fused_attention, window=3, implementation="xla")
    every = np.ones((5, LENGTH), bool)
    assert_equal(run(*arrays, cotangent, None), loops(*arrays, every, 3, cotangent))


def test_no_key_is_repeated():
    *arrays, _ = inputs(8, 2, 3)
    real = padding_mask(8)
    for index in (1, 2):
        largest = largest_from(
            lambda *a: fused_attention(*a, real, 3, implementation="xla"), arrays, index
        )
        assert largest == arrays[index].size


@pytest.fixture
def calls(monkeypatch):
    """Records the call of the kernel, which itself needs a GPU, and marks both branches."""
    recorded = []

    def kernel(query, key, value, **options):
        recorded.append({"query": query.shape, "key": key.shape, **options})
        return jnp.ones_like(query)

    monkeypatch.setattr(jax.nn, "dot_product_attention", kernel)
    monkeypatch.setattr(fused, "banded_attention", lambda query, *_: 2 * jnp.ones_like(query))
    return recorded


def run_fused(real, window=3, length=LENGTH):
    """Fused attention traced anew, with what `calls` put in place of its parts."""
    *arrays, _ = inputs(length, 2, 3)
    return np.asarray(fused_attention.__wrapped__(*arrays, real, window))


def test_the_kernel_is_called_as_cudnn_wants_it(calls):
    run_fused(None, window=3)
    run_fused(None, window=None)
    windowed, full = calls
    assert windowed["implementation"] == full["implementation"] == "cudnn"
    assert windowed["is_causal"]
    assert windowed["local_window_size"] == (2, 0)  # two to the left, and the query's own
    assert full["local_window_size"] is None
    assert windowed["query"] == (5, LENGTH, 6, 4)
    assert windowed["key"] == (5, LENGTH, 2, 4)
    # A mask or bias would make cuDNN build the whole square.
    assert not {"mask", "bias"} & {name for name in windowed if windowed[name] is not None}


def test_the_kernel_gets_even_lengths(calls):
    # JAX 0.10 refuses to differentiate it at odd ones.
    assert run_fused(None, length=7).shape == (5, 7, 2, 3, 4)
    assert calls[0]["query"] == (5, 8, 6, 4)
    assert calls[0]["key"] == (5, 8, 2, 4)


def test_lengths_are_never_zero(calls, monkeypatch):
    monkeypatch.setattr(jax.lax, "cond", lambda condition, yes, no: yes())
    run_fused(right_padding(0))
    expected = np.maximum(right_padding(0).sum(1), 1)
    for name in ("query_seq_lengths", "key_value_seq_lengths"):
        np.testing.assert_array_equal(calls[0][name], expected)
        assert calls[0][name].dtype == "int32"


@pytest.mark.parametrize(
    ("row", "branch"),
    [("11111111", 1), ("11110000", 1), ("00000000", 1), ("01111111", 2), ("11011111", 2)],
)
def test_the_kernel_runs_only_on_right_padding(calls, row, branch):
    real = np.ones((5, LENGTH), bool)
    real[2] = np.array(list(row)) == "1"
    output = run_fused(real)
    assert set(output[0].flat) == {branch}
    np.testing.assert_array_equal(output[2, :, 0, 0, 0], branch * real[2])


def test_no_fused_kernel_without_a_gpu():
    if jax.default_backend() != "cpu":
        pytest.skip("this machine has an accelerator")
    assert not fused_is_available("bfloat16", 128)
    *arrays, _ = inputs(4, 1, 1)
    with pytest.raises(RuntimeError, match="cuDNN"):
        fused_attention(*arrays)


@pytest.mark.parametrize(
    ("capability", "dtype", "head_dim", "available"),
    [
        ("8.0", "bfloat16", 128, True),
        ("8.0", "float16", 64, True),
        ("8.9", jnp.bfloat16, 8, True),
        ("9.0", "bfloat16", 256, True),
        ("10.0", "bfloat16", 256, True),
        ("12.0", "float16", 128, True),
        ("9.0", "float32", 128, False),
        ("9.0", "float64", 128, False),
        ("9.0", "bfloat16", 264, False),
        ("8.9", "bfloat16", 136, False),
        ("8.0", "bfloat16", 60, False),
        ("8.0", "bfloat16", 4, False),
        ("7.5", "float16", 128, False),  # T4
        ("7.0", "float16", 128, False),  # V100
        ("gfx942", "bfloat16", 128, False),  # AMD
        (None, "bfloat16", 128, False),
    ],
)
def test_which_gpus_have_the_kernel(monkeypatch, capability, dtype, head_dim, available):
    device = types.SimpleNamespace(platform="gpu")
    if capability is not None:
        device.compute_capability = capability
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert fused_is_available(dtype, head_dim) is available
