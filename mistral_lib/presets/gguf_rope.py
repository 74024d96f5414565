"""Rotary positions in GGUF files (chapter 17, "Presets and checkpoints").

For linear scaling and YaRN a file holds their settings. For Llama 3's scaling it holds the result:
a tensor of numbers by which the frequencies are divided.

YaRN multiplies cosines and sines by a factor. There it is 1 + 0.1 log(factor), divided by
1 + 0.1 `yarn_log_multiplier` log(factor), and multiplied by `attn_factor`. See also
https://github.com/ggml-org/llama.cpp/pull/17945.
"""

import math
from typing import Any

import numpy as np

from mistral_lib.config import MistralConfig
from mistral_lib.layers.rotary import attention_factor, rotary_frequencies
from mistral_lib.presets.gguf_files import GgufFile
from mistral_lib.rope_scaling import RopeScaling

ROPE_TENSOR = "rope_freqs.weight"
WAVELENGTH, TYPE, FACTOR = "rope.freq_base", "rope.scaling.type", "rope.scaling.factor"
OLD_FACTOR = "rope.scale_linear"
ORIGINAL = "rope.scaling.original_context_length"
QUERY_FACTOR = "attention.temperature_scale"
LOG_MULTIPLIER, ATTENTION = "rope.scaling.yarn_log_multiplier", "rope.scaling.attn_factor"
EXTRAPOLATION = "rope.scaling.yarn_ext_factor"
# YaRN's settings: transformers' names and llama.cpp's keys.
YARN = {
    "beta_fast": "rope.scaling.yarn_beta_fast",
    "beta_slow": "rope.scaling.yarn_beta_slow",
    "attention_factor": "rope.scaling.yarn_attn_factor",
}
LENGTH = "context_length"
TOLERANCE = 1e-4  # of the divisors in the tensor, which are float32


def read_rope(file: GgufFile, architecture: str) -> dict[str, Any]:
    """The arguments of the backbone for rotary positions.

    Raises:
        ValueError: a scaling that is not known here.
    """

    def get(key: str, default: Any = None) -> Any:
        return file.metadata.get(f"{architecture}.{key}", default)

    wavelength = get(WAVELENGTH, 10000.0)
    kind = get(TYPE, "linear")
    factor = get(FACTOR) or get(OLD_FACTOR) or 1.0
    arguments = {"rope_max_wavelength": wavelength}
    scaling: dict[str, Any] = {}
    if kind == "yarn":
        scaling = {"rope_type": "yarn", "factor": factor, **_read_yarn(file, get, factor)}
    elif kind == "linear":
        arguments["rope_scaling_factor"] = factor
    elif kind != "none":
        raise ValueError(
            f"{file.path}: {architecture}.{TYPE} is {kind!r:.80}, which is not known here. Known "
            "are none, linear and yarn."
        )
    if ROPE_TENSOR in file.kinds:
        scaling |= _read_divisors(file, wavelength, get(ORIGINAL, get(LENGTH)))
    if get(QUERY_FACTOR):
        scaling.setdefault("rope_type", "default")
        scaling["llama_4_scaling_beta"] = get(QUERY_FACTOR)
    if scaling:
        scaling.setdefault("original_max_position_embeddings", get(ORIGINAL, get(LENGTH)))
        arguments["rope_scaling"] = scaling
    return arguments


def _read_yarn(file: GgufFile, get: Any, factor: float) -> dict[str, Any]:
    found = {name: get(key) for name, key in YARN.items() if get(key) is not None}
    if get(EXTRAPOLATION, 1.0) != 1:
        raise ValueError(
            f"{file.path}: {EXTRAPOLATION} is {get(EXTRAPOLATION)!r:.80}, but only YaRN as in its "
            "paper, with 1, is known here."
        )
    if get(LOG_MULTIPLIER):
        found |= {"mscale": 1.0, "mscale_all_dim": get(LOG_MULTIPLIER)}
    if get(ATTENTION, 1.0) != 1:
        found["attention_factor"] = get(ATTENTION) * attention_factor(
            RopeScaling("yarn", factor, 1, **found)
        )
    return found


