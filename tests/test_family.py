"""Every dense model of Mistral's: what transformers computes from a checkpoint is computed here."""

import json
import re
import shutil
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from reference.make_family import (
    CONFIGS,
    FOLDER,
    KEPT,
    NATIVE,
    TOKEN_IDS,
    arguments_of,
    text_of,
    weights_of,
)
from safetensors.numpy import load_file, save_file

from mistral_lib import MistralBackbone, MistralCausalLM, teaching
from mistral_lib.presets.preset import Preset
from mistral_lib.presets.sources import LocalFolder
from mistral_lib.presets.transformers_format import TransformersFormat

TOLERANCE = 1e-5  # of logits of size 2 to 4
LOGITS = np.load(FOLDER / "logits.npz")
INPUTS = {"token_ids": TOKEN_IDS, "padding_mask": np.ones_like(TOKEN_IDS)}
WITHOUT_OUTPUT = ("encoder", "reward")
MULTIMODAL = ("small_3_1", "ministral_3_3b", "ministral_3_3b_native")
PARTS = r"^(?:model\.|language_model\.)*(embed_tokens|layers|norm|lm_head)\."
QUANTIZED = [name for name, config in CONFIGS.items() if "quantization_config" in config]
NAMES = [*CONFIGS, *(f"{name}_native" for name in sorted(NATIVE))]
pytestmark = pytest.mark.filterwarnings("ignore:.*only the decoder for text is read")


def computed(backbone, name):
    states = backbone(INPUTS)
    if name not in WITHOUT_OUTPUT:
        states = backbone.token_embedding(states, reverse=True)
    return np.asarray(states)[:, KEPT]


def edit(folder, name="config.json", **changes):
    file = folder / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def rename(folder, change):
    """Rewrites the weights with safetensors' own library under other names."""
    file = folder / "model.safetensors"
    save_file({change(name): array for name, array in load_file(file).items()}, file)


@pytest.mark.parametrize("name", NAMES)
def test_logits_of_transformers(name):
    """Beyond the original length, with windows that differ by layer, from eight bits."""
    backbone = MistralBackbone.from_preset(FOLDER / name, dtype="float32")
    expected = LOGITS[name.removesuffix("_native")]
    assert np.abs(expected).max() > 2
    assert np.abs(computed(backbone, name) - expected).max() <= TOLERANCE
    assert (
        backbone.context_length
        == text_of(CONFIGS[name.removesuffix("_native")])["max_position_embeddings"]
    )


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("ministral_8b", {"sliding_window": None}),
        ("ministral_8b", {"sliding_window": [7, None, 7, 7]}),
        ("ministral_8b", {"sliding_window": [None, 8, 8, 8]}),
        ("ministral_3_3b", {"rope_scaling": None}),
        ("ministral_3_3b", {"rope_max_wavelength": 1e4}),
        ("ministral_3_3b", {"llama_4_scaling_beta": 0.4}),
        ("ministral_3_3b", {"mscale": None, "mscale_all_dim": None}),
        ("devstral_2", {"mscale": 1.0, "mscale_all_dim": 1.0}),
        ("devstral_2", {"attention_factor": 1.0}),
        ("devstral_2", {"original_max_position_embeddings": 400}),
        ("yarn_mistral", {"factor": 4.0}),
        ("yarn_mistral", {"sliding_window": None}),
        ("encoder", {"sliding_window": 10}),
        ("encoder", {"layer_norm_epsilon": 1e-3}),
    ],
)
def test_every_setting_shows(name, changes):
    """Or it could be read wrongly, and the logits would still agree."""
    config = MistralBackbone.from_preset(FOLDER / name, load_weights=False).get_config()
    if not changes.keys() <= config.keys():
        changes = {"rope_scaling": {**config["rope_scaling"], **changes}}
    other = MistralBackbone.from_preset(FOLDER / name, dtype="float32", **changes)
    assert np.abs(computed(other, name) - LOGITS[name]).max() > 100 * TOLERANCE


