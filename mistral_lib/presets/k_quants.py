"""llama.cpp's blocks of 256 numbers, made from floats (chapter 18, "Quantization").

The package `gguf` reads these types but does not write them. In a block, each group of 32 (Q4_K) or
16 numbers (Q6_K) has a scale, and in Q4_K a minimum too; scales and minima are themselves small
integers times a float16. For each group several scales are tried, and the one with the least
squared error is kept, where large numbers count more than small ones.

Source: llama.cpp, `ggml/src/ggml-quants.c`: `quantize_row_q4_K_ref` and `quantize_row_q6_K_ref`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mistral_lib.arrays import Array, Float, Float32, UInt8

BLOCK = 256
BLOCKS_AT_ONCE = 4096  # so that the work fits into caches, and is compiled once
LEAST = 1e-15  # a group whose numbers are all smaller becomes zero


def quantize_k(array: Float[np.ndarray, "rows columns"], kind: str) -> UInt8[np.ndarray, "rows _"]:
    """A matrix in blocks, as they stand in a GGUF file.

    Args:
        array: floats; `columns` is a multiple of 256.
        kind: "Q4_K", 4.5 bits a number; or "Q6_K", 6.5625 bits a number.

    Returns:
        The bytes of each row.

    >>> quantize_k(np.ones((2, 512), "float32"), "Q4_K").shape
    (2, 288)
    """
    quantize, num_bytes = KINDS[kind]
    blocks = array.reshape(-1, BLOCK)
    packed = np.empty((len(blocks), num_bytes), "uint8")
    for first in range(0, len(blocks), BLOCKS_AT_ONCE):
        part = np.zeros((BLOCKS_AT_ONCE, BLOCK), "float32")
        count = len(blocks[first : first + BLOCKS_AT_ONCE])
        part[:count] = blocks[first : first + BLOCKS_AT_ONCE]
        packed[first : first + count] = np.asarray(quantize(part))[:count]
    return packed.reshape(len(array), -1)


@jax.jit
def _quantize_q4_k(blocks: Float32[Array, "N 256"]) -> UInt8[Array, "N 144"]:
    x = blocks.reshape(-1, 8, 32)
    scales, minima, levels = _fit_with_minimum(x)
    largest, deepest = scales.max(-1, keepdims=True), minima.max(-1, keepdims=True)
    scale_codes = _codes(scales, largest)
    minimum_codes = _codes(minima, deepest)
    unit, minimum_unit = (largest / 63).astype("float16"), (deepest / 63).astype("float16")
    scale = (unit.astype("float32") * scale_codes)[..., None]
    minimum = (minimum_unit.astype("float32") * minimum_codes)[..., None]
    levels = jnp.where(
        scale > 0, jnp.clip(jnp.round((x + minimum) / _divisor(scale)), 0, 15), levels
    )
    levels = levels.astype("uint8").reshape(-1, 4, 2, 32)
    s, m = scale_codes.astype("uint8"), minimum_codes.astype("uint8")
    packed = (
        s[:, :4] | (s[:, 4:] >> 4) << 6,
        m[:, :4] | (m[:, 4:] >> 4) << 6,
        (s[:, 4:] & 15) | (m[:, 4:] & 15) << 4,
        (levels[:, :, 0] | levels[:, :, 1] << 4).reshape(-1, 128),
    )
    return jnp.concatenate([_bytes(unit), _bytes(minimum_unit), *packed], axis=-1)


def _codes(values: Float32[Array, "N 8"], largest: Float32[Array, "N 1"]) -> Float32[Array, "N 8"]:
    """Six bits for each of a block's scales: 63 for the largest."""
    return jnp.clip(jnp.round(values * jnp.where(largest > 0, 63 / _divisor(largest), 0)), 0, 63)