def _read_divisors(file: GgufFile, wavelength: float, length: Any) -> dict[str, Any]:
    """Llama 3's settings, recovered from the divisors of the frequencies.

    The two ends of its ramp are relative to the original length, which is not in the file, so any
    length will do. Between the ends, the part of a frequency that is kept is linear in it.
    """
    divisors = file.tensors()[ROPE_TENSOR].read().astype("float64")
    if np.all(divisors == 1):
        return {}
    original = length if type(length) is int and length > 0 else 8192
    turns = original * rotary_frequencies(2 * divisors.size, wavelength) / (2 * math.pi)
    factor = divisors.max()
    kept = (1 / divisors - 1 / factor) / (1 - 1 / factor) if factor > 1 else divisors
    low, high = _ramp(turns, kept)
    found = {
        "rope_type": "llama3",
        "factor": factor,
        "original_max_position_embeddings": original,
        "low_freq_factor": low,
        "high_freq_factor": high,
    }
    if factor <= 1 or not 0 < low < high < np.inf or not _explains(found, divisors, wavelength):
        raise ValueError(
            f"{file.path}: {ROPE_TENSOR} divides the rotary frequencies by {divisors[0]:.4g} to "
            f"{divisors[-1]:.4g} in a way that is not Llama 3's, and which is not known here."
        )
    return found


def _ramp(turns: np.ndarray, kept: np.ndarray) -> tuple[float, float]:
    """The beginning and end of a ramp with these heights; if several fit, one in the middle."""
    lowest = turns[kept <= TOLERANCE].max(initial=0)
    highest = turns[kept >= 1 - TOLERANCE].min(initial=np.inf)
    inside = (kept > TOLERANCE) & (kept < 1 - TOLERANCE)
    turns, kept = turns[inside], kept[inside]
    if len(turns) > 1:
        slope, offset = np.polyfit(turns, kept, 1)
        return -offset / slope, (1 - offset) / slope
    if len(turns) == 0:
        return lowest * 1.001, highest * 0.999
    first = max(lowest, (turns[0] - kept[0] * highest) / (1 - kept[0]))
    low = (first + turns[0]) / 2
    return low, low + (turns[0] - low) / kept[0]


def _explains(found: dict[str, Any], divisors: np.ndarray, wavelength: float) -> bool:
    again = frequency_divisors(2 * divisors.size, wavelength, RopeScaling(**found))
    return bool(np.allclose(again, divisors, rtol=TOLERANCE))


def frequency_divisors(size: int, wavelength: float, scaling: RopeScaling) -> np.ndarray:
    """What a scaling divides each rotary frequency by, (h / 2,) float64.

    >>> llama = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    >>> scaling = RopeScaling("llama3", 8.0, 64, **llama)
    >>> frequency_divisors(8, 1e4, scaling).round(2)
    array([1.  , 7.67, 8.  , 8.  ])
    """
    plain = rotary_frequencies(size, wavelength)
    return plain / rotary_frequencies(size, wavelength, scaling)


def architecture_of(config: MistralConfig) -> str:
    """The oldest of llama.cpp's architectures that compute a model.

    Raises:
        ValueError: none does.
    """
    scaling = config.rope_scaling
    if scaling is None:
        return "llama"
    if scaling.rope_type == "dynamic" or scaling.truncate is False:
        what = "rope_type 'dynamic'" if scaling.rope_type == "dynamic" else "truncate=False"
        raise ValueError(
            f"llama.cpp has no rope_scaling with {what}, so this model would compute something "
            "else there. Save it with save_to_preset, or export it to transformers."
        )
    # "llama" takes YaRN with its default settings only.
    needs_mistral3 = scaling.rope_type == "yarn" or scaling.llama_4_scaling_beta
    return "mistral3" if needs_mistral3 else "llama"


def write_rope(config: MistralConfig) -> dict[str, Any]:
    """The metadata on rotary positions, by keys without the name of the architecture."""
    values: dict[str, Any] = {WAVELENGTH: float(config.rope_max_wavelength)}
    scaling: Any = config.rope_scaling
    if config.rope_scaling_factor != 1:
        values |= {TYPE: "linear", FACTOR: float(config.rope_scaling_factor)}
    if scaling is None:
        return values
    if scaling.rope_type == "yarn":
        default = 1 + 0.1 * math.log(scaling.factor)
        values |= {TYPE: "yarn", FACTOR: float(scaling.factor)}
        values |= {YARN[name]: float(getattr(scaling, name)) for name in ("beta_fast", "beta_slow")}
        if scaling.mscale == 1 and scaling.mscale_all_dim and scaling.attention_factor is None:
            values[LOG_MULTIPLIER] = float(scaling.mscale_all_dim)
        elif attention_factor(scaling) != default:
            values[ATTENTION] = attention_factor(scaling) / default
    if scaling.llama_4_scaling_beta:
        values[QUERY_FACTOR] = float(scaling.llama_4_scaling_beta)
    return {**values, ORIGINAL: scaling.original_max_position_embeddings}
