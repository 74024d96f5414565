"""mistral_lib/presets/rope_config.py: rotary positions in configs, in and out."""

from pathlib import Path

import pytest

from mistral_lib.config import MistralConfig
from mistral_lib.presets.rope_config import read_native_rope, read_rope, write_rope

FILE = Path("config.json")
LENGTH = 4096
SIZES = (10, 2, 4, 16, 32, 2)
ORIGINAL = {"original_max_position_embeddings": 64}
WHOLE = {"original_max_position_embeddings": LENGTH}
YARN = {"rope_type": "yarn", "factor": 4.0, **ORIGINAL}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0}


def read(content, length=LENGTH):
    return read_rope(content, FILE, length)


def as_before_5(rope):
    """The old places of a scaling and its wavelength."""
    rope = dict(rope)
    return {
        "rope_theta": rope.pop("rope_theta"),
        "rope_scaling": {"type": rope.pop("rope_type"), **rope},
    }


# --- transformers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "wavelength", "factor"),
    [
        ({}, 1e4, 1),
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
def test_places_of_the_wavelength(content, wavelength, factor):
    expected = {"rope_max_wavelength": wavelength, "rope_scaling_factor": factor}
    assert read(content) == {**expected, "rope_scaling": None}


@pytest.mark.parametrize(
    ("rope", "scaling"),
    [
        (YARN, YARN),
        (
            {"rope_type": "yarn", "factor": 4.0},
            {**YARN, "original_max_position_embeddings": LENGTH},
        ),
        ({**YARN, "finetuned": True, "max_position_embeddings": 9}, YARN),
        ({**YARN, "beta_fast": 8, "truncate": False}, {**YARN, "beta_fast": 8, "truncate": False}),
        ({**YARN, "attention_factor": None, "beta_slow": None}, YARN),
        ({**YARN, "mscale": 1.0, "mscale_all_dim": 0.0}, YARN),
        ({**YARN, "mscale": 1.0}, YARN),
        ({**YARN, "mscale": 0.7, "mscale_all_dim": 0.5},) * 2,
        ({**LLAMA3, **ORIGINAL},) * 2,
        # Whatever is said, transformers goes by the length of the config.
        ({**DYNAMIC, **ORIGINAL}, {**DYNAMIC, **WHOLE}),
        (DYNAMIC, {**DYNAMIC, **WHOLE}),
        # What belongs to another type, transformers ignores.
        ({"rope_type": "default", "factor": 8.0, "beta_fast": 4}, None),
    ],
)
def test_scalings(rope, scaling):
    """In the place of today, and in the old one."""
    rope = {**rope, "rope_theta": 1e5}
    for content in ({"rope_parameters": rope}, as_before_5(rope)):
        found = read(content)
        assert found == {
            "rope_max_wavelength": 1e5,
            "rope_scaling_factor": 1.0,
            "rope_scaling": scaling,
        }
        MistralConfig(*SIZES, **found)


def test_query_factor():
    beta = {"llama_4_scaling_beta": 0.1}
    content = {"model_type": "ministral3", "rope_parameters": {**YARN, **beta}}
    assert read(content)["rope_scaling"] == {**YARN, **beta}
    content["rope_parameters"] = {"rope_type": "default", **beta, **ORIGINAL}
    assert read(content)["rope_scaling"] == {"rope_type": "default", **beta, **ORIGINAL}
    content["rope_parameters"] = {**YARN, "llama_4_scaling_beta": 0}  # Devstral 2
    assert read(content)["rope_scaling"] == YARN


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"rope_scaling": {"type": "longrope"}},
            "the type 'longrope', which is not known here",
        ),
        ({"rope_parameters": {"rope_type": ["a"]}}, r"has the type \['a'\]"),
        ({"rope_scaling": {"type": "linear"}}, "the type 'linear', but no factor"),
        ({"rope_scaling": {"type": "yarn", **ORIGINAL}}, "the type 'yarn', but no factor"),
        ({"rope_scaling": {**LLAMA3, "low_freq_factor": None}}, "but no low_freq_factor"),
        ({"rope_scaling": "linear"}, "rope_scaling must be an object"),
        ({"rope_parameters": {"full_attention": {}}}, "has full_attention = {}"),
        ({"rope_scaling": {"partial_rotary_factor": 0.5}}, "has partial_rotary_factor = 0.5"),
        # Only a Ministral 3 scales queries there; for others transformers ignores it.
        ({"rope_scaling": {**YARN, "llama_4_scaling_beta": 0.1}}, "has llama_4_scaling_beta = 0.1"),
        (
            {
                "model_type": "ministral3",
                "rope_parameters": {"rope_type": "default", "llama_4_scaling_beta": 0.1},
            },
            "but no original_max_position_embeddings",
        ),
    ],
)
def test_refused(content, message):
    with pytest.raises(ValueError, match=rf"^config\.json: .*{message}"):
        read(content)


