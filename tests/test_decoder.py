"""The block: what is normalised, what is added, and what is dropped."""

import keras
import numpy as np
import pytest

from mistral_lib.config import MistralConfig
from mistral_lib.layers.decoder import MistralDecoder

SIZES = MistralConfig(10, 1, 4, 6, 12, 2, head_dim=2)
REAL = np.array([[True, True, True, True, False]])


@pytest.fixture(scope="module")
def block():
    """A block with weights of order one, norms too."""
    block = MistralDecoder(SIZES.changed(sliding_window=2, layer_norm_epsilon=1e-2))
    block.build((None, None, 6))
    random = np.random.default_rng(0)
    for weight in block.weights:
        weight.assign(random.normal(size=weight.shape))
    return block


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).normal(size=(1, 5, 6)).astype("float32")


def test_each_part_reads_a_normalised_copy_and_adds_to_the_stream(block, x):
    update = block.self_attention(block.self_attention_layernorm(x), padding_mask=REAL)
    stream = x + np.asarray(update)
    expected = stream + np.asarray(block.feedforward(block.feedforward_layernorm(stream)))
    np.testing.assert_allclose(block(x, padding_mask=REAL), expected, rtol=1e-4, atol=1e-5)
    # All parts matter: each is of the stream's own order.
    assert np.abs(update).mean() > 0.1
    assert np.abs(expected - stream).mean() > 0.1


def test_its_parts_get_its_settings(block):
    assert block.self_attention_layernorm.epsilon == block.feedforward_layernorm.epsilon == 1e-2
    assert block.self_attention.sliding_window == 2
    assert block.feedforward.intermediate_dim == 12


def test_names_and_shapes_of_its_weights(block):
    shapes = {weight.path.split("/", 1)[1]: weight.shape for weight in block.weights}
    assert shapes == {
        "self_attention_layernorm/scale": (6,),
        "self_attention/query/kernel": (6, 8),
        "self_attention/key/kernel": (6, 4),
        "self_attention/value/kernel": (6, 4),
        "self_attention/attention_output/kernel": (8, 6),
        "feedforward_layernorm/scale": (6,),
        "feedforward/gate/kernel": (6, 12),
        "feedforward/up/kernel": (6, 12),
        "feedforward/down/kernel": (12, 6),
    }


def test_positions_and_attention_go_through(block, x):
    seen = []

    def attend(query, key, value):
        seen.append((query.shape, key.shape, value.shape))
        return 0 * query

    found = block(x, positions=np.arange(5), attend=attend)
    assert seen == [((1, 5, 2, 2, 2), (1, 5, 2, 2), (1, 5, 2, 2))]
    # Without attention, the block is its feed-forward half.
    half = x + np.asarray(block.feedforward(block.feedforward_layernorm(x)))
    np.testing.assert_allclose(found, half, rtol=1e-4, atol=1e-5)
    far = block(x, padding_mask=REAL, positions=3 * np.arange(5))
    assert np.abs(far - block(x, padding_mask=REAL)).max() > 0.01


@pytest.mark.slow
def test_dropout_stands_before_and_after_the_output_projection(x):
    block = MistralDecoder(SIZES.changed(dropout=0.5))
    block.build((None, None, 6))
    assert block.self_attention.dropout_layer.rate == block.self_attention_dropout.rate == 0.5
    # With attention replaced by zeros, no mask can matter: the feed-forward network has none.
    zeros = [block(x, attend=lambda q, k, v: 0 * q, training=True) for _ in range(2)]
    np.testing.assert_array_equal(*zeros)
    # With it, half of the features of its update are zeroed, the others doubled.
    random = np.random.default_rng(2)
    block.self_attention.attention_output.kernel.assign(random.normal(size=(8, 6)))
    block.self_attention.value.kernel.assign(random.normal(size=(6, 4)))
    block.feedforward.down.kernel.assign(np.zeros((12, 6)))
    block.self_attention.dropout_layer.rate = 0
    dry = block(x) - x
    wet = block(x, training=True) - x
    ratios = np.round(np.asarray(wet / dry), 2)
    assert set(ratios.flat) == {0, 2}


def test_symbolic_calls_know_shape_and_dtype():
    block = MistralDecoder(SIZES, dtype="mixed_bfloat16")
    output = block(keras.Input((None, 6)), padding_mask=keras.Input((None,), dtype="bool"))
    assert (output.shape, output.dtype) == ((None, None, 6), "bfloat16")


def test_config_round_trip(block):
    again = MistralDecoder.from_config(block.get_config())
    assert again.get_config() == block.get_config()
    assert again.config.layer_norm_epsilon == 1e-2
