"""The attention layer: projections, positions, head groups and the choice of a path."""

import functools

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from attention_loops import dtypes_of, inputs, loops

from mistral_lib.config import MistralConfig
from mistral_lib.layers import attention
from mistral_lib.layers.attention import PATHS, MistralAttention, choose_path
from mistral_lib.layers.fused import fused_attention

ALL_PATHS = {
    **PATHS,
    # What cuDNN computes on a GPU, by the same call.
    "fused": functools.partial(fused_attention, implementation="xla"),
}


def config(num_query_heads, num_key_value_heads, head_dim, **changes) -> MistralConfig:
    sizes = {"vocabulary_size": 10, "num_layers": 1, "hidden_dim": 5, "intermediate_dim": 8}
    heads = {"num_query_heads": num_query_heads, "num_key_value_heads": num_key_value_heads}
    return MistralConfig(**sizes, **heads, head_dim=head_dim, **changes)


@pytest.fixture(scope="module")
def layer():
    """Three query heads to each of two key heads, with weights of order one."""
    layer = MistralAttention(
        config(6, 2, 4, rope_max_wavelength=50.0, rope_scaling_factor=0.5, sliding_window=3)
    )
    layer.build((None, None, 5))
    random = np.random.default_rng(0)
    for weight in layer.weights:
        weight.assign(random.normal(size=weight.shape) / 2)
    return layer


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).normal(size=(2, 7, 5)).astype("float32")


REAL = np.array([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]], bool)


def turned(x, wavelength=50.0, scaling=0.5):
    """Rotary positions 0, 1, 2, … by complex numbers."""
    half = x.shape[-1] // 2
    pairs = x[..., :half] + 1j * x[..., half:]
    angles = np.arange(x.shape[1])[:, None] / scaling * wavelength ** (-np.arange(half) / half)
    pairs = pairs * np.exp(1j * angles)[:, None, :]
    return np.concatenate([pairs.real, pairs.imag], -1)


def test_equals_the_whole_calculation_in_float64(layer, x):
    query, key, value = (
        (x.astype("float64") @ np.asarray(part.kernel.value)).reshape(2, 7, heads, 4)
        for part, heads in ((layer.query, 6), (layer.key, 2), (layer.value, 2))
    )
    # Query heads 0, 1 and 2 share key head 0.
    query = turned(query).reshape(2, 7, 2, 3, 4)
    output = loops(query, turned(key), value, REAL, window=3)
    expected = output.reshape(2, 7, 24) @ np.asarray(layer.attention_output.kernel.value)
    found = layer(x, padding_mask=REAL)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_names_and_shapes_of_its_weights(layer):
    shapes = {weight.path.split("/", 1)[1]: weight.shape for weight in layer.weights}
    assert shapes == {
        "query/kernel": (5, 24),
        "key/kernel": (5, 8),
        "value/kernel": (5, 8),
        "attention_output/kernel": (24, 5),
    }


def test_positions_can_be_given(layer, x):
    found = layer(x, padding_mask=REAL)
    for positions in (np.arange(7), np.tile(np.arange(7) + 40, (2, 1))):
        moved = layer(x, padding_mask=REAL, positions=positions)
        np.testing.assert_allclose(moved, found, rtol=1e-3, atol=1e-3)
    other = layer(x, padding_mask=REAL, positions=2 * np.arange(7))
    assert np.abs(other - found).max() > 0.01


def test_attention_can_be_replaced(layer, x):
    seen = []

    def attend(query, key, value):
        seen.extend([query, key, value])
        return query

    layer(x, positions=np.array([0, 1, 2, 3, 4, 5, 6]), attend=attend)
    query, key, value = seen
    assert query.shape == (2, 7, 2, 3, 4)
    assert key.shape == value.shape == (2, 7, 2, 4)
    expected = turned((x @ np.asarray(layer.key.kernel.value)).reshape(2, 7, 2, 4))
    np.testing.assert_allclose(key, expected, rtol=1e-4, atol=1e-4)


def test_an_empty_batch_comes_back_empty(layer):
    empty = np.zeros((0, 7, 5), "float32")
    assert layer(empty, padding_mask=np.zeros((0, 7), bool)).shape == (0, 7, 5)


@pytest.mark.parametrize(
    ("length", "path"), [(1, "dense"), (255, "dense"), (256, "banded"), (100_000, "banded")]
)
def test_the_choice_without_a_fused_kernel(length, path):
    assert choose_path(length, "float32", 128) == path


def test_the_choice_with_a_gpu(monkeypatch):
    monkeypatch.setattr(attention, "fused_is_available", lambda dtype, h: dtype == "bfloat16")
    assert choose_path(16, "bfloat16", 128) == "fused"
    assert choose_path(16, "float32", 128) == "dense"
    assert choose_path(9999, "float32", 128) == "banded"


