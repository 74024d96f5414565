"""mistral_lib/presets/keras_format.py: KerasHub's own presets read here, and the reverse."""

import json
import shutil

import h5py
import keras
import numpy as np
import pytest
from reference.make_family import FOLDER as FAMILY
from reference.make_keras_preset import (
    CONFIG,
    PADDING_MASK,
    RESULTS,
    SHARDED,
    SINGLE,
    TEXTS,
    TOKEN_IDS,
)
from small_presets import INPUTS, KERAS_HUB, assert_same_weights, small_backbone, small_causal_lm

from mistral_lib import Backbone, MistralBackbone, MistralCausalLM
from mistral_lib.presets import keras_format
from mistral_lib.presets.keras_format import KerasFormat
from mistral_lib.presets.sources import LocalFolder

TOLERANCE = 1e-5  # of logits of size 1
RESULT = np.load(RESULTS)


def edit(folder, name, change):
    """Rewrites a JSON file of a preset: `change` edits its content in place."""
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


@pytest.fixture
def single(tmp_path):
    return shutil.copytree(SINGLE, tmp_path / "single")


@pytest.fixture
def sharded(tmp_path):
    return shutil.copytree(SHARDED, tmp_path / "sharded")


# --- What KerasHub wrote -------------------------------------------------------------------------


def test_logits_of_keras_hub():
    model = MistralCausalLM.from_preset(SINGLE, dtype="float32")
    logits = model({"token_ids": TOKEN_IDS, "padding_mask": PADDING_MASK})
    expected = RESULT["logits"]
    assert np.abs(expected).max() > 1
    difference = np.abs(np.asarray(logits) - expected)[PADDING_MASK]
    assert difference.max() <= TOLERANCE * np.abs(expected).max()


def test_config_and_tokenizer_of_keras_hub():
    model = MistralCausalLM.from_preset(SINGLE)
    config = model.backbone.get_config()
    assert {name: config[name] for name in CONFIG} == CONFIG
    assert config["tie_word_embeddings"] is False
    preprocessor = model.preprocessor
    assert (preprocessor.sequence_length, preprocessor.add_end_token) == (12, True)
    assert (preprocessor(TEXTS)[0]["token_ids"] == RESULT["token_ids_of_texts"]).all()


def test_bfloat16_shards_of_keras_hub_bit_for_bit():
    backbone = MistralBackbone.from_preset(SHARDED, dtype="auto")
    assert backbone.dtype_policy.name == "bfloat16"
    stored = [RESULT[f"sharded_{index}"] for index in range(len(backbone.weights))]
    # Both list the embeddings first and the last norm last; inside a block the order differs.
    ours = sorted(np.asarray(variable).tobytes() for variable in backbone.weights)
    assert ours == sorted(array.tobytes() for array in stored)


def test_older_names(single):
    for file in single.glob("*.json"):
        file.write_text(file.read_text().replace("keras_hub>", "keras_nlp>"))
    old = MistralCausalLM.from_preset(single)
    assert_same_weights(old, MistralCausalLM.from_preset(SINGLE))
    assert old.preprocessor is not None


# --- What is written here has KerasHub's form ----------------------------------------------------


def tree(file):
    """Path, shape, dtype and note of every tensor, and the name noted at its group."""
    found = {}
    with h5py.File(file) as h5:

        def visit(path, item):
            if isinstance(item, h5py.Dataset):
                names = dict(item.parent.attrs)
                found[path] = (item.shape, item.dtype, dict(item.attrs), names)

        h5.visititems(visit)
    return found


def test_file_equals_keras_hubs(tmp_path):
    """KerasHub's preset, loaded and saved here, is the same file by file."""
    MistralCausalLM.from_preset(SINGLE).save_to_preset(tmp_path / "ours")
    names = {path.relative_to(SINGLE) for path in SINGLE.rglob("*")}
    assert {path.relative_to(tmp_path / "ours") for path in (tmp_path / "ours").rglob("*")} == names
    assert tree(tmp_path / "ours/model.weights.h5") == tree(SINGLE / "model.weights.h5")
    for name in ("config.json", "task.json", "preprocessor.json", "tokenizer.json"):
        ours = json.loads((tmp_path / "ours" / name).read_text())
        assert ours == json.loads((SINGLE / name).read_text()), name
    vocabulary = keras_format.VOCABULARY_FILE
    assert (tmp_path / "ours" / vocabulary).read_bytes() == (SINGLE / vocabulary).read_bytes()
    metadata = json.loads((tmp_path / "ours/metadata.json").read_text())
    theirs = json.loads((SINGLE / "metadata.json").read_text())
    assert metadata["parameter_count"] == theirs["parameter_count"]
    assert metadata.keys() >= theirs.keys() - {"keras_hub_version"}


