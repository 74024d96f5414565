"""Rotary positions as other programs write them (chapter 17, "Presets and checkpoints").

Transformers had `rope_theta` and `rope_scaling` in its config, and has `rope_parameters` since
version 5; Mistral's own `params.json` has `rope_theta`, `yarn` and `llama_4_scaling`. All of them
become three arguments here: `rope_max_wavelength`, `rope_scaling_factor` and `rope_scaling`.

Source: transformers 5.23, `modeling_rope_utils.py`; vLLM, `transformers_utils/configs/mistral.py`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mistral_lib.config import MistralConfig

DEFAULT_WAVELENGTH = 10000.0
ORIGINAL = "original_max_position_embeddings"
QUERY_FACTOR = "llama_4_scaling_beta"
LENGTH = "max_position_embeddings"

# What each type of scaling must have besides the wavelength, and what it may have.
TYPES = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    "dynamic": (("factor", ORIGINAL), ()),
    "llama3": (("factor", ORIGINAL, "low_freq_factor", "high_freq_factor"), ()),
    "yarn": (
        ("factor", ORIGINAL),
        ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    ),
}
NAMES = {name for parts in TYPES.values() for part in parts for name in part}
# Entries that change nothing; Yarn-Mistral has "finetuned".
IGNORED = {"rope_type", "type", "rope_theta", "finetuned", "max_position_embeddings"}

# Mistral's names of YaRN's settings, and transformers' names.
YARN = {"factor": "factor", ORIGINAL: ORIGINAL, "beta": "beta_fast", "alpha": "beta_slow"}


def read_rope(content: Mapping[str, Any], file: Path, length: Any) -> dict[str, Any]:
    """The three arguments for rotary positions, from a config of transformers.

    As there, the old place of the scaling takes precedence over the new one, a wavelength inside
    the scaling over one at the top, and settings of another type of scaling are ignored.

    Args:
        content: the config, or the part of it that describes the text model.
        file: the file that it was read from, for errors.
        length: `max_position_embeddings`, used as the original length if none is given.

    Raises:
        ValueError: a type or a name is not known here, or a number is missing.

    >>> yarn = {"type": "yarn", "factor": 16.0, "original_max_position_embeddings": 8192}
    >>> content = {"rope_theta": 1e6, "rope_scaling": yarn}
    >>> read_rope(content, Path("config.json"), 131072)["rope_scaling"]
    {'rope_type': 'yarn', 'factor': 16.0, 'original_max_position_embeddings': 8192}
    """
    place = next((p for p in ("rope_scaling", "rope_parameters") if content.get(p)), None)
    rope = content[place] if place else {}
    if not isinstance(rope, dict):
        raise ValueError(f"{file}: {place} must be an object, but is {rope!r:.80}.")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if not (isinstance(kind, str) and kind in TYPES):
        raise ValueError(
            f"{file}: {place} has the type {kind!r:.80}, which is not known here. Known are "
            f"{', '.join(TYPES)}."
        )
    has_query_factor = content.get("model_type") == "ministral3"
    known = NAMES | IGNORED | ({QUERY_FACTOR} if has_query_factor else set())
    unknown = sorted(set(rope) - known - {"partial_rotary_factor"})
    if unknown or rope.get("partial_rotary_factor", 1) not in (1, None):
        name = unknown[0] if unknown else "partial_rotary_factor"
        raise ValueError(
            f"{file}: {place} has {name} = {rope[name]!r:.80}, which has no meaning here: every "
            "feature of every layer is turned in the same way."
        )
    needed, others = TYPES[kind]
    scaling = {name: rope[name] for name in (*needed, *others) if rope.get(name) is not None}
    if kind == "dynamic":  # which starts at the length of the config, even if another is given
        scaling[ORIGINAL] = length
    elif ORIGINAL in needed:
        scaling.setdefault(ORIGINAL, length)
    if rope.get(QUERY_FACTOR):
        needed = (*needed, ORIGINAL)
        scaling |= {name: rope[name] for name in (ORIGINAL, QUERY_FACTOR) if name in rope}
    missing = [name for name in needed if name not in scaling]
    if missing:
        raise ValueError(f"{file}: {place} has the type {kind!r}, but no {missing[0]}.")
    wavelength = rope.get("rope_theta", content.get("rope_theta", DEFAULT_WAVELENGTH))
    return _arguments(wavelength, kind, scaling)


def _arguments(wavelength: Any, kind: str, scaling: dict[str, Any]) -> dict[str, Any]:
    """The three arguments; for linear scaling, one of them is enough."""
    factor = scaling.pop("factor") if kind == "linear" else 1.0
    if not (scaling.get("mscale") and scaling.get("mscale_all_dim")):
        # Transformers uses both or neither, and treats 0 as missing.
        scaling = {n: v for n, v in scaling.items() if n not in ("mscale", "mscale_all_dim")}
    kind = "default" if kind == "linear" else kind
    return {
        "rope_max_wavelength": wavelength,
        "rope_scaling_factor": factor,
        "rope_scaling": {"rope_type": kind, **scaling} if scaling else None,
    }


def read_native_rope(params: Mapping[str, Any], file: Path, wavelength: Any) -> dict[str, Any]:
    """The same three arguments, from Mistral's own `params.json`.

    Args:
        params: the contents of the file.
        file: the file, for errors.
        wavelength: what is used if `rope_theta` is missing.

    Raises:
        ValueError: `yarn` or `llama_4_scaling` lacks a number or has one that is not known here, or
            the two disagree about the original length.

    >>> yarn = {"factor": 16, "beta": 32, "alpha": 1, "apply_scale": False}
    >>> yarn["original_max_position_embeddings"] = 16384
    >>> read_native_rope({"yarn": yarn}, Path("params.json"), 1e6)["rope_scaling"]["beta_fast"]
    32
    """
    yarn, query = params.get("yarn") or {}, params.get("llama_4_scaling") or {}
    _check_object(yarn, "yarn", YARN, {*YARN, "apply_scale"}, file)
    _check_object(query, "llama_4_scaling", (ORIGINAL, "beta"), {ORIGINAL, "beta"}, file)
    scaling = {theirs: yarn[name] for name, theirs in YARN.items()} if yarn else {}
    if yarn and not yarn.get("apply_scale", True):  # then cosines and sines keep their size
        scaling["attention_factor"] = 1.0
    if query.get("beta"):
        if scaling.setdefault(ORIGINAL, query[ORIGINAL]) != query[ORIGINAL]:
            raise ValueError(
                f"{file}: yarn and llama_4_scaling have the {ORIGINAL} {scaling[ORIGINAL]!r:.40} "
                f"and {query[ORIGINAL]!r:.40}, but here they must be the same."
            )
        scaling[QUERY_FACTOR] = query["beta"]
    wavelength = params.get("rope_theta", wavelength)
    return _arguments(wavelength, "yarn" if yarn else "default", scaling)


def _check_object(found: Any, name: str, needed: Any, known: set[str], file: Path) -> None:
    """Refuses what is not an object, and an object with missing or unknown keys."""
    if not isinstance(found, dict):
        raise ValueError(f"{file}: {name} must be an object, but is {found!r:.80}.")
    for key in set(needed) - set(found) if found else ():
        raise ValueError(f"{file}: {name} has no {key}. Get the file again from its source.")
    for key in sorted(set(found) - known):
        raise ValueError(
            f"{file}: {name} has {key} = {found[key]!r:.80}, which is not known here. Known are "
            f"{', '.join(sorted(known))}."
        )


def write_rope(config: MistralConfig, model_type: str) -> dict[str, Any]:
    """The entries of a config of transformers that mean the same as the three arguments.

    They are named `rope_theta` and `rope_scaling`, which every version reads; for "ministral3",
    which only version 5 knows, they are in `rope_parameters`.

    >>> config = MistralConfig(10, 2, 4, 16, 32, 2, rope_scaling_factor=4)
    >>> write_rope(config, "mistral")["rope_scaling"]["factor"]
    4.0
    """
    wavelength, scaling = float(config.rope_max_wavelength), None
    if config.rope_scaling_factor != 1:
        scaling = {"rope_type": "linear", "factor": config.rope_scaling_factor}
    elif config.rope_scaling is not None:
        scaling = config.rope_scaling.to_dict()
        if model_type != "ministral3":
            scaling.pop(QUERY_FACTOR, None)  # which is 0
    more = {}
    if scaling is not None:
        # Versions before 4.45 call the type `type`, and accept no int as a factor.
        scaling["type"] = scaling["rope_type"]
        scaling |= {name: float(scaling[name]) for name in ("factor",) if name in scaling}
        if scaling["type"] == "dynamic":
            more[LENGTH] = scaling[ORIGINAL]
    if model_type == "ministral3":
        return {"rope_parameters": {"rope_theta": wavelength, **(scaling or {})}, **more}
    return {"rope_theta": wavelength, "rope_scaling": scaling, **more}
