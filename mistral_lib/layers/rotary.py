"""Rotary position embedding (chapter 5, "Rotary positions")."""

import math

import jax.numpy as jnp
import numpy as np

from mistral_lib.arrays import Array, Bool, Float, Float32, Int
from mistral_lib.rope_scaling import RopeScaling


def rotary_angles(
    positions: Int[Array, "*tokens"],
    head_dim: int,
    max_wavelength: float = 10000.0,
    scaling_factor: float = 1.0,
    scaling: RopeScaling | None = None,
    text_lengths: Int[Array, "*#tokens"] | None = None,
) -> Float32[Array, "*tokens {head_dim}//2"]:
    """By how much each pair of features is turned at each position.

    Pair number p turns by `max_wavelength ** (-2p / head_dim)` radians a token: the first pair by
    one radian, the last by almost nothing.

    Args:
        positions: integer array (...), absolute token positions.
        head_dim: size of a head, even.
        max_wavelength: the base of the geometric series of frequencies.
        scaling_factor: positions are divided by it (linear scaling).
        scaling: how the frequencies are changed for texts longer than those in training.
        text_lengths: for the type "dynamic", how many tokens the text of each position has; by
            default one more than the largest position along the last axis of `positions`.

    Returns:
        A float32 array (..., head_dim / 2) of angles in radians.

    Source: Su et al., "RoFormer", 2021, section 3.2; Chen et al., "Extending Context Window of
    Large Language Models via Positional Interpolation", 2023, for `scaling_factor`.

    >>> print(rotary_angles(np.array([0, 3]), head_dim=4, max_wavelength=100.0))
    [[0.  0. ]
     [3.  0.3]]
    """
    frequencies = rotary_frequencies(head_dim, max_wavelength, scaling).astype(
        "float32"
    )  # (h / 2,)
    if scaling is not None and scaling.rope_type == "dynamic":
        reach = positions.max(axis=-1, keepdims=True) + 1
        lengths = reach if text_lengths is None else text_lengths
        frequencies = frequencies * _slower(lengths, head_dim, scaling)
    positions = jnp.asarray(positions, "float32") / scaling_factor
    return positions[..., None] * frequencies


def rotary_frequencies(
    head_dim: int, max_wavelength: float = 10000.0, scaling: RopeScaling | None = None
) -> Float[np.ndarray, "{head_dim}//2"]:
    """The radians by which each pair turns from one token to the next, in float64.

    YaRN and llama3 divide low frequencies by `factor`, keep high ones, and have a ramp between the
    two. For llama3 the ramp is a straight line over the number of turns in the original length, as
    in YaRN's paper. For YaRN it is a straight line over the number of the pair, as in the program
    of YaRN's authors and in transformers. The type "dynamic" changes nothing here, because its
    frequencies depend on the length of the text, which `rotary_angles` knows.

    Args:
        head_dim: size of a head, even.
        max_wavelength: the base of the geometric series.
        scaling: how the frequencies are changed for texts longer than those in training.

    Returns:
        A float64 array (head_dim / 2,).

    Source: Peng et al., "YaRN", 2023, section 3.2; `modeling_rope_utils.py` of transformers 5.

    >>> scaling = RopeScaling("yarn", factor=4, original_max_position_embeddings=64, beta_fast=4)
    >>> (rotary_frequencies(8, 100.0) / rotary_frequencies(8, 100.0, scaling)).round(3)
    array([1.   , 1.333, 2.   , 4.   ])
    """
    frequencies = float(max_wavelength) ** (-np.arange(0, head_dim, 2) / head_dim)
    if scaling is None or scaling.rope_type in ("default", "dynamic"):
        return frequencies
    if scaling.rope_type == "yarn":
        kept = _kept_by_yarn(head_dim, max_wavelength, scaling)
    else:
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
        kept = np.clip((turns - low) / (high - low), 0, 1)
    return frequencies * (kept + (1 - kept) / scaling.factor)


