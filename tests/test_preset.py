"""mistral_lib/presets/preset.py: a preset is opened once, and everything is read from it."""

import shutil
import sys
from collections import Counter

import pytest
from reference.make_formats import FOLDER
from small_presets import KERAS_HUB, small_causal_lm

from mistral_lib import MistralCausalLM

PRESETS = {
    "KerasHub": KERAS_HUB["single"],
    "KerasHub in shards": KERAS_HUB["sharded"],
    "transformers": FOLDER / "single",
    "transformers in shards": FOLDER / "sharded",
    "Mistral": FOLDER / "mistral_full",
}
COUNTED = {
    "open_source": "sources opened",
    "format_of": "formats decided",
    "MistralBackbone.__init__": "backbones built",
    "Projection.__init__": "projections built",
}


def counts(load) -> Counter:
    """How often each was done while something was loaded, and how often each JSON file was read."""
    found = Counter()

    def watch(frame, event, argument):
        if event != "call":
            return
        name = frame.f_code.co_qualname
        if name in COUNTED:
            found[COUNTED[name]] += 1
        elif name == "read_json":
            found[frame.f_locals["file"].name] += 1

    sys.setprofile(watch)
    try:
        load()
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("folder", PRESETS.values(), ids=PRESETS)
@pytest.mark.parametrize("options", [{}, {"dtype": "auto", "quantization": "int4"}], ids=str)
def test_everything_is_done_once(folder, options):
    model = MistralCausalLM.from_preset(folder)
    found = counts(lambda: MistralCausalLM.from_preset(folder, **options))
    assert found.pop("sources opened") == 1
    assert found.pop("formats decided") == 1
    assert found.pop("backbones built") == 1
    assert found.pop("projections built") == 7 * model.backbone.num_layers
    assert found
    assert set(found.values()) == {1}, found


def test_by_name_too():
    found = counts(lambda: MistralCausalLM.from_preset("mistral_tiny_en"))
    assert found.pop("projections built") == 7 * 6
    assert set(found.values()) == {1}, found


def test_random_weights_take_one_model_too():
    found = counts(lambda: MistralCausalLM.from_preset(KERAS_HUB["single"], load_weights=False))
    assert (found["backbones built"], found["sources opened"]) == (1, 1)


def test_an_adapter_takes_no_other_model(tmp_path):
    model = small_causal_lm()
    model.backbone.enable_lora(2)
    model.save_to_preset(tmp_path)
    found = counts(lambda: MistralCausalLM.from_preset(tmp_path))
    assert (found["backbones built"], found["sources opened"]) == (1, 1)
