"""Answers to the exercises of chapter 13, "Training a Mistral from nothing"."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def rows_by_slices(documents, length):
    ribbon = [token for document in documents for token in document]
    rows = []
    while len(ribbon) > length:
        rows.append(ribbon[: length + 1])
        ribbon = ribbon[length:]
    return rows


def rows_by_windows(documents, length):
    ribbon = np.concatenate(documents)
    return np.lib.stride_tricks.sliding_window_view(ribbon, length + 1)[::length]


def rows_of_inputs_and_labels(documents, length):
    ribbon = jnp.concatenate([jnp.array(d) for d in documents])
    count = (len(ribbon) - 1) // length
    inputs = ribbon[: count * length].reshape(count, length)
    return jnp.concatenate([inputs, ribbon[length : count * length + 1 : length, None]], axis=1)


def adam(weight, gradient, mean, square, step, rate, correct=(1, 1), power=0.5, sign=-1, eps=1e-8):
    m = 0.9 * mean + 0.1 * gradient
    s = 0.98 * square + 0.02 * gradient**2
    if correct[0]:
        m = m / (1 - 0.9**step)
    if correct[1]:
        s = s / (1 - 0.98**step)
    return weight + sign * rate * m / (s**power + eps)


def adam_as_keras(weight, gradient, mean, square, step, rate):
    rate = rate * np.sqrt(1 - 0.98**step) / (1 - 0.9**step)
    mean = mean + (gradient - mean) * (1 - 0.9)
    square = square + (np.square(gradient) - square) * (1 - 0.98)
    return weight - rate * mean / (np.sqrt(square) + 1e-8)


def adam_in_place(weight, gradient, mean, square, step, rate):
    mean = np.asarray(mean, float)
    square = np.asarray(square, float)
    mean *= 0.9
    mean += 0.1 * gradient
    square *= 0.98
    square += 0.02 * gradient**2
    return weight - rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.98**step)) + 1e-8)


def surprises(logits, labels):
    z = logits - np.max(logits, axis=-1, keepdims=True)
    return np.log(np.exp(z).sum(-1)) - np.take_along_axis(z, labels[..., None], -1)[..., 0]


def loss_by_loops(logits, labels):
    found = []
    for row, right in zip(logits.reshape(-1, logits.shape[-1]), labels.ravel()):
        shifted = [x - max(row) for x in row]
        found.append(math.log(sum(math.exp(x) for x in shifted)) - shifted[right])
    return sum(found) / len(found)


def loss_by_softmax(logits, labels):
    chances = jax.nn.log_softmax(jnp.asarray(logits), axis=-1)
    return -jnp.take_along_axis(chances, labels[..., None], axis=-1).mean()


def loss_by_one_hot(logits, labels):
    right = (np.eye(logits.shape[-1])[labels] * logits).sum(axis=-1)
    return (np.asarray(jax.nn.logsumexp(logits, axis=-1)) - right).mean()


ANSWERS = {
    "training_loss.rows": (
        [
            lambda documents, length: np.concatenate(documents).reshape(-1, length + 1),
            lambda documents, length: np.resize(np.concatenate(documents), (2, length + 1)),
            lambda documents, length: [
                np.concatenate(documents)[i : i + length]
                for i in range(0, len(np.concatenate(documents)) - length + 1, length)
            ],
            lambda documents, length: [
                np.concatenate(documents)[i : i + length + 1]
                for i in range(0, len(np.concatenate(documents)) - length, length + 1)
            ],
            lambda documents, length: [
                np.concatenate(documents)[i : i + length + 1]
                for i in range(len(np.concatenate(documents)) - length)
            ],
            lambda documents, length: [
                np.concatenate(documents)[i : i + length + 1]
                for i in range(0, len(np.concatenate(documents)), length)
            ],
            lambda documents, length: [(d + [0] * length)[: length + 1] for d in documents],
            lambda documents, length: documents,
            lambda documents, length: np.concatenate(documents),
            lambda documents, length: rows_by_slices(documents[:1], length),
            lambda documents, length: np.array(rows_by_slices(documents, length)).T,
        ],
        [rows_by_slices, rows_by_windows, rows_of_inputs_and_labels],
    ),
    "training_loss.first_step": (
        [
            0.0200015,
            0.017,
            0.02 + 0.003 * 0.1 / math.sqrt(0.02),
            0.0203,
            0.003,
            0.02,
            0.0195,
            -0.023,
            23,
            "a bit more",
        ],
        [0.023, "0.023", 0.02 + 0.003, np.float32(0.023), [0.023], "23/1000"],
    ),
    "training_loss.adam": (
        [
            lambda *state: adam(*state, correct=(0, 0)),
            lambda *state: adam(*state, correct=(1, 0)),
            lambda *state: adam(*state, correct=(0, 1)),
            lambda *state: adam(*state, power=1),
            lambda *state: adam(*state, sign=1),
            lambda *state: adam(*state, eps=1e-3),
            lambda w, g, m, s, step, rate: w - rate * g,
            lambda w, g, m, s, step, rate: w - rate * np.sign(g),
            lambda w, g, m, s, step, rate: adam(w, g, m, s, step + 1, rate),
            lambda w, g, m, s, step, rate: adam(w, g, m, s, step, rate) - w,
            lambda w, g, m, s, step, rate: w - rate * m / (np.sqrt(s) + 1e-8),
            lambda w, g, m, s, step, rate: (
                w
                - rate
                * (0.9 * m + 0.1 * g)
                / (1 - 0.9**step)
                / np.sqrt((0.98 * s + 0.02 * g**2) / (1 - 0.98**step) + 1e-8)
            ),
            lambda w, g, m, s, step, rate: (adam(w, g, m, s, step, rate), m, s),
            lambda weight, gradient, rate: weight - rate * gradient,
        ],
        [adam, adam_as_keras, adam_in_place],
    ),
    "training_loss.write": (
        [
            lambda logits, labels: surprises(logits, labels).sum(),
            surprises,
            lambda logits, labels: -surprises(logits, labels).mean(),
            lambda logits, labels: surprises(logits, labels).mean() / np.log(2),
            lambda logits, labels: logits.max(axis=-1).mean(),
            lambda logits, labels: np.log(np.exp(logits).sum(axis=-1)).mean(),
            lambda logits, labels: (
                np.log(np.exp(logits).sum(axis=-1))
                - np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
            ).mean(),
            lambda logits, labels: (
                logits.max(axis=-1) - np.take_along_axis(logits, labels[..., None], -1)[..., 0]
            ).mean(),
            lambda logits, labels: (logits.argmax(axis=-1) != labels).mean(),
            lambda logits, labels: np.exp(-surprises(logits, labels)).mean(),
            lambda logits, labels: np.exp(surprises(logits, labels).mean()),
            lambda logits, labels: surprises(logits, labels).mean(axis=0),
            lambda logits, labels: surprises(logits, labels)[:, -1].mean(),
            lambda logits, labels: surprises(logits, labels).sum(axis=1).mean(),
            lambda logits, labels: np.median(surprises(logits, labels)),
            lambda logits, labels: surprises(logits, labels).max(),
            lambda logits, labels: surprises(logits, logits.argmax(axis=-1)).mean(),
            lambda logits, labels: -np.log(logits).mean(),
            "the mean of the surprises",
            lambda logits: np.log(np.exp(logits).sum(axis=-1)).mean(),
        ],
        [loss_by_loops, loss_by_softmax, loss_by_one_hot],
    ),
    "training_loss.initialisation": (
        [
            ((1.27, 0.75), "a"),
            ((1.27, 0.75), "c"),
            ((8.91, 7.17), "b"),
            ((0.75, 1.27), "b"),
            ((1.27, 1.27), "b"),
            ((-1.27, -0.75), "b"),
            ((1.27, 0.0), "a"),
            ((7.64, 6.42), "b"),
            ((10, 10), "b"),
            ((1.27, 0.75), "d"),
            ((0.0, 0.0), "c"),
            (("a lot", "less"), "b"),
            ((8.9, 7.6), "b"),
            (1.27, "b"),
            "b",
            ((1.27, 0.75, 0.1), "b"),
        ],
        [
            ((1.27, 0.75), "b"),
            ((1.3, 0.8), "B"),
            ([1.25, 0.7], "(b)"),
            (np.array([1.271, 0.748]), "b"),
        ],
    ),
    "training_loss.accumulation": (
        [
            ((0.61, 0.99, 1.0), "a"),
            ((0.61, 0.99, 1.0), "c"),
            ((1.0, 1.0, 1.0), "b"),
            ((1.55, 0.15, 0.0), "b"),
            ((0.61, 0.61, 1.0), "b"),
            ((0.61, 0.99), "b"),
            ((0.61, 0.99, 0.61), "b"),
            ((1.0, 0.99, 0.61), "b"),
            ((0.39, 0.01, 0.0), "b"),
            ((0.61, 1.0, 1.0), "b"),
            ((0.61, 0.99, 1.0), "both"),
            ((61, 99, 100), "b"),
            ((0.99, 0.61, 1.0), "b"),
            "b",
            0.61,
        ],
        [
            ((0.61, 0.99, 1.0), "b"),
            ((0.607, 0.989, 1), "B"),
            (np.array([0.6072, 0.9894, 1.0]), "b"),
            ([0.61, 0.99, 1.0], "(b)"),
        ],
    ),
}
