"""mistral_lib/presets/transformers_format.py: what transformers wrote gives its logits here."""

import json
import shutil

import numpy as np
import pytest
from reference.make_formats import BASE, CASES, FOLDER, TOKEN_IDS, config_of
from reference.make_keras_preset import TEXTS, vocabulary
from small_presets import assert_same_weights, small_tokenizer

from mistral_lib import MistralBackbone, MistralCausalLM, MistralTokenizer, without_weights
from mistral_lib.presets import transformers_format
from mistral_lib.presets.sources import LocalFolder
from mistral_lib.presets.transformers_format import TransformersFormat

TOLERANCE = 1e-5  # of logits of size 1 to 5
LOGITS = np.load(FOLDER / "logits.npz")
INPUTS = {"token_ids": TOKEN_IDS, "padding_mask": np.ones_like(TOKEN_IDS)}
TRANSFORMERS = [name for name in CASES if not name.startswith("mistral")]


@pytest.fixture
def single(tmp_path):
    return shutil.copytree(FOLDER / "single", tmp_path / "single")


def edit(file, remove=(), **changes):
    content = json.loads(file.read_text())
    content.update(changes)
    for name in remove:
        del content[name]
    file.write_text(json.dumps(content))


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


# --- The config ----------------------------------------------------------------------------------


def test_defaults(single):
    """Those of `MistralConfig`: an empty config is Mistral 7B without its wavelength."""
    (single / "config.json").write_text('{"model_type": "mistral"}')
    assert read_arguments(single) == {
        "vocabulary_size": 32000,
        "num_layers": 32,
        "num_query_heads": 32,
        "hidden_dim": 4096,
        "intermediate_dim": 14336,
        "num_key_value_heads": 8,
        "layer_norm_epsilon": 1e-6,
        "sliding_window": 4096,
        "head_dim": None,
        "tie_word_embeddings": False,
        "rope_max_wavelength": 10000.0,
        "rope_scaling_factor": 1.0,
    }


@pytest.mark.peer
def test_defaults_are_those_of_transformers(single):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    default = transformers.MistralConfig()
    ours = transformers_format.ARGUMENTS
    found = {there: value for there, value in ours.values() if there != "head_dim"}
    assert found == {there: getattr(default, there) for there in found}
    assert default.head_dim == default.hidden_size // default.num_attention_heads
    rope = {"rope_type": "default", "rope_theta": transformers_format.DEFAULT_WAVELENGTH}
    assert default.rope_parameters == rope


