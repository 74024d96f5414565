"""Projection: a matrix product with a 2-D kernel, whatever the number of tokens."""

import jax
import numpy as np
import pytest

from mistral_lib.layers.projection import Projection
from mistral_lib.layers.quantized import dequantize


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


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["int8", "int4"])
@pytest.mark.parametrize("first", ["quantized", "adapted"])
def test_lora_on_a_quantized_kernel(first, mode):
    random = np.random.default_rng(0)
    projection = Projection(6)
    projection.build((None, None, 4))
    if first == "quantized":
        projection.quantize(mode)
    projection.enable_lora(2, lora_alpha=3)
    a, b = random.normal(size=(4, 2)), random.normal(size=(2, 6))
    projection.lora_kernel_a.assign(a)
    projection.lora_kernel_b.assign(b)
    if first == "adapted":
        projection.quantize(mode)
    kernel = np.asarray(dequantize(projection.quantized_matrix("kernel")))
    x = random.normal(size=(2, 3, 4)).astype("float32")
    np.testing.assert_allclose(projection(x), x @ kernel + 1.5 * x @ a @ b, rtol=1e-5, atol=1e-5)

    def loss(trainable, x):
        frozen = [variable.value for variable in projection.non_trainable_variables]
        return projection.stateless_call(trainable, frozen, x)[0].sum()

    trainable = [variable.value for variable in projection.trainable_variables]
    (by_a, by_b), by_x = jax.grad(loss, argnums=(0, 1))(trainable, x)
    upstream = np.ones((6, 6))
    flat = x.reshape(6, 4)
    np.testing.assert_allclose(by_a, 1.5 * flat.T @ upstream @ b.T, rtol=1e-4)
    np.testing.assert_allclose(by_b, 1.5 * (flat @ a).T @ upstream, rtol=1e-4)
    expected = upstream @ (kernel + 1.5 * a @ b).T
    np.testing.assert_allclose(by_x.reshape(6, 4), expected, rtol=1e-4)


def test_an_adapted_quantized_kernel_is_dequantized_and_merged():
    projection = Projection(6)
    projection.build((None, None, 4))
    projection.quantize("int8")
    projection.enable_lora(2)
    projection.lora_kernel_b.assign(np.ones((2, 6)))
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    before = projection(x)
    projection.dequantize()
    assert [weight.shape for weight in projection.trainable_weights] == [(4, 2), (2, 6)]
    np.testing.assert_allclose(projection(x), before, rtol=1e-5, atol=1e-6)
    projection.merge_lora()
    np.testing.assert_allclose(projection(x), before, rtol=1e-5, atol=1e-6)
    assert [weight.shape for weight in projection.trainable_weights] == [(4, 6)]
