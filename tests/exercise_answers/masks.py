"""Answers to the exercises of chapter 7, "Sliding windows and masks"."""

import jax.numpy as jnp
import numpy as np

from mistral_lib.masks import attention_mask


def loops(queries, keys, window):
    mask = np.zeros((len(queries), len(keys)), bool)
    for i, q in enumerate(queries):
        for j, k in enumerate(keys):
            mask[i, j] = k <= q and q - k < window
    return mask


def triangles(queries, keys, window):
    ones = np.ones((len(queries), len(keys)))
    return (np.tril(ones) * np.triu(ones, 1 - window)).astype(bool)


def square_of_the_keys(queries, keys, window):
    distance = keys[:, None] - keys[None, :]
    return (distance >= 0) & (distance < window)


def causal_alone(queries, keys, window):
    return queries[:, None] >= keys[None, :]


def numbers_for_truth(queries, keys, window):
    return np.where((queries[:, None] - keys >= 0) & (queries[:, None] - keys < window), 1, 0)


def additive(queries, keys, window):
    distance = queries[:, None] - keys
    return np.where((distance >= 0) & (distance < window), 0.0, -np.inf)


def counted(length, window, pads):
    positions = np.arange(length)
    mask = attention_mask(positions, positions, window, positions < length - pads)
    return sum(not row.any() for row in mask)


def counted_by_loops(length, window, pads):
    empty = 0
    for i in range(length):
        seen = range(max(0, i - window + 1), i + 1)
        empty += all(j >= length - pads for j in seen)
    return empty


ANSWERS = {
    "masks.pairs": (
        [
            32_768 * 4_096 // 2,
            32_768**2,
            32_768 * 32_769 // 2,
            4_096**2,
            32 * 32_768 * 4_096,
            32_768 + 4_096,
            4_096 * 4_095 // 2,
            134,
            "134",
            None,
        ],
        [32_768 * 4_096, 126e6, "134 million", "125,831,168", 1.3e8, np.int64(125_831_168)],
    ),
    "masks.row": (
        [
            [2, 3, 4, 5, 6],
            [2, 3, 4, 5],
            [4, 5, 6, 7],
            [6, 7],
            [3, 4, 5],
            [6, 5, 4, 3],
            [0, 1, 2, 3],
            [0, 1, 2, 3, 4, 5, 6],
            {3, 4, 5, 6},
            4,
            [False, False, False, True, True, True, True, False],
        ],
        [[3, 4, 5, 6], (3, 4, 5, 6), range(3, 7), "3, 4, 5, 6", np.arange(3, 7), "3 4 5 6"],
    ),
    "masks.window": (
        [
            triangles,
            square_of_the_keys,
            causal_alone,
            additive,
            lambda q, k, w: (q[:, None] - k >= 0) & (q[:, None] - k <= w),
            lambda q, k, w: (q[:, None] - k > 0) & (q[:, None] - k < w),
            lambda q, k, w: q[:, None] - k < w,
            lambda q, k, w: abs(q[:, None] - k) < w,
            lambda q, k, w: (k - q[:, None] >= 0) & (k - q[:, None] < w),
            lambda q, k, w: (q[None, :] - k[:, None] >= 0) & (q[None, :] - k[:, None] < w),
            lambda q, k, w: q[:, None] - k,
            lambda q, k, w: ~loops(q, k, w),
            lambda q, k, w: 0 <= q - k < w,
            lambda queries, keys: queries[:, None] >= keys,
        ],
        [
            loops,
            numbers_for_truth,
            lambda q, k, w: np.isin(q[:, None] - k, np.arange(w)),
            lambda q, k, w: (k <= q[:, None]) * (k > q[:, None] - w),
            lambda q, k, w: [[0 <= i - j < w for j in k] for i in q],
            lambda q, k, w: jnp.logical_and(q[:, None] >= k, q[:, None] - k < w),
        ],
    ),
    "masks.break_it": (
        [
            (np.arange(6), np.arange(6), 3),
            (np.arange(600), np.arange(600), 1000),
            (np.array([5]), np.arange(6), 1),
            (np.arange(3, 8), np.arange(8), 4),
            (np.array([2]), np.arange(6), 3),
            (np.array([5]), np.arange(1, 6), 3),
            (np.array([5]), np.arange(6), 0),
            (np.array([]), np.arange(6), 3),
            (np.array([5]), np.arange(6), 2.5),
            (np.array([5]), np.arange(6)),
            (5, 6, 3),
            np.array([5]),
            "one query",
        ],
        [
            (np.array([5]), np.arange(6), 3),
            ([1], [0, 1], 2),
            (range(6, 8), range(8), np.int64(4)),
            (jnp.array([3]), jnp.arange(4), "4"),
            [np.array([5.0]), np.arange(6), 3],
        ],
    ),
    "masks.right_padding": (
        [12, 3, 15, 6, 2, 18, "none", 4, [0, 1]],
        [0, "0", 0.0, np.int64(0), [0], np.array(0)],
    ),
    "masks.library": ([1, 2, 3, 4, 0, 6, "line 1", "total"], [5, "5", "line 5", 5.0]),
    "masks.empty_rows": (
        [
            lambda length, window, pads: pads,
            lambda length, window, pads: max(0, pads - window),
            lambda length, window, pads: pads - window + 1,
            lambda length, window, pads: 0,
            lambda length, window, pads: max(0, length - window),
            lambda length, window, pads: max(0, pads - window + 2),
            lambda length, window, pads: min(pads, window),
            lambda length, window, pads: [max(0, pads - window + 1)],
            lambda length, window, pads: pads >= window,
            lambda window, pads: max(0, pads - window + 1),
        ],
        [
            counted,
            counted_by_loops,
            lambda length, window, pads: max(0, pads - window + 1),
            lambda length, window, pads: pads + 1 - window if pads >= window else 0,
            lambda length, window, pads: np.maximum(pads - window + 1, 0.0),
        ],
    ),
    "masks.smallest": (
        [
            ((513, 258, 129, 9), "c"),
            ((513, 258, 129, 9), "a"),
            ((512, 257, 128, 8), "b"),
            ((514, 259, 130, 10), "b"),
            ((512, 256, 127, 8), "b"),
            ((9, 129, 258, 513), "b"),
            ((513, 258, 129), "b"),
            ((513, 258, 129, 9), "d"),
            [513, 258, 129, 9],
            "b",
        ],
        [
            ((513, 258, 129, 9), "b"),
            ([513, 258, 129, 9], "B"),
            (np.array([513, 258, 129, 9]), "(b)"),
            ((513.0, 258.0, 129.0, 9.0), "b"),
        ],
    ),
    "masks.width": (
        [
            ((0.015, 0.0, 0.236), "a"),
            ((0.015, 0.0, 0.236), "c"),
            ((0.044, 0.001, 0.712), "b"),
            ((0.0196, 0.0027, 0.2491), "b"),
            ((1.414, 1.400, 1.636), "b"),
            ((-0.015, 0.0, -0.236), "b"),
            ((0.236, 0.0, 0.015), "b"),
            ((0.0, 0.236), "b"),
            (0.015, "b"),
        ],
        [
            ((0.015, 0.0, 0.236), "b"),
            ([0.0146, 0.0004, 0.2361], "b"),
            (np.array([0.0146, 0.0004, 0.2361]), "B"),
            ((0.0145, 0.0005, 0.235), "(b)"),
        ],
    ),
}
