"""The names of KerasHub's `samplers` module (chapter 16, "Sampling").

Code for `keras_hub.samplers` runs with the import changed:

>>> from mistral_lib import samplers
>>> samplers.get("top_k").get_config()
{'temperature': 1.0, 'seed': None, 'k': 5}
"""

from mistral_lib.samplers.named import deserialize, get, serialize
from mistral_lib.samplers.sampler import (
    GreedySampler,
    RandomSampler,
    Sampler,
    TopKSampler,
    TopPSampler,
)
from mistral_lib.samplers.search import BeamSampler, ContrastiveSampler

__all__ = [
    "BeamSampler",
    "ContrastiveSampler",
    "GreedySampler",
    "RandomSampler",
    "Sampler",
    "TopKSampler",
    "TopPSampler",
    "deserialize",
    "get",
    "serialize",
]