@pytest.mark.peer
@pytest.mark.parametrize(
    "content",
    [
        {"rope_parameters": {"rope_theta": 1e5}, "rope_scaling": {"type": "linear", "factor": 8.0}},
        {"rope_scaling": {"type": "yarn", "factor": 4.0}, "rope_theta": 1e6},
        {"rope_parameters": {**YARN, "rope_theta": 1e6}, "rope_theta": 1e5},
        {"rope_scaling": {**LLAMA3, **ORIGINAL}},
    ],
)
def test_transformers_decides_so_too(content):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    theirs = transformers.MistralConfig(max_position_embeddings=LENGTH, **content).rope_parameters
    ours = read(content)
    assert ours["rope_max_wavelength"] == theirs["rope_theta"]
    scaling = {key: value for key, value in theirs.items() if key not in ("rope_theta", "type")}
    if scaling["rope_type"] == "linear":
        assert ours["rope_scaling_factor"] == scaling["factor"]
    else:
        assert ours["rope_scaling"] == scaling


# --- params.json ---------------------------------------------------------------------------------

NATIVE = {"factor": 16, "beta": 32, "alpha": 1, "apply_scale": True, **ORIGINAL}
AS_HERE = {"rope_type": "yarn", "factor": 16, "beta_fast": 32, "beta_slow": 1, **ORIGINAL}


@pytest.mark.parametrize(
    ("params", "scaling"),
    [
        ({}, None),
        ({"yarn": NATIVE}, AS_HERE),
        ({"yarn": {**NATIVE, "apply_scale": False}}, {**AS_HERE, "attention_factor": 1.0}),
        (
            {"yarn": NATIVE, "llama_4_scaling": {"beta": 0.1, **ORIGINAL}},
            {**AS_HERE, "llama_4_scaling_beta": 0.1},
        ),
        (
            {"llama_4_scaling": {"beta": 0.1, **ORIGINAL}},
            {"rope_type": "default", "llama_4_scaling_beta": 0.1, **ORIGINAL},
        ),
        ({"llama_4_scaling": {"beta": 0, **ORIGINAL}}, None),
    ],
)
def test_mistrals_own(params, scaling):
    for theta, wavelength in (({}, 1e4), ({"rope_theta": 1e6}, 1e6)):
        found = read_native_rope({**params, **theta}, FILE, 1e4)
        assert found == {
            "rope_max_wavelength": wavelength,
            "rope_scaling_factor": 1.0,
            "rope_scaling": scaling,
        }
        MistralConfig(*SIZES, **found)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"yarn": 16}, "yarn must be an object"),
        ({"yarn": {"factor": 16}}, "yarn has no (alpha|beta|original_max_position_embeddings)"),
        (
            {"yarn": {**NATIVE, "gamma": 1}},
            "yarn has gamma = 1, which is not known here",
        ),
        ({"llama_4_scaling": {"beta": 0.1}}, "llama_4_scaling has no original_max_position_emb"),
        (
            {
                "yarn": NATIVE,
                "llama_4_scaling": {"beta": 0.1, **WHOLE},
            },
            "yarn and llama_4_scaling have the original_max_position_embeddings 64 and 4096",
        ),
    ],
)
def test_mistrals_own_refused(params, message):
    with pytest.raises(ValueError, match=rf"^config\.json: {message}"):
        read_native_rope(params, FILE, 1e4)


# --- Out again -----------------------------------------------------------------------------------


TYPES = ["mistral", "ministral", "ministral3"]
EVERY_TYPE = [
    {},
    {"rope_max_wavelength": 500, "rope_scaling_factor": 4},
    {"rope_scaling": YARN | {"truncate": False, "mscale": 0.7, "mscale_all_dim": 0.5}},
    {"rope_scaling": LLAMA3 | ORIGINAL},
    {"rope_scaling": DYNAMIC | ORIGINAL},
]
ONLY_MINISTRAL3 = [
    {"rope_scaling": YARN | {"llama_4_scaling_beta": 0.1}},
    {"rope_scaling": {"rope_type": "default", "llama_4_scaling_beta": 0.1} | ORIGINAL},
]
WRITTEN = [
    *((type, arguments) for type in TYPES for arguments in EVERY_TYPE),
    *(("ministral3", arguments) for arguments in ONLY_MINISTRAL3),
]


@pytest.mark.parametrize(("type", "arguments"), WRITTEN)
def test_written_and_read(type, arguments):
    config = MistralConfig(*SIZES, **arguments)
    written = write_rope(config, type)
    length = written.get("max_position_embeddings", LENGTH)
    found = read_rope({"model_type": type, **written}, FILE, length)
    assert MistralConfig(*SIZES, **found) == config