def test_shards_equal_keras_hubs(tmp_path):
    backbone = MistralBackbone.from_preset(SHARDED, dtype="auto")
    backbone.save_to_preset(tmp_path, max_shard_size=8e-6)
    ours = json.loads((tmp_path / "model.weights.json").read_text())
    theirs = json.loads((SHARDED / "model.weights.json").read_text())
    assert ours["metadata"] == theirs["metadata"]
    assert ours["weight_map"].keys() == theirs["weight_map"].keys()
    found = {}
    for folder in (tmp_path, SHARDED):
        found[folder] = {}
        for shard in folder.glob("model_*.h5"):
            found[folder] |= tree(shard)
    # Keras notes the name of a layer that is spread over two files in the first only.
    tensors = {
        folder: {path: entry[:3] for path, entry in found[folder].items()} for folder in found
    }
    assert tensors[tmp_path] == tensors[SHARDED]
    assert_same_weights(MistralBackbone.from_preset(tmp_path, dtype="auto"), backbone)


@pytest.mark.peer
@pytest.mark.parametrize("max_shard_size", [10, 1e-5])
@pytest.mark.parametrize("changes", [{}, {"head_dim": 4, "num_query_heads": 8}, {"tied": True}])
def test_keras_hub_opens_it(tmp_path, max_shard_size, changes):
    """Live, where KerasHub is installed."""
    models = pytest.importorskip("keras_hub.models", reason="KerasHub is not installed")
    changes = dict(changes, tie_word_embeddings=changes.get("tied", False))
    changes.pop("tied", None)
    model = small_causal_lm(dtype="float32", **changes)
    model.save_to_preset(tmp_path, max_shard_size=max_shard_size)
    theirs = models.MistralCausalLM.from_preset(str(tmp_path), dtype="float32")
    inputs = dict(INPUTS, padding_mask=INPUTS["padding_mask"].astype("int32"))
    expected = np.asarray(model(INPUTS))[INPUTS["padding_mask"]]
    logits = np.asarray(theirs(inputs))[INPUTS["padding_mask"]]
    assert np.abs(logits - expected).max() <= TOLERANCE * np.abs(expected).max()
    assert theirs.preprocessor.add_end_token is False
    prompt = "The window slides"
    assert theirs.preprocessor.tokenizer(prompt).tolist() == model.preprocessor.tokenizer(prompt)


@pytest.mark.peer
def test_keras_hub_ignores_scaled_positions(tmp_path):
    """So it has to refuse what is saved here with them: see `keras_format.EXTENDED`."""
    models = pytest.importorskip("keras_hub.models", reason="KerasHub is not installed")
    folder = shutil.copytree(FAMILY / "yarn_mistral", tmp_path / "transformers")
    ids = np.arange(50)[None] * 11 % 37
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}

    def logits(cls, preset, **changes):
        backbone = cls.from_preset(preset, dtype="float32", **changes)
        return np.asarray(backbone.token_embedding(backbone(inputs), reverse=True))

    theirs = logits(models.MistralBackbone, str(folder))
    ignored = logits(MistralBackbone, folder, rope_scaling=None)
    assert np.abs(theirs - ignored).max() < TOLERANCE
    assert np.abs(theirs - logits(MistralBackbone, folder)).max() > 1

    MistralBackbone.from_preset(folder).save_to_preset(tmp_path / "saved")
    with pytest.raises(ValueError, match="ExtendedMistralBackbone"):
        models.MistralBackbone.from_preset(str(tmp_path / "saved"))


