"""Settings for texts longer than those in training (chapter 5, "Rotary positions")."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from mistral_lib.checks import check_boolean, check_choice, check_integer, check_number, check_range

# The settings that each type requires, and YaRN's other settings with transformers' defaults.
REQUIRED = {
    "yarn": ("factor", "original_max_position_embeddings"),
    "dynamic": ("factor", "original_max_position_embeddings"),
    "llama3": (
        "factor",
        "original_max_position_embeddings",
        "low_freq_factor",
        "high_freq_factor",
    ),
    "default": ("llama_4_scaling_beta", "original_max_position_embeddings"),
}
YARN_DEFAULTS = {
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": None,
    "mscale_all_dim": None,
    "attention_factor": None,
    "truncate": True,
}
ADVICE = {
    "rope_theta": "It is the argument rope_max_wavelength.",
    "max_position_embeddings": "The length in training is original_max_position_embeddings.",
    "partial_rotary_factor": "Every feature of a head is turned here.",
}

# A number if the type of scaling uses the setting, otherwise `None`.
Setting = Any


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How rotary positions are changed for texts longer than those in training.

    The names and the results are those of transformers' `rope_parameters`. A setting that is not
    given is `None`, except that YaRN's settings have defaults.

    Args:
        rope_type: "yarn" makes long wavelengths longer, keeps short ones and sharpens the softmax;
            "llama3" has another ramp between long and short wavelengths, and no attention factor;
            "dynamic" raises the base with the length of the text; "default" changes no wavelength
            and takes only `llama_4_scaling_beta`.
        factor: how many times longer than in training the texts are, at least 1.
        original_max_position_embeddings: length of the texts in training. The type "dynamic"
            changes only texts longer than this (transformers compares them with the model's
            `max_position_embeddings` instead).
        beta_fast: YaRN keeps the frequencies of pairs that make at least so many turns in the
            original length.
        beta_slow: YaRN divides by `factor` the frequencies of pairs that make at most so many.
        mscale: what `log(factor)` is multiplied by in the numerator of YaRN's attention factor. It
            works only together with `mscale_all_dim`; if one of the two is 0 or missing, the other
            changes nothing.
        mscale_all_dim: what `log(factor)` is multiplied by in the denominator.
        attention_factor: YaRN's attention factor itself, instead of the one that `factor` gives.
        truncate: whether the ends of YaRN's ramp are rounded to whole pairs of features.
        low_freq_factor: for llama3, what `beta_slow` is for YaRN.
        high_freq_factor: for llama3, what `beta_fast` is for YaRN.
        llama_4_scaling_beta: the query at position p is multiplied by
            `1 + beta * log(1 + p // original_max_position_embeddings)` (Ministral 3).

    Raises:
        ValueError, TypeError: a setting is missing, out of range or of the wrong type, or it has no
            meaning for this `rope_type`.

    Source: Peng et al., "YaRN", 2023; `modeling_rope_utils.py` of transformers 5.

    >>> scaling = RopeScaling("yarn", factor=4, original_max_position_embeddings=8192)
    >>> scaling.beta_fast, scaling.mscale
    (32.0, None)
    >>> RopeScaling("dynamic", factor=4)
    Traceback (most recent call last):
    ValueError: rope_scaling of the type 'dynamic' must have original_max_position_embeddings.
    """

    rope_type: str
    factor: Setting = None
    original_max_position_embeddings: Setting = None
    beta_fast: Setting = None
    beta_slow: Setting = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    attention_factor: float | None = None
    truncate: bool | None = None
    low_freq_factor: Setting = None
    high_freq_factor: Setting = None
    llama_4_scaling_beta: float | None = None

    def __post_init__(self):
        if self.rope_type == "linear":
            raise ValueError(
                "rope_scaling of the type 'linear' is the argument rope_scaling_factor. Pass the "
                "factor there, and no rope_scaling."
            )
        check_choice("rope_type of rope_scaling", self.rope_type, tuple(REQUIRED))
        known = {"rope_type", "llama_4_scaling_beta", *REQUIRED[self.rope_type]}
        if self.rope_type == "yarn":
            known |= YARN_DEFAULTS.keys()
            for name, default in YARN_DEFAULTS.items():
                if getattr(self, name) is None:
                    object.__setattr__(self, name, default)
        given = {name for name, value in vars(self).items() if value is not None}
        for name in REQUIRED[self.rope_type]:
            if name not in given:
                raise ValueError(f"rope_scaling of the type {self.rope_type!r} must have {name}.")
        for name in sorted(given - known):
            raise ValueError(
                f"rope_scaling of the type {self.rope_type!r} must not have {name}, but it is "
                f"{getattr(self, name)!r:.80}. The type takes {', '.join(sorted(known))}."
            )
        for name in given - {"rope_type"}:
            object.__setattr__(self, name, _checked(name, getattr(self, name)))
        self._check_order("beta_slow", "beta_fast", equal=True)
        self._check_order("low_freq_factor", "high_freq_factor", equal=False)

    def _check_order(self, small: str, large: str, equal: bool) -> None:
        low, high = getattr(self, small), getattr(self, large)
        if low is not None and (high < low or (high == low and not equal)):
            raise ValueError(
                f"{large} of rope_scaling must be {'at least' if equal else 'above'} {small} "
                f"({low}), but is {high}."
            )

    def to_dict(self) -> dict[str, Any]:
        """A dictionary for JSON that makes these settings again, without those that are `None`.

        >>> RopeScaling("dynamic", 2, 64).to_dict()
        {'rope_type': 'dynamic', 'factor': 2, 'original_max_position_embeddings': 64}
        """
        return {name: value for name, value in vars(self).items() if value is not None}


