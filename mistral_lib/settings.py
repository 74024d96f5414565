"""The settings of a model (chapter 13, "Training a Mistral from nothing").

The settings are what a model has besides its architecture and weights: frozen layers, a forced
attention path, and so on. `get_config` keeps all of them, and so do `.keras` files, pickle,
`copy.deepcopy` and `keras.models.clone_model`. A preset contains only architecture and weights.
"""

import warnings
from collections.abc import Callable, Collection
from typing import Any

import keras

from mistral_lib.keras_inside import layers_inside
from mistral_lib.layers.fused import fused_is_available
from mistral_lib.layers.quantizable import Quantizable

CONTEXT_LENGTH = 32768  # of all versions of Mistral 7B

# Which layers are frozen, and which weights are trained: paths, "" for the backbone itself.
Freezing = dict[str, list[str]]


def get_settings(backbone: Any) -> dict[str, Any]:
    """The settings of a backbone, for JSON: only those that differ from a new backbone.

    >>> from mistral_lib import MistralBackbone
    >>> backbone = MistralBackbone(10, 1, 2, 8, 16, 1)
    >>> get_settings(backbone)
    {}
    >>> backbone.rematerialize = True
    >>> get_settings(backbone)
    {'rematerialize': True}
    """
    found = {name: get(backbone) for name, (get, _) in SETTINGS.items()}
    return {name: value for name, value in found.items() if value is not None}


def set_settings(backbone: Any, settings: dict[str, Any]) -> None:
    """Applies the result of `get_settings` to a backbone.

    It must have the same architecture, LoRA and quantization as the backbone that gave them.

    Raises:
        ValueError: a setting that this version does not have.
    """
    unknown = sorted(settings.keys() - SETTINGS.keys())
    if unknown:
        raise ValueError(
            f"settings must be among {', '.join(SETTINGS)}, but one is {unknown[0]!r:.80}. A newer "
            "version of mistral_lib can load it."
        )
    for name, (_, set) in SETTINGS.items():
        if name in settings:
            set(backbone, settings[name])


def get_freezing(backbone: Any) -> Freezing:
    """Which layers of a backbone are frozen, and which weights are trained.

    A quantized matrix counts as trained if it would be trained as a float matrix.

    >>> from mistral_lib import MistralBackbone
    >>> backbone = MistralBackbone(10, 1, 2, 8, 16, 1)
    >>> backbone.layer_norm.trainable = False
    >>> get_freezing(backbone)["frozen_layers"]
    ['sequence_output_layernorm']
    """
    return {
        "frozen_layers": [p for p, layer in _layers(backbone).items() if not layer.trainable],
        "trained_weights": [path for path, trained in _weights(backbone).items() if trained],
    }


def set_freezing(
    backbone: Any, frozen_layers: Collection[str], trained_weights: Collection[str]
) -> None:
    """Applies the result of `get_freezing`: freezes these layers and trains only these weights."""
    layers, frozen, trained = _layers(backbone), set(frozen_layers), set(trained_weights)
    for path, layer in layers.items():  # from the outside to the inside
        # Keras's own setter, because a backbone with LoRA overrides it.
        keras.layers.Layer.trainable.__set__(layer, path not in frozen)
    for variable in backbone.variables:
        is_float = keras.backend.is_float_dtype(variable.dtype)  # int8 has no gradient
        variable.trainable = is_float and variable.path in trained
    for layer in layers.values():
        if isinstance(layer, Quantizable):
            layer.untrained = tuple(
                name for name in layer.matrices if f"{layer.path}/{name}" not in trained
            )


def _layers(backbone) -> dict[str, keras.layers.Layer]:
    """The layers that have weights, by their paths, from the outside to the inside."""
    inside = {layer.path: layer for layer in layers_inside(backbone) if layer.path}
    return {"": backbone, **inside}


