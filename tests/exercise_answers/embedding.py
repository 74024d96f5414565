"""Answers to the exercises of chapter 3, "Embeddings and back"."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from mistral_lib.teaching.facts import MISTRAL_7B


def added_in_a_loop(ids, arrived, vocabulary):
    table = np.zeros((vocabulary, arrived.shape[1]))
    for token, vector in zip(ids, arrived):
        table[token] += vector
    return table


def assigned_in_a_loop(ids, arrived, vocabulary):
    table = np.zeros((vocabulary, arrived.shape[1]))
    for token, vector in zip(ids, arrived):
        table[token] = vector
    return table


def added_with_repeated_indices(ids, arrived, vocabulary):
    table = np.zeros((vocabulary, arrived.shape[1]))
    table[ids] += arrived
    return table


def whole_numbers(ids, arrived, vocabulary):
    table = np.zeros((arrived.shape[1], vocabulary), int)
    for token, vector in zip(ids, arrived):
        table[:, token] += vector.astype(int)
    return table


def mean_of_what_arrived(ids, arrived, vocabulary):
    rows = [
        arrived[ids == v].mean(axis=0) if (ids == v).any() else 0 * arrived[0]
        for v in range(vocabulary)
    ]
    return np.array(rows)


def one_hot(ids, arrived, vocabulary):
    return np.eye(vocabulary)[ids].T @ arrived


def masks_of_each_row(ids, arrived, vocabulary):
    return [arrived[ids == v].sum(axis=0) for v in range(vocabulary)]


def by_jax(ids, arrived, vocabulary):
    return jnp.zeros((vocabulary, arrived.shape[1])).at[ids].add(arrived)


def by_its_gradient(ids, arrived, vocabulary):
    table = jnp.zeros((vocabulary, arrived.shape[1]))
    return jax.grad(lambda table: (table[ids] * arrived).sum())(table)


ANSWERS = {
    "embedding.by_hand": (
        [
            [[1, 0], [5, 5], [2, -1]],
            [[5, 5], [0, 0], [2, -1], [0, 0]],
            [[5, 5], [0, 0], [1, 0], [0, 0]],
            [[5, 5], [0, 0], [1.5, -0.5], [0, 0]],
            [[5, 5], [3, -1]],
            [[0, 0], [5, 5], [3, -1], [0, 0]],
            [[5, 0, 3, 0], [5, 0, -1, 0]],
            [5, 5, 0, 0, 3, -1, 0, 0],
            [[5, 5], [], [3, -1], []],
            [8, 4],
        ],
        [
            [[5, 5], [0, 0], [3, -1], [0, 0]],
            np.array([[5, 5], [0, 0], [3, -1], [0, 0]]),
            ((5.0, 5.0), (0, 0), (3, -1.0), (0, 0)),
            jnp.array([[5, 5], [0, 0], [3, -1], [0, 0]]),
            [np.array([5, 5]), np.zeros(2), np.array([3, -1]), np.zeros(2)],
        ],
    ),
    "embedding.scatter": (
        [
            assigned_in_a_loop,
            added_with_repeated_indices,
            whole_numbers,
            mean_of_what_arrived,
            lambda ids, arrived, vocabulary: arrived,
            lambda ids, arrived, vocabulary: np.eye(vocabulary)[ids] @ arrived,
            lambda ids, arrived, vocabulary: np.eye(vocabulary)[ids].T,
            lambda ids, arrived, vocabulary: np.zeros((vocabulary, arrived.shape[1])),
            lambda ids, arrived, vocabulary: arrived[ids],
            lambda ids, arrived, vocabulary: np.add.at(
                np.zeros((vocabulary, arrived.shape[1])), ids, arrived
            ),
        ],
        [added_in_a_loop, one_hot, masks_of_each_row, by_jax, by_its_gradient],
    ),
    "embedding.nearest": (
        [
            ([[1, 0], [0, 1], [0.6, 0.8]], 0),
            ([[2, 0], [0, 2], [-2, 0]], 1),
            ([[1, 0], [1, 0], [2, 0]], 0),
            ([[1, 0], [5, 0], [1, 1]], 0),
            ([[1, 0], [9, 9]], 0),
            ([[1, 0], [0, 0], [9, 9]], 0),
            ([[1, 0], [2, 0], [9, 9]], 3),
            ([[1, 0], [2, 0], [9, 9]], -1),
            [[1, 0], [2, 0], [9, 9]],
            ([[1, 0], [2, 0], [9, math.nan]], 0),
            ([[1, 0], [2, 0], [9]], 0),
            ([[1, 0], [2, 0], [9, 9]], "first"),
            None,
        ],
        [
            ([[1, 0], [2, 0], [9, 9]], 0),
            (np.array([[0, 1], [5, 5], [0, 2]]), 0),
            ([[9, 0], [1, 1], [1, 1.5]], np.int64(2)),
            [jnp.array([[1, 0], [2, 0], [9, 9]]), 0],
            ([(1, 1), (10, 0), (1, 0.9), (0, 1)], 0),
        ],
    ),
    "embedding.share": (
        [
            25,
            100 * 32_000 * 4_096 / MISTRAL_7B,
            2 * 32_000 * 4_096 / MISTRAL_7B,
            100 * 2 * 32_000 * 4_096 / 2**30,
            100 * 2 * 4_096 / 32_000,
            2 * 32_000 * 4_096,
            0.5,
            "3.6 million",
            -3.6,
        ],
        [3.6, 3.62, "3.6 %", "3.6 percent", 4, 100 * 2 * 32_000 * 4_096 / MISTRAL_7B],
    ),
    "embedding.rungs": (
        [
            100 / 256,
            0.39,
            100 * (math.exp(1 / 16) - 1),
            100 * (math.exp(1 / 4) - 1),
            1 / 8,
            math.exp(1 / 8) - 1,
            100 * math.exp(1 / 8),
            1.13,
            100 / 128,
            "13 times",
        ],
        [13.3, 13, 12.5, 14, "13 %", 100 * (math.exp(0.125) - 1), np.expm1(1 / 8) * 100],
    ),
}