@pytest.fixture
def taken(monkeypatch):
    """Records the names of the paths taken, and takes none."""
    names = []

    def recorder(name):
        def record(query, key, value, padding_mask, window):
            names.append((name, window))
            return query

        return record

    monkeypatch.setattr(attention, "PATHS", {name: recorder(name) for name in PATHS})
    return names


def test_the_layer_takes_the_chosen_path(layer, taken):
    def call(length):
        # JAX would answer a second call of one function from memory.
        jax.eval_shape(lambda x: layer(x), jnp.zeros((1, length, 5)))

    call(255)
    call(256)
    for path in ("dense", "banded", "fused"):  # `training/` knows another one
        layer.attention_path = path
        call(8)
    layer.attention_path = "auto"
    call(8)
    names = [name for name, _ in taken]
    assert names == ["dense", "banded", "dense", "banded", "fused", "dense"]
    assert {window for _, window in taken} == {3}


def test_the_choice_asks_for_the_dtype_of_the_values(monkeypatch, taken):
    asked = []
    monkeypatch.setattr(
        attention, "fused_is_available", lambda dtype, h: asked.append((str(dtype), h))
    )
    layer = MistralAttention(config(2, 1, 8), dtype="mixed_bfloat16")
    layer.build((None, None, 4))
    jax.eval_shape(layer, jnp.zeros((1, 3, 4)))
    assert asked == [("bfloat16", 8)]


@pytest.mark.slow
@pytest.mark.parametrize("path", ALL_PATHS)
def test_wholly_padded_rows_have_finite_gradients(path):
    # Large scores, and a row, its queries and its keys that no one sees.
    *arrays, cotangent = inputs(6, 1, 2)
    arrays = [100 * array for array in arrays]
    real = np.zeros((5, 6), bool)
    real[0] = True
    real[1, 2:4] = True

    @jax.jit
    def run(*arrays):
        output, pullback = jax.vjp(lambda *a: ALL_PATHS[path](*a, real, 2), *arrays)
        return output, *pullback(cotangent)

    for array in run(*arrays):
        assert np.isfinite(array).all()
        assert not array[2:].any()


@pytest.mark.parametrize("path", ALL_PATHS)
def test_softmax_is_float32_in_a_bfloat16_model(path):
    arrays = [jnp.asarray(a, "bfloat16") for a in inputs(4, 1, 2)[:3]]
    traced = jax.make_jaxpr(lambda *a: ALL_PATHS[path](*a, np.ones((5, 4), bool), 2))(*arrays)
    assert dtypes_of(traced, "exp") == {"float32"}
    assert traced.out_avals[0].dtype == "bfloat16"


@pytest.mark.slow
def test_dropout_only_in_training(x):
    layer = MistralAttention(config(2, 1, 4, dropout=0.5))
    dry = layer(x)
    np.testing.assert_array_equal(layer(x, training=False), dry)
    assert np.abs(layer(x, training=True) - dry).max() > 0
    assert np.abs(layer(x, training=True) - layer(x, training=True)).max() > 0


@pytest.mark.slow
def test_symbolic_calls_know_shape_and_dtype():
    layer = MistralAttention(config(2, 1, 4), dtype="mixed_float16")
    output = layer(keras.Input((None, 6)), padding_mask=keras.Input((None,), dtype="bool"))
    assert (output.shape, output.dtype) == ((None, None, 6), "float16")


def test_config_round_trip(layer):
    again = MistralAttention.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.config == layer.config
    assert again.sliding_window == 3
    assert "attention_path" not in layer.get_config()
    layer = MistralAttention(layer.config, attention_path="banded")
    assert MistralAttention.from_config(layer.get_config()).attention_path == "banded"


@pytest.mark.slow
def test_each_layer_has_its_own_window(x):
    windows = [2, None, 9]
    sizes = config(2, 1, 4).changed(num_layers=3, sliding_window=windows)
    layers = [MistralAttention(sizes, index) for index in range(3)]
    outputs = []
    for layer in layers:
        layer.build((None, None, 5))
        random = np.random.default_rng(0)
        layer.set_weights([random.normal(size=weight.shape) for weight in layer.weights])
        outputs.append(np.asarray(layer(x)))
    assert [layer.sliding_window for layer in layers] == windows
    assert np.abs(outputs[0] - outputs[1])[:, 2:].max() > 1e-3
    np.testing.assert_allclose(outputs[0][:, :2], outputs[1][:, :2], rtol=1e-5)
    np.testing.assert_allclose(outputs[1], outputs[2], rtol=1e-5)  # 9 show all 7 tokens
    assert MistralAttention.from_config(layers[2].get_config()).sliding_window == 9
