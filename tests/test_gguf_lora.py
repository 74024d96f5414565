"""mistral_lib/presets/gguf_lora.py: adapters that llama.cpp's converter made, and back."""

import shutil

import gguf
import numpy as np
import pytest
from reference.make_gguf import FOLDER, LORA, SHOWN, TOKEN_IDS
from small_presets import small_backbone

from mistral_lib import MistralBackbone, MistralCausalLM, lora
from mistral_lib.presets.gguf_export import write_gguf
from mistral_lib.presets.gguf_files import read_gguf

RESULTS = np.load(FOLDER / "results.npz")
INPUTS = {"token_ids": TOKEN_IDS, "padding_mask": np.ones_like(TOKEN_IDS)}
VALUES = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 4.0}


def base():
    return MistralCausalLM.from_preset(FOLDER / "text.gguf", dtype="float32")


def adapted(backbone=None):
    """A backbone with random factors, of several ranks and alphas."""
    backbone = small_backbone() if backbone is None else backbone
    random, plan = np.random.default_rng(0), {}
    for index, path in enumerate(lora.projections(backbone)):
        if index % 3:
            plan[path] = {"rank": 1 + index % 4, "lora_alpha": 6 if index % 5 else 2.5}
    shapes = lora.factor_shapes(backbone, plan)
    factors = {name: random.normal(0, 0.5, shape) for name, shape in shapes.items()}
    lora.assign(backbone, plan, factors)
    return backbone


def write(file, values, architecture="llama", **tensors):
    kinds = {name: ("F32", array.shape) for name, array in tensors.items()}
    write_gguf(file, architecture, values, kinds, tensors.values())


def test_logits_of_llama_cpp():
    model = base()
    model.backbone.load_lora_weights(FOLDER / "adapter.gguf")
    found = np.asarray(model(INPUTS))[..., SHOWN]
    assert np.abs(RESULTS["adapter"] - RESULTS["text"]).max() > 1
    assert np.abs(found - RESULTS["adapter"]).max() < 2e-5
    ranks = {path: wanted["rank"] for path, wanted in lora.settings(model.backbone).items()}
    assert len(ranks) == 2 * len(LORA["target_modules"])
    for path, rank in ranks.items():
        assert rank == (2 if path.endswith("/key") else 3)


def test_what_llama_cpp_wrote_comes_out_again(tmp_path):
    backbone = base().backbone
    backbone.load_lora_weights(str(FOLDER / "adapter.gguf"))
    backbone.export_lora_to_gguf(tmp_path / "a.gguf")
    ours, theirs = (read_gguf(file) for file in (tmp_path / "a.gguf", FOLDER / "adapter.gguf"))
    assert ours.kinds == theirs.kinds
    for name, tensor in theirs.tensors().items():
        assert (ours.tensors()[name].read() == tensor.read()).all(), name
    for key in ("general.type", "general.architecture", "adapter.type", "adapter.lora.alpha"):
        assert ours.metadata[key] == theirs.metadata[key]


def test_there_and_back(tmp_path):
    """One alpha is in the file; the others are in the factors, and the products are the same."""
    backbone = adapted()
    backbone.export_lora_to_gguf(tmp_path / "a.gguf")
    again = small_backbone()
    again.load_lora_weights(tmp_path / "a.gguf")
    assert lora.settings(again).keys() == lora.settings(backbone).keys()
    mine, theirs = lora.projections(backbone), lora.projections(again)
    for path in lora.settings(backbone):
        one, other = (
            layer.lora_scale * np.asarray(layer.lora_kernel_a) @ np.asarray(layer.lora_kernel_b)
            for layer in (mine[path], theirs[path])
        )
        assert np.abs(one).max() > 0.1
        assert np.abs(one - other).max() < 1e-6
    assert {w["lora_alpha"] for w in lora.settings(again).values()} == {6}


def test_another_program_reads_it(tmp_path):
    backbone = adapted()
    backbone.export_lora_to_gguf(tmp_path / "a.gguf")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "a.gguf").tensors}
    layer = backbone.transformer_layers[0].feedforward.up
    assert (tensors["blk.0.ffn_up.weight.lora_a"].data == np.asarray(layer.lora_kernel_a).T).all()


@pytest.mark.parametrize("alpha", [0.0, 4.0])
def test_without_alpha_the_scale_is_1(tmp_path, alpha):
    factors = {"blk.0.ffn_up.weight.lora_a": np.ones((2, 8), "float32")}
    factors["blk.0.ffn_up.weight.lora_b"] = np.ones((12, 2), "float32")
    write(tmp_path / "a.gguf", VALUES | {"adapter.lora.alpha": alpha}, **factors)
    backbone = small_backbone()
    backbone.load_lora_weights(tmp_path / "a.gguf")
    assert backbone.transformer_layers[0].feedforward.up.lora_scale == (alpha or 2) / 2


A, B = np.ones((2, 8), "float32"), np.ones((12, 2), "float32")
UP = "blk.0.ffn_up.weight.lora_"


@pytest.mark.parametrize(
    ("changes", "tensors", "message"),
    [
        ({"general.type": "model"}, {}, "holds no LoRA adapter: general.type is 'model'"),
        ({"adapter.type": "control"}, {}, "adapter.type 'control', but must be"),
        ({"adapter.alora.invocation_tokens": [1, 2]}, {}, "begins to work at certain tokens"),
        ({"adapter.lora.alpha": -1.0}, {f"{UP}a": A, f"{UP}b": B}, "lora_alpha must be"),
        ({}, {}, "adapts none of this model's projections"),
        ({}, {f"{UP}a": A}, f"{UP}b must have the shape .12, 2., but is missing"),
        ({}, {f"{UP}a": A, f"{UP}b": B[1:]}, "has the shape .11, 2."),
        ({}, {f"{UP}a": A, f"{UP}b": B, "output.weight.lora_a": A}, "holds output.weight.lora_a"),
    ],
)
def test_what_is_refused(tmp_path, changes, tensors, message):
    write(tmp_path / "a.gguf", VALUES | changes, **tensors)
    backbone = small_backbone()
    with pytest.raises(ValueError, match=message):
        backbone.load_lora_weights(tmp_path / "a.gguf")
    assert lora.settings(backbone) is None


def test_another_models_adapter(tmp_path):
    write(tmp_path / "a.gguf", VALUES, "qwen2")
    with pytest.raises(ValueError, match="adapts a model of the architecture 'qwen2'"):
        small_backbone().load_lora_weights(tmp_path / "a.gguf")


def test_a_model_is_no_adapter():
    with pytest.raises(ValueError, match="holds no LoRA adapter"):
        base().backbone.load_lora_weights(FOLDER / "text.gguf")


def test_missing_files_and_names(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*a\.gguf"):
        small_backbone().load_lora_weights(tmp_path / "a.gguf")
    (tmp_path / "b.gguf").mkdir()
    with pytest.raises(FileNotFoundError, match=r"must be a \.gguf file, but is a folder"):
        small_backbone().load_lora_weights(tmp_path / "b.gguf")
    with pytest.raises(ValueError, match=r"must end in \.gguf"):
        adapted().export_lora_to_gguf(tmp_path / "a.bin")
    with pytest.raises(ValueError, match="has no LoRA"):
        small_backbone().export_lora_to_gguf(tmp_path / "a.gguf")


def test_copies_are_read(tmp_path):
    shutil.copy(FOLDER / "adapter.gguf", tmp_path / "copy.gguf")
    backbone = MistralBackbone.from_preset(FOLDER / "text.gguf")
    backbone.load_lora_weights(tmp_path / "copy.gguf")
    assert lora.settings(backbone)
