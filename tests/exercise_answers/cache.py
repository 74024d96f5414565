"""Answers to the exercises of chapter 15, "The rolling cache"."""

import jax.numpy as jnp
import numpy as np

from mistral_lib.masks import can_see

TOKEN = 2 * 32 * 8 * 128 * 2
WEIGHTS = 2 * 7.24e9


def written_one_by_one(length, slots):
    held = [-1] * slots
    for position in range(length):
        held[position % slots] = position
    return held


def by_rounds(length, slots):
    rounds = (length - 1 - np.arange(slots)) // slots
    return np.where(rounds >= 0, rounds * slots + np.arange(slots), -1)


def largest_below(length, slots):
    return [max([p for p in range(length) if p % slots == s], default=-1) for s in range(slots)]


def without_empty(length, slots):
    newest = length - 1
    return newest - (newest - np.arange(slots)) % slots


def in_the_order_of_the_text(length, slots):
    last = list(range(max(0, length - slots), length))
    return last + [-1] * (slots - len(last))


def first_ones_stay(length, slots):
    return [s if s < length else -1 for s in range(slots)]


ANSWERS = {
    "cache.slot": (
        [
            [7, 8, 9, 10],
            [8, 9, 10, 11],
            [9, 10, 11, 8],
            [0, 1, 2, 3],
            [10, 9, 8, 7],
            [11, 8, 9, 10],
            [8, 9, 10],
            {7, 8, 9, 10},
            10,
            [8, 9, 10, -1],
            "the last four",
        ],
        [
            [8, 9, 10, 7],
            (8, 9, 10, 7),
            np.array([8, 9, 10, 7]),
            "8, 9, 10, 7",
            jnp.array([8, 9, 10, 7]),
        ],
    ),
    "cache.held": (
        [
            without_empty,
            in_the_order_of_the_text,
            first_ones_stay,
            lambda length, slots: np.maximum(length - (length - np.arange(slots)) % slots, -1),
            lambda length, slots: np.arange(length)[-slots:],
            lambda length, slots: np.arange(slots),
            lambda length, slots: [p % slots for p in range(length)],
            lambda length, slots: np.where(written_one_by_one(length, slots) == -1, 0, 1),
            lambda length, slots: [max(p, 0) for p in written_one_by_one(length, slots)],
            lambda length, slots: [
                p if p >= 0 else None for p in written_one_by_one(length, slots)
            ],
            lambda length, slots: written_one_by_one(length + 1, slots),
            lambda slots: np.arange(slots),
        ],
        [
            written_one_by_one,
            by_rounds,
            largest_below,
            lambda length, slots: jnp.maximum(without_empty(length, slots), -1),
        ],
    ),
    "cache.mask": (
        [
            lambda position, held, window: held >= 0,
            lambda position, held, window: can_see(position, held, window),
            lambda position, held, window: (held >= 0) & (position - held <= window),
            lambda position, held, window: (
                (held >= 0) & (held < position) & (position - held < window)
            ),
            lambda position, held, window: can_see(position, np.arange(len(held)), window),
            lambda position, held, window: (held >= 0) & (held <= position),
            lambda position, held, window: held > position - window,
            lambda position, held, window: ((held >= 0) & (position - held < window)).sum(),
            lambda position, held, window: held[(held >= 0) & (position - held < window)],
            lambda position, held, window: (held > 0) & can_see(position, held, window),
            lambda position, held, window: np.arange(len(held)) < window,
            lambda position, held, window: ~((held >= 0) & can_see(position, held, window)),
            lambda position, held: held >= 0,
        ],
        [
            lambda position, held, window: (held >= 0) & can_see(position, held, window),
            lambda position, held, window: [p >= 0 and position - p < window for p in held],
            lambda position, held, window: (held > -1) * (held > position - window),
            lambda position, held, window: jnp.where(held < 0, False, position - held < window),
            lambda position, held, window: np.isin(
                held, np.arange(max(0, position - window + 1), position + 1)
            ),
        ],
    ),
    "cache.break_it": (
        [
            (4, [4]),
            (3, [1, 1, 1, 1, 1, 1]),
            (8, [3, 3, 2]),
            (3, [2, 1, 1, 1]),
            (0, [3, 2]),
            (3, [3, 0, 2]),
            (3, [3, -2]),
            (3, [1.5, 2]),
            (3, 5),
            (3, []),
            (3, [90, 20]),
            3,
            [3, 2, 1],
            "a long prompt",
            (np.int64(4), [np.int64(2), np.int64(2)]),
        ],
        [
            (3, [3, 2]),
            (np.int64(3), [np.int64(3), np.int64(2)]),
            [1, [2]],
            (2, (1, 1, 2)),
            (4, np.array([6])),
            ("3", "3, 2"),
        ],
    ),
    "cache.library": (
        [1, 2, 3, 4, 5, 7, 8, 9, "line 8", 0, 40],
        [6, "6", "line 6", np.int64(6)],
    ),
    "cache.million": (
        [0.5, 0.49, 122_070, 4 * 122, 61, 128 * 10**6, 131.07, 131, 1.22, "half a GiB", None],
        [122, 122.07, 120, "122 GiB", 128, TOKEN * 10**6 / 2**30, 125],
    ),
    "cache.milliseconds": (
        [
            0.015,
            3.02,
            2 * 7.24e9 / 989e12 * 1e3,
            6.03,
            3.9,
            0.11,
            0.00313,
            3130,
            320,
            "3 seconds",
            1,
        ],
        [
            3.1,
            3.13,
            "3.13 ms",
            (WEIGHTS + 4096 * TOKEN) / 4.8e12 * 1000,
            3,
            3.0,
            "3130 microseconds",
        ],
    ),
    "cache.rows": (
        [200, 206, 110_000, 54, 3.4, 3, 7.24, 320, "a few", 14.5e9],
        [27, 26.97, 13.5 / 0.5, "27 rows", 28, np.int64(27)],
    ),
}
