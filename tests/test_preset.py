"""mistral_lib/presets/preset.py: a preset is opened once, and everything is read from it."""

import json
import shutil
import sys
from collections import Counter

import keras
import pytest
from reference.make_formats import FOLDER
from small_presets import KERAS_HUB, small_backbone, small_causal_lm, small_tokenizer

from mistral_lib import MistralBackbone, MistralCausalLM, MistralTokenizer
from mistral_lib.presets.preset import KERAS, MISTRAL, TRANSFORMERS, Preset, format_of
from mistral_lib.presets.sources import LocalFolder

PRESETS = {
    "KerasHub": KERAS_HUB["single"],
    "KerasHub in shards": KERAS_HUB["sharded"],
    "transformers": FOLDER / "single",
    "transformers in shards": FOLDER / "sharded",
    "Mistral": FOLDER / "mistral_full",
}
COUNTED = {
    "open_source": "sources opened",
    "format_of": "formats decided",
    "MistralBackbone.__init__": "backbones built",
    "Projection.__init__": "projections built",
}


def counts(load) -> Counter:
    """How often each was done while something was loaded, and how often each JSON file was read."""
    found = Counter()

    def watch(frame, event, argument):
        if event != "call":
            return
        name = frame.f_code.co_qualname
        if name in COUNTED:
            found[COUNTED[name]] += 1
        elif name == "read_json":
            found[frame.f_locals["file"].name] += 1

    sys.setprofile(watch)
    try:
        load()
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("folder", PRESETS.values(), ids=PRESETS)
@pytest.mark.parametrize("options", [{}, {"dtype": "auto", "quantization": "int4"}], ids=str)
def test_everything_is_done_once(folder, options):
    model = MistralCausalLM.from_preset(folder)
    found = counts(lambda: MistralCausalLM.from_preset(folder, **options))
    assert found.pop("sources opened") == 1
    assert found.pop("formats decided") == 1
    assert found.pop("backbones built") == 1
    assert found.pop("projections built") == 7 * model.backbone.num_layers
    assert found
    assert set(found.values()) == {1}, found


def test_by_name_too():
    found = counts(lambda: MistralCausalLM.from_preset("mistral_tiny_en"))
    assert found.pop("projections built") == 7 * 6
    assert set(found.values()) == {1}, found


def test_random_weights_take_one_model_too():
    found = counts(lambda: MistralCausalLM.from_preset(KERAS_HUB["single"], load_weights=False))
    assert (found["backbones built"], found["sources opened"]) == (1, 1)


def test_an_adapter_takes_no_other_model(tmp_path):
    model = small_causal_lm()
    model.backbone.enable_lora(2)
    model.save_to_preset(tmp_path)
    found = counts(lambda: MistralCausalLM.from_preset(tmp_path))
    assert (found["backbones built"], found["sources opened"]) == (1, 1)


# --- Which format --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "form"),
    [
        (KERAS_HUB["single"], KERAS),
        (KERAS_HUB["sharded"], KERAS),
        (FOLDER / "single", TRANSFORMERS),
        (FOLDER / "older", TRANSFORMERS),
        (FOLDER / "mistral_full", MISTRAL),
    ],
)
def test_format_of(folder, form):
    assert format_of(LocalFolder(folder)) is form


def test_several_formats_in_one_folder(tmp_path):
    """As in Mistral's own repositories, which hold the same model twice."""
    folder = shutil.copytree(FOLDER / "single", tmp_path / "both")
    shutil.copytree(FOLDER / "mistral_full", folder, dirs_exist_ok=True)
    assert format_of(LocalFolder(folder)) is TRANSFORMERS
    content = json.loads((KERAS_HUB["single"] / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"model_type": "mistral"}))
    assert format_of(LocalFolder(folder)) is KERAS


def test_a_tokenizer_alone(tmp_path):
    small_tokenizer().save_to_preset(tmp_path / "keras")
    assert format_of(LocalFolder(tmp_path / "keras")) is KERAS
    (tmp_path / "other").mkdir()
    (tmp_path / "other/tokenizer.model").write_bytes(small_tokenizer().proto)
    assert MistralTokenizer.from_preset(tmp_path / "other").proto == small_tokenizer().proto


