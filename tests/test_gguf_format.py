"""mistral_lib/presets/gguf_format.py: what llama.cpp computes of a file, computed here."""

import shutil

import numpy as np
import pytest
from reference.make_gguf import (
    CASES,
    FOLDER,
    KINDS_CONFIG,
    SHOWN,
    TEMPLATE,
    TOKEN_IDS,
    config_of,
)

from mistral_lib import MistralBackbone, MistralCausalLM, MistralTokenizer
from mistral_lib.presets.gguf_files import GgufFile, read_gguf
from mistral_lib.presets.gguf_format import GgufFormat
from mistral_lib.presets.info import describe_preset
from mistral_lib.presets.preset import Preset
from mistral_lib.presets.sources import LocalFolder

TOLERANCE = 2e-5  # of logits of size 5
RESULTS = np.load(FOLDER / "results.npz")


def logits(model, token_ids=TOKEN_IDS):
    return np.asarray(model({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}))


def assert_near(found, expected, tolerance=TOLERANCE):
    assert np.abs(expected).max() > 2
    assert np.abs(found - expected).max() <= tolerance


def changed(name="text", remove=(), **metadata):
    """The format of a file whose metadata, without "llama.", say something else."""
    file = read_gguf(FOLDER / f"{name}.gguf")
    new = {f"llama.{key}": value for key, value in metadata.items()}
    found = {key: v for key, v in (file.metadata | new).items() if key not in remove}
    return GgufFormat(GgufFile(file.path, found, file.kinds, file.places))


def read_arguments(**changes):
    return changed(**changes).read_arguments(LocalFolder(FOLDER))


# --- Logits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_logits_of_llama_cpp(name):
    model = MistralCausalLM.from_preset(FOLDER / f"{name}.gguf", dtype="float32")
    assert_near(logits(model)[..., SHOWN], RESULTS[name])
    config = model.backbone.get_config()
    for key, value in config_of(name).items():
        if key != "rope_scaling":
            assert config[key] == value or (key == "head_dim" and config[key] is None), key
    assert model.backbone.context_length == 64


def test_logits_of_every_kind_of_tensor():
    """llama.cpp's own, of the same numbers as float32; and of the quantized ones, nearly.

    There it multiplies in eight bits.
    """
    token_ids = TOKEN_IDS % KINDS_CONFIG["vocabulary_size"]
    model = MistralCausalLM.from_preset(FOLDER / "kinds.gguf", dtype="float32")
    assert_near(logits(model, token_ids), RESULTS["kinds"])
    assert model.preprocessor is None
    assert_near(logits(model, token_ids), RESULTS["kinds_quantized"], 0.3)
    assert np.abs(RESULTS["kinds_quantized"] - RESULTS["kinds"]).max() > 0.01


def test_the_order_of_rotary_pairs_shows():
    model = MistralCausalLM.from_preset(FOLDER / "text.gguf", dtype="float32")
    for block in model.backbone.transformer_layers:
        key = block.self_attention.key.kernel
        key.assign(np.asarray(key).reshape(8, 2, 2, 4).swapaxes(2, 3).reshape(8, 16))
    assert np.abs(logits(model)[..., SHOWN] - RESULTS["text"]).max() > 0.1


@pytest.mark.parametrize("name", ["llama3", "ministral3"])
def test_the_scaling_shows(name):
    model = MistralCausalLM.from_preset(FOLDER / f"{name}.gguf", dtype="float32", rope_scaling=None)
    assert np.abs(logits(model)[..., SHOWN] - RESULTS[name]).max() > 0.1


# --- Opening -------------------------------------------------------------------------------------


def test_by_folder_and_by_link(tmp_path):
    expected = MistralBackbone.from_preset(FOLDER / "ministral3.gguf").config
    (tmp_path / "one").mkdir()
    shutil.copy(FOLDER / "ministral3.gguf", tmp_path / "one")
    (tmp_path / "one/mmproj-model.gguf").write_bytes(b"")  # an encoder of images
    assert MistralBackbone.from_preset(tmp_path / "one").config == expected
    (tmp_path / "link.gguf").symlink_to(FOLDER / "ministral3.gguf")
    assert MistralBackbone.from_preset(str(tmp_path / "link.gguf")).config == expected


def test_several_files_need_a_choice():
    names = sorted(file.name for file in FOLDER.glob("*.gguf"))
    with pytest.raises(ValueError, match=f"holds {len(names)} GGUF files: {', '.join(names)}") as e:
        MistralBackbone.from_preset(FOLDER)
    assert str(FOLDER / names[0]) in str(e.value)