# --- The table -----------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"head_dim": 6}, {"num_key_value_heads": 1}])
def test_layout_holds_every_weight_once(changes):
    backbone = small_backbone(**changes)
    places = list(KerasFormat().places(backbone.config))
    assert len({place.variable for place in places}) == len(places) == len(backbone.weights)
    assert len({place.name for place in places}) == len(places)
    assert sum(np.prod(place.shape) for place in places) == backbone.count_params()


# --- Presets that are not what they say ----------------------------------------------------------


def refuses(folder, message, error=ValueError, cls=MistralBackbone, **kwargs):
    with pytest.raises(error, match=message) as caught:
        cls.from_preset(folder, **kwargs)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["keras_hub>GemmaBackbone", "keras_nlp>BertBackbone", None, ["x"]])
@pytest.mark.parametrize("cls", [Backbone, MistralBackbone, MistralCausalLM])
def test_other_models(single, name, cls):
    edit(single, "config.json", lambda c: c.update(registered_name=name))
    refuses(single, "only Mistral lives here", cls=cls)


def test_nothing_is_imported(single, monkeypatch):
    """Neither the module that a config names nor Keras's deserialisation."""

    def refuse(*args, **kwargs):
        raise AssertionError("a config was deserialised")

    def point(content):
        content.update(module="evil", class_name="Evil")
        content["config"].update(
            dtype={"module": "evil", "class_name": "Evil", "config": {}, "registered_name": "a>b"}
        )

    for name in ("config.json", "tokenizer.json", "preprocessor.json", "task.json"):
        edit(single, name, point)
    MistralCausalLM.from_preset(SINGLE)  # JAX imports parts of itself when they are first used
    MistralBackbone.from_preset(SINGLE, load_weights=False)
    monkeypatch.setattr(keras.saving, "deserialize_keras_object", refuse)
    monkeypatch.setattr("importlib.import_module", refuse)
    assert MistralCausalLM.from_preset(single).preprocessor is not None
    assert MistralBackbone.from_preset(single, load_weights=False, dtype="auto").num_layers == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("config"), "has no object 'config'"),
        (lambda c: c.update(config=[]), "has no object 'config'"),
        (lambda c: c["config"].pop("num_layers"), "num_layers must be an integer, but is None"),
        (lambda c: c["config"].pop("hidden_dim"), "hidden_dim"),
        (lambda c: c["config"].update(hidden_dim="8"), "hidden_dim must be an integer"),
        (lambda c: c["config"].update(hidden_dim=8.0), "hidden_dim must be an integer"),
        (
            lambda c: c["config"].update(rope_scaling_factor=0),
            "rope_scaling_factor must be above 0",
        ),
        (lambda c: c["config"].update(rope_scaling=4), "rope_scaling must be a dictionary"),
        (lambda c: c["config"].update(rope_scalings={}), "no argument 'rope_scalings'"),
        (
            lambda c: c["config"].update(rope_scaling={"rope_type": "yarn"}),
            "rope_scaling of the type 'yarn' must have factor",
        ),
        (lambda c: c["config"].update(self=1), "no argument 'self'"),
        (lambda c: c["config"].update(num_layers=True), "num_layers must be an integer"),
        (lambda c: c["config"].update(name=[1]), "name"),
        (lambda c: c["config"].update(name="a/b"), "name"),
        (lambda c: c["config"].update(hidden_dim=10**30), "hidden_dim|shape|int"),
    ],
)
def test_config_that_makes_no_model(single, change, message):
    edit(single, "config.json", change)
    refuses(single, message)


def test_infinite_number(single):
    file = single / "config.json"
    file.write_text(file.read_text().replace("500.0", "1e999"))
    refuses(single, "rope_max_wavelength must be above 0 and finite")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 3}, "no tensor 'layers/mistral_transformer_decoder_2/"),
        ({"num_layers": 10**9}, "no tensor 'layers/mistral_transformer_decoder_2/"),
        ({"num_layers": 1}, "decoder_1/.* and 8 other tensors have no place"),
        ({"hidden_dim": 16}, r"has the shape \(280, 8\), but the config asks for \(280, 16\)"),
        ({"hidden_dim": 10**9}, r"the config asks for \(280, 1000000000\)"),
        ({"num_key_value_heads": 4}, r"has the shape \(8, 2, 6\), .* \(8, 4, 6\)"),
        ({"num_query_heads": 6, "head_dim": 4}, r"has the shape \(8, 4, 6\), .* \(8, 6, 4\)"),
        ({"intermediate_dim": 13}, r"has the shape \(8, 12\), but the config asks for \(8, 13\)"),
    ],
)
def test_config_of_another_model(single, changes, message):
    edit(single, "config.json", lambda c: c["config"].update(changes))
    refuses(single, message)