@pytest.mark.parametrize(
    ("changes", "wavelength", "factor"),
    [
        ({"rope_theta": 1e6}, 1e6, 1),
        ({"rope_theta": 1e6, "rope_scaling": None}, 1e6, 1),
        ({"rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 2}}, 1e6, 2),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.5}}, 1e4, 2.5),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e5}}, 1e5, 1),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 7, "factor": 2}}, 7, 2),
        # Both places, as transformers itself decides.
        ({"rope_parameters": {"rope_theta": 1e5}, "rope_theta": 1e6}, 1e5, 1),
        ({"rope_parameters": {"rope_type": "default"}, "rope_theta": 1e6}, 1e6, 1),
        (
            {
                "rope_parameters": {"rope_theta": 1e5},
                "rope_scaling": {"type": "linear", "factor": 8},
                "rope_theta": 1e6,
            },
            1e6,
            8,
        ),
    ],
)
def test_places_of_the_wavelength(single, changes, wavelength, factor):
    edit(single / "config.json", remove=["rope_parameters"])
    edit(single / "config.json", **changes)
    config = read_arguments(single)
    assert (config["rope_max_wavelength"], config["rope_scaling_factor"]) == (wavelength, factor)


@pytest.mark.peer
def test_transformers_decides_so_too(single):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    edit(
        single / "config.json",
        rope_parameters={"rope_type": "default", "rope_theta": 1e5},
        rope_scaling={"type": "linear", "factor": 8.0},
        rope_theta=1e6,
    )
    theirs = transformers.AutoConfig.from_pretrained(single).rope_parameters
    ours = read_arguments(single)
    assert theirs["rope_theta"] == ours["rope_max_wavelength"] == 1e6
    assert theirs["factor"] == ours["rope_scaling_factor"] == 8


def test_windows_and_heads(single):
    edit(single / "config.json", sliding_window=None, head_dim=None, num_key_value_heads=None)
    with without_weights():
        backbone = MistralBackbone.from_preset(single, load_weights=False)
    assert backbone.sliding_window is None
    assert (backbone.head_dim, backbone.num_key_value_heads) == (4, 4)
    edit(single / "config.json", remove=["sliding_window", "head_dim", "num_key_value_heads"])
    config = read_arguments(single)
    assert (config["sliding_window"], config["num_key_value_heads"]) == (4096, 8)


@pytest.mark.parametrize("window", [3, None])
def test_layers_that_are_all_of_one_kind(single, window):
    kind = "full_attention" if window is None else "sliding_attention"
    edit(single / "config.json", layer_types=[kind] * 2, sliding_window=window)
    assert MistralBackbone.from_preset(single).sliding_window == window


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "of the type 'llama', but only Mistral lives here"),
        ({"model_type": ["mistral"]}, r"of the type \['mistral'\]"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', but here the activation is SiLU"),
        ({"attention_bias": True}, "attention_bias is True, but here projections have no bias"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"layer_types": ["full_attention"] * 2}, "all layers must have the same window"),
        (
            {"layer_types": ["sliding_attention", "full_attention"]},
            "all layers must have the same window",
        ),
        ({"layer_types": []}, r"layer_types is \[\], which"),
        ({"layer_types": [["a"]] * 2}, "all layers must have the same window"),
        (
            {"layer_types": ["sliding_attention"] * 2, "sliding_window": None},
            "does not match sliding_window None",
        ),
        ({"sliding_window": [3, None]}, r"is \[3, None\], but here all layers have one window"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"quantization_config": {"bits": 4}}, "quantized checkpoints are not read"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2}}, "rope_scaling has the type 'dynamic'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters has the type 'yarn'"),
        ({"rope_parameters": {"rope_type": ["a"]}}, r"has the type \['a'\]"),
        ({"rope_scaling": {"type": "linear"}}, "the type 'linear', but no factor"),
        ({"rope_scaling": "linear"}, "rope_scaling must be an object"),
        ({"rope_parameters": {"full_attention": {}}}, "has full_attention = {}"),
        ({"rope_scaling": {"partial_rotary_factor": 0.5}}, "has partial_rotary_factor = 0.5"),
        ({"rope_scaling": {"type": "linear", "factor": -2}}, "rope_scaling_factor must be above 0"),
        ({"rope_parameters": {"rope_theta": "1e4"}}, "rope_max_wavelength must be a number"),
        ({"hidden_size": "16"}, "hidden_dim must be an integer"),
        ({"num_attention_heads": 3}, "must be a multiple of num_key_value_heads"),
        ({"num_hidden_layers": 0}, "num_layers must be at least 1"),
        ({"rms_norm_eps": None}, "layer_norm_epsilon must be a number"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings must be True or False"),
    ],
)
def test_refused_by_name(single, changes, message):
    edit(single / "config.json", **changes)
    for load_weights in (True, False):
        with pytest.raises((ValueError, TypeError), match=message) as caught:
            MistralBackbone.from_preset(single, load_weights)
        assert str(single / "config.json") in str(caught.value)


@pytest.mark.parametrize("value", [[], {"a": 1}, "x", -1, [1], 10**40])
def test_every_number_is_checked(single, value):
    before = (single / "config.json").read_text()
    names = {there for there, _ in transformers_format.ARGUMENTS.values()}
    for name in names - ({"rms_norm_eps"} if value == 10**40 else set()):
        edit(single / "config.json", **{name: value})
        with pytest.raises((ValueError, TypeError)) as caught:
            MistralBackbone.from_preset(single)
        assert str(single / "config.json") in str(caught.value), name
        (single / "config.json").write_text(before)


def test_nothing_is_built_that_does_not_fit(single):
    edit(single / "config.json", hidden_size=10**9, intermediate_size=10**9, head_dim=10**9)
    with pytest.raises(MemoryError, match=r"parameters in .* blocks and needs"):
        MistralBackbone.from_preset(single, load_weights=False)
    with pytest.raises(ValueError, match="config asks for"):
        MistralBackbone.from_preset(single)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_no_number(single, constant):
    text = (single / "config.json").read_text()
    (single / "config.json").write_text(text.replace("1e-05", constant))
    with pytest.raises(ValueError, match=r"config\.json.*(is no number|finite, but is inf)"):
        MistralBackbone.from_preset(single)


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


def test_sizes_of_every_case_differ_from_the_defaults():
    """Or a name that is never read would not be noticed."""
    for name, (_, default) in transformers_format.ARGUMENTS.items():
        values = {config_of(case).get(name, default) for case in TRANSFORMERS}
        assert values != {default}, name
    assert BASE["rope_max_wavelength"] != transformers_format.DEFAULT_WAVELENGTH
