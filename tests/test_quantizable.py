"""Quantized layers: Keras's variables and numbers, our products."""

import keras
import numpy as np
import pytest

from mistral_lib.config import MistralConfig
from mistral_lib.layers.decoder import MistralDecoder
from mistral_lib.layers.embedding import TokenEmbedding
from mistral_lib.layers.projection import Projection
from mistral_lib.layers.quantizable import Composite, float_policy

INT8 = keras.quantizers.Int8QuantizationConfig(activation_quantizer=None)
KINDS = ["int8", "int4", "int4/4"]
POLICIES = ["float32", "bfloat16", "mixed_bfloat16"]
RANDOM = np.random.default_rng(0)


def config_of(kind):
    """What Keras calls a quantization."""
    if kind == "int8":
        return INT8
    block_size = {} if kind == "int4" else {"block_size": int(kind.removeprefix("int4/"))}
    return keras.quantizers.Int4QuantizationConfig(**block_size)


def projections(dtype="float32"):
    """Ours and Keras's, of the same weights: 130 rows are two blocks of 128, 7 columns are odd."""
    ours = Projection(7, dtype=dtype)
    keras_layer = keras.layers.EinsumDense("bsd,df->bsf", (None, 7), dtype=dtype)
    return same_weights(ours, keras_layer, (None, None, 130))


def embeddings(tie_weights, dtype="float32"):
    ours = TokenEmbedding(9, 5, tie_weights=tie_weights, dtype=dtype)
    keras_layer = keras.layers.ReversibleEmbedding(9, 5, tie_weights=tie_weights, dtype=dtype)
    return same_weights(ours, keras_layer, None)


def same_weights(*layers_and_shape):
    *layers, shape = layers_and_shape
    for layer in layers:
        layer.build(shape)
    for ours, theirs in zip(layers[0].weights, layers[1].weights, strict=True):
        ours.assign(RANDOM.normal(size=ours.shape))
        theirs.assign(ours.value)
    return layers


def assert_same_variables(ours, theirs):
    for one, other in zip(ours.weights, theirs.weights, strict=True):
        assert (one.name, one.dtype, one.trainable) == (other.name, other.dtype, other.trainable)
        np.testing.assert_array_equal(one.value, other.value, strict=True)


def assert_close(ours, theirs, dtype):
    ours, theirs = (np.asarray(array, "float32") for array in (ours, theirs))
    bound = 1e-6 if dtype == "float32" else 1e-2
    assert np.abs(ours - theirs).max() <= bound * np.abs(theirs).max()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", POLICIES)
@pytest.mark.parametrize("kind", KINDS)
def test_projection_is_keras_layer(kind, dtype):
    ours, theirs = projections(dtype)
    x = RANDOM.normal(size=(2, 3, 130)).astype("float32")
    for layer in (ours, theirs):
        layer.quantize(config=config_of(kind))
    assert_same_variables(ours, theirs)
    assert ours.dtype_policy == theirs.dtype_policy
    assert ours(x).dtype == theirs(x).dtype
    assert_close(ours(x), theirs(x), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", ["int8", "int4/4"])
@pytest.mark.parametrize("tie_weights", [False, True])
def test_embedding_is_keras_layer(tie_weights, kind, dtype):
    ours, theirs = embeddings(tie_weights, dtype)
    for layer in (ours, theirs):
        layer.quantize(config=config_of(kind))
    assert_same_variables(ours, theirs)
    ids = np.array([[0, 5, 8]])
    assert_close(ours(ids), theirs(ids), dtype)
    logits = ours(ours(ids), reverse=True)
    assert logits.dtype == "float32"
    assert_close(logits, theirs(theirs(ids), reverse=True), dtype)


def layers(dtype="float32"):
    return [projections(dtype)[0], embeddings(False, dtype)[0], embeddings(True, dtype)[0]]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", POLICIES)
@pytest.mark.parametrize("kind", KINDS)
def test_built_quantized_and_assigned_is_quantized_later(kind, dtype):
    for layer in layers(dtype):
        floats = {name: np.asarray(getattr(layer, name).value) for name in layer.matrices}
        layer.quantize(config=config_of(kind))
        again = type(layer).from_config(layer.get_config())
        again.build((None, None, 130))
        for name, matrix in floats.items():
            again.assign_float(name, matrix)
        assert_same_variables(again, layer)
        assert again.get_config() == layer.get_config()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_dequantized_is_a_float_layer_again(kind):
    for layer in layers():
        before = [(variable.name, variable.shape) for variable in layer.weights]
        layer.quantize(config=config_of(kind))
        inputs = RANDOM.normal(size=(1, 2, layer.matrix_shape[0])).astype("float32")
        reverse = {} if isinstance(layer, Projection) else {"reverse": True}
        quantized = layer(inputs, **reverse)
        layer.dequantize()
        assert layer.dtype_policy.name == "float32"
        assert [(variable.name, variable.shape) for variable in layer.weights] == before
        assert all(variable.trainable for variable in layer.weights)
        np.testing.assert_allclose(layer(inputs, **reverse), quantized, rtol=1e-5, atol=1e-5)
        layer.quantize(config=config_of(kind))  # and may be quantized again


@pytest.mark.parametrize("dtype", POLICIES)
def test_scales_are_not_rounded_in_a_mixed_policy(dtype):
    layer = projections(dtype)[0]
    layer.quantize(config=INT8)
    exact = np.asarray(layer._kernel.value) / np.asarray(layer.kernel_scale.value, "float64")[0]
    output = np.asarray(layer(np.eye(130)[None]), "float64")[0]
    rounding = 2**-22 if dtype == "float32" else 1.01 * 2**-8
    assert (np.abs(output - exact) <= rounding * np.abs(exact)).all()


def test_modes_without_products_are_refused():
    for layer in layers():
        before = [np.asarray(variable.value) for variable in layer.weights]
        with pytest.raises(ValueError, match="must be one of 'int8', 'int4', but is 'float8'"):
            layer.quantize("float8")
        for array, variable in zip(before, layer.weights, strict=True):
            np.testing.assert_array_equal(array, variable.value)


@pytest.mark.parametrize("block_size", [None, -1, 3])
def test_block_sizes_without_products_are_refused(block_size):
    config = keras.quantizers.Int4QuantizationConfig(block_size=block_size)
    for layer in layers():
        with pytest.raises(ValueError, match="must be an even number of rows"):
            layer.quantize(config=config)
        assert layer.quantization_mode is None
        assert all(variable.dtype == "float32" for variable in layer.weights)
    policy = f"int4/{-1 if block_size is None else block_size}_from_float32"
    with pytest.raises(ValueError, match="must be an even number of rows"):
        Projection(7, dtype=policy).build((None, None, 130))


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy", ["int8_from_bfloat16", "int4/128_from_mixed_bfloat16", "float16"]
)
def test_composites_are_float_and_leaves_quantized(policy):
    block = MistralDecoder(MistralConfig(10, 1, 2, 8, 12, 1), dtype=policy)
    block.build((None, None, 8))
    for layer in block._flatten_layers():
        quantized = isinstance(layer, Projection)
        assert layer.dtype_policy.name == (policy if quantized else float_policy(policy).name)
    assert block(np.ones((1, 3, 8))).shape == (1, 3, 8)
    again = MistralDecoder.from_config(block.get_config())
    assert again.get_config() == block.get_config()
    assert again.projection_policy.name == policy


def test_composite_follows_the_global_policy():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert Composite().projection_policy.name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy(before)
