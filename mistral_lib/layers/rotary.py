"""Rotary position embedding (chapter 5, "Rotary positions")."""

import jax.numpy as jnp
import numpy as np

from mistral_lib.arrays import Array, Float, Float32, Int


def rotary_angles(
    positions: Int[Array, "*tokens"],
    head_dim: int,
    max_wavelength: float = 10000.0,
    scaling_factor: float = 1.0,
) -> Float32[Array, "*tokens {head_dim}//2"]:
    """By how much each pair of features is turned at each position.

    Pair number p turns by `max_wavelength ** (-2p / head_dim)` radians a token: the first pair by
    one radian, the last by almost nothing.

    Args:
        positions: integer array (...), absolute token positions.
        head_dim: size of a head, even.
        max_wavelength: the base of the geometric series of frequencies.
        scaling_factor: positions are divided by it (linear scaling).

    Returns:
        A float32 array (..., head_dim / 2) of angles in radians.

    Source: Su et al., "RoFormer", 2021, section 3.2; Chen et al., "Extending Context Window of
    Large Language Models via Positional Interpolation", 2023, for `scaling_factor`.

    >>> print(rotary_angles(np.array([0, 3]), head_dim=4, max_wavelength=100.0))
    [[0.  0. ]
     [3.  0.3]]
    """
    exponents = -np.arange(0, head_dim, 2) / head_dim
    frequencies = (float(max_wavelength) ** exponents).astype("float32")  # (h / 2,)
    positions = jnp.asarray(positions, "float32") / scaling_factor
    return positions[..., None] * frequencies


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
