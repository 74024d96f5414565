"""mistral_lib/teaching/sampler_sweep.py: settings are found, and mixed to a wanted variety."""

import numpy as np
import pytest

from mistral_lib.teaching import sampler_sweep


def test_settings_with_and_without_a_temperature():
    assert {"temperature": 0.1} in sampler_sweep.settings("temperature")
    plain, hot = sampler_sweep.settings("min_p"), sampler_sweep.settings("min_p", 1.5)
    assert hot == [setting | {"temperature": 1.5} for setting in plain]
    assert sampler_sweep.settings("top_k", 1.5) == []


def test_each_half_has_its_own_texts():
    sizes = {"docstrings": 36, "documents": 26}
    for kind, size in sizes.items():
        for half in ("discover", "confirm"):
            quality, variety = sampler_sweep.measured(kind, half, {"top_k": 3})
            assert len(quality) == len(variety) == size
    assert len(sampler_sweep.people()) == 26


@pytest.mark.parametrize("sampler", sampler_sweep.SAMPLERS)
def test_a_mix_has_the_wanted_variety_where_it_was_chosen(sampler, monkeypatch):
    """On the half that discovers it is exact; the other half has it about."""
    _, variety = sampler_sweep.at_variety("documents", sampler, 0.85)
    assert abs(variety.mean() - 0.85) < 0.05
    swapped = {
        kind: [not one for one in ones] for kind, ones in sampler_sweep.record()["confirms"].items()
    }
    quality = sampler_sweep.measured("documents", "confirm", sampler_sweep.settings(sampler)[0])[0]
    monkeypatch.setitem(sampler_sweep.record(), "confirms", swapped)
    other = sampler_sweep.measured("documents", "discover", sampler_sweep.settings(sampler)[0])[0]
    assert np.array_equal(quality, other)


def test_a_variety_that_no_setting_has_is_refused():
    with pytest.raises(ValueError, match="variety is 2"):
        sampler_sweep.at_variety("documents", "top_k", 2)
