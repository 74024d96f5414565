"""mistral_lib/config.py: the architecture, checked once, and the table of weights."""

import dataclasses
import json

import numpy as np
import pytest

from mistral_lib import MistralBackbone, without_weights
from mistral_lib.config import MistralConfig, check_names

SIZES = {
    "vocabulary_size": 10,
    "num_layers": 3,
    "num_query_heads": 4,
    "hidden_dim": 12,
    "intermediate_dim": 20,
    "num_key_value_heads": 2,
    "head_dim": 6,
}


def make(**changes) -> MistralConfig:
    return MistralConfig(**{**SIZES, **changes})


@pytest.mark.parametrize("tied", [False, True])
def test_the_table_of_weights_is_the_model(tied):
    """Names, shapes and order, against a model that Keras has built."""
    config = make(tie_word_embeddings=tied)
    with without_weights():
        backbone = MistralBackbone(**config.to_dict())
    assert {w.path: w.shape for w in config.weights()} == {
        variable.path: tuple(variable.shape) for variable in backbone.variables
    }
    assert config.count_params() == backbone.count_params()


def test_a_billion_blocks_are_counted_at_once():
    assert make(num_layers=10**9).count_params() > 10**12


@pytest.mark.parametrize("windows", [(3, None, 3), [3, None, 3]])
def test_a_window_for_each_layer(windows):
    config = make(sliding_window=windows)
    assert config.sliding_window == (3, None, 3)
    assert [config.window(layer) for layer in range(3)] == [3, None, 3]
    assert config.to_dict()["sliding_window"] == [3, None, 3]
    again = MistralConfig(**json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)


@pytest.mark.parametrize("window", [5, None])
def test_one_window_is_the_same_however_it_is_written(window):
    assert make(sliding_window=[window] * 3) == make(sliding_window=window)
    assert make(sliding_window=window).window(2) == window


@pytest.mark.parametrize(
    ("window", "error", "message"),
    [
        ([3, 3], ValueError, "for each of the 3 layers, but has 2 entries"),
        ([3, 0, 3], ValueError, r"sliding_window\[1\] must be at least 1, but is 0"),
        ([3, 3, "4"], TypeError, r"sliding_window\[2\] must be an integer, but is '4'"),
        ("512", TypeError, "sliding_window must be an integer"),
    ],
)
def test_wrong_windows(window, error, message):
    with pytest.raises(error, match=message):
        make(sliding_window=window)


def test_numbers_of_numpy_become_those_of_python():
    sizes = {name: np.int32(size) for name, size in SIZES.items()}
    config = MistralConfig(**sizes, sliding_window=[np.int64(3), None, None], dropout=np.float32(0))
    assert config == make(sliding_window=[3, None, None])
    assert all(type(value) is not np.int32 for value in dataclasses.astuple(config))


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().num_layers = 4


def test_head_dim_is_written_where_it_is_no_default():
    assert make().to_dict()["head_dim"] == 6
    default = make(hidden_dim=16, head_dim=None)
    assert (default.head_dim, default.to_dict()["head_dim"]) == (4, None)
    assert make(hidden_dim=16, head_dim=4) == default


def test_arguments_of_a_backbone_hold_a_config():
    config = make(sliding_window=[3, None, 3])
    arguments = {**config.to_dict(), "name": "mine", "dtype": "bfloat16", "trainable": True}
    assert MistralConfig.from_arguments(arguments) == config
    check_names(arguments)
    with pytest.raises(TypeError, match="num_layers must be an integer, but is None"):
        MistralConfig.from_arguments({**arguments, "num_layers": None})
    del arguments["hidden_dim"]
    with pytest.raises(TypeError, match="hidden_dim must be an integer, but is None"):
        MistralConfig.from_arguments(arguments)
    with pytest.raises(TypeError, match=r"has no argument 'b'. It takes .*, dtype"):
        check_names([*arguments, "c", "b"])


def test_what_a_weight_is():
    gate = make().weight("transformer_layer_{}.feedforward.gate.kernel", 2)
    assert (gate.layer, gate.attribute) == ("transformer_layer_2.feedforward.gate", "kernel")
    assert (gate.path, gate.in_block) == ("transformer_layer_2/feedforward/gate/kernel", True)
    kinds = {weight.attribute: weight.is_matrix for weight in make().weights()}
    assert kinds == {
        "embeddings": True,
        "scale": False,
        "kernel": True,
        "reverse_embeddings": True,
    }
