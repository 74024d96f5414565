"""mistral_lib/presets/info.py: what a preset is and needs."""

import json
import re

import h5py
import numpy as np
import pytest
from small_presets import KERAS_HUB, small_backbone

from mistral_lib import MistralBackbone
from mistral_lib.presets import info, registry
from mistral_lib.presets.info import describe_preset
from mistral_lib.presets.registry import PUBLISHED

MISTRAL_7B = {
    "model_type": "mistral",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "sliding_window": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "torch_dtype": "bfloat16",
}


@pytest.fixture
def checkpoint(tmp_path):
    """A function that writes a config without any weights, and returns the folder."""

    def write(**changes):
        (tmp_path / "config.json").write_text(json.dumps(MISTRAL_7B | changes))
        return tmp_path

    return write


def rows(text):
    """The cells of each line by its first."""
    return {
        cells[0]: cells[1:] for cells in (re.split(r"  +", x.strip()) for x in text.split("\n"))
    }


def test_mistral_7b_without_its_weights(checkpoint, monkeypatch):
    monkeypatch.setattr(info, "available_bytes", lambda: 15 * 2**30)
    found = rows(describe_preset(checkpoint()))
    assert found["format"] == ["transformers, saved in bfloat16"]
    assert found["query heads"] == ["32 of size 128"]
    assert found["window"] == ["4,096 tokens"]
    assert found["rotary positions"] == ["wavelength 10,000"]
    assert found["output"] == ["of its own"]
    assert found["embedding and output"] == ["262,144,000"]
    assert found["all"] == ["7,241,732,096"]
    parts = ("embedding and output", "attention", "feed-forward", "norms")
    # "feed-forward" is also the width, which stands before; the count replaces it.
    assert sum(int(found[part][0].replace(",", "")) for part in parts) == 7_241_732_096
    assert found["weights"][:2] == ["27.0 GiB", "13.5 GiB"]
    assert found["cache of one token"] == ["256.0 KiB", *["128.0 KiB"] * 3]
    assert found["cache of 4,096 tokens"] == ["1.0 GiB", *["512.0 MiB"] * 3]
    assert found["fits here, in 15.0 GiB"] == ["no", "yes", "yes", "yes"]


def test_bytes_of_each_kind(checkpoint):
    """int8: a byte a weight, a scale a column. int4: half a byte, a scale and a zero a block."""
    assert rows(describe_preset(checkpoint()))["weights"] == [
        "27.0 GiB",
        "13.5 GiB",
        "6.7 GiB",
        "3.5 GiB",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["int8", "int4/4"])
def test_a_quantized_preset_has_one_column(tmp_path, quantization):
    backbone = small_backbone(dtype="bfloat16")
    backbone.quantize(quantization)
    backbone.save_to_preset(tmp_path)
    text = describe_preset(tmp_path)
    assert rows(text)["format"] == [f"KerasHub, saved in bfloat16 and {quantization}"]
    assert re.search(rf"Memory\n +{quantization}\n", text)
    size = sum(np.asarray(variable.value).nbytes for variable in backbone.weights)
    assert rows(text)["weights"] == [f"{size / 1024:.1f} KiB"]


def test_a_saved_preset_is_described_as_it_loads(tmp_path):
    backbone = small_backbone(sliding_window=None, tie_word_embeddings=True, rope_scaling_factor=4)
    backbone.save_to_preset(tmp_path / "preset")
    found = rows(describe_preset(tmp_path / "preset"))
    assert found["from"] == [str(tmp_path / "preset")]
    assert found["format"] == ["KerasHub, saved in float32"]
    assert found["all"] == [f"{backbone.count_params():,}"]
    assert found["window"] == ["none: a token sees all before it"]
    assert found["rotary positions"] == ["wavelength 10,000, positions divided by 4"]
    assert found["output"] == ["the transposed embedding"]
    assert "cache of 32,768 tokens" in found
    assert "LoRA" not in found


@pytest.mark.parametrize(
    ("rope_scaling", "expected"),
    [
        (
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192},
            "wavelength 10,000, yarn scaling by 4 beyond 8,192 tokens",
        ),
        (
            {
                "rope_type": "default",
                "original_max_position_embeddings": 64,
                "llama_4_scaling_beta": 0.1,
            },
            "wavelength 10,000, default scaling beyond 64 tokens",
        ),
    ],
)
def test_a_scaling_of_positions_is_named(tmp_path, rope_scaling, expected):
    small_backbone(rope_scaling=rope_scaling).save_to_preset(tmp_path / "preset")
    assert rows(describe_preset(tmp_path / "preset"))["rotary positions"] == [expected]


