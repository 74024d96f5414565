"""Answers to the exercises of chapter 1, "One token"."""

import math

import jax.numpy as jnp
import numpy as np


def zipped(log_probabilities, ids):
    losses = []
    for row, token in zip(log_probabilities[:-1], ids[1:]):
        losses.append(-row[token])
    return losses


def one_hot(log_probabilities, ids):
    targets = np.eye(log_probabilities.shape[1])[ids[1:]]
    return -(log_probabilities[:-1] * targets).sum(axis=1)


def taken_along_the_axis(log_probabilities, ids):
    return -np.take_along_axis(log_probabilities[:-1], ids[1:, None], axis=1).squeeze(1)


ANSWERS = {
    "causal_lm.shift": (
        [
            lambda log_p, ids: log_p[np.arange(len(ids)), ids],
            lambda log_p, ids: -log_p[np.arange(len(ids)), ids],
            lambda log_p, ids: log_p[np.arange(len(ids) - 1), ids[1:]],
            lambda log_p, ids: -log_p[np.arange(len(ids) - 1), ids[:-1]],
            lambda log_p, ids: -log_p[:-1, ids[1:]],
            lambda log_p, ids: -log_p[1:, ids[1:]].diagonal(),
            lambda log_p, ids: -log_p[np.arange(len(ids) - 1), ids[1:]] / math.log(2),
            lambda log_p, ids: np.exp(-log_p[np.arange(len(ids) - 1), ids[1:]]),
            lambda log_p, ids: -log_p.max(axis=1)[:-1],
            lambda log_p, ids: -log_p[ids[1:]],
            lambda log_p, ids: -sum(row[i] for row, i in zip(log_p, ids[1:])),
            lambda log_p, ids: print(-log_p[np.arange(len(ids) - 1), ids[1:]][:0], end=""),
        ],
        [
            zipped,
            one_hot,
            taken_along_the_axis,
            lambda log_p, ids: -np.diag(log_p[:-1][:, ids[1:]]),
            lambda log_p, ids: -jnp.asarray(log_p)[jnp.arange(len(ids) - 1), ids[1:]],
            lambda log_p, ids: tuple(-log_p[i - 1, ids[i]] for i in range(1, len(ids))),
        ],
    ),
    "causal_lm.by_hand": (
        [
            (14 / 3, 2, 0.5, 0.5),
            (64, 64, 0.5, 0.5),
            (2, 1, 0.5, 0.5),
            (math.exp(2), math.e, 0.5, 0.5),
            (0.25, 0.5, 0.5, 0.5),
            (4, 2, 2, 1),
            (4, 2, 6, 6),
            (4, 2, 2, 2),
            (4, 2, 1 / 3, 1 / 6),
            (2, 4, 0.5, 0.5),
            (4, 2, 7 / 12, 0.5),
            (4, 2),
            4,
            "four and two",
        ],
        [
            (4, 2, 0.5, 0.5),
            (2**2, 2**1, "1/2", "1/2"),
            np.array([4, 2, 0.5, 0.5]),
            [8 ** (2 / 3), 2.0, 6 / 12, 6 / 12],
        ],
    ),
    "causal_lm.average": (
        [
            ([30, 10], [10, 10]),
            ([3, 8, 1], [4, 4, 4]),
            ([12], [10]),
            ([20, 200], [10, 100]),
            ([0, 0], [3, 5]),
            ([30, 100], [10]),
            ([30, 100], [0, 100]),
            ([-3, 4], [1, 2]),
            ([3, 4], [1.5, 2]),
            [30, 100],
            30,
            "any two texts",
            {"bits": [30, 100], "sizes": [10, 100]},
        ],
        [
            ([30, 100], [10, 100]),
            [[8, 1], [1, 8]],
            (np.array([0, 9]), np.array([1, 2])),
            ((4.5, 8, 7), (2, 4, 9)),
            (jnp.array([30.0, 1.0]), [5, 1]),
        ],
    ),
    "causal_lm.loop_cost": (
        [1000, 1_000_000, 500_500, 1, 2, 10, math.log(1000), 1000 / 501, "a lot"],
        [500.5, 500, "500", 1001 / 2, sum(range(1, 1001)) / 1000, np.arange(1, 1001).mean()],
    ),
    "causal_lm.tables": (
        [
            ((0.743, 7.711, 3.752), "a"),
            ((0.743, 7.711, 3.752), "c"),
            ((0.74, 7.81, 3.74), "b"),
            ((0.743, 0.778, 3.431), "b"),
            ((0.515, 5.345, 2.601), "b"),
            ((1.28, 5.497, 3.752), "b"),
            ((0.475, 9.719, 3.752), "b"),
            ((7.711, 0.743, 3.752), "b"),
            ((0.743, 7.711, 3.447), "b"),
            ((7758, 80457, 39147), "b"),
            ((0.743, 7.711), "b"),
            "b",
        ],
        [
            ((0.743, 7.711, 3.752), "b"),
            ([0.74, 7.71, 3.75], "(b)"),
            (np.array([0.7433, 7.7114, 3.7521]), "B"),
        ],
    ),
    "causal_lm.context": (
        [
            ((5.65, 5.64, 5.2, 4.4), "a"),
            ((5.65, 5.64, 5.2, 4.4), "b"),
            ((5.7, 5.66, 5.29, 4.4), "c"),
            ((7.31, 6.88, 7.22, 6.41), "c"),
            ((3.92, 3.91, 3.6, 3.05), "c"),
            ((4.4, 5.64, 5.2, 5.65), "c"),
            ((5.65, 5.2, 5.64, 4.4), "c"),
            ((5.65, 5.64, 5.09, 4.4), "c"),
            ((0, 0.01, 0.45, 1.25), "c"),
            (5.65, "c"),
        ],
        [
            ((5.65, 5.64, 5.2, 4.4), "c"),
            (np.array([5.651, 5.638, 5.204, 4.4]), "(c)"),
            (["5.65", "5.64", "5.20", "4.40"], "C"),
        ],
    ),
    "causal_lm.honest": (
        [
            ((0.415, 0.404, 0.319, 0.2), "a"),
            ((0.415, 0.404, 0.319, 0.2), "c"),
            ((0.357, 0.241, 0.305, 0.169), "b"),
            ((0.402, 0.385, 0.32, 0.199), "b"),
            ((0.398, 0.39, 0.319, 0.195), "b"),
            ((0.282, 0.404, 0.122, 0.2), "b"),
            ((0.404, 0.415, 0.2, 0.319), "b"),
            ((0.319, 0.2, 0.415, 0.404), "b"),
            ((0.42, 0.02, 0.32, 0.02), "b"),
            ([[0.415, 0.404], [0.319, 0.2]], "b"),
        ],
        [
            ((0.415, 0.404, 0.319, 0.2), "b"),
            (np.array([0.4152, 0.4035, 0.3194, 0.2005]), "(b)"),
            (["0.415", "0.404", "0.319", "0.200"], "B"),
        ],
    ),
}
