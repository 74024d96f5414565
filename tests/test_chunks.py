"""Token-wise work in chunks: the same values and gradients, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mistral_lib.layers import chunks
from mistral_lib.layers.chunks import in_chunks, map_in_order, pad_axis


def layer(x, w):
    return jnp.tanh(x @ w), x.sum(axis=-1)


@pytest.mark.parametrize(("batch", "length", "size"), [(1, 9, 4), (2, 7, 3), (3, 5, 2), (1, 9, 1)])
def test_values_and_gradients_are_those_of_one_call(batch, length, size):
    random = np.random.default_rng(0)
    x = random.normal(size=(batch, length, 4)).astype("float32")
    w = random.normal(size=(4, 5)).astype("float32")

    def outputs(x, w, chunk_size):
        return in_chunks(lambda x: layer(x, w), x, chunk_size=chunk_size)

    def loss(x, w, chunk_size):
        first, second = outputs(x, w, chunk_size)
        return (first**2).sum() + (second**3).sum()

    for function in (outputs, jax.grad(loss, argnums=(0, 1))):
        whole, split = (
            jax.jit(function, static_argnums=2)(x, w, chunk_size) for chunk_size in (10**6, size)
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), whole, split
        )


def calls(monkeypatch=None, batch=1, length=8, compiled=True):
    """How many tokens the function gets at once."""
    seen = []

    def function(x):
        seen.append(x.shape[0] * x.shape[1])
        return x

    run = jax.jit(lambda x: in_chunks(function, x, chunk_size=4))
    (run if compiled else run.__wrapped__)(jnp.ones((batch, length, 1)))
    return set(seen)


def test_where_it_splits(monkeypatch):
    assert calls(length=8) == {8}
    assert calls(length=9) == {3}
    assert calls(length=12) == {4}
    assert calls(batch=3, length=4) == {4}
    assert calls(length=12, compiled=False) == {12}
    monkeypatch.setattr(chunks.jax, "default_backend", lambda: "gpu")
    assert calls(length=12) == {12}


def test_one_chunk_is_in_memory():
    def block(x, w, chunk_size):
        return in_chunks(lambda x: jnp.tanh(x @ w) @ w.T, x, chunk_size=chunk_size)

    x, w = jnp.ones((1, 1024, 8)), jnp.ones((8, 512))
    whole, split = (
        jax.jit(block, static_argnums=2)
        .lower(x, w, size)
        .compile()
        .memory_analysis()
        .temp_size_in_bytes
        for size in (10**6, 64)
    )
    assert whole >= 1024 * 512 * 4
    assert split <= 2 * 64 * 512 * 4 + 2 * x.nbytes + w.nbytes


def test_results_of_several_loops_do_not_wait_in_memory():
    """Twenty loops after each other hold about as much as two."""

    def run(x, loops):
        for _ in range(loops):
            x = map_in_order(lambda i: x[i] * 2 + x.sum(), len(x), after=x)  # noqa: B023
        return x

    x = jnp.ones((16, 4096))
    few, many = (
        jax.jit(run, static_argnums=1).lower(x, n).compile().memory_analysis().temp_size_in_bytes
        for n in (3, 20)
    )
    assert many <= few + 2 * x.nbytes


def test_map_in_order_of_a_tree():
    first, second = map_in_order(lambda i: (i, jnp.full(2, i, "float32")), 3, after=jnp.ones(2))
    assert first.tolist() == [0, 1, 2]
    assert second.tolist() == [[0, 0], [1, 1], [2, 2]]


def test_nan_in_the_input_stays_where_it_is():
    x = jnp.array([[[jnp.nan]] + [[1.0]] * 6])
    doubled = jax.jit(lambda x: in_chunks(lambda x: 2 * x, x, chunk_size=3))(x)
    np.testing.assert_array_equal(doubled, 2 * np.asarray(x))


def test_pad_axis():
    assert pad_axis(jnp.ones((2, 3)), 1, 5).tolist() == [[1, 1, 1, 0, 0]] * 2
    assert pad_axis(jnp.ones((2, 3)), 0, 2).shape == (2, 3)
