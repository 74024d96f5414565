"""Quantized presets: what KerasHub wrote is read, and what is written KerasHub reads."""

import json
import shutil
from importlib.util import find_spec

import h5py
import numpy as np
import pytest
from reference.make_quantized_preset import CONFIG, MODES, TOKEN_IDS, keras_hub_backbone, preset
from small_presets import INPUTS, small_backbone, small_causal_lm

from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.presets.quantized_format import read_policy


def stored(folder):
    """All tensors of a preset by their path, as bytes."""
    found = {}

    def add(path, item):
        if isinstance(item, h5py.Dataset):
            found[path] = item.shape, item.dtype.name, np.asarray(item).tobytes()

    with h5py.File(folder / "model.weights.h5") as file:
        file.visititems(add)
    return found


def assert_same_variables(one, other):
    for ours, theirs in zip(one.variables, other.variables, strict=True):
        assert ours.dtype == theirs.dtype
        assert np.asarray(ours.value).tobytes() == np.asarray(theirs.value).tobytes(), ours.path


@pytest.mark.parametrize("mode", MODES)
def test_presets_of_keras_hub(mode, tmp_path):
    backbone = MistralBackbone.from_preset(preset(mode))
    assert backbone.quantization == {"int8": "int8", "int4": "int4/128"}[mode]
    outputs = backbone({"token_ids": TOKEN_IDS, "padding_mask": np.ones_like(TOKEN_IDS)})
    expected = np.load(preset(mode) / "hidden_states.npy")
    # In int8 KerasHub rounds the activations too.
    bound = 0.03 if mode == "int8" else 1e-5
    assert np.abs(outputs - expected).mean() < bound * np.abs(expected).mean()
    # And back: the same tensors at the same places, the same layers in the config.
    backbone.save_to_preset(tmp_path)
    assert stored(tmp_path) == stored(preset(mode))
    ours, theirs = (
        json.loads((folder / "config.json").read_text())["config"]["dtype"]
        for folder in (tmp_path, preset(mode))
    )
    for content in (ours, theirs):
        content["config"]["default_policy"] = None
        for policy in content["config"]["policy_map"].values():
            policy["config"]["source_name"] = None
    assert ours == theirs


@pytest.mark.peer
@pytest.mark.skipif(find_spec("keras_hub") is None, reason="peer not installed: keras_hub")
@pytest.mark.parametrize("mode", MODES)
def test_keras_hub_reads_what_is_written(mode, tmp_path):
    """By `load_weights`: its `from_preset` opens no quantized backbone (0.32), its own neither."""
    backbone = MistralBackbone(**CONFIG)
    backbone.quantize(mode)
    backbone.save_to_preset(tmp_path)
    theirs = keras_hub_backbone(mode)
    theirs.load_weights(tmp_path / "model.weights.h5")
    inputs = {"token_ids": TOKEN_IDS, "padding_mask": np.ones_like(TOKEN_IDS)}
    expected, found = (np.asarray(model(inputs)) for model in (backbone, theirs))
    bound = 0.03 if mode == "int8" else 1e-5
    assert np.abs(found - expected).mean() < bound * np.abs(expected).mean()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("int8", {"dtype": "bfloat16"}),
        ("int8", {"tie_word_embeddings": True}),
        ("int4", {"dtype": "mixed_bfloat16", "tie_word_embeddings": True}),
        ("int4/6", {"head_dim": 6, "num_layers": 1, "vocabulary_size": 299}),
    ],
)
def test_round_trip(kind, changes, tmp_path):
    backbone = small_backbone(**changes)
    backbone.quantize(kind)
    backbone.save_to_preset(tmp_path, max_shard_size=2e-6)
    assert len(list(tmp_path.glob("*.h5"))) > 1
    loaded = MistralBackbone.from_preset(tmp_path, dtype=changes.get("dtype"))
    assert_same_variables(loaded, backbone)
    assert loaded.get_config() == {**backbone.get_config(), "name": loaded.name}
    if changes.get("dtype") == "bfloat16":
        assert_same_variables(MistralBackbone.from_preset(tmp_path, dtype="auto"), backbone)


@pytest.mark.slow
def test_causal_lm_with_lora(tmp_path):
    model = small_causal_lm()
    model.quantize("int4")
    model.backbone.enable_lora(2)
    for variable in model.trainable_variables:
        variable.assign(np.random.default_rng(0).normal(size=variable.shape))
    model.save_to_preset(tmp_path)
    loaded = MistralCausalLM.from_preset(tmp_path)
    assert_same_variables(loaded.backbone, model.backbone)
    np.testing.assert_array_equal(loaded(INPUTS), model(INPUTS))


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(preset("int4"), tmp_path / "copy")


def test_another_quantization_than_the_files_have(copy):
    with pytest.raises(ValueError, match="quantized to int4/128, which cannot become int8"):
        MistralBackbone.from_preset(copy, quantization="int8")
    with pytest.raises(ValueError, match="quantized to int4/128, which cannot become int8"):
        MistralBackbone.from_preset(copy, dtype="int8_from_float32")
    same = MistralBackbone.from_preset(copy, quantization="int4")
    assert_same_variables(same, MistralBackbone.from_preset(copy))


def edit(folder, change):
    content = json.loads((folder / "config.json").read_text())
    change(content["config"])
    (folder / "config.json").write_text(json.dumps(content))


def test_rows_in_another_order(copy):
    with h5py.File(copy / "model.weights.h5", "r+") as file:
        path = "layers/mistral_transformer_decoder/_feedforward_output_dense/vars/3"
        file[path][...] = file[path][...][::-1].copy()
    with pytest.raises(ValueError, match=f"'{path}' does not put every 128 rows in a group"):
        MistralBackbone.from_preset(copy)


def test_config_and_weights_of_different_kinds(copy):
    edit(copy, lambda config: config.pop("dtype"))
    with pytest.raises(ValueError, match=r"vars/0' has the shape|has the dtype int8, but"):
        MistralBackbone.from_preset(copy)


def policy_map(*modes):
    policies = {str(index): {"config": {"mode": mode}} for index, mode in enumerate(modes)}
    return {"class_name": "DTypePolicyMap", "config": {"policy_map": policies}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (policy_map("int8", "int4/128"), r"2 kinds \(int4/128_from_float32, int8_from_float32\)"),
        (policy_map(), r"0 kinds \(none\)"),
        (policy_map("float8"), "'float8_from_float32', but only int8 and int4"),
        (policy_map("gptq/4/128"), "'gptq/4/128_from_float32', but only int8 and int4"),
        (policy_map(7), "'7_from_float32', but only int8 and int4"),
        ({"class_name": "DTypePolicyMap", "config": {}}, "0 kinds"),
    ],
)
def test_policies_that_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        read_policy(content)


@pytest.mark.parametrize("content", [None, "bfloat16", {"class_name": "DTypePolicy"}, 3, []])
def test_policies_without_quantization(content):
    assert read_policy(content) is None
