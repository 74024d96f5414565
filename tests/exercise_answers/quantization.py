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
    "quantization.clip": (
        [
            ((103.2, 46.1, 24.3, 66.8), "a"),
            ((103.2, 46.1, 24.3, 66.8), "c"),
            ((15.2, 13.0, 84.3, 676.5), "b"),
            ((0.1032, 0.0461, 0.0243, 0.0668), "b"),
            ((66.8, 24.3, 46.1, 103.2), "c"),
            ((0.2366, 0.1665, 0.1352, 0.2267), "b"),
            ((103.2, 46.1, 24.3), "b"),
            ((103.2, 46.1, 24.3, 30.0), "b"),
            ("b", (103.2, 46.1, 24.3, 66.8)),
            (103.2, "b"),
            "b",
        ],
        [
            ((103.2, 46.1, 24.3, 66.8), "b"),
            ([103.21, 46.09, 24.31, 66.79], "(b)"),
            (np.float32([103.2, 46.1, 24.3, 66.8]), "B"),
            [[103, 46, 24, 67], "b"],
        ],
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
    "quantization.sensitive": (
        [
            ((5.2, 30.7, 1.4, 0.0, 2.8, 3.2, 8.2, 5.0, 10.9), "a"),
            ((5.2, 30.7, 1.4, 0.0, 2.8, 3.2, 8.2, 5.0, 10.9), "c"),
            ((0.0, 5.5, 0.5, 0.9, -0.2, 1.0, 0.7, 0.3, 3.0), "b"),
            ((30.7, 5.2, 1.4, 0.0, 2.8, 3.2, 8.2, 5.0, 10.9), "b"),
            ((5.2, 30.7, 1.4, 0.0, 2.8, 3.2, 8.2, 5.0), "b"),
            ((5.2, 30.7, 1.4, 0.0, 2.8, 3.2, 5.0, 8.2, 10.9), "b"),
            (30.7, "b"),
            ("reverse_embeddings", "b"),
        ],
        [
            ((5.2, 30.7, 1.4, 0.0, 2.8, 3.2, 8.2, 5.0, 10.9), "b"),
            ([5.24, 30.67, 1.42, 0.02, 2.79, 3.24, 8.21, 5.02, 10.92], "(b)"),
            (np.float32([5, 31, 1.5, 0, 3, 3, 8, 5, 11]), "B"),
        ],
    ),
    "quantization.speed": (
        [
            ((3.46, 1.5, 1.0), "a"),
            ((3.46, 1.5, 1.0), "c"),
            ((0.289, 0.667, 1.0), "b"),
            ((1.93, 1.29, 1.0), "b"),
            ((3.8, 3.8, 3.8), "a"),
            ((1.0, 1.5, 3.46), "c"),
            ((3.46, 1.0), "b"),
            ((4, 4, 4), "a"),
            (3.46, "b"),
        ],
        [
            ((3.46, 1.5, 1.0), "b"),
            ([3.456, 1.502, 1.002], "(b)"),
            (np.float32([3.45, 1.5, 1.0]), "B"),
        ],
    ),
}
