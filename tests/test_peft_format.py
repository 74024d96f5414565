"""mistral_lib/presets/peft_format.py: adapters from PEFT, and adapters for PEFT."""

import json
import shutil
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from lora_models import base_bytes, set_factors
from reference import golden, make_peft
from reference.keras_models import assign, our_variables

from mistral_lib import MistralBackbone, lora, without_weights
from mistral_lib.presets.json_files import read_json, write_json
from mistral_lib.presets.safetensors_files import list_tensors, write_tensors

EXPECTED = np.load(make_peft.FOLDER / "logits.npz")
TOLERANCE = 1e-5
WEIGHTS = golden.random_weights(make_peft.CONFIG, make_peft.SEED)
needs_peft = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("peft", "torch", "transformers")),
    reason="peer not installed: peft",
)


def base_backbone(dtype="float32"):
    with without_weights():
        backbone = MistralBackbone(**make_peft.CONFIG, dtype=dtype)
    assign(our_variables(backbone), WEIGHTS)
    return backbone


def logits(backbone):
    inputs = {"token_ids": make_peft.TOKEN_IDS, "padding_mask": make_peft.PADDING_MASK}
    found = backbone.token_embedding(backbone(inputs), reverse=True)
    return np.asarray(found) * make_peft.PADDING_MASK[..., None]


def tensors_of(folder):
    """The tensors of an adapter by name, with their dtypes."""
    stored = list_tensors(folder / "adapter_model.safetensors")
    return {name: (tensor.dtype, tensor.read()) for name, tensor in stored.items()}


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(make_peft.FOLDER / "plain", tmp_path / "adapter")
    return tmp_path / "adapter"


def rewrite(folder, change):
    """Changes the dictionary of an adapter's tensors."""
    file = folder / "adapter_model.safetensors"
    arrays = {name: array for name, (_, array) in tensors_of(folder).items()}
    change(arrays)
    file.unlink()
    described = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    write_tensors(file, described, arrays.values())


def configure(folder, **changes):
    file = folder / "adapter_config.json"
    write_json(file, read_json(file) | changes)


def refuses(folder, message, error=ValueError):
    """Loading fails with this message, and the backbone stays as it was."""
    backbone = base_backbone()
    before = base_bytes(backbone)
    with pytest.raises(error, match=message):
        backbone.load_lora_weights(folder)
    assert base_bytes(backbone) == before
    assert lora.settings(backbone) is None
    assert all(variable.trainable for variable in backbone.variables)


# What PEFT wrote ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", make_peft.CASES)
def test_logits_of_an_adapter_from_peft(name):
    backbone = base_backbone()
    backbone.load_lora_weights(make_peft.FOLDER / name)
    np.testing.assert_allclose(logits(backbone), EXPECTED[name], atol=TOLERANCE)
    assert np.abs(EXPECTED[name] - EXPECTED["base"]).max() > 1
    trainable = {v.path for v in backbone.trainable_variables}
    assert trainable
    assert all("lora_kernel" in path for path in trainable)


@pytest.mark.slow
@pytest.mark.parametrize("name", make_peft.CASES)
def test_what_is_written_is_what_peft_wrote(tmp_path, name):
    """The same tensors, bit for bit in float32, and a config that says the same."""
    backbone = base_backbone()
    backbone.load_lora_weights(make_peft.FOLDER / name)
    backbone.export_lora_to_peft(tmp_path / "again", "some/base")
    ours, theirs = tensors_of(tmp_path / "again"), tensors_of(make_peft.FOLDER / name)
    assert ours.keys() == theirs.keys()
    for key, (dtype, array) in ours.items():
        assert dtype == "float32"
        np.testing.assert_array_equal(array, theirs[key][1].astype("float32"))
    config = read_json(tmp_path / "again" / "adapter_config.json")
    assert config["base_model_name_or_path"] == "some/base"
    assert config.keys() <= read_json(make_peft.FOLDER / name / "adapter_config.json").keys()
    again = base_backbone()
    again.load_lora_weights(tmp_path / "again")
    assert lora.settings(again) == lora.settings(backbone)
    np.testing.assert_array_equal(logits(again), logits(backbone))


