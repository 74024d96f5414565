"""Samplers by name (chapter 16, "Sampling")."""

from typing import Any

import keras

from mistral_lib.samplers.sampler import GreedySampler, RandomSampler, TopKSampler, TopPSampler
from mistral_lib.samplers.search import BeamSampler, ContrastiveSampler

NAMES: dict[str, Any] = {
    "greedy": GreedySampler,
    "random": RandomSampler,
    "top_k": TopKSampler,
    "top_p": TopPSampler,
    "beam": BeamSampler,
    "contrastive": ContrastiveSampler,
}


def get(identifier: Any) -> Any:
    """A sampler from its name, its class or its config; a sampler is returned as it is.

    Args:
        identifier: a name of `NAMES`; a class; what `serialize` returned; a sampler, or any other
            function with the same call arguments; or `None`, which stays `None`.

    Raises:
        ValueError: it is none of these.

    >>> get("top_p").get_config()
    {'temperature': 1.0, 'seed': None, 'p': 0.1, 'k': None}
    >>> get("top_q")
    Traceback (most recent call last):
    ValueError: sampler must be one of 'greedy', 'random', 'top_k', 'top_p', 'beam', ...
    """
    if identifier is None:
        return None
    if isinstance(identifier, dict):
        return deserialize(identifier)
    if isinstance(identifier, str) and identifier in NAMES:
        return NAMES[identifier]()
    if isinstance(identifier, type):
        return identifier()
    if callable(identifier):
        return identifier
    raise ValueError(
        f"sampler must be one of {', '.join(map(repr, NAMES))}, a sampler object or its config, "
        f"but is {identifier!r}. For another way to choose tokens, call generate with "
        "temperature, top_k, top_p, min_p or num_beams, or write a subclass of "
        "mistral_lib.samplers.Sampler."
    )


def serialize(sampler: Any) -> dict[str, Any]:
    """A sampler as a dictionary for JSON: its class and its config."""
    config: Any = keras.saving.serialize_keras_object(sampler)
    return config


def deserialize(config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
    """A sampler from what `serialize` returned.

    If the class has KerasHub's prefix, as in `keras_hub>GreedySampler`, the sampler is the one with
    the same name here.

    Args:
        config: a dictionary with `class_name` and `config`.
        custom_objects: classes of your own by their names.

    >>> deserialize({"class_name": "keras_hub>GreedySampler", "config": {}}).get_config()
    {'temperature': 1.0}
    """
    package, _, name = str(config.get("class_name")).rpartition(">")
    ours = {each.__name__: each for each in NAMES.values()}
    if name in ours and package in ("", "keras_hub", "keras_nlp", "mistral_lib"):
        return ours[name].from_config(config.get("config", {}))
    return keras.saving.deserialize_keras_object(config, custom_objects=custom_objects)