@pytest.mark.parametrize("name", MULTIMODAL)
def test_one_sentence_on_what_is_skipped(name):
    with pytest.warns(UserWarning, match=r"skipped vision weights \(15 tensors") as caught:
        MistralBackbone.from_preset(FOLDER / name)
    (warning,) = caught
    assert str(FOLDER / name) in str(warning.message)


def test_no_sentence_where_nothing_is_skipped():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("ministral_8b", "devstral_2", "encoder", "devstral_2_native"):
            MistralBackbone.from_preset(FOLDER / name)


def test_the_copy_that_chapter_17_reads():
    """The wheel has it too, so that the chapter shows transformers' logits anywhere."""
    copy = Path(teaching.__file__).parent / "records" / "ministral_3"
    for name in ("config.json", "model.safetensors"):
        assert (copy / name).read_bytes() == (FOLDER / "ministral_3_3b" / name).read_bytes()
    assert np.array_equal(np.load(copy / "logits.npy"), LOGITS["ministral_3_3b"][0])


# --- Names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["small_3_1", "encoder", "yarn_mistral"])
@pytest.mark.parametrize(
    "prefix",
    ["model.", "", "language_model.model.", "model.language_model.", "language_model."],
)
def test_prefixes(tmp_path, name, prefix):
    """All that transformers has written since its version 4.34, and text parts taken out."""
    folder = shutil.copytree(FOLDER / name, tmp_path / name)

    head = "language_model." if prefix.startswith("language_model") else ""
    rename(
        folder,
        lambda stored: re.sub(
            PARTS, lambda part: (head if part[1] == "lm_head" else prefix) + part[1] + ".", stored
        ),
    )
    backbone = MistralBackbone.from_preset(folder, dtype="float32")
    assert np.abs(computed(backbone, name) - LOGITS[name]).max() <= TOLERANCE


def test_two_names_of_one_weight(tmp_path):
    folder = shutil.copytree(FOLDER / "small_3_1", tmp_path / "a")
    file = folder / "model.safetensors"
    arrays = load_file(file)
    save_file({**arrays, "lm_head.weight": arrays["language_model.lm_head.weight"]}, file)
    with pytest.raises(ValueError, match=r"are two names of one weight"):
        MistralBackbone.from_preset(folder)


def test_vision_has_a_place_in_multimodal_models_alone(tmp_path):
    folder = shutil.copytree(FOLDER / "small_3_1", tmp_path / "a")
    edit(folder, **CONFIGS["small_3_1"]["text_config"])
    with pytest.raises(ValueError, match=r"'multi_modal_projector\.linear_1\.weight' has no place"):
        MistralBackbone.from_preset(folder)
    folder = shutil.copytree(FOLDER / "ministral_3_3b_native", tmp_path / "b")
    edit(folder, "params.json", vision_encoder=None)
    with pytest.raises(ValueError, match=r"'patch_merger\.merging_layer\.weight' has no place"):
        MistralBackbone.from_preset(folder)


# --- The output matrix ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outside", "inside", "stored", "tied"),
    [
        (None, None, True, False),  # Small 3.1
        (True, False, True, False),  # the same, saved again by transformers 5
        (True, True, False, True),  # Ministral 3 3B
        (None, True, False, True),
        (True, None, False, True),
        (False, False, True, False),  # Medium 3.5
        (False, None, True, False),
        (True, False, False, True),
        (False, True, True, False),
    ],
)
def test_whether_a_multimodal_model_is_tied(tmp_path, outside, inside, stored, tied):
    """As transformers decides: see `test_transformers_decides_so_too`."""
    folder = multimodal(tmp_path, outside, inside, stored)
    backbone = MistralBackbone.from_preset(folder, dtype="float32")
    assert backbone.tie_word_embeddings is tied
    if not tied:
        assert np.abs(computed(backbone, "small_3_1") - LOGITS["small_3_1"]).max() <= TOLERANCE


