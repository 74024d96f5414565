"""mistral_lib/presets/checkpoints.py: weights that are missing, strange, elsewhere or pickled."""

import json
import pickle
import shutil

import ml_dtypes
import numpy as np
import pytest
from reference.make_formats import FOLDER
from safetensors.numpy import load_file, save_file
from small_presets import assert_same_weights, small_backbone

from mistral_lib import MistralBackbone
from mistral_lib.config import WEIGHTS
from mistral_lib.presets.mistral_format import MistralFormat
from mistral_lib.presets.transformers_format import TransformersFormat

NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def single(tmp_path):
    return shutil.copytree(FOLDER / "single", tmp_path / "single")


@pytest.fixture
def sharded(tmp_path):
    return shutil.copytree(FOLDER / "sharded", tmp_path / "sharded")


def edit_weights(folder, change):
    """Rewrites the weights with safetensors' own library: `change` edits the arrays in place."""
    file = folder / "model.safetensors"
    arrays = load_file(file)
    change(arrays)
    save_file(arrays, file)


def edit_index(folder, change):
    file = folder / "model.safetensors.index.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def refuses(folder, message, error=ValueError):
    with pytest.raises(error, match=message) as caught:
        MistralBackbone.from_preset(folder)
    assert str(folder) in str(caught.value)


# --- The table -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [TransformersFormat(), MistralFormat()])
@pytest.mark.parametrize(
    "changes", [{}, {"head_dim": 6}, {"num_key_value_heads": 1}, {"tie_word_embeddings": True}]
)
def test_layout_holds_every_weight_once(form, changes):
    assert form.names.keys() == WEIGHTS.keys()
    backbone = small_backbone(**changes)
    places = list(form.places(backbone.config))
    assert len({place.variable for place in places}) == len(places) == len(backbone.weights)
    assert len({place.name for place in places}) == len(places)
    assert sum(np.prod(place.shape) for place in places) == backbone.count_params()


# --- Weights that do not fit ---------------------------------------------------------------------


def test_missing_tensor(single):
    edit_weights(single, lambda arrays: arrays.pop(NAME))
    refuses(single, rf"has no tensor '{NAME}', which the config asks for")


def test_unexpected_tensor(single):
    edit_weights(single, lambda a: a.update({"score.weight": np.ones((2, 16), "float32")}))
    refuses(single, r"'score\.weight' has no place in the model")


@pytest.mark.parametrize("shape", [(16, 24), (24 * 16,), (24, 16, 1), (25, 16)])
def test_shape(single, shape):
    edit_weights(single, lambda a: a.update({NAME: np.ones(shape, "float32")}))
    refuses(single, rf"'{NAME}' has the shape .* but the config asks for \(24, 16\)")


def test_another_config(single):
    content = json.loads((single / "config.json").read_text())
    for change in ({"num_hidden_layers": 1}, {"num_hidden_layers": 3}, {"hidden_size": 32}):
        (single / "config.json").write_text(json.dumps(content | change))
        refuses(single, "no tensor|no place in the model|has the shape")


def test_float64(single):
    """Read as float32, which is what JAX computes in."""
    before = MistralBackbone.from_preset(single)
    edit_weights(single, lambda a: a.update({n: v.astype("float64") for n, v in a.items()}))
    loaded = MistralBackbone.from_preset(single, dtype="auto")
    assert loaded.dtype_policy.name == "float32"
    assert_same_weights(loaded, before)


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn"])
def test_eight_bits_that_the_config_does_not_speak_of(single, dtype):
    """They are never taken for floats."""
    edit_weights(single, lambda a: a.update({NAME: np.ones((24, 16), ml_dtypes_of(dtype))}))
    refuses(single, f"has the dtype {dtype}, but the config asks for float")


def ml_dtypes_of(name):
    return np.dtype(getattr(ml_dtypes, name, name))


def test_integers(single):
    edit_weights(single, lambda a: a.update({NAME: np.ones((24, 16), "int32")}))
    refuses(single, "has the dtype 'I32'; weights must be one of")


def test_rotary_frequencies_of_old_checkpoints(single):
    frequencies = {
        f"model.layers.{block}.self_attn.rotary_emb.inv_freq": np.ones(2, "float32")
        for block in range(2)
    }
    before = MistralBackbone.from_preset(single)
    edit_weights(single, lambda arrays: arrays.update(frequencies))
    assert_same_weights(MistralBackbone.from_preset(single), before)


