"""Answers to the exercises of chapter 18, "Quantization"."""

import jax.numpy as jnp
import numpy as np

HALF_UP = lambda x: np.floor(x + 0.5)  # noqa: E731 - how schools round


def int8(matrix, axis=0, rounded=np.round, levels=127):
    step = np.abs(matrix).max(axis=axis, keepdims=True) / levels
    return rounded(matrix / step) * step


def int8_column_by_column(matrix):
    back = np.zeros(matrix.shape)
    for n, column in enumerate(matrix.T):
        step = max(abs(w) for w in column) / 127
        back[:, n] = [round(w / step) * step for w in column]
    return back


def int8_for_real(matrix):
    scale = 127 / jnp.abs(matrix).max(axis=0)
    return jnp.round(matrix * scale).astype("int8") / scale


def int4(block, rounded=np.round, steps=15, low=-8, high=7):
    scale = (block.max() - block.min()) / steps
    zero = rounded(-block.min() / scale) + low
    q = np.clip(rounded(block / scale) + zero, low, high)
    return (q - zero) * scale


def int4_by_lines(block):
    scale = (max(block) - min(block)) / 15
    below = round(-min(block) / scale)
    lines = [(k - below) * scale for k in range(16)]
    return [min(lines, key=lambda line: abs(line - w)) for w in block]


def int4_loop(block):
    scale = (block.max() - block.min()) / 15
    zero = round(-min(block) / scale) - 8
    return [(min(7, max(-8, round(w / scale) + zero)) - zero) * scale for w in block]


def unpack_by_shifts(packed):
    low = (packed << 4).astype("int8") >> 4
    return np.array([low, packed >> 4]).T.ravel()


