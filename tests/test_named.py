"""mistral_lib/samplers/named.py: samplers by name, config and class."""

import keras
import pytest

from mistral_lib import samplers
from mistral_lib.samplers.named import NAMES


@keras.saving.register_keras_serializable(package="test_named")
class Own(samplers.TopKSampler):
    """A sampler of a user."""


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_one_of_a_class_and_comes_back_from_its_config(name):
    sampler = samplers.get(name)
    assert type(sampler) is NAMES[name]
    for identifier in (samplers.serialize(sampler), type(sampler)):
        again = samplers.get(identifier)
        assert type(again) is type(sampler)
        assert again.get_config() == sampler.get_config()
    assert samplers.get(sampler) is sampler


def test_configs_of_keras_hub_and_of_users():
    theirs = {"class_name": "keras_hub>TopKSampler", "config": {"k": 7, "temperature": 0.5}}
    sampler = samplers.get(theirs)
    assert type(sampler) is samplers.TopKSampler
    assert (sampler.k, sampler.temperature) == (7, 0.5)
    own = samplers.deserialize(samplers.serialize(Own(k=3)))
    assert (type(own), own.k) == (Own, 3)
    assert samplers.get(None) is None
    assert samplers.get(len) is len


@pytest.mark.parametrize("identifier", ["Greedy", "speculative", 3, ["greedy"]])
def test_what_is_no_sampler(identifier):
    with pytest.raises(
        ValueError, match=r"sampler must be one of 'greedy', .* or write a subclass"
    ):
        samplers.get(identifier)