def test_tied(single):
    """An output beside tied embeddings is a copy of them, or a contradiction."""
    content = json.loads((single / "config.json").read_text())
    (single / "config.json").write_text(json.dumps(content | {"tie_word_embeddings": True}))
    refuses(single, r"ties the output to the embedding, but 'lm_head\.weight' is not")
    edit_weights(single, lambda a: a.update({"lm_head.weight": a["model.embed_tokens.weight"]}))
    assert MistralBackbone.from_preset(single).tie_word_embeddings is True
    half = {"lm_head.weight": load_file(single / "model.safetensors")["lm_head.weight"][:100]}
    edit_weights(single, lambda arrays: arrays.update(half))
    refuses(single, "ties the output to the embedding")
    edit_weights(single, lambda arrays: arrays.pop("lm_head.weight"))
    assert MistralBackbone.from_preset(single).tie_word_embeddings is True


# --- Shards --------------------------------------------------------------------------------------


def test_sharded_equals_single(sharded):
    arrays = {}
    for shard in sharded.glob("*.safetensors"):
        arrays |= load_file(shard)
    before = MistralBackbone.from_preset(sharded)
    save_file(arrays, sharded / "model.safetensors")  # which is taken before the index
    (sharded / "model-00002-of-00004.safetensors").unlink()
    assert_same_weights(MistralBackbone.from_preset(sharded), before)


def test_missing_shard(sharded):
    (sharded / "model-00002-of-00004.safetensors").unlink()
    refuses(sharded, r"has no file model-00002-of-00004\.safetensors", FileNotFoundError)


@pytest.mark.parametrize(
    "name",
    [
        "../single/model.safetensors",
        "/etc/passwd",
        "..",
        "sub/model.safetensors",
        "model.bin",
        "model.safetensors\n",
        "~/model.safetensors",
        ["model.safetensors"],
        None,
        3,
    ],
)
def test_shard_outside_the_folder(single, sharded, name):
    edit_index(sharded, lambda content: content["weight_map"].update({NAME: name}))
    refuses(sharded, "which is not the name of a .safetensors file in its own folder")


def test_shard_that_is_a_link(single, sharded):
    (sharded / "model-00002-of-00004.safetensors").unlink()
    (sharded / "model-00002-of-00004.safetensors").symlink_to(single / "model.safetensors")
    refuses(sharded, "leads out of its folder")


@pytest.mark.parametrize("change", [{"weight_map": None}, {"weight_map": ["a"]}])
def test_index_without_a_map(sharded, change):
    edit_index(sharded, lambda content: content.update(change))
    refuses(sharded, "has no object 'weight_map'")


def test_index_that_names_another_shard(sharded):
    other = "model-00001-of-00004.safetensors"
    edit_index(sharded, lambda content: content["weight_map"].update({NAME: other}))
    refuses(sharded, f"holds '{NAME}', but model.safetensors.index.json says")


def test_index_that_omits_a_tensor(sharded):
    """As transformers and vLLM take it: what a shard holds is there."""
    expected = MistralBackbone.from_preset(sharded)
    edit_index(sharded, lambda content: content["weight_map"].pop(NAME))
    assert_same_weights(MistralBackbone.from_preset(sharded), expected)


def test_index_that_says_where_it_lies_itself(sharded):
    def dotted(content):
        content["weight_map"] = {n: f"./{shard}" for n, shard in content["weight_map"].items()}

    expected = MistralBackbone.from_preset(sharded)
    edit_index(sharded, dotted)
    assert_same_weights(MistralBackbone.from_preset(sharded), expected)


def test_tensor_in_two_shards(sharded):
    file = sharded / "model-00001-of-00004.safetensors"
    save_file({**load_file(file), NAME: np.ones((24, 16), "bfloat16")}, file)
    refuses(sharded, rf"00001-of-00004\.safetensors holds '{NAME}', but")


def test_index_that_names_too_much(sharded):
    edit_index(
        sharded,
        lambda content: content["weight_map"].update(
            {"model.layers.2.mlp.up_proj.weight": "model-00001-of-00004.safetensors"}
        ),
    )
    MistralBackbone.from_preset(sharded)  # what is not there and not needed does no harm


# --- Cut off, pickled ----------------------------------------------------------------------------


def test_weights_cut_off(single):
    content = (single / "model.safetensors").read_bytes()
    for size in range(0, len(content), len(content) // 40):
        (single / "model.safetensors").write_bytes(content[:size])
        refuses(single, r"model\.safetensors")


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_pickled(single, name):
    (single / "model.safetensors").unlink()
    (single / name).write_bytes(pickle.dumps(Bomb()))
    expected = {
        "pytorch_model.bin": r"pytorch_model\.bin is pickled, and pickled weights are never read",
        "model.safetensors": r"is not a safetensors file",
    }
    refuses(single, expected[name])


def test_pickled_shards(single):
    (single / "model.safetensors").unlink()
    (single / "pytorch_model.bin.index.json").write_text("{}")
    refuses(single, r"pytorch_model\.bin\.index\.json names pickled files")


def test_no_weights(single):
    (single / "model.safetensors").unlink()
    refuses(single, "has no weights in safetensors: neither", FileNotFoundError)
