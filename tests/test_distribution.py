"""mistral_lib/distribution.py: layouts, what they refuse, and models on eight virtual devices."""

import keras
import pytest

from mistral_lib import MistralBackbone

SIZES = {
    "vocabulary_size": 304,
    "num_layers": 2,
    "num_query_heads": 16,
    "hidden_dim": 32,
    "intermediate_dim": 48,
    "num_key_value_heads": 8,
}
PROJECTIONS = {
    "transformer_layer_1/self_attention/query": 1,
    "transformer_layer_1/self_attention/key": 1,
    "transformer_layer_1/self_attention/value": 1,
    "transformer_layer_1/self_attention/attention_output": 0,
    "transformer_layer_1/feedforward/gate": 1,
    "transformer_layer_1/feedforward/up": 1,
    "transformer_layer_1/feedforward/down": 0,
}


def named_mesh(shape=(2, 4), names=("batch", "model")):
    """A mesh of devices that need not exist, as long as nothing is put on them."""
    devices = [f"cpu:{number}" for number in range(8)]
    return keras.distribution.DeviceMesh(shape, names, devices)


def make_under(layouts, **changes):
    with keras.distribution.ModelParallel(layout_map=layouts).scope():
        return MistralBackbone(**{**SIZES, **changes})


# The map -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("projection", "axis"), PROJECTIONS.items(), ids=str)
def test_kernels_and_factors_are_split_on_the_side_of_heads_and_features(projection, axis):
    layouts = MistralBackbone.get_layout_map(named_mesh())
    split = {0: ("model", None), 1: (None, "model")}[axis]
    assert layouts[f"{projection}/kernel"].axes == split
    a, b = (layouts[f"{projection}/lora_kernel_{name}"] for name in "ab")
    whole, shared = (a, b) if axis else (b, a)
    assert whole is None
    assert shared.axes == split


def test_embeddings_are_split_by_the_vocabulary_and_norms_are_whole():
    layouts = MistralBackbone.get_layout_map(named_mesh())
    assert layouts["token_embedding/embeddings"].axes == ("model", None)
    assert layouts["token_embedding/reverse_embeddings"].axes == (None, "model")
    for norm in ("self_attention_layernorm", "feedforward_layernorm"):
        assert layouts[f"transformer_layer_0/{norm}/scale"] is None
    assert layouts["sequence_output_layernorm/scale"] is None


def test_axes_can_have_other_names():
    layouts = MistralBackbone.get_layout_map(named_mesh(names=("rows", "heads")), "heads", "rows")
    assert layouts["token_embedding/embeddings"].axes == ("heads", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ("batch", "heads")}, "model_parallel_dim_name is 'model', but .* 'batch', 'h"),
        ({"names": ("rows", "model")}, "data_parallel_dim_name is 'batch', but .* 'rows', 'mod"),
        ({"shape": (8,), "names": ("model",)}, r"DeviceMesh\(\(1, 8\), \('batch', 'model'\)\)"),
    ],
)
def test_a_mesh_without_the_axis_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MistralBackbone.get_layout_map(named_mesh(**arguments))


def test_one_axis_for_both_is_refused():
    with pytest.raises(ValueError, match="both are 'batch'"):
        MistralBackbone.get_layout_map(named_mesh(), "batch")


def test_anything_but_a_mesh_is_refused():
    with pytest.raises(TypeError, match=r"must be a keras\.distribution\.DeviceMesh, .* tuple"):
        MistralBackbone.get_layout_map((2, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_key_value_heads": 2}, "num_key_value_heads is 2, which the 4 devices .*'model'"),
        ({"num_query_heads": 2, "num_key_value_heads": 2}, "num_query_heads is 2, which the 4"),
        ({"intermediate_dim": 50}, "intermediate_dim is 50, which .* keep feedforward/gate/kernel"),
        ({"vocabulary_size": 301}, "vocabulary_size is 301, which .* keep embeddings whole"),
    ],
)
def test_a_size_that_the_devices_cannot_share_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        make_under(MistralBackbone.get_layout_map(named_mesh()), **change)