def test_the_config_stays_short():
    """Names where all blocks are adapted alike, patterns only for what differs."""
    from mistral_lib.presets.peft_config import describe, module_names

    backbone = base_backbone()
    backbone.enable_lora(4, ["down", "query"], 8)
    config = describe(lora.settings(backbone), module_names(backbone), None)
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    assert config["target_modules"] == ["down_proj", "q_proj"]
    assert config["rank_pattern"] == config["alpha_pattern"] == {}


def test_an_adapter_of_a_model_without_output_projection(folder):
    rewrite(
        folder,
        lambda arrays: [
            arrays.__setitem__(name.replace("model.model.", "model."), arrays.pop(name))
            for name in list(arrays)
        ],
    )
    backbone = base_backbone()
    backbone.load_lora_weights(str(folder))
    np.testing.assert_allclose(logits(backbone), EXPECTED["plain"], atol=TOLERANCE)


@pytest.mark.slow
def test_other_dtypes_of_the_base():
    backbone = base_backbone("bfloat16")
    backbone.load_lora_weights(make_peft.FOLDER / "plain")
    np.testing.assert_allclose(logits(backbone), EXPECTED["plain"], atol=0.3)
    assert {str(v.dtype) for v in backbone.trainable_variables} == {"float32"}


def test_an_adapter_from_a_hub(folder, monkeypatch, tmp_path):
    asked = []

    def download(model, name, revision):
        asked.append((model, revision))
        return folder / name

    commit = SimpleNamespace(commit_hash="c0" * 20)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda url: commit)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    backbone = base_backbone()
    backbone.load_lora_weights("hf://user/adapter@v1")
    assert len(lora.settings(backbone)) == 4
    assert set(asked) == {("user/adapter", commit.commit_hash)}


# What is refused ---------------------------------------------------------------------------------


def test_pickled_weights(folder):
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    refuses(folder, r"only adapter_model\.bin, which could run code", FileNotFoundError)


def test_missing_files(folder, tmp_path):
    refuses(tmp_path / "missing", "There is no folder", FileNotFoundError)
    refuses(folder / "adapter_model.safetensors", "is no adapter")
    (folder / "adapter_model.safetensors").unlink()
    refuses(folder, "must have the weights in adapter_model.safetensors, but", FileNotFoundError)
    (folder / "adapter_config.json").unlink()
    refuses(folder, r"has no file adapter_config\.json", FileNotFoundError)


NAME = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop(NAME), f"{NAME} must have the shape .8, 4., but is missing"),
        (
            lambda arrays: arrays.update({NAME: arrays[NAME].T}),
            f"{NAME} must have the shape .8, 4., but has the shape .4, 8.",
        ),
        (
            lambda arrays: arrays.update({NAME: arrays[NAME].reshape(8, 4, 1)}),
            "has the shape .8, 4, 1.",
        ),
        (
            lambda arrays: arrays.update(
                {NAME.replace("lora_B.weight", "lora_B.bias"): WEIGHTS["final_norm"]}
            ),
            "holds .*lora_B.bias, which its settings",
        ),
        (
            lambda arrays: arrays.update({NAME.replace("v_proj", "k_proj"): arrays[NAME]}),
            "holds .*k_proj.lora_B.weight, which its settings",
        ),
        (lambda arrays: arrays.clear(), "but is missing"),
    ],
    ids=["missing", "transposed", "three axes", "bias", "extra", "empty"],
)
def test_tensors_that_do_not_fit(folder, change, message):
    rewrite(folder, change)
    refuses(folder, message)


def test_a_config_that_lies_about_the_rank(folder):
    configure(folder, r=5)
    refuses(folder, r"must have the shape \(5, 16\), but has the shape \(4, 16\)")
    configure(folder, r=2**30)
    refuses(folder, r"must have the shape \(1073741824, 16\)")


def test_a_file_cut_off_anywhere(folder):
    file = folder / "adapter_model.safetensors"
    whole = file.read_bytes()
    for end in range(0, len(whole), 97):
        file.write_bytes(whole[:end])
        refuses(folder, "safetensors")


def test_a_config_cut_off_anywhere(folder):
    file = folder / "adapter_config.json"
    whole = file.read_bytes()
    for end in range(0, len(whole) - 2, 97):
        file.write_bytes(whole[:end])
        refuses(folder, r"adapter_config\.json")


