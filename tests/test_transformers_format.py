"""mistral_lib/presets/transformers_format.py: what transformers wrote gives its logits here."""

import json
import shutil

import numpy as np
import pytest
from reference.make_formats import CASES, FOLDER, TOKEN_IDS, config_of
from reference.make_keras_preset import TEXTS, vocabulary
from small_presets import assert_same_weights, edit, small_tokenizer

from mistral_lib import MistralBackbone, MistralCausalLM, MistralTokenizer, without_weights
from mistral_lib.presets.sources import LocalFolder
from mistral_lib.presets.transformers_format import TransformersFormat

TOLERANCE = 1e-5  # of logits of size 1 to 5
LOGITS = np.load(FOLDER / "logits.npz")
INPUTS = {"token_ids": TOKEN_IDS, "padding_mask": np.ones_like(TOKEN_IDS)}
TRANSFORMERS = [name for name in CASES if not name.startswith("mistral")]


@pytest.fixture
def single(tmp_path):
    return shutil.copytree(FOLDER / "single", tmp_path / "single")


def read_arguments(folder):
    return TransformersFormat().read_arguments(LocalFolder(folder))


# --- What transformers wrote ---------------------------------------------------------------------


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_logits_of_transformers(name):
    model = MistralCausalLM.from_preset(FOLDER / name, dtype="float32")
    config = model.backbone.get_config()
    assert {key: config[key] for key in config_of(name)} == config_of(name)
    assert np.abs(LOGITS[name]).max() > 1
    assert np.abs(np.asarray(model(INPUTS)) - LOGITS[name]).max() <= TOLERANCE


def test_bfloat16_bit_for_bit():
    """Each tensor as safetensors' own library reads it."""
    from safetensors.numpy import load_file

    backbone = MistralBackbone.from_preset(FOLDER / "sharded", dtype="auto")
    assert backbone.dtype_policy.name == "bfloat16"
    expected = {}
    for shard in (FOLDER / "sharded").glob("*.safetensors"):
        expected |= load_file(shard)
    assert len(expected) == len(backbone.weights) == 21
    ours = sorted(np.asarray(variable).tobytes() for variable in backbone.weights)
    theirs = (a if a.ndim == 1 or "embed_tokens" in name else a.T for name, a in expected.items())
    assert ours == sorted(array.tobytes() for array in theirs)


@pytest.mark.slow
def test_tokenizer_and_text():
    model = MistralCausalLM.from_preset(FOLDER / "single")
    assert model.preprocessor.tokenizer.proto == vocabulary()
    ids = model.preprocessor.tokenizer.encode(TEXTS)
    assert ids == MistralTokenizer(vocabulary()).encode(TEXTS)
    text = model.generate("the window", max_new_tokens=3)
    assert text.startswith("the window")
    assert MistralCausalLM.from_preset(FOLDER / "older").preprocessor is None


# --- Beside the weights ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("generation", "config", "ends"),
    [
        ({"eos_token_id": [2, 7]}, {"eos_token_id": 3}, (2, 7)),
        ({}, {"eos_token_id": 3}, ()),
        (None, {"eos_token_id": 3}, (3,)),
        (None, {"eos_token_id": None}, ()),
        (None, {}, (2,)),
    ],
)
def test_ids_that_end_a_text(single, generation, config, ends):
    edit(single / "config.json", remove=["eos_token_id"])
    edit(single / "config.json", **config)
    (single / "generation_config.json").unlink()
    if generation is not None:
        (single / "generation_config.json").write_text(json.dumps(generation))
    assert TransformersFormat().read_task(LocalFolder(single)).end_token_ids == ends


def test_ids_that_end_a_text_of_a_multimodal_model(single):
    """They stand in the text part, where there is no other file."""
    (single / "generation_config.json").unlink()
    for text, ends in (({"eos_token_id": [2, 5]}, (2, 5)), ({}, (2,)), (None, (2,))):
        content = {"model_type": "mistral3", "text_config": text}
        (single / "config.json").write_text(json.dumps(content))
        assert TransformersFormat().read_task(LocalFolder(single)).end_token_ids == ends


@pytest.mark.slow
def test_a_text_ends_with_them(single):
    model = MistralCausalLM.from_preset(single, dtype="float32")
    assert model.end_token_ids == (2, 7)
    prompt = [5, 6, 7]
    model.end_token_ids = ()
    first = model.generate(prompt, max_new_tokens=8, strip_prompt=True)
    model = MistralCausalLM.from_preset(single, dtype="float32", end_token_ids=[first[2]])
    ended = model.generate(prompt, max_new_tokens=8, strip_prompt=True)
    assert ended == first[: first.index(first[2]) + 1]


# --- Arguments, dtypes, tokenizers: as for every format ------------------------------------------


def test_arguments(single):
    loaded = MistralBackbone.from_preset(single, sliding_window=None, dropout=0.1, name="mine")
    assert (loaded.sliding_window, loaded.dropout, loaded.name) == (None, 0.1, "mine")
    assert_same_weights(loaded, MistralBackbone.from_preset(single))
    with pytest.raises(ValueError, match="hidden_dim=8 does not fit the preset's weights"):
        MistralBackbone.from_preset(single, hidden_dim=8)
    with pytest.raises(TypeError, match="has no argument 'hidden_size'"):
        MistralBackbone.from_preset(single, hidden_size=8)
    with without_weights():
        random = MistralBackbone.from_preset(single, load_weights=False, hidden_dim=8, dtype="auto")
    assert (random.hidden_dim, random.dtype_policy.name) == (8, "float32")


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "float16"}, "float16"),
        ({"dtype": "float8"}, "float32"),
        ({"dtype": ["bfloat16"]}, "float32"),
        ({}, "float32"),
    ],
)
def test_dtype_without_weights(single, changes, dtype):
    edit(single / "config.json", remove=["dtype"])
    edit(single / "config.json", **changes)
    assert TransformersFormat().read_dtype(LocalFolder(single)) == dtype


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.model.v3", "tokenizer.model.v7"])
def test_names_of_the_vocabulary(single, name):
    (single / "tokenizer.model").rename(single / name)
    assert MistralTokenizer.from_preset(single).proto == vocabulary()
    assert MistralCausalLM.from_preset(single).preprocessor is not None


@pytest.mark.parametrize("name", ["tokenizer.json", "tekken.json"])
def test_another_kind_of_vocabulary(single, name):
    (single / "tokenizer.model").rename(single / name)
    for cls in (MistralTokenizer, MistralCausalLM):
        with pytest.raises(ValueError, match=rf"{name} is not valid JSON"):
            cls.from_preset(single)
    assert MistralCausalLM.from_preset(single, preprocessor=None).preprocessor is None


def test_no_vocabulary(single):
    (single / "tokenizer.model").unlink()
    with pytest.raises(FileNotFoundError, match=r"no vocabulary: neither tokenizer\.model nor"):
        MistralTokenizer.from_preset(single)


def test_a_huge_vocabulary_is_not_read(single):
    with (single / "tokenizer.model").open("wb") as file:
        file.truncate(2 * 2**30)  # sparse: no byte of it is on the disk
    with pytest.raises(ValueError, match="2,147,483,648 bytes, and vocabularies above"):
        MistralCausalLM.from_preset(single)


def test_vocabulary_of_another_model(single):
    (single / "tokenizer.model").write_bytes(small_tokenizer().proto)
    with pytest.raises(ValueError, match="300 tokens, but the backbone's vocabulary_size is 280"):
        MistralCausalLM.from_preset(single)
