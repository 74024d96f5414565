"""mistral_lib/rope_scaling.py: the settings of rotary scalings, checked once."""

import dataclasses
import json

import numpy as np
import pytest
from copies import COPIES, described

from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.config import MistralConfig
from mistral_lib.rope_scaling import RopeScaling, read_rope_scaling

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}
LLAMA3 = {**YARN, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
QUERY = {"rope_type": "default", "original_max_position_embeddings": 8, "llama_4_scaling_beta": 0.1}
ALL = {
    "yarn": YARN,
    "yarn with everything": {
        **YARN,
        "beta_fast": 16,
        "beta_slow": 2,
        "mscale": 1.5,
        "mscale_all_dim": 0.5,
        "attention_factor": 1.25,
        "truncate": False,
        "llama_4_scaling_beta": 0.1,
    },
    "dynamic": {**YARN, "rope_type": "dynamic"},
    "llama3": LLAMA3,
    "query": QUERY,
}
SIZES = (10, 2, 4, 16, 32, 2)


def changed(scaling, **changes):
    return {**scaling, **changes}


@pytest.mark.parametrize("scaling", ALL.values(), ids=ALL.keys())
def test_they_come_back_from_json(scaling):
    config = MistralConfig(*SIZES, rope_scaling=scaling)
    assert isinstance(config.rope_scaling, RopeScaling)
    kept = config.to_dict()["rope_scaling"]
    assert scaling.items() <= kept.items()
    again = MistralConfig(**json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)
    assert config.changed(rope_scaling=None) == MistralConfig(*SIZES)


@pytest.mark.parametrize("door", COPIES)
def test_every_copy_of_a_model_has_them(tmp_path, door):
    for scaling in (ALL["yarn with everything"], ALL["dynamic"]):
        model = MistralCausalLM(MistralBackbone(*SIZES, rope_scaling=scaling))
        copy, _ = COPIES[door]
        again = copy(model, tmp_path)
        assert described(again) == described(model)
        assert again.backbone.get_config()["rope_scaling"] == scaling
        ids = np.arange(20)[None] % 10
        np.testing.assert_allclose(again.score(ids), model.score(ids), atol=1e-6)


def test_defaults_are_those_of_transformers():
    scaling = read_rope_scaling(YARN)
    assert (scaling.beta_fast, scaling.beta_slow, scaling.truncate) == (32, 1, True)
    assert scaling == read_rope_scaling(changed(YARN, beta_fast=32, mscale=None, truncate=True))
    assert read_rope_scaling(changed(YARN, rope_type="dynamic")).beta_fast is None


@pytest.mark.parametrize("value", [None, {}, {"rope_type": "default"}, {"rope_type": None}])
def test_what_changes_nothing_is_none(value):
    config = MistralConfig(*SIZES, rope_scaling=value)
    assert config == MistralConfig(*SIZES)
    assert config.to_dict()["rope_scaling"] is None


def test_they_cannot_be_changed():
    backbone = MistralBackbone(*SIZES, rope_scaling=YARN)
    with pytest.raises(dataclasses.FrozenInstanceError):
        backbone.rope_scaling.factor = 2
    with pytest.raises(AttributeError, match="rope_scaling is part of the architecture"):
        backbone.rope_scaling = None


def test_numbers_of_numpy_become_those_of_python():
    scaling = read_rope_scaling(
        changed(YARN, factor=np.float32(4), original_max_position_embeddings=np.int64(8))
    )
    assert scaling == read_rope_scaling(YARN)
    json.dumps(scaling.to_dict())


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("yarn", TypeError, "rope_scaling must be a dictionary such as .* but is 'yarn'"),
        ({"factor": 4.0}, ValueError, "must have a rope_type: one of yarn, dynamic, llama3"),
        (changed(YARN, rope_type="Yarn"), ValueError, "rope_type of rope_scaling must be one of"),
        (changed(YARN, rope_type="longrope"), ValueError, "but is 'longrope'"),
        ({"rope_type": "linear", "factor": 4.0}, ValueError, "the argument rope_scaling_factor"),
        (changed(YARN, type="yarn"), ValueError, "no setting 'type'. Is it rope_type"),
        (changed(YARN, betafast=1), ValueError, "no setting 'betafast'. Is it beta_fast"),
        (changed(YARN, rope_theta=1e4), ValueError, "It is the argument rope_max_wavelength"),
        (changed(YARN, finetuned=True), ValueError, "'finetuned'. It takes rope_type, factor"),
        (changed(YARN, factor=None), ValueError, "type 'yarn' must have factor"),
        (changed(LLAMA3, low_freq_factor=None), ValueError, "must have low_freq_factor"),
        (
            {"rope_type": "default", "llama_4_scaling_beta": 0.1},
            ValueError,
            "'default' must have original_max_position_embeddings",
        ),
        (
            changed(LLAMA3, rope_type="dynamic"),
            ValueError,
            "type 'dynamic' must not have high_freq_factor, but it is 4.0",
        ),
        (changed(YARN, factor=0.5), ValueError, "factor of rope_scaling must be from 1 to"),
        (changed(YARN, factor="4"), TypeError, "factor of rope_scaling must be a number"),
        (changed(YARN, factor=True), TypeError, "factor of rope_scaling must be a number"),
        (changed(YARN, factor=float("nan")), ValueError, "factor of rope_scaling must be"),
        (changed(YARN, truncate="no"), TypeError, "truncate of rope_scaling must be True or"),
        (changed(YARN, mscale=-1), ValueError, "mscale of rope_scaling must be at least 0"),
        (changed(YARN, attention_factor=0.0), ValueError, "attention_factor of rope_scaling"),
        (
            changed(YARN, original_max_position_embeddings=8.0),
            TypeError,
            "original_max_position_embeddings of rope_scaling must be an integer",
        ),
        (
            changed(YARN, beta_fast=0.5),
            ValueError,
            r"beta_fast of rope_scaling must be at least beta_slow \(1.0\), but is 0.5",
        ),
        (
            changed(LLAMA3, high_freq_factor=1),
            ValueError,
            r"high_freq_factor of rope_scaling must be above low_freq_factor \(1.0\), but is 1",
        ),
    ],
)
def test_wrong_settings(value, error, message):
    with pytest.raises(error, match=message):
        MistralConfig(*SIZES, rope_scaling=value)


def test_two_scalings_exclude_each_other():
    with pytest.raises(ValueError, match=r"\('yarn'\) and rope_scaling_factor \(2.0\) exclude"):
        MistralBackbone(*SIZES, rope_scaling_factor=2.0, rope_scaling=YARN)
    MistralConfig(*SIZES, rope_scaling_factor=2.0, rope_scaling={"rope_type": "default"})


def test_yarn_needs_the_logarithm_of_the_base():
    with pytest.raises(ValueError, match="rope_max_wavelength must be above 1 for YaRN, but is 1"):
        MistralConfig(*SIZES, rope_max_wavelength=1, rope_scaling=YARN)
    MistralConfig(*SIZES, rope_max_wavelength=1, rope_scaling=LLAMA3)