def unpack_by_remainders(packed):
    numbers = []
    for byte in packed:
        unsigned = int(byte) % 256
        numbers += [half - 16 if half > 7 else half for half in (unsigned % 16, unsigned // 16)]
    return numbers


def unpack_where(packed):
    low = packed & 15
    return np.stack([np.where(low > 7, low - 16, low), packed >> 4], 1).reshape(-1)


ANSWERS = {
    "quantization.by_hand": (
        [-13, -0.264, -0.28, 0.26, -13.2, 0.02, -0.25, 127, "minus 13", -0.52],
        [-0.26, "-0.26", round(-13.2) * 0.02, np.float32(-0.26), -13 / 50, [-0.26]],
    ),
    "quantization.columns": (
        [
            lambda matrix: int8(matrix, axis=1),
            lambda matrix: int8(matrix, axis=None),
            lambda matrix: int8(matrix, rounded=np.trunc),
            lambda matrix: int8(matrix, rounded=np.floor),
            lambda matrix: int8(matrix, levels=128),
            lambda matrix: int8(matrix, levels=255),
            lambda matrix: int8(matrix, rounded=lambda x: x),
            lambda matrix: np.round(matrix * (127 / np.abs(matrix).max(axis=0))),
            lambda matrix: (
                np.round(matrix * (127 / matrix.max(axis=0))) / (127 / matrix.max(axis=0))
            ),
            lambda matrix: np.round(matrix, 2),
            lambda matrix: matrix,
            lambda matrix: 127 / np.abs(matrix).max(axis=0),
            lambda matrix, axis: matrix,
        ],
        [
            int8,
            int8_column_by_column,
            int8_for_real,
            lambda matrix: int8(matrix, rounded=HALF_UP),
            lambda matrix: (
                np.rint(matrix / (abs(matrix).max(0) / 127)) * (abs(matrix).max(0) / 127)
            ),
        ],
    ),
    "quantization.error": (
        [
            0.0004,
            0.0008,
            0.0002,
            0.0008**2 / 12,
            0.1016 / 127 / 12,
            0.1016,
            0.00016,
            "a third",
            0.0001,
        ],
        [0.00023, 0.000231, 0.1016 / 127 / 12**0.5, "0.00023", 2.3e-4, np.float32(0.00023)],
    ),
    "quantization.unpack": (
        [
            lambda packed: np.stack([packed & 15, packed >> 4], axis=-1).reshape(-1),
            lambda packed: np.stack([packed & 15, (packed >> 4) & 15], axis=-1).reshape(-1),
            lambda packed: unpack_by_shifts(packed).reshape(-1, 2)[:, ::-1].reshape(-1),
            lambda packed: np.concatenate([(packed << 4).astype("int8") >> 4, packed >> 4]),
            lambda packed: np.stack([(packed & 15) - 8, packed >> 4], axis=-1).reshape(-1),
            lambda packed: np.stack([(packed & 15) - 16, packed >> 4], axis=-1).reshape(-1),
            lambda packed: np.stack([(packed & 15) ^ 8, packed >> 4], axis=-1).reshape(-1),
            lambda packed: np.abs(unpack_by_shifts(packed)),
            lambda packed: np.stack([packed % 16, packed // 16 % 16], axis=-1).reshape(-1),
            lambda packed: np.stack([(packed << 4).astype("int8") >> 4, packed >> 4], axis=-1),
            lambda packed: packed,
            lambda low, high: low,
        ],
        [unpack_by_shifts, unpack_by_remainders, unpack_where],
    ),
    "quantization.int4": (
        [
            lambda block: int4(block, steps=16),
            lambda block: int4(block, rounded=np.floor),
            lambda block: int4(block, rounded=np.trunc),
            lambda block: (
                np.clip(np.round(block / (np.ptp(block) / 15)), -8, 7) * np.ptp(block) / 15
            ),
            lambda block: (
                np.round((block - block.min()) / (np.ptp(block) / 15)) * np.ptp(block) / 15
            ),
            lambda block: (
                np.round((block - block.min()) / (np.ptp(block) / 15)) * np.ptp(block) / 15
                + block.min()
            ),
            lambda block: np.round(block / (abs(block).max() / 7)) * abs(block).max() / 7,
            lambda block: (
                np.clip(np.round(block / (abs(block).max() / 8)), -8, 7) * abs(block).max() / 8
            ),
            lambda block: np.round(block),
            lambda block: block,
            lambda block: int4(block) / (np.ptp(block) / 15),
            lambda block: int4(block, low=-7),
            lambda block: None,
        ],
        [
            int4,
            int4_by_lines,
            int4_loop,
            lambda block: int4(block, low=0, high=15),
            lambda block: int4(block, rounded=HALF_UP),
            lambda block: int4(jnp.asarray(block), rounded=jnp.round),
        ],
    ),
    "quantization.break_it": (
        [
            ([-1.0, 0.5, 2.0],),
            [0.0, 1.0],
            [-3, 3],
            [-1e6, 3.0, 2e6],
            [1e-9, -1e-9],
            [1, 1000],
            [1, 1, 1],
            [5],
            list(range(200)),
            [[1, 2], [3, 4]],
            [1, np.inf],
            3,
            "all the same",
            None,
        ],
        [
            ([1.0, 1.1, 1.2, 1.3],),
            [10, 11, 12],
            (-5.0, -4.0),
            np.array([100.0, 101.0]),
            ((7, 8, 9),),
            jnp.array([3.0, 3.5]),
        ],
    ),
    "quantization.bits": (
        [4, 4.125, 4.3125, 28, 4 + 8 / 128, 4.75, 8, 4 + 24, "four and a bit", 5],
        [4.1875, 4.19, "4.1875", 4 + 24 / 128, np.float32(4.1875), "67/16"],
    ),
    "quantization.budget": (
        [3.62, 7.24, 30.3, 14.5, 3.73, 3790, 3.79e9, 4.1875, "a quarter of it", 1.8],
        [
            3.79,
            3.8,
            "3.79 GB",
            7.24 * 4.1875 / 8,
            7_241_732_096 * 4.1875 / 8 / 1e9,
            np.float32(3.79),
        ],
    ),
}