def _fit_with_minimum(
    x: Float32[Array, "N G 32"],
) -> tuple[Float32[Array, "N G"], Float32[Array, "N G"], Float32[Array, "N G 32"]]:
    """For each group a scale, a minimum (with its sign changed), and numbers from 0 to 15."""
    weights = jnp.sqrt((x**2).mean(-1, keepdims=True)) + jnp.abs(x)
    low, high = jnp.minimum(x.min(-1, keepdims=True), 0), x.max(-1, keepdims=True)
    sum_w, sum_x = _sum(weights), _sum(weights * x)

    def levels_of(steps, minimum):
        return jnp.clip(jnp.round(steps / _divisor(high - minimum) * (x - minimum)), 0, 15)

    def error(scale, minimum, levels):
        return _sum(weights * (scale * levels + minimum - x) ** 2)

    def attempt(step, best):
        levels = levels_of(-1.0 + 0.1 * step.astype("float32") + 15, best[2])
        sum_l, sum_l2 = _sum(weights * levels), _sum(weights * levels**2)
        sum_xl = _sum(weights * levels * x)
        determinant = sum_w * sum_l2 - sum_l**2
        scale = (sum_w * sum_xl - sum_x * sum_l) / _divisor(determinant)
        minimum = (sum_l2 * sum_x - sum_l * sum_xl) / _divisor(determinant)
        scale = jnp.where(minimum > 0, sum_xl / _divisor(sum_l2), scale)
        minimum = jnp.minimum(minimum, 0)
        found = (error(scale, minimum, levels), scale, minimum, levels)
        better = (determinant > 0) & (found[0] < best[0])
        return tuple(jnp.where(better, new, old) for new, old in zip(found, best))

    scale, levels = 1 / (15 / _divisor(high - low)), levels_of(15, low)
    start = (error(scale, low, levels), scale, low, levels)
    _, scale, minimum, levels = jax.lax.fori_loop(0, 21, attempt, start)
    flat = high == low
    scale, minimum = jnp.where(flat, 0, scale), jnp.where(flat, low, minimum)
    return scale[..., 0], jnp.abs(minimum[..., 0]), jnp.where(flat, 0, levels)


@jax.jit
def _quantize_q6_k(blocks: Float32[Array, "N 256"]) -> UInt8[Array, "N 210"]:
    x = blocks.reshape(-1, 16, 16)
    scales = _fit(x)
    largest = _farthest(scales)
    empty = jnp.abs(largest) < LEAST
    inverse = -128 / jnp.where(empty, 1, largest)
    unit = jnp.where(empty, 0, 1 / inverse).astype("float16")
    codes = jnp.where(empty, 0, jnp.minimum(jnp.round(inverse * scales), 127))
    scale = (unit.astype("float32") * codes)[..., None]
    levels = jnp.clip(jnp.round(x / _divisor(scale)), -32, 31) + 32
    levels = jnp.where(scale == 0, 0, levels).astype("uint8").reshape(-1, 2, 4, 32)
    low = (levels[:, :, :2] & 15) | (levels[:, :, 2:] & 15) << 4
    shifts = jnp.array([0, 2, 4, 6], "uint8")[:, None]
    high = ((levels >> 4) << shifts).sum(2, dtype="uint8")
    packed = (low.reshape(-1, 128), high.reshape(-1, 64), codes.astype("int8").view("uint8"))
    return jnp.concatenate([*packed, _bytes(unit)], axis=-1)


def _fit(x: Float32[Array, "N G 16"]) -> Float32[Array, "N G"]:
    """For each group a scale for numbers from -32 to 31."""
    farthest = _farthest(x)
    empty = jnp.abs(farthest) < LEAST
    divisor = jnp.where(empty, 1, farthest)

    def attempt(tenths, best):
        tenths = tenths.astype("float32") - 9
        levels = jnp.clip(jnp.round(-(32 + 0.1 * tenths) / divisor * x), -32, 31)
        sum_lx, sum_l2 = _sum(x**2 * x * levels), _sum(x**2 * levels**2)
        scale = sum_lx / _divisor(sum_l2)
        better = (sum_l2 > 0) & (sum_lx**2 > best[0] * sum_l2)
        return jnp.where(better, scale * sum_lx, best[0]), jnp.where(better, scale, best[1])

    start = attempt(jnp.array(9), (jnp.zeros_like(farthest), jnp.zeros_like(farthest)))
    _, scale = jax.lax.fori_loop(0, 19, attempt, start)
    return jnp.where(empty, 0, scale)[..., 0]


def _farthest(x: Float32[Array, "N *axes"]) -> Float32[Array, "N *ones"]:
    """The number that is farthest from 0 along the last axis."""
    return jnp.take_along_axis(x, jnp.abs(x).argmax(-1, keepdims=True), axis=-1)


def _sum(x: Float32[Array, "N G n"]) -> Float32[Array, "N G 1"]:
    return x.sum(-1, keepdims=True)


def _divisor(x: Float32[Array, "*axes"]) -> Float32[Array, "*axes"]:
    """The same numbers, with 1 in place of 0."""
    return jnp.where(x == 0, 1, x)


def _bytes(x: Float[Array, "N 1"]) -> UInt8[Array, "N 2"]:
    return jax.lax.bitcast_convert_type(x, jnp.uint8).reshape(len(x), -1)


KINDS: dict[str, tuple[Callable[..., Array], int]] = {
    "Q4_K": (_quantize_q4_k, 144),
    "Q6_K": (_quantize_q6_k, 210),
}
