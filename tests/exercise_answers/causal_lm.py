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
    "causal_lm.numbers": (
        [
            32_000 * 4 / 2**20,
            0.125,
            4096 * 32_000 / 2**20,
            4096 * 32_000 * 4,
            4096 * 32_000 * 2 / 2**20,
            4096 * 4096 * 4 / 2**20,
            4096 * 32_000 * 4 / 2**30,
            4096 * 32_000 * 32 / 2**20,
            "half a gigabyte",
        ],
        [500, "500 MiB", "0.5 GiB", 4 * 32 * 4, jnp.float32(500), 4096 * 32_000 * 4 / 2**20],
    ),
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
        [0.583, 7 / 12, 2, 6, 12, -0.5, 0.35, 1 / 12, "6 bits", [0.25, 0.5, 1], 2.0],
        [0.5, "1/2", 6 / 12, np.float64(0.5), (1 + 3 + 2) / (4 + 6 + 2), "0.5"],
    ),
    "causal_lm.units": (
        [
            0.5,
            2 / math.log(2),
            2 * math.log(2) / 4,
            8 / math.log(2),
            2 * math.log(2),
            math.exp(2) / 4,
            2 / math.log(10) / 4,
            None,
        ],
        [0.72, 0.7213, 2.9 / 4, math.log2(math.e**2) / 4, "0.72", jnp.array(0.7213)],
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
    "causal_lm.library": ([1, 2, 4, 5, 6, 7, 0, 8, "line 2", 3.5], [3, "3", "line 3", np.int64(3)]),
    "causal_lm.loop_cost": (
        [1000, 1_000_000, 500_500, 1, 2, 10, math.log(1000), 1000 / 501, "a lot"],
        [500.5, 500, "500", 1001 / 2, sum(range(1, 1001)) / 1000, np.arange(1, 1001).mean()],
    ),
}