def multimodal(tmp_path, outside, inside, stored):
    folder = shutil.copytree(FOLDER / "small_3_1", tmp_path / "a")
    said = {"tie_word_embeddings": inside} if inside is not None else {}
    edit(folder, text_config={**CONFIGS["small_3_1"]["text_config"], **said})
    if outside is not None:
        edit(folder, tie_word_embeddings=outside)
    if not stored:
        arrays = load_file(folder / "model.safetensors")
        del arrays["language_model.lm_head.weight"]
        save_file(arrays, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("stored", [True, False])
def test_an_index_says_whether_there_is_an_output(tmp_path, stored):
    """So that no weights need be downloaded to know."""
    folder = multimodal(tmp_path, None, None, stored)
    shard = (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(load_file(shard), shard.name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert MistralBackbone.from_preset(folder).tie_word_embeddings is not stored
    shard.unlink()
    backbone = MistralBackbone.from_preset(folder, load_weights=False)
    assert backbone.tie_word_embeddings is not stored


def test_without_a_network_the_config_is_asked(tmp_path):
    """Whether a model whose index was never downloaded has one is not known then."""

    class Offline(LocalFolder):
        def find(self, name):
            if name == "model.safetensors.index.json":
                raise ConnectionError
            return None if name == "model.safetensors" else super().find(name)

    for inside, tied in ((True, True), (False, False), (None, True)):
        folder = multimodal(tmp_path / str(inside), None, inside, stored=True)
        found = TransformersFormat().read_arguments(Offline(folder))
        assert found["tie_word_embeddings"] is tied


@pytest.mark.peer
@pytest.mark.parametrize("outside", [None, True, False])
@pytest.mark.parametrize("inside", [None, True, False])
@pytest.mark.parametrize("stored", [True, False])
def test_transformers_decides_so_too(tmp_path, outside, inside, stored):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if outside is False and not stored:
        pytest.skip("transformers then makes up an output")
    folder = multimodal(tmp_path, outside, inside, stored)
    theirs = transformers.Mistral3ForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        logits = theirs(torch.from_numpy(TOKEN_IDS)).logits.numpy()[:, KEPT]
    ours = MistralBackbone.from_preset(folder, dtype="float32")
    assert np.abs(computed(ours, "small_3_1") - logits).max() <= TOLERANCE * np.abs(logits).max()


@pytest.mark.parametrize("name", WITHOUT_OUTPUT)
def test_encoders_and_classifiers(name):
    """The backbone opens them; there is nothing to make logits with."""
    backbone = MistralBackbone.from_preset(FOLDER / name, dtype="float32")
    arguments = {**arguments_of(CONFIGS[name]), "tie_word_embeddings": True}
    shapes = weights_of(name)
    assert backbone.count_params() == sum(
        array.size for key, array in shapes.items() if key != "reverse_embeddings"
    )
    assert arguments.items() <= backbone.get_config().items()
    with pytest.raises(ValueError, match=rf"{name} is an encoder or a classifier: by its config"):
        MistralCausalLM.from_preset(FOLDER / name)


def test_the_head_of_a_classifier_is_skipped():
    with pytest.warns(UserWarning, match=r"skipped the head of a model that writes no text \(1 "):
        MistralBackbone.from_preset(FOLDER / "reward")


def test_an_encoder_without_a_norm_is_refused(tmp_path):
    """Nothing of the decoder itself may be missing, or be of another name."""
    folder = shutil.copytree(FOLDER / "encoder", tmp_path / "a")
    rename(folder, lambda name: name.replace("layers.1.mlp.up_proj", "layers.1.mlp.up"))
    with pytest.raises(ValueError, match=r"has no tensor 'model\.layers\.1\.mlp\.up_proj\.weight'"):
        MistralBackbone.from_preset(folder)


# --- Eight bits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*QUANTIZED, "devstral_2_native"])
def test_dtype_of_the_config(name):
    """Not that of the numbers in the file, and not that of their scales."""
    backbone = MistralBackbone.from_preset(FOLDER / name, dtype="auto")
    assert backbone.dtype_policy.name == "bfloat16"


def test_eight_bits_can_become_eight_bits():
    backbone = MistralBackbone.from_preset(
        FOLDER / "fp8_blocks", dtype="float32", quantization="int8"
    )
    assert backbone.quantization == "int8"
    assert np.abs(computed(backbone, "fp8_blocks") - LOGITS["fp8_blocks"]).max() < 0.3


# --- Out again -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_export_and_preset_come_back(tmp_path, name):
    """With the same architecture, and the same numbers."""
    backbone = MistralBackbone.from_preset(FOLDER / name, dtype="float32")
    backbone.export_to_transformers(tmp_path / "transformers")
    backbone.save_to_preset(tmp_path / "keras")
    for folder in tmp_path.iterdir():
        loaded = MistralBackbone.from_preset(folder, dtype="float32")
        assert loaded.config == backbone.config
        assert loaded.context_length == backbone.context_length
        assert np.abs(computed(loaded, name) - LOGITS[name]).max() <= TOLERANCE
    kind = json.loads((tmp_path / "transformers/config.json").read_text())["model_type"]
    expected = {"ministral_8b": "ministral", "ministral_3_3b": "ministral3"}
    assert kind == expected.get(name, "mistral")


@pytest.mark.peer
@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_computes_what_was_exported(tmp_path, name):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    backbone = MistralBackbone.from_preset(FOLDER / name, dtype="float32")
    backbone.export_to_transformers(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager"
    )
    with torch.no_grad():
        ids = torch.from_numpy(TOKEN_IDS)
        states = theirs.model(ids).last_hidden_state
        states = (states if name in WITHOUT_OUTPUT else theirs(ids).logits).numpy()[:, KEPT]
    assert np.abs(states - LOGITS[name]).max() <= TOLERANCE


@pytest.mark.peer
@pytest.mark.parametrize("name", CONFIGS)
def test_keras_hub_computes_it_or_refuses(tmp_path, name):
    """Where it would ignore windows by layer or a scaling, it does not open the preset."""
    models = pytest.importorskip("keras_hub.models", reason="KerasHub is not installed")
    backbone = MistralBackbone.from_preset(FOLDER / name, dtype="float32")
    MistralCausalLM(backbone).save_to_preset(tmp_path)
    if backbone.rope_scaling is not None or isinstance(backbone.config.sliding_window, tuple):
        for cls in (models.MistralBackbone, models.Backbone, models.MistralCausalLM):
            with pytest.raises(ValueError, match="no class registered with Keras for mist"):
                cls.from_preset(str(tmp_path))
        assert keras.saving.get_registered_object("mistral_lib>ExtendedMistralBackbone") is None
        return
    theirs = models.MistralBackbone.from_preset(str(tmp_path), dtype="float32")
    states = theirs(INPUTS)
    if name not in WITHOUT_OUTPUT:
        states = theirs.token_embedding(states, reverse=True)
    assert np.abs(np.asarray(states)[:, KEPT] - LOGITS[name]).max() <= TOLERANCE


def test_nothing_is_allocated_to_count(tmp_path):
    """Medium 3.5 by its config alone: 128 billion parameters, of which the text part has 125."""
    text = {
        "head_dim": 128,
        "hidden_size": 12288,
        "intermediate_size": 28672,
        "model_type": "ministral3",
        "num_attention_heads": 96,
        "num_hidden_layers": 88,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
        "vocab_size": 131072,
    }
    config = {**CONFIGS["small_3_1"], "text_config": text, "tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Preset.open(tmp_path).config.count_params() == 125_025_988_608
