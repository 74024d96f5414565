"""Projection: a matrix product with a 2-D kernel, whatever the number of tokens."""

import numpy as np
import pytest

from mistral_lib.layers.projection import Projection


def test_equals_the_matrix_product():
    random = np.random.default_rng(0)
    projection = Projection(5)
    x = random.normal(size=(2, 3, 4)).astype("float32")
    projection.build(x.shape)
    kernel = random.normal(size=(4, 5)).astype("float32")
    projection.kernel.assign(kernel)
    np.testing.assert_allclose(projection(x), x @ kernel, rtol=1e-5, atol=1e-6)
    # Another number of tokens than it was built for.
    np.testing.assert_allclose(projection(x[:, :1]), x[:, :1] @ kernel, rtol=1e-5, atol=1e-6)


def test_the_kernel_is_two_dimensional_and_there_is_no_bias():
    projection = Projection(5)
    projection.build((None, None, 4))
    assert [weight.shape for weight in projection.weights] == [(4, 5)]


def test_the_kernel_starts_small():
    projection = Projection(256)
    projection.build((None, None, 256))
    kernel = np.asarray(projection.kernel.value)
    np.testing.assert_allclose(kernel.std(), 0.02, rtol=0.02)
    np.testing.assert_allclose(kernel.mean(), 0, atol=1e-3)


@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_float16"])
def test_config_round_trip(dtype):
    projection = Projection(5, name="query", dtype=dtype, kernel_initializer="ones")
    again = Projection.from_config(projection.get_config())
    assert again.get_config() == projection.get_config()
    assert (again.units, again.name, again.dtype_policy.name) == (5, "query", dtype)
    np.testing.assert_array_equal(np.asarray(again(np.ones((1, 1, 2))), "float32"), 2)


def test_lora_factors_have_the_shapes_of_the_paper():
    projection = Projection(6)
    projection.build((None, None, 4))
    projection.enable_lora(2)
    assert [w.shape for w in projection.trainable_weights] == [(4, 2), (2, 6)]
