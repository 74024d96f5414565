"""The presets that have a name (chapter 17, "Presets and checkpoints")."""

import difflib
from pathlib import Path
from typing import Any, NamedTuple

from mistral_lib.config import MistralConfig
from mistral_lib.presets.json_files import read_json

DATA = Path(__file__).parent / "data"
SHIPPED = {
    "mistral_tiny_en": "A few million parameters, trained on the text that comes with Python",
}

# The architectures of KerasHub's presets, which therefore need not be downloaded to be known.
MISTRAL_7B = {
    "vocabulary_size": 32000,
    "num_layers": 32,
    "num_query_heads": 32,
    "hidden_dim": 4096,
    "intermediate_dim": 14336,
    "num_key_value_heads": 8,
    "rope_max_wavelength": 10000.0,
    "layer_norm_epsilon": 1e-5,
    "sliding_window": 4096,
}
MISTRAL_7B_2 = {**MISTRAL_7B, "rope_max_wavelength": 1e6, "sliding_window": None}
MISTRAL_7B_3 = {**MISTRAL_7B_2, "vocabulary_size": 32768}
MAGISTRAL_SMALL = {
    "vocabulary_size": 131072,
    "num_layers": 40,
    "num_query_heads": 32,
    "hidden_dim": 5120,
    "intermediate_dim": 32768,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rope_max_wavelength": 1e9,
    "layer_norm_epsilon": 1e-5,
    "sliding_window": None,
}
MISTRAL, MAGISTRAL = "kaggle://keras/mistral/keras", "kaggle://keras/magistral/keras"


class Published(NamedTuple):
    """A preset that KerasHub publishes."""

    description: str
    place: str
    version: int
    arguments: dict[str, Any]


PUBLISHED = {
    "mistral_7b_en": Published("Mistral 7B base model", MISTRAL, 8, MISTRAL_7B),
    "mistral_instruct_7b_en": Published("Mistral 7B instruct model", MISTRAL, 8, MISTRAL_7B),
    "mistral_0.2_instruct_7b_en": Published(
        "Mistral 7B instruct version 0.2 model", MISTRAL, 3, MISTRAL_7B_2
    ),
    "mistral_0.3_7b_en": Published("Mistral 7B base version 0.3 model", MISTRAL, 1, MISTRAL_7B_3),
    "mistral_0.3_instruct_7b_en": Published(
        "Mistral 7B instruct version 0.3 model", MISTRAL, 1, MISTRAL_7B_3
    ),
    "magistral_small_2506_en": Published(
        "Magistral Small 2506 model", MAGISTRAL, 1, MAGISTRAL_SMALL
    ),
    "magistral_small_2507_en": Published(
        "Magistral Small 2507 model", MAGISTRAL, 1, MAGISTRAL_SMALL
    ),
}
FAMILY = ("mistral", "ministral", "magistral", "devstral", "mathstral")  # Mistral's own names
NAMES = (*SHIPPED, *PUBLISHED)

# KerasNLP's documentation has an example with a name that was never published.
ALIASES = {"mistral7b_base_en": "mistral_7b_en"}


def presets() -> dict[str, dict[str, Any]]:
    """The built-in presets by name.

    Returns:
        For each name a dictionary of `metadata`, which has a `description`, the number of `params`
        and KerasHub's `path`; and of either a `folder`, if the preset ships with the library, or a
        `kaggle_handle`.

    >>> presets()["mistral_7b_en"]["metadata"]["params"]
    7241732096
    """
    found = {}
    for name, description in SHIPPED.items():
        size = read_json(DATA / name / "metadata.json")["parameter_count"]
        found[name] = {"metadata": _metadata(description, size), "folder": source_of(name)}
    for name, preset in PUBLISHED.items():
        size = MistralConfig.from_arguments(preset.arguments).count_params()
        metadata = _metadata(preset.description, size)
        found[name] = {"metadata": metadata, "kaggle_handle": source_of(name)}
    return found


def _metadata(description: str, size: int) -> dict[str, Any]:
    return {"description": description, "params": size, "path": "mistral"}


class PresetTable:
    """A class attribute whose value is `presets()`, made anew each time it is read."""

    def __get__(self, instance: Any, owner: type | None = None) -> dict[str, dict[str, Any]]:
        return presets()


def source_of(name: str) -> str | None:
    """The folder or Kaggle handle behind a built-in name; `None` for any other string."""
    name = ALIASES.get(name, name)
    if name in SHIPPED:
        return str(DATA / name)
    if name not in PUBLISHED:
        return None
    return f"{PUBLISHED[name].place}/{name}/{PUBLISHED[name].version}"


def arguments_of(name: str) -> dict[str, Any] | None:
    """The architecture of a preset that KerasHub publishes; `None` for any other string.

    >>> arguments_of("magistral_small_2506_en")["head_dim"]
    128
    """
    preset = PUBLISHED.get(ALIASES.get(name, name))
    return None if preset is None else preset.arguments


def description_of(name: str) -> str | None:
    """What a built-in preset is; `None` for any other string."""
    name = ALIASES.get(name, name)
    return PUBLISHED[name].description if name in PUBLISHED else SHIPPED.get(name)


def unknown_name(name: str) -> str:
    """The message for a name that is not built in.

    >>> print(unknown_name("mistral_7b"))
    There is no preset 'mistral_7b'. Did you mean 'mistral_7b_en'? Built in are ...
    """
    # "mixtral_8_7b_en" is near as well, but no misspelling.
    named = any(part in name.lower() for part in FAMILY)
    near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.6 if named else 0.9)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if not (near or named):
        hint = " Only Mistral lives here; for other models use keras_hub."
    return (
        f"There is no preset {name!r}.{hint} Built in are {', '.join(NAMES)}. Others are given "
        "as a folder such as './my_preset', or as 'hf://user/model' or "
        "'kaggle://user/model/keras/variant'."
    )
