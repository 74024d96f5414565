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
    "cache.prompt": (
        [1, 2, 4, 5, 6, 7, 0, 8, "line 2", 3.5],
        [3, "3", "line 3", np.int64(3)],
    ),
    "cache.rewind": (
        [
            ((0.0, 1.59), "a"),
            ((0.0, 1.59), "c"),
            ((1.59, 0.0), "b"),
            ((0.0, -1.59), "b"),
            ((0.0, 0.0), "c"),
            ((0.0, 0.36), "b"),
            ((0.0, 0.04), "c"),
            ((4.58, 6.17), "b"),
            (1.59, "b"),
            ((0.0, 1.59), "d"),
            (np.zeros(26), "b"),
            "b",
            None,
        ],
        [
            ((0.0, 1.59), "b"),
            ([0.0, 1.5937], "B"),
            (np.array([0, 1.6], "float32"), "(b)"),
            [("0", "1.59"), " b "],
        ],
    ),
    "cache.sinks": (
        [
            ((0.265, 0.41, 0.399), "a"),
            ((0.265, 0.41, 0.399), "c"),
            ((0.265, 0.271, 0.265), "b"),
            ((0.265, 0.41, 0.265), "b"),
            ((0.226, 0.351, 0.34), "b"),
            ((0.265, 0.462, 0.399), "b"),
            ((0.265, 0.317, 0.399), "a"),
            ((0.265, 0.41), "b"),
            ((0.41, 0.265, 0.399), "b"),
            ((0.265, 0.41, 0.399), "no sink"),
            (np.zeros((3, 26)), "b"),
            {"first": 0.41},
        ],
        [
            ((0.265, 0.41, 0.399), "b"),
            ([0.26, 0.41, 0.40], "B"),
            (np.array([0.2654, 0.4101, 0.3987], "float32"), "(b)"),
            [("0.27", "0.41", "0.4"), " b"],
        ],
    ),
    "cache.serve": (
        [
            ((15.04, 24.32), "a"),
            ((15.04, 24.32), "c"),
            ((31.99, 202.6), "a"),
            ((2.13, 8.35), "b"),
            ((4892, 7909), "b"),
            ((0.47, 0.12), "b"),
            ((3.9, 4.2), "b"),
            ((32, 203), "a"),
            (15.04, "b"),
            ((24.32, 15.04), "b"),
            ((15.04, 24.32), "d"),
            "twenty-four times",
        ],
        [
            ((15.04, 24.32), "b"),
            ([15, 24.3], "B"),
            (np.array([15.04, 24.32]), "(b)"),
            [("15", "24.3"), " b "],
        ],
    ),
}