def test_windows_that_differ_by_block(tmp_path):
    small_backbone(num_layers=3, sliding_window=[5, None, 5]).save_to_preset(tmp_path / "all")
    found = rows(describe_preset(tmp_path / "all"))
    assert found["window"] == ["5 tokens in 2 blocks, none in 1 blocks"]
    token = 2 * 3 * 2 * 2 * 4  # keys and values, blocks, heads, features, bytes
    assert found["cache of one token"][0] == f"{token} bytes"
    assert found["cache of 32,768 tokens"][0] == f"{token / 3 * (32768 + 10) / 2**20:.1f} MiB"
    small_backbone(sliding_window=[5, 7]).save_to_preset(tmp_path / "two")
    found = rows(describe_preset(tmp_path / "two"))
    assert found["window"] == ["5 tokens in 1 blocks, 7 tokens in 1 blocks"]
    assert found["cache of 7 tokens"][0] == f"{token / 3 * 12:.0f} bytes"


def test_an_adapter_is_named(tmp_path):
    backbone = small_backbone()
    backbone.enable_lora(3, lora_alpha=6)
    backbone.save_to_preset(tmp_path)
    assert rows(describe_preset(tmp_path))["LoRA"] == [
        "rank 3 and alpha 6 on query, value (4 in all)"
    ]


def test_an_adapter_that_lies(tmp_path):
    backbone = small_backbone()
    backbone.enable_lora(3)
    backbone.save_to_preset(tmp_path)
    for plan, message in (
        ({"block/query": 3}, "needs a rank and a lora_alpha, but has 3"),
        ({"block/query": {"rank": 0, "lora_alpha": 1}}, "rank must be at least 1"),
    ):
        with h5py.File(tmp_path / "adapter.lora.h5", "r+") as file:
            file.attrs["settings"] = json.dumps(plan)
        with pytest.raises(ValueError, match=message):
            describe_preset(tmp_path)
    with h5py.File(tmp_path / "adapter.lora.h5", "r+") as file:
        file.attrs["settings"] = json.dumps({"\x1b[2J": {"rank": 1, "lora_alpha": 1}})
    assert "\x1b" not in describe_preset(tmp_path)


@pytest.mark.parametrize("folder", KERAS_HUB.values(), ids=KERAS_HUB)
def test_presets_of_keras_hub(folder):
    found = rows(describe_preset(folder))
    size = json.loads((folder / "metadata.json").read_text())["parameter_count"]
    assert found["all"] == [f"{size:,}"]


def test_a_built_in_name_has_its_description():
    first = describe_preset("mistral_tiny_en").split("\n")[0]
    assert (
        first
        == "mistral_tiny_en: "
        + MistralBackbone.presets["mistral_tiny_en"]["metadata"]["description"]
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_name_needs_no_network(name, monkeypatch):
    monkeypatch.setattr(info.Preset, "open", None)
    text = describe_preset(name)
    found = rows(text)
    assert text.startswith(f"{name}: {PUBLISHED[name].description}\n")
    assert found["from"] == [registry.source_of(name)]
    assert found["format"] == ["KerasHub"]
    assert found["all"] == [f"{MistralBackbone.presets[name]['metadata']['params']:,}"]


def test_columns_are_aligned(checkpoint):
    memory = describe_preset(checkpoint()).split("Memory\n")[1].split("\n")
    ends = {
        tuple(match.end() for match in re.finditer(r"(?:\S+ )*\S+", row))[1:] for row in memory[1:]
    }
    assert len(ends) == 1
    assert all(line == line.rstrip() for line in memory)


def test_errors_name_the_file(checkpoint, tmp_path):
    with pytest.raises(
        ValueError, match=r"config\.json.*num_query_heads \(32\) must be a multiple"
    ):
        describe_preset(checkpoint(num_key_value_heads=5))
    with pytest.raises(ValueError, match=r"There is no preset 'mistral_8b'"):
        describe_preset("mistral_8b")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1,023 bytes"), (1024, "1.0 KiB"), (2**50, "1,024.0 TiB")],
)
def test_sizes(size, text):
    assert info._size(size) == text
