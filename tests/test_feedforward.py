"""SwiGLU: its formula and its gradients in float64, its weights and its precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mistral_lib.layers.feedforward import SwiGLU


def formula(x, gate, up, down):
    x, gate, up, down = (np.asarray(array, "float64") for array in (x, gate, up, down))
    gated = x @ gate
    return (gated / (1 + np.exp(-gated)) * (x @ up)) @ down


@pytest.fixture(scope="module")
def built():
    """A layer with weights of order one, and an input."""
    random = np.random.default_rng(0)
    layer = SwiGLU(10)
    layer.build((None, None, 6))
    for weight in layer.weights:
        weight.assign(random.normal(size=weight.shape))
    return layer, random.normal(size=(2, 3, 6)).astype("float32")


def kernels(layer):
    return [np.asarray(part.kernel.value) for part in (layer.gate, layer.up, layer.down)]


def test_equals_the_formula(built):
    layer, x = built
    np.testing.assert_allclose(layer(x), formula(x, *kernels(layer)), rtol=1e-5, atol=1e-4)


@pytest.mark.slow
def test_gradients_equal_measured_ones(built):
    layer, x = built
    random = np.random.default_rng(1)
    towards = random.normal(size=x.shape)
    state = [variable.value for variable in layer.trainable_variables]

    def loss(state, x):
        return (layer.stateless_call(state, [], x)[0] * towards).sum()

    by_weights, by_input = jax.grad(loss, (0, 1))(state, x)
    named = dict(zip((v.path.split("/")[-2] for v in layer.trainable_variables), by_weights))
    exact = [x, *kernels(layer)]
    found = [by_input, *(named[name] for name in ("gate", "up", "down"))]
    for place, gradient in enumerate(found):
        direction = random.normal(size=gradient.shape)
        around = []
        for step in (1e-6, -1e-6):
            moved = [array.astype("float64") for array in exact]
            moved[place] += step * direction
            around.append((formula(*moved) * towards).sum())
        measured = (around[0] - around[1]) / 2e-6
        np.testing.assert_allclose((gradient * direction).sum(), measured, rtol=1e-4, atol=1e-2)


def test_names_and_shapes_of_its_weights(built):
    layer, _ = built
    shapes = {weight.path.split("/", 1)[1]: weight.shape for weight in layer.weights}
    assert shapes == {"gate/kernel": (6, 10), "up/kernel": (6, 10), "down/kernel": (10, 6)}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_float16"])
def test_silu_is_float32_in_low_precision(dtype):
    layer = SwiGLU(10, dtype=dtype)
    output = layer(np.ones((1, 2, 6)))
    assert output.dtype == layer.compute_dtype
    traced = str(jax.make_jaxpr(layer)(jnp.ones((1, 2, 6), layer.compute_dtype)))
    sigmoids = [line for line in traced.splitlines() if "= logistic" in line]
    assert sigmoids
    assert all(":f32" in line for line in sigmoids)


@pytest.mark.slow
def test_a_very_negative_gate_closes_without_nan():
    layer = SwiGLU(2)
    layer.build((None, None, 1))
    layer.gate.kernel.assign([[-1e30, 1e4]])
    layer.up.kernel.assign([[1.0, 1.0]])
    layer.down.kernel.assign([[1.0], [1.0]])
    x = jnp.ones((1, 1, 1))
    np.testing.assert_allclose(layer(x), [[[1e4]]])
    assert np.isfinite(jax.grad(lambda x: layer(x).sum())(x)).all()


def test_config_round_trip():
    layer = SwiGLU(10, name="feedforward", dtype="mixed_bfloat16")
    again = SwiGLU.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.intermediate_dim == 10
