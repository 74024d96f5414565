"""The largest numbers of each row: as many as were asked for, and those that a sort would name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mistral_lib.teaching.sparsity import largest


@pytest.mark.parametrize("count", [0, 1, 7, 39, 40])
def test_they_are_those_of_a_sort(count):
    sizes = np.random.default_rng(0).random((3, 5, 40)).astype("float32")
    order = np.argsort(-sizes, axis=-1).argsort(axis=-1)
    assert np.array_equal(largest(sizes, count), order < count)


def test_rows_of_other_sizes_have_bounds_of_their_own():
    row = np.array([0.1, 0.4, 0.2, 0.3], "float32")
    found = largest(np.stack([row, 1e4 * row, 1e-4 * row]), 2)
    assert found.tolist() == [[False, True, False, True]] * 3


def test_zeros_are_taken_where_all_are_asked_for():
    assert largest(np.array([0.0, 1.0, 0.0]), 3).all()
    assert largest(np.array([0.0, 1.0, 0.0]), 1).tolist() == [False, True, False]


def test_of_equal_numbers_at_the_bound_none_is_taken():
    assert largest(np.array([1.0, 2.0, 1.0]), 2).tolist() == [False, True, False]


def test_the_count_may_be_traced():
    sizes = jnp.arange(8.0)
    found = jax.jit(jax.vmap(lambda count: largest(sizes, count)))(jnp.array([2, 5]))
    assert found.sum(axis=1).tolist() == [2, 5]
