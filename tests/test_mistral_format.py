"""mistral_lib/presets/mistral_format.py: what Mistral's own program computes, computed here."""

import shutil

import numpy as np
import pytest
from reference.make_formats import CASES, FOLDER, TOKEN_IDS, config_of
from reference.make_keras_preset import vocabulary
from small_presets import edit

from mistral_lib import MistralBackbone, MistralCausalLM, MistralTokenizer, without_weights
from mistral_lib.presets.mistral_format import MistralFormat
from mistral_lib.presets.sources import LocalFolder

TOLERANCE = 1e-5  # of logits of size 3
LOGITS = np.load(FOLDER / "logits.npz")
INPUTS = {"token_ids": TOKEN_IDS, "padding_mask": np.ones_like(TOKEN_IDS)}
MISTRAL = [name for name in CASES if name.startswith("mistral")]


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(FOLDER / "mistral_theta", tmp_path / "mistral")


def read_arguments(folder):
    return MistralFormat().read_arguments(LocalFolder(folder))


@pytest.mark.parametrize("name", MISTRAL)
def test_logits_of_mistral_inference(name):
    model = MistralCausalLM.from_preset(FOLDER / name, dtype="float32")
    config = model.backbone.get_config()
    assert {key: config[key] for key in config_of(name)} == config_of(name)
    assert np.abs(LOGITS[name]).max() > 1
    assert np.abs(np.asarray(model(INPUTS)) - LOGITS[name]).max() <= TOLERANCE


def test_the_order_of_rotary_pairs_shows():
    """With the rows as they stand in the file, the logits would be others."""
    model = MistralCausalLM.from_preset(FOLDER / "mistral_theta", dtype="float32")
    for block in model.backbone.transformer_layers:
        query = block.self_attention.query.kernel
        paired = np.asarray(query).reshape(16, 4, 2, 3).swapaxes(2, 3).reshape(16, 24)
        query.assign(paired)
    assert np.abs(np.asarray(model(INPUTS)) - LOGITS["mistral_theta"]).max() > 0.1


@pytest.mark.parametrize(
    ("changes", "window", "wavelength"),
    [
        ({}, None, 1e6),  # version 0.2, had it no rope_theta
        ({"sliding_window": 4096}, 4096, 1e4),  # version 0.1
        ({"sliding_window": None}, None, 1e6),
        ({"_sliding_window": 4096}, 4096, 1e4),
        ({"_sliding_window": 4096, "sliding_window": 4096}, 4096, 1e4),
        ({"_sliding_window": 4096, "sliding_window": None}, 4096, 1e4),
        ({"sliding_window": "4096"}, 4096, 1e4),
        ({"sliding_window": 4096, "rope_theta": 1e5}, 4096, 1e5),
        ({"rope_theta": None}, None, 1e6),
    ],
)
def test_window_and_wavelength(folder, changes, window, wavelength):
    edit(folder / "params.json", remove=["sliding_window", "rope_theta"])
    edit(folder / "params.json", **changes)
    config = read_arguments(folder)
    assert (config["sliding_window"], config["rope_max_wavelength"]) == (window, wavelength)


@pytest.mark.parametrize(
    ("name", "stated", "windows"),
    [
        ("sliding_window", [None, 5], [None, 5]),
        ("_sliding_window", [None, 5], [None, 5]),
        ("_sliding_window", [7], [7, 7]),
        ("sliding_window", [None], [None, None]),
    ],
)
def test_windows_by_layer(folder, name, stated, windows):
    """A list is repeated until every layer has a window."""
    edit(folder / "params.json", remove=["sliding_window"])
    edit(folder / "params.json", **{name: stated})
    assert read_arguments(folder)["sliding_window"] == windows
    assert MistralBackbone.from_preset(folder, load_weights=False).config.window(1) == windows[1]


def test_a_list_of_windows_is_a_pattern(folder):
    """As the whole is repeated in mistral-inference, and not each of its entries."""
    edit(folder / "params.json", remove=["sliding_window"])
    edit(folder / "params.json", n_layers=6, _sliding_window=[None, 7, 5])
    assert read_arguments(folder)["sliding_window"] == [None, 7, 5, None, 7, 5]


def test_context_length(folder):
    assert MistralBackbone.from_preset(folder).context_length is None
    edit(folder / "params.json", max_seq_len=96)
    assert MistralBackbone.from_preset(folder).context_length == 96
    edit(folder / "params.json", max_position_embeddings=128)
    assert MistralBackbone.from_preset(folder).context_length == 128


def test_what_says_nothing_is_ignored(folder):
    before = read_arguments(folder)
    edit(
        folder / "params.json", max_seq_len=1, max_batch_size=8, model_type="transformer", moe=None
    )
    assert read_arguments(folder) == before


def test_tied(folder):
    edit(folder / "params.json", tied_embeddings=True)
    assert read_arguments(folder)["tie_word_embeddings"] is True


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"moe": {"num_experts": 8}}, "has moe: a mixture of experts is in the model"),
        ({"q_lora_rank": 1024}, "has q_lora_rank: latent attention is in the model"),
        ({"multimodal": {}}, "has multimodal: an encoder of sound is in the model"),
        ({"model_type": "mamba"}, "has model_type = 'mamba'"),
        ({"sliding_window": [None, 4096, 4096]}, "sliding_window has 3 entries, which cannot be"),
        ({"sliding_window": []}, "sliding_window has 0 entries"),
        ({"sliding_window": [5], "n_layers": 10**12}, "each of the 1000000000000 layers one"),
        ({"sliding_window": [0, 4096]}, r"sliding_window\[0\] must be at least 1"),
        ({"quantization": {"qformat_weight": "nvfp4"}}, "the weights are quantized by 'nvfp4'"),
        ({"quantization_config": {"quant_method": "awq"}}, "the weights are quantized by 'awq'"),
        ({"sliding_window": "wide"}, "sliding_window must be an integer"),
        (
            {"sliding_window": 4096, "_sliding_window": [None, 4096]},
            r"sliding_window and _sliding_window are 4096 and \[None, 4096\], but must be the same",
        ),
        ({"n_heads": 4.0}, "num_query_heads must be an integer"),
        ({"yarn": {"factor": 2}}, "yarn has no "),
        ({"use_biases": True}, "has use_biases = True, which Mistral 7B does not have"),
    ],
)
def test_refused_by_name(folder, changes, message):
    edit(folder / "params.json", **changes)
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        MistralBackbone.from_preset(folder)
    assert str(folder / "params.json") in str(caught.value)


def test_missing_size(folder):
    edit(folder / "params.json", remove=["n_kv_heads"])
    with pytest.raises(ValueError, match=r"params\.json has no n_kv_heads"):
        MistralBackbone.from_preset(folder)


def test_pickled_weights_are_refused(folder):
    (folder / "consolidated.safetensors").rename(folder / "consolidated.00.pth")
    with pytest.raises(ValueError, match=r"consolidated\.00\.pth is pickled, and .* never read"):
        MistralBackbone.from_preset(folder)


def test_tokenizer_and_dtype(folder):
    assert MistralCausalLM.from_preset(folder).preprocessor is None
    (folder / "tokenizer.model.v3").write_bytes(vocabulary())
    assert MistralTokenizer.from_preset(folder).proto == vocabulary()
    with without_weights():
        random = MistralBackbone.from_preset(folder, load_weights=False, dtype="auto")
    assert random.dtype_policy.name == "bfloat16"
    assert MistralBackbone.from_preset(folder, dtype="auto").dtype_policy.name == "float32"
