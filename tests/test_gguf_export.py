"""mistral_lib/presets/gguf_export.py: files as llama.cpp's own converter writes them."""

import subprocess
import sys

import gguf
import numpy as np
import pytest
from reference.make_gguf import (
    ADDED,
    CASES,
    FOLDER,
    KINDS,
    TEMPLATE,
    kinds_arrays,
)
from small_presets import assert_same_weights, small_backbone, small_causal_lm
from vocabularies import trained_model

from mistral_lib import (
    MistralBackbone,
    MistralCausalLM,
    MistralCausalLMPreprocessor,
    MistralTokenizer,
)
from mistral_lib.presets.gguf_export import encode
from mistral_lib.presets.gguf_files import read_gguf

BLOCK = "blk.0."


def text_model(**changes):
    proto = trained_model(normalization_rule_name="identity", remove_extra_whitespaces=False)
    tokenizer = MistralTokenizer(proto)
    added = [{"id": id, "content": token} for id, token in ADDED.items()]
    tokenizer.extras = {"chat_template": TEMPLATE, "added_tokens": added}
    changes = {"vocabulary_size": 304, "sliding_window": None, **changes}
    return small_causal_lm(MistralCausalLMPreprocessor(tokenizer, 12), **changes)


def kinds_of(file):
    """The types of tensors by their names, as the package gguf reads them."""
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}


# --- What is written -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_what_llama_cpp_wrote_comes_out_again(tmp_path, name):
    """The bytes of every tensor, in the types that it chose; and its metadata on the model."""
    file, theirs = tmp_path / "a.gguf", read_gguf(FOLDER / f"{name}.gguf")
    MistralBackbone.from_preset(FOLDER / f"{name}.gguf").export_to_gguf(file, "F32")
    ours = read_gguf(file)
    assert ours.kinds == theirs.kinds
    mine, yours = ours.tensors(), theirs.tensors()
    for tensor in theirs.kinds:
        found, expected = mine[tensor].read(), yours[tensor].read()
        assert np.abs(found - expected).max() <= (1e-5 if tensor == "rope_freqs.weight" else 0)
    names = {"name", "size_label", "license"}  # what says nothing about the model
    expected = {
        key: value
        for key, value in theirs.metadata.items()
        if not key.startswith("tokenizer.") and key.rpartition(".")[2] not in names
    }
    assert expected.items() <= ours.metadata.items()
    assert len(expected) > 12


def test_another_program_reads_it(tmp_path):
    """The package gguf, which is llama.cpp's."""
    model = text_model()
    model.export_to_gguf(tmp_path / "a.gguf", "F32")
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    assert reader.fields["general.architecture"].contents() == "llama"
    assert reader.fields["tokenizer.chat_template"].contents() == TEMPLATE
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    block = model.backbone.transformer_layers[0]
    up = np.asarray(block.feedforward.up.kernel)
    assert (tensors["blk.0.ffn_up.weight"] == up.T).all()
    query = np.asarray(block.self_attention.query.kernel).T  # 4 heads of 2: pairs are neighbours
    assert (tensors["blk.0.attn_q.weight"] == query).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_there_and_back(tmp_path, dtype):
    """Bit for bit, with all that belongs to the tokenizer."""
    model = text_model(dtype=dtype)
    kind = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[dtype]
    model.backbone.context_length = 4321
    model.export_to_gguf(tmp_path / "a.gguf", kind)
    again = MistralCausalLM.from_preset(tmp_path / "a.gguf", dtype="auto")
    assert_same_weights(model, again)
    assert again.backbone.config == model.backbone.config
    assert again.backbone.context_length == 4321
    one, other = model.preprocessor.tokenizer, again.preprocessor.tokenizer
    assert other.get_vocabulary() == one.get_vocabulary()
    assert other.extras == one.extras


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("dtype", "embedding", "output", "gate", "down"),
    [
        ("F16", "F16", "F16", "F16", "F16"),
        ("Q8_0", "Q8_0", "Q8_0", "Q8_0", "F16"),
        ("Q4_0", "Q4_0", "Q6_K", "Q4_0", "F16"),
        ("Q4_K", "Q4_K", "Q6_K", "Q4_K", "F16"),
        ("Q6_K", "Q6_K", "Q6_K", "Q6_K", "F16"),
    ],
)
def test_types_of_tensors(tmp_path, tied, dtype, embedding, output, gate, down):
    """Rows of 256, 32 and 12: whole blocks where there are some."""
    changes = {"hidden_dim": 256, "head_dim": 8, "tie_word_embeddings": tied}
    backbone = small_backbone(sliding_window=None, **changes)
    backbone.export_to_gguf(tmp_path / "a.gguf", dtype)
    kinds = kinds_of(tmp_path / "a.gguf")
    assert kinds["token_embd.weight"] == (output if tied else embedding)
    assert kinds.get("output.weight") == (None if tied else output)
    assert kinds[f"{BLOCK}ffn_gate.weight"] == gate
    assert kinds[f"{BLOCK}ffn_down.weight"] == down
    rows_of_32 = {"F16": "F16", "Q4_0": "Q4_0"}.get(dtype, "Q8_0")
    assert kinds[f"{BLOCK}attn_output.weight"] == rows_of_32
    assert {kinds[name] for name in kinds if "norm" in name} == {"F32"}


