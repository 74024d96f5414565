"""The presets that have a name (chapter 17, "Presets and checkpoints")."""

import difflib
from pathlib import Path
from typing import Any

from mistral_lib.presets.json_files import read_json

DATA = Path(__file__).parent / "data"
SHIPPED = {
    "mistral_tiny_en": "A few million parameters, trained on the text that comes with Python",
}

# Presets that KerasHub publishes: description, number of parameters, version on Kaggle.
PUBLISHED = {
    "mistral_7b_en": ("Mistral 7B base model", 7_241_732_096, 8),
    "mistral_instruct_7b_en": ("Mistral 7B instruct model", 7_241_732_096, 8),
    "mistral_0.2_instruct_7b_en": ("Mistral 7B instruct version 0.2 model", 7_241_732_096, 3),
    "mistral_0.3_7b_en": ("Mistral 7B base version 0.3 model", 7_248_023_552, 1),
    "mistral_0.3_instruct_7b_en": ("Mistral 7B instruct version 0.3 model", 7_248_023_552, 1),
}
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
    for name, (description, size, _) in PUBLISHED.items():
        found[name] = {"metadata": _metadata(description, size), "kaggle_handle": source_of(name)}
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
    return f"kaggle://keras/mistral/keras/{name}/{PUBLISHED[name][2]}" if name in NAMES else None


def description_of(name: str) -> str | None:
    """What a built-in preset is; `None` for any other string."""
    name = ALIASES.get(name, name)
    return SHIPPED.get(name) or PUBLISHED.get(name, (None,))[0]


def unknown_name(name: str) -> str:
    """The message for a name that is not built in.

    >>> print(unknown_name("mistral_7b"))
    There is no preset 'mistral_7b'. Did you mean 'mistral_7b_en'? Built in are ...
    """
    # "mixtral_8_7b_en" is near as well, but no misspelling.
    named = "mistral" in name.lower()
    near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.6 if named else 0.9)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if not (near or named):
        hint = " Only Mistral lives here; for other models use keras_hub."
    return (
        f"There is no preset {name!r}.{hint} Built in are {', '.join(NAMES)}. Others are given "
        "as a folder such as './my_preset', or as 'hf://user/model' or "
        "'kaggle://user/model/keras/variant'."
    )