def test_quantized_while_loading():
    """The tensors become float one at a time, and then what is asked for."""
    file = FOLDER / "text.gguf"
    backbone = MistralBackbone.from_preset(file, dtype="bfloat16", quantization="int8")
    later = MistralBackbone.from_preset(file, dtype="bfloat16")
    later.quantize("int8")
    for one, other in zip(backbone.variables, later.variables):
        assert one.path == other.path
        assert (np.asarray(one.value) == np.asarray(other.value)).all()


@pytest.mark.parametrize(("name", "dtype"), [("text", "float32"), ("kinds", "bfloat16")])
def test_auto_dtype(name, dtype):
    backbone = MistralBackbone.from_preset(FOLDER / f"{name}.gguf", dtype="auto")
    assert backbone.variable_dtype == dtype


def test_info():
    text = describe_preset(FOLDER / "kinds.gguf")
    assert "GGUF, saved in Q4_K, Q6_K, Q4_0, F16, BF16, Q8_0, F32\n" in text


def test_text():
    model = MistralCausalLM.from_preset(FOLDER / "text.gguf")
    assert model.end_token_ids == (2,)
    tokenizer = model.preprocessor.tokenizer
    assert tokenizer.extras["chat_template"] == TEMPLATE
    assert tokenizer.proto == MistralTokenizer.from_preset(FOLDER / "text.gguf").proto
    assert isinstance(model.generate("the window", max_new_tokens=3), str)


# --- Metadata ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "name", "expected"),
    [
        ({}, "rope_scaling_factor", 2.0),
        ({"rope.scaling.type": "none"}, "rope_scaling_factor", None),
        ({"rope.freq_base": 1e6}, "rope_max_wavelength", 1e6),
        ({"remove": ["llama.rope.freq_base"]}, "rope_max_wavelength", 10000.0),
        (
            {"remove": ["llama.rope.scaling.factor"], "rope.scale_linear": 3.0},
            "rope_scaling_factor",
            3.0,
        ),
        ({}, "sliding_window", None),
        ({"attention.sliding_window": 0}, "sliding_window", None),
        ({"attention.sliding_window": 4096}, "sliding_window", 4096),
        ({"feed_forward_length": [12, 12]}, "intermediate_dim", 12),
        ({"remove": ["llama.attention.head_count_kv"]}, "num_key_value_heads", 4),
        ({"remove": ["llama.vocab_size"]}, "vocabulary_size", 304),
    ],
)
def test_arguments(changes, name, expected):
    assert read_arguments(**changes).get(name) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expert_count": 8}, "a mixture of 8 experts"),
        ({"remove": ["llama.block_count"]}, "has no llama.block_count"),
        ({"feed_forward_length": [12, 13]}, "all layers are alike"),
        ({"attention.value_length": 4}, "attention.value_length is 4, but heads have the size 8"),
        ({"rope.dimension_count": 4}, "rope.dimension_count is 4, but heads have the size 8"),
        ({"rope.scaling.type": "longrope"}, "'longrope', which is not known here"),
    ],
)
def test_what_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        read_arguments(**changes)


@pytest.mark.parametrize("name", ["qwen2", "deepseek2", "mistral4", None, 7])
def test_other_models_are_refused_by_name(name):
    form = changed()
    form.file.metadata["general.architecture"] = name
    with pytest.raises(ValueError, match=f"of the architecture {name!r}, but only Mistral"):
        form.read_arguments(LocalFolder(FOLDER))


def test_a_part_of_a_model():
    form = changed()
    form.file.metadata["split.count"] = 3
    with pytest.raises(ValueError, match=r"is one of 3 parts of a model.*llama-gguf-split --merge"):
        form.read_arguments(LocalFolder(FOLDER))


def test_an_adapter_is_no_model():
    with pytest.raises(ValueError, match=r"is a LoRA adapter.*load_lora_weights"):
        MistralBackbone.from_preset(FOLDER / "adapter.gguf")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("attention.head_count", 3, r"text\.gguf: num_query_heads \(3\) must be a multiple"),
        ("block_count", "two", r"text\.gguf: num_layers must be an integer"),
        ("block_count", 3, "has no tensor 'blk.2.attn_norm.weight'"),
        ("block_count", 1, "'blk.1.attn_k.weight' has no place in a Mistral"),
        ("feed_forward_length", 20, r"shape \(12, 8\), but the metadata asks for \(20, 8\)"),
    ],
)
def test_weights_of_another_model(key, value, message):
    form = changed(**{key: value})
    with pytest.raises(ValueError, match=message):
        Preset(LocalFolder(FOLDER), form).tensors()


def test_start_token():
    assert changed().read_preprocessor_arguments(LocalFolder(FOLDER)) == {}
    form = changed()
    form.file.metadata["tokenizer.ggml.add_bos_token"] = False
    expected = {"add_start_token": False}
    assert form.read_preprocessor_arguments(LocalFolder(FOLDER)) == expected
