"""mistral_lib/presets/registry.py: the presets that have a name."""

import pytest

from mistral_lib import Backbone, MistralBackbone, MistralCausalLM, without_weights
from mistral_lib.presets.registry import (
    ALIASES,
    PUBLISHED,
    SHIPPED,
    arguments_of,
    presets,
    source_of,
    unknown_name,
)

# KerasHub's numbers.
PARAMETERS = {
    "mistral_7b_en": 7_241_732_096,
    "mistral_instruct_7b_en": 7_241_732_096,
    "mistral_0.2_instruct_7b_en": 7_241_732_096,
    "mistral_0.3_7b_en": 7_248_023_552,
    "mistral_0.3_instruct_7b_en": 7_248_023_552,
    "magistral_small_2506_en": 23_572_403_200,
    "magistral_small_2507_en": 23_572_403_200,
}


@pytest.mark.parametrize("cls", [Backbone, MistralBackbone, MistralCausalLM])
def test_every_class_names_them(cls):
    assert cls.presets == presets()
    cls.presets.clear()  # a copy
    assert "mistral_7b_en" in cls.presets


def test_an_instance_names_them():
    with without_weights():
        assert MistralBackbone(10, 1, 2, 8, 16, 1).presets == presets()


def test_entries():
    assert list(presets()) == [*SHIPPED, *PUBLISHED]
    for name, entry in presets().items():
        metadata = entry.pop("metadata")
        assert metadata.keys() == {"description", "params", "path"}
        assert isinstance(metadata["params"], int)
        assert len(entry) == 1
        assert source_of(name) in entry.values()


def test_shipped_presets_are_here():
    for name in SHIPPED:
        entry = presets()[name]
        backbone = MistralBackbone.from_preset(name)
        assert backbone.count_params() == entry["metadata"]["params"]


def test_numbers_of_parameters():
    """They follow from the architectures, which stand here."""
    assert {name: presets()[name]["metadata"]["params"] for name in PUBLISHED} == PARAMETERS
    with without_weights():
        backbone = MistralBackbone(**arguments_of("magistral_small_2507_en"))
    assert backbone.count_params() == PARAMETERS["magistral_small_2507_en"]
    assert (backbone.head_dim, backbone.sliding_window) == (128, None)


@pytest.mark.parametrize("name", ["mistral_tiny_en", "mistral_8b", "hf://user/model"])
def test_only_what_keras_hub_publishes_has_a_table(name):
    assert arguments_of(name) is None
    assert arguments_of("mistral7b_base_en") == arguments_of("mistral_7b_en")


def test_handles_of_keras_hub():
    assert source_of("mistral_7b_en") == "kaggle://keras/mistral/keras/mistral_7b_en/8"
    name = "mistral_0.2_instruct_7b_en"
    assert source_of(name) == f"kaggle://keras/mistral/keras/{name}/3"
    name = "magistral_small_2506_en"
    assert source_of(name) == f"kaggle://keras/magistral/keras/{name}/1"


@pytest.mark.peer
def test_keras_hub_has_the_same():
    hub = pytest.importorskip("keras_hub.models", reason="KerasHub is not installed")
    theirs = hub.MistralBackbone.presets
    for name in PUBLISHED:
        assert presets()[name] == theirs[name]


def test_name_of_the_documentation():
    """The documented example calls from_preset("mistral7b_base_en")."""
    assert source_of("mistral7b_base_en") == source_of("mistral_7b_en")
    assert not set(ALIASES) & set(presets())


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("mistral_7b", "mistral_7b_en"),
        ("mistral_tiny", "mistral_tiny_en"),
        ("mistral_0.3_instruct_7b", "mistral_0.3_instruct_7b_en"),
        ("Mistral_7B_en", "mistral_7b_en"),
        ("mstral_7b_en", "mistral_7b_en"),
        ("magistral_small_2506", "magistral_small_2506_en"),
        ("Magistral-Small-2507", "magistral_small_2507_en"),
    ],
)
def test_nearest_name(name, nearest):
    assert source_of(name) is None
    assert f"Did you mean {nearest!r}?" in unknown_name(name)


@pytest.mark.parametrize("name", ["Devstral-Small-2505", "magistral_medium", "ministral_8b_en"])
def test_a_model_of_the_family_is_not_sent_away(name):
    """Its weights open here, from a folder or from Hugging Face."""
    message = unknown_name(name)
    assert "Only Mistral lives here" not in message
    assert "'hf://user/model'" in message


@pytest.mark.parametrize("name", ["gemma_2b_en", "bert_base_en", "mixtral_8_7b_en"])
def test_the_name_of_another_model(name):
    message = unknown_name(name)
    assert "Only Mistral lives here; for other models use keras_hub." in message
    assert "Did you mean" not in message
    assert all(name in message for name in presets())


def test_no_name_is_near():
    message = unknown_name("my_own_mistral_with_another_window")
    assert "Did you mean" not in message
    assert "Only Mistral lives here" not in message