def test_nothing_that_is_known(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no file config\.json"):
        MistralBackbone.from_preset(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="only Mistral lives here"):
        MistralBackbone.from_preset(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gemma"}')
    with pytest.raises(ValueError, match="of the type 'gemma', but only Mistral lives here"):
        MistralBackbone.from_preset(tmp_path)


# --- What a preset says --------------------------------------------------------------------------


def test_what_the_files_hold(tmp_path):
    backbone = small_backbone(sliding_window=[3, None], dtype="bfloat16")
    backbone.quantize("int8")
    backbone.enable_lora(2)
    backbone.save_to_preset(tmp_path)
    preset = Preset.open(tmp_path)
    assert (preset.config, preset.quantization) == (backbone.config, "int8")
    assert (preset.dtype, preset.adapter) == ("bfloat16", tmp_path / "adapter.lora.h5")
    assert preset.arguments["sliding_window"] == [3, None]
    assert str(preset) == str(tmp_path)
    kinds = {tensor.dtype for tensor in preset.tensors().values()}
    assert kinds == {"int8", "bfloat16"}


def test_a_refused_argument_is_found_in_its_file(tmp_path):
    small_backbone().save_to_preset(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    for change, message in (
        ({"hidden_size": 3}, "MistralBackbone has no argument 'hidden_size'"),
        ({"name": "a/b"}, "name must be a str without '/', but is 'a/b'"),
        ({"trainable": "no"}, "trainable must be True or False, but is 'no'"),
        ({"sliding_window": [3]}, "for each of the 2 layers, but has 1 entries"),
    ):
        changed = {**content, "config": {**content["config"], **change}}
        (tmp_path / "config.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=message) as caught:
            _ = Preset.open(tmp_path).config
        assert str(caught.value).startswith(f"{tmp_path}/config.json: ")
        assert str(caught.value).count("config.json") == 1


def test_the_global_policy_is_not_blamed_on_a_file():
    """What a preset says does not depend on it; only what is loaded does."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        assert Preset.open(KERAS_HUB["single"]).config.num_layers == 2
        with pytest.raises(ValueError, match=r"^dtype must be 'float32'.*, but is None"):
            MistralBackbone.from_preset(KERAS_HUB["single"])
    finally:
        keras.config.set_dtype_policy(before)


# --- An adapter in place of a model --------------------------------------------------------------


@pytest.mark.parametrize("base", ["mistralai/Mistral-7B-v0.1", None])
@pytest.mark.parametrize("vocabulary", [None, "tokenizer.model", "tokenizer.json"])
@pytest.mark.parametrize("cls", [MistralBackbone, MistralCausalLM])
def test_a_peft_adapter_is_no_model(tmp_path, base, vocabulary, cls):
    """Trainers often write the tokenizer beside it."""
    backbone = small_backbone()
    backbone.enable_lora(2)
    backbone.export_lora_to_peft(tmp_path, base)
    if vocabulary:
        (tmp_path / vocabulary).write_bytes(small_tokenizer().proto)
    with pytest.raises(FileNotFoundError, match="is a PEFT adapter, not a model") as caught:
        cls.from_preset(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is a PEFT adapter, not a model. Load the model on which it was trained"
        f"{f' ({base!r})' if base else ''}, and then call load_lora_weights({str(tmp_path)!r}) on "
        "its backbone."
    )
    if vocabulary == "tokenizer.model":
        assert MistralTokenizer.from_preset(tmp_path).proto == small_tokenizer().proto


def test_a_model_is_no_peft_adapter(tmp_path):
    backbone = small_backbone()
    backbone.export_to_transformers(tmp_path)
    message = r"has no file adapter_config\.json, so it is no PEFT adapter"
    with pytest.raises(FileNotFoundError, match=message):
        backbone.load_lora_weights(tmp_path)