@pytest.mark.parametrize("name", KINDS)
def test_bytes_of_ggml(name):
    """Each kind of block as ggml makes it, but for a last bit of a float32 in those of 256."""
    kind = KINDS[name]
    file = read_gguf(FOLDER / "kinds.gguf")
    array = kinds_arrays()[name]
    found = encode(array, kind, name).reshape(len(array), -1).view("uint8")
    with file.path.open("rb") as opened:
        opened.seek(file.places[name][1])
        stored = np.frombuffer(opened.read(found.size), "uint8").reshape(found.shape)
    assert (found != stored).mean() <= (0.05 if kind.endswith("_K") else 0)


def test_the_file_says_what_most_of_it_is(tmp_path):
    backbone = small_backbone(sliding_window=None)
    for dtype, number in {"F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7, "Q4_0": 2, "Q6_K": 18}.items():
        backbone.export_to_gguf(tmp_path / "a.gguf", dtype)
        assert read_gguf(tmp_path / "a.gguf").metadata["general.file_type"] == number


def test_a_window_is_named_and_warned_of(tmp_path):
    backbone = small_backbone(sliding_window=5)
    with pytest.warns(UserWarning, match="beyond 5 tokens") as caught:
        backbone.export_to_gguf(tmp_path / "a.gguf")
    assert caught[0].filename == __file__
    assert MistralBackbone.from_preset(tmp_path / "a.gguf").sliding_window == 5


@pytest.mark.filterwarnings("error")
def test_a_window_of_all_needs_no_warning(tmp_path):
    backbone = small_backbone(sliding_window=64)
    backbone.context_length = 64
    backbone.export_to_gguf(tmp_path / "a.gguf")
    text_model().export_to_gguf(tmp_path / "b.gguf")


# --- What is not written -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sliding_window": [3, None]}, "have different windows"),
        (
            {
                "sliding_window": None,
                "rope_scaling": {
                    "rope_type": "dynamic",
                    "factor": 2.0,
                    "original_max_position_embeddings": 8,
                },
            },
            "no rope_scaling with rope_type 'dynamic'",
        ),
    ],
)
def test_models_that_llama_cpp_does_not_have(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        small_backbone(**changes).export_to_gguf(tmp_path / "a.gguf")
    assert not [*tmp_path.iterdir()]


def test_lora_and_quantized_weights(tmp_path):
    backbone = small_backbone()
    backbone.enable_lora(2)
    with pytest.raises(ValueError, match=r"has LoRA.*export_lora_to_gguf"):
        backbone.export_to_gguf(tmp_path / "a.gguf")
    backbone = small_backbone()
    backbone.quantize("int8")
    with pytest.raises(ValueError, match=r"is quantized to int8.*dtype='Q8_0'"):
        backbone.export_to_gguf(tmp_path / "a.gguf")


@pytest.mark.parametrize(
    ("path", "dtype", "message"),
    [
        ("a.bin", "F16", r"must end in \.gguf, but is 'a\.bin'"),
        ("a.gguf", "Q5_K", "dtype must be one of 'F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_K'"),
        ("a.gguf", "float16", "dtype must be one of"),
    ],
)
def test_other_names_and_types(tmp_path, path, dtype, message):
    with pytest.raises(ValueError, match=message):
        small_backbone().export_to_gguf(tmp_path / path, dtype)


@pytest.mark.parametrize(("number", "dtype"), [(1e5, "F16"), (np.nan, "Q8_0"), (np.inf, "Q4_K")])
def test_numbers_that_a_type_cannot_hold(tmp_path, number, dtype):
    """The old file stays."""
    backbone = small_backbone(sliding_window=None, hidden_dim=256)
    backbone.export_to_gguf(tmp_path / "a.gguf", dtype)
    before = (tmp_path / "a.gguf").read_bytes()
    kernel = backbone.transformer_layers[1].feedforward.up.kernel
    kernel.assign(np.full(kernel.shape, number))
    with pytest.raises(ValueError, match=r"ffn_up\.weight has numbers beyond 65,504, or NaN"):
        backbone.export_to_gguf(tmp_path / "a.gguf", dtype)
    assert (tmp_path / "a.gguf").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.gguf"]


def test_importing_the_library_does_not_import_gguf():
    """It takes mistral-common with it, and some seconds."""
    code = "import sys, mistral_lib; print('gguf' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