@pytest.mark.parametrize(
    "name", ["config.json", "task.json", "tokenizer.json", "preprocessor.json", "metadata.json"]
)
def test_corrupt_json(single, name):
    file = single / name
    file.write_text(file.read_text()[:-20])
    refuses(single, f"{name} is not valid JSON", cls=MistralCausalLM)


@pytest.mark.parametrize(
    "name", ["config.json", "model.weights.h5", "assets/tokenizer/vocabulary.spm"]
)
def test_missing_file(single, name):
    (single / name).unlink()
    refuses(single, name, error=FileNotFoundError, cls=MistralCausalLM)


def test_missing_weights_need_not_be_loaded(single):
    (single / "model.weights.h5").unlink()
    assert MistralBackbone.from_preset(single, load_weights=False).hidden_dim == 8


def edit_weights(folder, change):
    with h5py.File(folder / "model.weights.h5", "a") as h5:
        change(h5)


NORM = "layers/mistral_layer_normalization/vars/0"


def test_missing_tensor(single):
    edit_weights(single, lambda h5: h5.pop(NORM))
    refuses(single, f"has no tensor '{NORM}'")


def test_unexpected_tensor(single):
    edit_weights(single, lambda h5: h5.create_dataset("layers/a/vars/0", data=np.zeros(2)))
    refuses(single, "'layers/a/vars/0' and 0 other tensors have no place")


def test_turned_tensor(single):
    path = "layers/mistral_transformer_decoder/_feedforward_output_dense/vars/0"

    def turn(h5):
        array = h5[path][...].T
        del h5[path]
        h5[path] = array

    edit_weights(single, turn)
    refuses(single, r"_output_dense/vars/0' has the shape \(8, 12\), .* asks for \(12, 8\)")


def test_external_tensor(single):
    def link(h5):
        del h5[NORM]
        h5[NORM] = h5py.ExternalLink(str(SINGLE / "model.weights.h5"), NORM)

    edit_weights(single, link)
    refuses(single, "is a link of the kind ExternalLink")


@pytest.mark.parametrize(
    "name",
    ["../single/model.weights.h5", "/etc/passwd", "..", "a/b.h5", "C:\\a.h5", ".h5", 1, None],
)
def test_shard_outside_the_folder(sharded, name):
    edit(sharded, "model.weights.json", lambda c: c["weight_map"].update({"/layers/x/vars": name}))
    refuses(sharded, "which is not the name of an .h5 file in its own folder")


def test_missing_shard(sharded):
    (sharded / "model_00001.weights.h5").unlink()
    refuses(sharded, "no file model_00001.weights.h5", error=FileNotFoundError)


def test_shard_that_nobody_lists(sharded):
    """Its tensors are missing, not left at what they were."""

    def forget(content):
        for path in content["weight_map"]:
            content["weight_map"][path] = "model_00000.weights.h5"

    edit(sharded, "model.weights.json", forget)
    refuses(sharded, "model.weights.json has no tensor 'layers/")


def test_tensor_in_two_shards(sharded):
    shutil.copy(sharded / "model_00001.weights.h5", sharded / "model_00002.weights.h5")
    new = {"/layers/x/vars": "model_00002.weights.h5"}
    edit(sharded, "model.weights.json", lambda c: c["weight_map"].update(new))
    refuses(sharded, "is in two shards")


def test_shard_index_without_a_map(sharded):
    edit(sharded, "model.weights.json", lambda c: c.pop("weight_map"))
    refuses(sharded, "has no object 'weight_map'")


def test_single_file_comes_first(sharded, single):
    """As in KerasHub, where a folder holds both."""
    for file in sharded.glob("model*"):
        shutil.copy(file, single)
    assert_same_weights(MistralBackbone.from_preset(single), MistralBackbone.from_preset(SINGLE))


def test_both_presets_are_here():
    assert all(LocalFolder(folder).find("config.json") for folder in KERAS_HUB.values())