def test_lora_with_other_settings(folder):
    backbone = base_backbone()
    backbone.enable_lora(3)
    set_factors(backbone)
    before = logits(backbone)
    with pytest.raises(ValueError, match=r"has LoRA already, with rank 3.*rank 4 and alpha 8"):
        backbone.load_lora_weights(folder)
    np.testing.assert_array_equal(logits(backbone), before)


# Where it is written -----------------------------------------------------------------------------


def test_folders(tmp_path):
    backbone = base_backbone()
    with pytest.raises(ValueError, match="has no LoRA"):
        backbone.export_lora_to_peft(tmp_path / "new")
    backbone.enable_lora(2)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds files, but no PEFT adapter"):
        backbone.export_lora_to_peft(tmp_path)
    with pytest.raises(NotADirectoryError, match="is a file"):
        backbone.export_lora_to_peft(tmp_path / "notes.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["model.embed_tokens", "lm_head"])
def test_an_adapter_with_a_resized_vocabulary(folder, name):
    """PEFT then stores both matrices as a whole, though no option of the config says so."""
    stored = f"base_model.model.{name}.weight"
    rewrite(folder, lambda arrays: arrays.update({stored: np.zeros((302, 8), "float32")}))
    refuses(folder, f"holds {stored}: besides LoRA, .* tokens were added to the vocabulary")
    refuses(folder, "merge it there into the base model with merge_and_unload")


def test_an_old_adapter_is_replaced(folder):
    (folder / "adapter_model.bin").write_bytes(b"pickle")
    (folder / "README.md").write_text("card")
    backbone = base_backbone()
    backbone.enable_lora(2, "down")
    backbone.export_lora_to_peft(folder)
    names = {file.name for file in folder.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    base_backbone().load_lora_weights(folder)


def test_an_export_that_fails_leaves_the_old_adapter(folder, monkeypatch):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    backbone = base_backbone()
    backbone.enable_lora(2)

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr("mistral_lib.presets.peft_format.write_tensors", fail)
    with pytest.raises(OSError, match="disk full"):
        backbone.export_lora_to_peft(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


# PEFT itself -------------------------------------------------------------------------------------


def peft_logits(folder):
    """What transformers computes with the adapter in a folder."""
    import peft

    return make_peft.logits(peft.PeftModel.from_pretrained(make_peft.base_model(), folder).eval())


@pytest.mark.peer
@needs_peft
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "plan",
    [
        lambda backbone: backbone.enable_lora(4),
        lambda backbone: backbone.enable_lora(3, ["gate", "attention_output", "down"], 0.7),
        lambda backbone: lora.apply(
            backbone,
            {
                path: {"rank": 1 + index % 5, "lora_alpha": 1 + index}
                for index, path in enumerate(lora.projections(backbone))
                if index % 3
            },
        ),
    ],
    ids=["default", "alpha", "each its own"],
)
def test_peft_reads_what_is_written_here(tmp_path, plan):
    backbone = base_backbone()
    plan(backbone)
    set_factors(backbone)
    backbone.export_lora_to_peft(tmp_path / "adapter")
    found = peft_logits(tmp_path / "adapter")
    np.testing.assert_allclose(logits(backbone), found, atol=TOLERANCE)
    assert np.abs(found - EXPECTED["base"]).max() > 0.5


@pytest.mark.peer
@needs_peft
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "changes",
    [
        {"use_rslora": True},
        {"fan_in_fan_out": True},
        {"bias": "lora_only"},
        {"init_lora_weights": "gaussian"},
        {"alpha_pattern": {"v_proj": 3, "layers.0.self_attn.v_proj": 9}},
        {"alpha_pattern": {"0.self_attn.v_proj": 9, "_proj": 7, ".*self_attn.[qv]_proj": 2}},
        {"target_modules": r"model\.layers\.\d+\.self_attn\.(q|v)_proj"},
        {"target_modules": ["self_attn.q_proj", "v_proj", "nothing"]},
        {"exclude_modules": ".*mlp.*", "lora_dropout": 0.5},
    ],
    ids=json.dumps,
)
def test_options_mean_what_they_mean_to_peft(folder, changes):
    configure(folder, **changes)
    backbone = base_backbone()
    backbone.load_lora_weights(folder)
    np.testing.assert_allclose(logits(backbone), peft_logits(folder), atol=TOLERANCE)
