"""RMSNorm: its formula in float64, its gradient, and float32 inside under every policy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mistral_lib.layers.rms_norm import RMSNorm

POLICIES = ["float32", "bfloat16", "float16", "mixed_bfloat16", "mixed_float16"]


def formula(x, scale, epsilon):
    x = np.asarray(x, "float64")
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * np.asarray(scale, "float64")


def norm_with(scale, epsilon=1e-6, dtype="float32"):
    norm = RMSNorm(epsilon, dtype=dtype)
    norm.build((None, None, len(scale)))
    norm.scale.assign(scale)
    return norm


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([1e-4, 1.0, 1e4]),
    epsilon=st.sampled_from([1e-6, 1e-5, 0.1]),
)
def test_equals_the_formula(seed, size, epsilon):
    random = np.random.default_rng(seed)
    x = (size * random.normal(size=(2, 3, 8))).astype("float32")
    scale = random.normal(size=8).astype("float32")
    found = norm_with(scale, epsilon)(x)
    np.testing.assert_allclose(found, formula(x, scale, epsilon), rtol=1e-5, atol=1e-6)


def test_its_gradient_equals_the_measured_one():
    random = np.random.default_rng(0)
    x, towards, direction = random.normal(size=(3, 1, 2, 8)).astype("float32")
    scale = random.normal(size=8).astype("float32")
    norm = norm_with(scale, 1e-2)
    gradient = jax.grad(lambda x: (norm(x) * towards).sum())(x)
    step = 1e-5 * direction.astype("float64")
    up, down = ((formula(x + s, scale, 1e-2) * towards).sum() for s in (step, -step))
    np.testing.assert_allclose((gradient * direction).sum(), (up - down) / 2e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", POLICIES)
def test_activations_of_300_do_not_overflow(dtype):
    # 300 squared is 90,000; the largest float16 is 65,504.
    x = jnp.asarray([[[300.0, -300.0, 300.0, 300.0]]])
    found = norm_with([1, 1, 1, 1], dtype=dtype)(x)
    np.testing.assert_allclose(np.asarray(found, "float32"), [[[1, -1, 1, 1]]])


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_a_mixed_policy_does_not_round_the_scale(dtype):
    # Next to 1, bfloat16 has 1.0078125 and float16 1.0009766. Were the scale rounded to 1 first,
    # the product would be 100 instead of 100.39.
    x = jnp.asarray([[[100.0, 100.0], [100.0, -100.0]]])
    scale = np.full(2, 1 + 1e-4, "float32") if dtype == "mixed_float16" else [1.0039, 1.0039]
    norm = norm_with(scale, dtype=dtype)
    assert norm.scale.dtype == "float32"
    traced = jax.make_jaxpr(norm)(x)
    rounded = [
        equation
        for equation in traced.jaxpr.eqns
        if equation.primitive.name == "convert_element_type"
        and equation.params["new_dtype"] == norm.compute_dtype
        and equation.invars[0].aval.shape == norm.scale.shape
    ]
    assert not rounded


def test_the_product_is_rounded_once():
    # Normalise, scale, then round: 3/5 rounded to bfloat16 before scaling would be 0.6015625, and
    # the product 1.203125. Rounded once it is 1.2 to the nearest bfloat16, 1.203125 or 1.1953125.
    x = jnp.asarray([[[3.0, 4.0, 0.0, 0.0] * 4]])
    scale = np.linspace(0.5, 2.5, 16).astype("float32")
    found = norm_with(scale, dtype="mixed_bfloat16")(x)
    expected = jnp.asarray(formula(x, scale, 1e-6), "bfloat16")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", POLICIES)
def test_output_has_the_compute_dtype_before_and_after_building(dtype):
    import keras

    norm = RMSNorm(dtype=dtype)
    symbolic = norm(keras.Input((None, 4), dtype="float32"))
    assert symbolic.dtype == norm.compute_dtype
    assert symbolic.shape == (None, None, 4)
    assert norm(np.ones((1, 2, 4))).dtype == norm.compute_dtype


@pytest.mark.slow
def test_a_zero_vector_stays_zero_with_finite_gradients():
    norm = norm_with([1, 1])
    zeros = jnp.zeros((1, 1, 2))
    assert not norm(zeros).any()
    assert np.isfinite(jax.grad(lambda x: norm(x).sum())(zeros)).all()


def test_config_round_trip():
    norm = RMSNorm(0.5, name="norm", dtype="bfloat16")
    again = RMSNorm.from_config(norm.get_config())
    assert (again.epsilon, again.name, again.dtype_policy.name) == (0.5, "norm", "bfloat16")