def read_rope_scaling(value: Mapping[str, Any] | RopeScaling | None) -> RopeScaling | None:
    """The settings in the argument `rope_scaling` of `MistralBackbone`.

    Args:
        value: a dictionary with the arguments of `RopeScaling`, in which `None` means that a
            setting is not given; or `None`; or a `RopeScaling`, which is returned as it is.

    Returns:
        The settings, or `None` if they change nothing.

    Raises:
        ValueError: there is an unknown name, and the message suggests the most similar known one;
            or `RopeScaling` raises it.
        TypeError: the argument is not a dictionary, or `RopeScaling` raises it.

    >>> read_rope_scaling({"rope_type": "default"}) is None
    True
    >>> read_rope_scaling({"rope_type": "dynamic", "faktor": 4})
    Traceback (most recent call last):
    ValueError: rope_scaling has no setting 'faktor'. Is it factor?
    """
    if value is None or isinstance(value, RopeScaling):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(
            'rope_scaling must be a dictionary such as {"rope_type": "yarn", "factor": 4.0, '
            f'"original_max_position_embeddings": 8192}}, but is {value!r:.80}.'
        )
    names = [field.name for field in dataclasses.fields(RopeScaling)]
    for name in value:
        if name not in names:
            raise ValueError(
                f"rope_scaling has no setting {name!r:.80}. {_advice(str(name), names)}"
            )
    given = {name: setting for name, setting in value.items() if setting is not None}
    if given in ({}, {"rope_type": "default"}):
        return None
    if "rope_type" not in given:
        raise ValueError(f"rope_scaling must have a rope_type: one of {', '.join(REQUIRED)}.")
    return RopeScaling(**given)


def check_rope_scaling(
    value: Mapping[str, Any] | RopeScaling | None, rope_scaling_factor: float, wavelength: float
) -> RopeScaling | None:
    """Like `read_rope_scaling`, but also checks the other rotary arguments of `MistralBackbone`.

    Raises:
        ValueError: `rope_scaling_factor` asks for a second scaling, or the base is too small for
            YaRN, which divides by its logarithm.
    """
    scaling = read_rope_scaling(value)
    if scaling is not None and rope_scaling_factor != 1:
        raise ValueError(
            f"rope_scaling ({scaling.rope_type!r}) and rope_scaling_factor ({rope_scaling_factor}) "
            "exclude each other. Pass only one of them."
        )
    if scaling is not None and scaling.rope_type == "yarn" and wavelength <= 1:
        raise ValueError(f"rope_max_wavelength must be above 1 for YaRN, but is {wavelength}.")
    return scaling


def _advice(name: str, names: list[str]) -> str:
    nearest = difflib.get_close_matches(name, names, n=1)
    if name in ADVICE or not nearest:
        return ADVICE.get(name, f"It takes {', '.join(names)}.")
    return f"Is it {nearest[0]}?"


def _checked(name: str, value: Any) -> Any:
    """One setting, checked to be of its type and in the range that float32 can compute with."""
    full_name = f"{name} of rope_scaling"
    if name == "truncate":
        return check_boolean(full_name, value)
    if name == "original_max_position_embeddings":
        return check_integer(full_name, value)
    if name in ("mscale", "mscale_all_dim", "llama_4_scaling_beta"):
        return check_number(full_name, value, zero=True, below=1e6)
    return check_range(full_name, value, 1 if name == "factor" else 1e-6, 1e6)
