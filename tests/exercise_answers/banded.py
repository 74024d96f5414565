"""Answers to the exercises of chapter 8, "Reach and banding"."""

import math

import jax.numpy as jnp
import numpy as np


def joined(first, second):
    (o1, t1, h1), (o2, t2, h2) = first, second
    h = max(h1, h2)
    a, b = math.exp(h1 - h), math.exp(h2 - h)
    return [*(a * o1 + b * o2), a * t1 + b * t2, h]


def by_cases(first, second):
    if first[2] < second[2]:
        first, second = second, first
    shrink = np.exp(second[2] - first[2])
    return np.append(first[0] + shrink * second[0], [first[1] + shrink * second[1], first[2]])


def by_jax(first, second):
    h = jnp.maximum(first[2], second[2])
    parts = [jnp.exp(p[2] - h) * jnp.array([*p[0], p[1]]) for p in (first, second)]
    return jnp.array([*(parts[0] + parts[1]), h])


def first_shrinks(first, second):
    h = max(first[2], second[2])
    a = np.exp(first[2] - h)
    return np.array([*(a * first[0] + second[0]), a * first[1] + second[1], h])


def simple_sum(first, second):
    return np.array([*(first[0] + second[0]), first[1] + second[1], max(first[2], second[2])])


def from_zero(first, second):
    a, b = np.exp(first[2]), np.exp(second[2])
    top = max(a, b)
    return np.array(
        [*((a * first[0] + b * second[0]) / top), (a * first[1] + b * second[1]) / top, np.log(top)]
    )


def not_measured_from_the_highest(first, second):
    a, b = np.exp(first[2]), np.exp(second[2])
    return np.array(
        [*(a * first[0] + b * second[0]), a * first[1] + b * second[1], max(first[2], second[2])]
    )


def turned_round(first, second):
    h = max(first[2], second[2])
    a, b = np.exp(h - first[2]), np.exp(h - second[2])
    return np.array([*(a * first[0] + b * second[0]), a * first[1] + b * second[1], h])


def divided(first, second):
    *output, total, h = joined(first, second)
    return np.array([*(np.array(output) / total), total, h])


def heights_added(first, second):
    *rest, _ = joined(first, second)
    return np.array([*rest, first[2] + second[2]])


def totals_not_shrunk(first, second):
    *output, _, h = joined(first, second)
    return np.array([*output, first[1] + second[1], h])


ANSWERS = {
    "banded.reach": (
        [8, 17, 9, 12, 16, 20, 2, "11 back", [20, 17, 14, 11]],
        [11, "11", 20 - 3 * 3, np.int64(11), 11.0],
    ),
    "banded.span": (
        [
            lambda first, queries, window: (max(0, first + queries - window), first + queries),
            lambda first, queries, window: (first - window + 1, first + queries),
            lambda first, queries, window: (max(0, first - window + 1), first + 1),
            lambda first, queries, window: (max(0, first - window + 1), first + queries - 1),
            lambda first, queries, window: (max(0, first - window + 1), first + queries + 1),
            lambda first, queries, window: (max(0, first - window + 2), first + queries),
            lambda first, queries, window: (0, first + queries),
            lambda first, queries, window: max(0, first - window + 1),
            lambda first, queries, window: range(max(0, first - window + 1), first + queries),
            lambda first, queries, window: (max(0, first - 2 * window), first + queries),
            lambda first, window: (max(0, first - window + 1), first),
        ],
        [
            lambda first, queries, window: (max(0, first - window + 1), first + queries),
            lambda first, queries, window: [first - min(first, window - 1), queries + first],
            lambda first, queries, window: (max(0, first - window), first + queries),
            lambda first, queries, window: np.array(
                [np.maximum(first - window, -1) + 1, first + queries]
            ),
            lambda first, queries, window: (
                (first - window + 1 if first >= window else 0),
                first + queries,
            ),
        ],
    ),
    "banded.join": (
        [
            first_shrinks,
            simple_sum,
            from_zero,
            not_measured_from_the_highest,
            turned_round,
            divided,
            heights_added,
            totals_not_shrunk,
            lambda first, second: joined(first, second)[:-1],
            lambda first, second: tuple(first),
            lambda first, second: (first[0] + second[0], first[1] + second[1], first[2]),
        ],
        [joined, by_cases, by_jax],
    ),
    "banded.distance": (
        [
            ((0.235, 0.028), "a"),
            ((0.235, 0.028), "c"),
            ((0.287, 0.013), "b"),
            ((0.271, -0.004), "b"),
            ((0.163, 0.019), "b"),
            ((-0.235, -0.028), "b"),
            ((0.028, 0.235), "b"),
            ((4.44, 4.24), "b"),
            ((0.235, 0.5), "b"),
            (0.235, "b"),
            ((0.235, 0.028), "d"),
            "b",
        ],
        [
            ((0.2350, 0.0278), "b"),
            ([0.24, 0.03], "(b)"),
            (np.array([0.2347, 0.0281]), "B"),
        ],
    ),
    "banded.low": (
        [
            ((-50_001, -50_001), "a"),
            ((-50_746, -50_088), "a"),
            ((-50_746, -50_088), "c"),
            ((-50_746, -50_746), "b"),
            ((-50_088, -50_746), "b"),
            ((50_746, 50_088), "b"),
            ((-746, -88), "b"),
            ((-50_001, -50_001), "b"),
            (-50_746, "b"),
            ((-200_000, -50_000), "b"),
            "b",
        ],
        [
            ((-50_746, -50_088), "b"),
            ([-50_746, -50_104], "(b)"),
            (np.array([-50_745.0, -50_088.0]), "B"),
        ],
    ),
    "banded.library": (
        [1, 2, 3, 4, 5, 6, 7, 9, "line 6", 0, 99],
        [8, "8", "line 8", np.int64(8)],
    ),
}