def _weights(backbone) -> dict[str, bool]:
    """Whether each weight is trained, by its path."""
    found = {variable.path: variable.trainable for variable in backbone.variables}
    for layer in layers_inside(backbone):
        if isinstance(layer, Quantizable) and layer.quantization_mode is not None:
            for name in layer.matrices:
                found[f"{layer.path}/{name}"] = name not in layer.untrained
    return found


def _base(backbone) -> list[str]:
    """The paths of all weights except LoRA's factors."""
    return [weight.path for weight in backbone.config.weights()]


def _is_adapted(backbone) -> bool:
    return any(getattr(layer, "lora_enabled", False) for layer in layers_inside(backbone))


def _get_freezing(backbone) -> Freezing | None:
    """`None` if all weights are trained, all are frozen, or only LoRA's factors are trained."""
    found = get_freezing(backbone)
    layers, trained = set(found["frozen_layers"]), set(found["trained_weights"])
    if not backbone.trainable:
        usual = len(layers) == len(_layers(backbone)) and not trained
    else:
        weights = _weights(backbone).keys()
        factors = {path for path in weights if "/lora_kernel_" in path}
        usual = not layers and trained == (factors or set(_base(backbone)))
    return None if usual else found


def _set_freezing(backbone, freezing) -> None:
    set_freezing(backbone, **freezing)


def _get_before_lora(backbone) -> Freezing | None:
    """`None` if nothing was frozen before LoRA was enabled."""
    if not _is_adapted(backbone):
        return None
    found = {
        "frozen_layers": list(backbone.frozen_before_lora),
        "trained_weights": list(backbone.frozen_by_lora),
    }
    usual = not found["frozen_layers"] and {*backbone.frozen_by_lora} == {*_base(backbone)}
    return None if usual else found


def _set_before_lora(backbone, freezing) -> None:
    backbone.frozen_before_lora = tuple(freezing["frozen_layers"])
    backbone.frozen_by_lora = tuple(freezing["trained_weights"])


def _get_thawed(backbone) -> Freezing | None:
    if backbone.trainable or not _is_adapted(backbone):
        return None
    return {name: list(paths) for name, paths in backbone.when_thawed.items()}


def _set_thawed(backbone, freezing) -> None:
    backbone.when_thawed = freezing


def _get_paths(backbone) -> list[str] | None:
    paths = [block.self_attention.attention_path for block in backbone.transformer_layers]
    return None if set(paths) == {"auto"} else paths


def _set_paths(backbone, paths) -> None:
    """Forces the path of each block, unless this device does not have it."""
    if "fused" in paths and not fused_is_available(backbone.compute_dtype, backbone.head_dim):
        warnings.warn(
            "attention_path is 'auto' where it was 'fused': there is no fused kernel here.",
            stacklevel=2,
        )
        paths = ["auto" if path == "fused" else path for path in paths]
    for block, path in zip(backbone.transformer_layers, paths, strict=True):
        block.self_attention.attention_path = path


def _get_rematerialize(backbone) -> bool | None:
    return backbone.rematerialize or None


def _set_rematerialize(backbone, on) -> None:
    backbone.rematerialize = on


def _get_context_length(backbone) -> int | None:
    return None if backbone.context_length == CONTEXT_LENGTH else backbone.context_length


def _set_context_length(backbone, length) -> None:
    backbone.context_length = length


# All settings, each with a function that gets it (`None` if it is as in a new backbone) and one
# that sets it. Everything that can be set and is not part of the architecture belongs here.
SETTINGS: dict[str, tuple[Callable, Callable]] = {
    "attention_path": (_get_paths, _set_paths),
    "rematerialize": (_get_rematerialize, _set_rematerialize),
    "context_length": (_get_context_length, _set_context_length),
    "freezing": (_get_freezing, _set_freezing),
    "before_lora": (_get_before_lora, _set_before_lora),
    "when_thawed": (_get_thawed, _set_thawed),
}