def _kept_by_yarn(
    head_dim: int, max_wavelength: float, scaling: RopeScaling
) -> Float[np.ndarray, "{head_dim}//2"]:
    """How much of each frequency stays: 1 for short wavelengths, 0 for long ones."""

    def pair(turns):
        """The number (a fraction) of the pair with so many turns in the original length."""
        length = scaling.original_max_position_embeddings
        logarithm = math.log(length / (turns * 2 * math.pi))
        return head_dim * logarithm / (2 * math.log(max_wavelength))

    first, last = pair(scaling.beta_fast), pair(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    if first == last:
        last += 0.001
    return 1 - np.clip((np.arange(head_dim // 2) - first) / (last - first), 0, 1)


def _slower(
    text_lengths: Int[Array, "*tokens"], head_dim: int, scaling: RopeScaling
) -> Float32[Array, "*tokens {head_dim}//2"]:
    """What "dynamic" multiplies the frequencies by, because longer texts raise the base."""
    length = scaling.original_max_position_embeddings
    beyond = jnp.maximum(jnp.asarray(text_lengths) - length, 0) / length
    exponents = -np.arange(0, head_dim, 2) / max(head_dim - 2, 1)
    return (1 + scaling.factor * beyond)[..., None] ** exponents.astype("float32")


def attention_factor(scaling: RopeScaling) -> float:
    """What YaRN multiplies both queries and keys by, so that long texts do not blur the softmax.

    Args:
        scaling: settings of any type; the factor is 1 for every type but YaRN.

    Returns:
        The setting `attention_factor` if it is given, otherwise `0.1 * log(factor) + 1`. If
        `mscale` and `mscale_all_dim` are given, it is a quotient of two such numbers instead:
        `mscale` multiplies the logarithm in the numerator, `mscale_all_dim` in the denominator.

    Source: Peng et al., "YaRN", 2023, section 3.4, where it is the square root of 1 / t.

    >>> round(attention_factor(RopeScaling("yarn", 16, 8192)), 4)
    1.2773
    >>> attention_factor(RopeScaling("yarn", 16, 8192, mscale=1, mscale_all_dim=1))
    1.0
    """
    if scaling.rope_type != "yarn":
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    logarithm = 0.1 * math.log(scaling.factor)
    if scaling.mscale and scaling.mscale_all_dim:
        return (scaling.mscale * logarithm + 1) / (scaling.mscale_all_dim * logarithm + 1)
    return logarithm + 1


def query_scale(
    positions: Int[Array, "*tokens"], scaling: RopeScaling | None
) -> Float32[Array, "*tokens"] | None:
    """What each query is multiplied by after it has been turned, or `None` if that is 1.

    YaRN multiplies queries and keys by the attention factor. Here the query alone is multiplied by
    the square of that factor, so that keys, which may stay in a cache, are only turned.

    Args:
        positions: integer array (...), absolute token positions.
        scaling: how positions are changed for texts longer than those in training.

    Returns:
        A float32 array (...).

    Source: `modeling_ministral3.py` of transformers 5, for `llama_4_scaling_beta`.

    >>> scaling = RopeScaling("default", None, 8, llama_4_scaling_beta=0.1)
    >>> print(np.array(query_scale(np.array([7, 8, 16]), scaling), "float64").round(4))
    [1.     1.0693 1.1099]
    """
    if scaling is None:
        return None
    factor = attention_factor(scaling) ** 2
    if not scaling.llama_4_scaling_beta:
        return None if factor == 1 else jnp.full(positions.shape, factor, "float32")
    passed = jnp.maximum(jnp.asarray(positions), 0) // scaling.original_max_position_embeddings
    return factor * (1 + scaling.llama_4_scaling_beta * jnp.log1p(passed.astype("float32")))


def text_positions(
    padding_mask: Bool[Array, "B S"],
) -> tuple[Int[Array, "B S"], Int[Array, "B 1"]]:
    """Positions counted from the first real token of each row, and the length of each row's text.

    Args:
        padding_mask: bool array (B, S), true for real tokens.

    Returns:
        The positions, which are negative before the first real token, and the lengths of the texts,
        from the first real token of a row to its last.

    >>> positions, lengths = text_positions(np.array([[False, True, True, False]]))
    >>> print(positions, lengths)
    [[-1  0  1  2]] [[2]]
    """
    mask = jnp.asarray(padding_mask)
    first = mask.argmax(axis=1, keepdims=True)
    beyond = mask.shape[1] - mask[:, ::-1].argmax(axis=1, keepdims=True)
    return jnp.arange(mask.shape[1]) - first, beyond - first


def rotate(
    x: Float[Array, "B S heads h"], angles: Float[Array, "*#B S h//2"]
) -> Float[Array, "B S heads h"]:
    """Turns every pair `(x[p], x[p + h/2])` of a head by its angle.

    Args:
        x: queries or keys (B, S, heads, h).
        angles: float32 (S, h / 2) or (B, S, h / 2), from `rotary_angles`.

    Returns:
        An array of the shape and dtype of `x`; the turning itself is done in float32.

    >>> quarter = np.full((1, 1), np.pi / 2)
    >>> print(rotate(np.array([[[[1.0, 0.0]]]]), quarter).round(3))
    [[[[-0.  1.]]]]
    """
    angles = angles[..., None, :]  # one angle for all heads: (..., S, 1, h / 2)
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    x = jnp.asarray(x)
    first, second = jnp.split(x.astype("float32"), 2, axis=-1)
    turned = jnp.concatenate(
        [first * cosine - second * sine, second * cosine + first * sine], axis=-1
    )
    return turned.astype(x.dtype)
