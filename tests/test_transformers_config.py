"""mistral_lib/presets/transformers_config.py: what a config says, leaves out, and must not say."""

import json
import shutil

import pytest
from reference.make_family import CONFIGS
from reference.make_formats import BASE, CASES, FOLDER, config_of
from small_presets import edit

from mistral_lib import MistralBackbone, without_weights
from mistral_lib.presets import rope_config, transformers_config
from mistral_lib.presets.preset import Preset
from mistral_lib.presets.sources import LocalFolder
from mistral_lib.presets.transformers_format import TransformersFormat

TRANSFORMERS = [name for name in CASES if not name.startswith("mistral")]


@pytest.fixture
def single(tmp_path):
    return shutil.copytree(FOLDER / "single", tmp_path / "single")


def read_arguments(folder):
    return TransformersFormat().read_arguments(LocalFolder(folder))


MISTRAL = {
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
    "rope_scaling": None,
}
MINISTRAL_3 = {
    **MISTRAL,
    "vocabulary_size": 131072,
    "num_layers": 34,
    "layer_norm_epsilon": 1e-5,
    "sliding_window": None,
    "head_dim": 128,
    "rope_max_wavelength": 1e6,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 16.0,
        "original_max_position_embeddings": 16384,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.1,
    },
}
SMALL_3_1 = {
    **MISTRAL,
    "vocabulary_size": 131072,
    "num_layers": 40,
    "hidden_dim": 5120,
    "intermediate_dim": 32768,
    "layer_norm_epsilon": 1e-5,
    "sliding_window": None,
    "head_dim": 128,
    "rope_max_wavelength": 1e9,
    "tie_word_embeddings": True,
}
EMPTY = {
    "mistral": ({}, MISTRAL),
    "ministral": ({}, MISTRAL),
    "ministral3": ({}, MINISTRAL_3),
    "mistral3": ({}, SMALL_3_1),
    "mistral3 with a mistral": (
        {"text_config": {}, "tie_word_embeddings": False},
        MISTRAL,
    ),
    "mistral3 with a ministral3": (
        {"text_config": {"model_type": "ministral3"}},
        {**MINISTRAL_3, "tie_word_embeddings": True},
    ),
}


@pytest.mark.parametrize("name", EMPTY)
def test_defaults(tmp_path, name):
    """Those of each type's class: an empty config is Mistral 7B without its wavelength."""
    content, expected = EMPTY[name]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name.split()[0], **content}))
    assert read_arguments(tmp_path) == expected
    assert Preset.open(tmp_path).config.num_layers == expected["num_layers"]


