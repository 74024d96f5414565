"""Answers to the exercises of chapter 3, "Embeddings and back"."""

import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np


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


def rounded(x):
    return np.asarray(np.asarray(x).astype(ml_dtypes.bfloat16), "float32")


def cast_afterwards(hidden, kernel):
    product = jnp.asarray(hidden, "bfloat16") @ jnp.asarray(kernel, "bfloat16")
    return product.astype("float32")


def sums_in_float32(hidden, kernel):
    hidden, kernel = jnp.asarray(hidden, "bfloat16"), jnp.asarray(kernel, "bfloat16")
    return jnp.matmul(hidden, kernel, preferred_element_type="float32")


def loops_over_places(hidden, kernel):
    hidden, kernel = rounded(hidden), rounded(kernel)
    return [[sum(a * b for a, b in zip(row, column)) for column in kernel.T] for row in hidden]


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
            ([[1, 0], [2, 2], [2, 0]], 0),
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
    "embedding.silence": (
        [
            ((1.45, 6.6), "a"),
            ((1.45, 6.6), "c"),
            ((0, 0), "a"),
            ((0.0, 0.0), "b"),
            ((0.01454, 0.00657), "b"),
            ((1.6, 7.57), "b"),
            ((0.0964, 0.43), "b"),
            ((1.45, 1370), "b"),
            ((12.6, 2242.5), "c"),
            (1.45, 6.6),
            ((1.45, 6.6), "zero"),
            (np.zeros(26), "b"),
            "b",
            None,
        ],
        [
            ((1.45, 6.6), "b"),
            ((1.3627, 6.5687), "b"),  # the mean over places, not over documents
            ([np.float32(1.4539), 6.5687], "B"),
            (("1.5", "6.6"), "(b)"),
            (np.array([1.454, 6.569]), " b"),
        ],
    ),
    "embedding.contexts": (
        [
            ((0.17, 0.2), "a"),
            ((0.17, 0.2), "c"),
            ((0.09, 0.42), "b"),
            ((0.2, 0.17), "a"),
            ((0.28, 0.24), "a"),
            ((0.172, 0.151), "b"),
            ((0.17, 0.42), "b"),
            ((0.0, 0.0), "c"),
            (0.17, 0.2),
            (np.zeros(77), "b"),
            ((0.17, 0.2), 2),
            "the mirror image holds",
            None,
        ],
        [
            ((0.17, 0.2), "b"),
            ([0.1746, 0.1957], "B"),
            (np.array([0.174, 0.196], "float32"), "(b)"),
            ("0.17 and 0.2".split(" and "), "b"),
        ],
    ),
    "embedding.logits": (
        [
            cast_afterwards,
            lambda hidden, kernel: hidden @ kernel,
            lambda hidden, kernel: rounded(hidden) @ kernel,
            lambda hidden, kernel: hidden @ rounded(kernel),
            lambda hidden, kernel: rounded(hidden @ kernel),
            lambda hidden, kernel: (
                jnp.asarray(hidden, "bfloat16") @ jnp.asarray(kernel, "bfloat16")
            ),
            lambda hidden, kernel: jnp.matmul(
                jnp.asarray(hidden, "float16"),
                jnp.asarray(kernel, "float16"),
                preferred_element_type="float32",
            ),
            lambda hidden, kernel: rounded(hidden) @ rounded(kernel).T,
            lambda hidden, kernel: jax.nn.softmax(rounded(hidden) @ rounded(kernel)),
            lambda hidden: hidden,
            7,
        ],
        [
            sums_in_float32,
            lambda hidden, kernel: rounded(hidden) @ rounded(kernel),
            loops_over_places,
            lambda hidden, kernel: jax.lax.dot(
                jnp.asarray(hidden, jnp.bfloat16),
                jnp.asarray(kernel, jnp.bfloat16),
                preferred_element_type=jnp.float32,
            ),
        ],
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