@pytest.mark.peer
@pytest.mark.parametrize("name", EMPTY)
def test_defaults_are_those_of_transformers(tmp_path, name):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    content = {"model_type": name.split()[0], **EMPTY[name][0]}
    (tmp_path / "config.json").write_text(json.dumps(content))
    outer = transformers.AutoConfig.from_pretrained(tmp_path)
    theirs = getattr(outer, "text_config", outer)
    ours = read_arguments(tmp_path)
    for argument, (there, _) in transformers_config.ARGUMENTS.items():
        where = outer if argument == "tie_word_embeddings" else theirs
        value = getattr(where, there)
        if argument == "head_dim" and ours["head_dim"] is None:
            assert value in (None, theirs.hidden_size // theirs.num_attention_heads)
        else:
            assert ours[argument] == value, argument
    rope = {k: v for k, v in theirs.rope_parameters.items() if k not in rope_config.IGNORED}
    assert ours["rope_max_wavelength"] == theirs.rope_parameters["rope_theta"]
    found = ours["rope_scaling"] or {"rope_type": "default"}
    assert found == {"rope_type": theirs.rope_parameters["rope_type"], **rope}
    length = TransformersFormat().read_context_length(LocalFolder(tmp_path))
    default = transformers_config.DEFAULTS[theirs.model_type][rope_config.LENGTH]
    if name != "mistral3":
        assert theirs.max_position_embeddings == (length or default)


@pytest.mark.parametrize("type", ["ministral3", "mistral"])
def test_a_head_size_of_null_is_no_missing_one(single, type):
    edit(single / "config.json", model_type=type, head_dim=None)
    assert read_arguments(single)["head_dim"] is None
    edit(single / "config.json", remove=["head_dim"])
    assert read_arguments(single)["head_dim"] == (128 if type == "ministral3" else None)


def test_windows_and_heads(single):
    edit(single / "config.json", sliding_window=None, head_dim=None, num_key_value_heads=None)
    with without_weights():
        backbone = MistralBackbone.from_preset(single, load_weights=False)
    assert backbone.sliding_window is None
    assert (backbone.head_dim, backbone.num_key_value_heads) == (4, 4)
    edit(single / "config.json", remove=["sliding_window", "head_dim", "num_key_value_heads"])
    config = read_arguments(single)
    assert (config["sliding_window"], config["num_key_value_heads"]) == (4096, 8)


FULL, SLIDING = "full_attention", "sliding_attention"


@pytest.mark.parametrize("window", [3, None])
@pytest.mark.parametrize("type", ["mistral", "ministral", "ministral3"])
def test_layers_that_are_all_of_one_kind(single, type, window):
    kind = FULL if window is None else SLIDING
    edit(single / "config.json", model_type=type, layer_types=[kind] * 2, sliding_window=window)
    assert read_arguments(single)["sliding_window"] == window


@pytest.mark.parametrize(
    ("types", "windows"),
    [
        ([FULL, SLIDING], [None, 3]),
        ([SLIDING, FULL], [3, None]),
        ([FULL, FULL], None),
        ([SLIDING, SLIDING], 3),
        (None, 3),
    ],
)
def test_windows_by_layer(single, types, windows):
    edit(single / "config.json", model_type="ministral", layer_types=types, sliding_window=3)
    assert read_arguments(single)["sliding_window"] == windows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "of the type 'llama', but only Mistral lives here"),
        ({"model_type": ["mistral"]}, r"of the type \['mistral'\]"),
        ({"model_type": "mixtral"}, "of the type 'mixtral': Mixtral has a mixture of experts"),
        ({"model_type": "mistral4"}, "'mistral4': Mistral 4 has experts and latent attention"),
        ({"model_type": "mistral_large4"}, "'mistral_large4': Mistral Large 4 has experts"),
        ({"model_type": "pixtral"}, "'pixtral': it is the vision encoder"),
        ({"model_type": "llava"}, "'llava': Pixtral reads images"),
        ({"model_type": "voxtral"}, "'voxtral': Voxtral hears"),
        (
            {"model_type": "mistral3", "text_config": {"model_type": "mistral4"}},
            "describes, in text_config, a model of the type 'mistral4': Mistral 4 has experts",
        ),
        (
            {"model_type": "mistral3", "text_config": {"model_type": "mistral3"}},
            "describes, in text_config, a model of the type 'mistral3', but only Mistral",
        ),
        ({"model_type": "mistral3", "text_config": [1]}, "text_config must be an object"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', but here the activation is SiLU"),
        ({"attention_bias": True}, "attention_bias is True, but here projections have no bias"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"layer_types": [FULL] * 2}, "only in the model_type 'ministral' may windows differ"),
        ({"layer_types": [SLIDING, FULL]}, "which does not match sliding_window 5"),
        ({"layer_types": []}, r"layer_types is \[\], but must be a list with one of full_atten"),
        ({"layer_types": [["a"]] * 2}, r"layer_types is \[\['a'\], \['a'\]\], but must be"),
        ({"layer_types": [SLIDING] * 3}, "for each of the 2 layers"),
        ({"layer_types": [SLIDING, "chunked_attention"]}, "chunked_attention.*, but must be"),
        (
            {"layer_types": [SLIDING] * 2, "sliding_window": None},
            "layer_types has 'sliding_attention', but sliding_window is null",
        ),
        ({"sliding_window": [3, None]}, r"is \[3, None\], but must be a number or null"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"quantization_config": {"bits": 4}}, "quantized by None, which is not read here"),
        ({"quantization_config": 4}, "quantized by 4, which is not read here"),
        ({"rope_scaling": {"type": "longrope"}}, "rope_scaling has the type 'longrope', which is"),
        ({"rope_scaling": {"type": "linear", "factor": -2}}, "rope_scaling_factor must be above 0"),
        ({"rope_parameters": {"rope_theta": "1e4"}}, "rope_max_wavelength must be a number"),
        ({"hidden_size": "16"}, "hidden_dim must be an integer"),
        ({"num_attention_heads": 3}, "must be a multiple of num_key_value_heads"),
        ({"num_hidden_layers": 0}, "num_layers must be at least 1"),
        ({"rms_norm_eps": None}, "layer_norm_epsilon must be a number"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings must be True or False"),
        (
            {"model_type": "mistral3", "tie_word_embeddings": "yes"},
            "tie_word_embeddings must be True or False",
        ),
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
    names = {there for there, _ in transformers_config.ARGUMENTS.values()}
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


def test_sizes_of_every_case_differ_from_the_defaults():
    """Or a name that is never read would not be noticed."""
    for name, (_, default) in transformers_config.ARGUMENTS.items():
        values = {config_of(case).get(name, default) for case in TRANSFORMERS}
        assert values != {default}, name
    assert BASE["rope_max_wavelength"] != rope_config.DEFAULT_WAVELENGTH


@pytest.mark.parametrize(
    ("architectures", "writes"),
    [
        (["MistralForCausalLM"], True),
        (["Mistral3ForConditionalGeneration"], True),
        (["MistralModel"], False),
        (["MistralForSequenceClassification"], False),
        (["MistralForTokenClassification"], False),
        (None, True),
        ([], True),
        ("MistralModel", True),
        ([1], True),
    ],
)
def test_architectures_with_an_output(architectures, writes):
    assert transformers_config.has_language_output({"architectures": architectures}) is writes


@pytest.mark.parametrize(
    ("outside", "inside", "tied"),
    [
        ({}, {}, True),
        ({}, {"tie_word_embeddings": False}, False),
        ({"tie_word_embeddings": True}, {"tie_word_embeddings": False}, False),
        ({"tie_word_embeddings": False}, {"tie_word_embeddings": True}, False),
    ],
)
def test_whether_it_is_tied_without_the_weights(tmp_path, outside, inside, tied):
    """Where it would take a download to look at them."""
    content = {"model_type": "mistral3", "text_config": inside, **outside}
    found = transformers_config.read_arguments(content, tmp_path, lambda: None)
    assert found["tie_word_embeddings"] is tied


@pytest.mark.parametrize("name", CONFIGS)
def test_dtype_and_quantization_of_published_models(tmp_path, name):
    """Wherever they stand."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[name]))
    preset = Preset.open(tmp_path)
    assert preset.dtype == ("float32" if name == "encoder" else "bfloat16")
    found = transformers_config.read_config_quantization(CONFIGS[name], tmp_path)
    assert (found is not None) == ("quantization_config" in CONFIGS[name])


def test_quantization_may_stand_inside(tmp_path):
    inside = {"quantization_config": {"quant_method": "gptq"}}
    content = {"model_type": "mistral3", "text_config": inside}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"quantized by 'gptq', .* Load the checkpoint from which"):
        read_arguments(tmp_path)
