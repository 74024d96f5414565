"""Answers to the exercises of chapter 13, "Training a Mistral from nothing"."""

import math

import jax.numpy as jnp
import numpy as np

from mistral_lib.teaching.facts import MISTRAL_7B


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


def chunks(losses, size):
    return [losses[i : i + size] for i in range(0, len(losses), size)]


def mean_by_running_sums(losses, size):
    total = count = 0
    for part in chunks(losses, size):
        total += part.sum()
        count += len(part)
    return total / count


def mean_by_weights(losses, size):
    parts = chunks(losses, size)
    return np.average([p.mean() for p in parts], weights=[len(p) for p in parts])


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
    "training_loss.padding": (
        [4.08, 167 / 4096, 0.959, 24.5, 4096 - 167, 50, 100 * 4096 / 167, "nearly all", -96, 80],
        [96, 95.9, "96 %", "96 per cent", 100 * (1 - 167 / 4096), 95],
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
    "training_loss.bytes": (
        [
            27,
            4 * MISTRAL_7B / 2**30,
            8 * MISTRAL_7B / 2**30,
            12 * MISTRAL_7B / 2**30,
            115.9,
            16 * MISTRAL_7B / 1e9,
            13.5,
            16 * MISTRAL_7B,
            110_500,
            216,
            "a hundred",
        ],
        [108, 107.9, "108 GiB", 16 * MISTRAL_7B / 2**30, 4 * 27, np.float32(107.9)],
    ),
    "training_loss.library": (
        [1, 2, 3, 4, 5, 6, 8, 9, "line 9", 0, "the decorator"],
        [7, "7", "line 7", np.int64(7)],
    ),
    "training_loss.chunks": (
        [
            lambda losses, size: np.mean([part.mean() for part in chunks(losses, size)]),
            lambda losses, size: sum(part.sum() for part in chunks(losses, size)),
            lambda losses, size: sum(part.mean() for part in chunks(losses, size)),
            lambda losses, size: losses[: len(losses) // size * size].mean(),
            lambda losses, size: (
                sum(p.sum() for p in chunks(losses, size)) / len(chunks(losses, size))
            ),
            lambda losses, size: losses.sum() / size,
            lambda losses, size: (
                np.pad(losses, (0, -len(losses) % size)).reshape(-1, size).mean(axis=1).mean()
            ),
            lambda losses, size: np.pad(losses, (0, -len(losses) % size)).mean() + 1,
            lambda losses, size: losses.reshape(-1, size).mean(),
            lambda losses, size: [part.mean() for part in chunks(losses, size)],
            lambda losses: losses.mean(),
        ],
        [
            mean_by_running_sums,
            mean_by_weights,
            lambda losses, size: losses.mean(),
            lambda losses, size: jnp.pad(losses, (0, -len(losses) % size)).sum() / len(losses),
        ],
    ),
    "training_loss.gpu_days": (
        [
            419,
            838,
            30_168,
            508,
            1257 * 86_400,
            1.26,
            6 * 7.24e9 * 1e12 / 4e14,
            3.4,
            "three years",
            12,
        ],
        [1257, 1257.2, 1300, "1,257 days", 6 * 7.24e9 * 1e12 / 4e14 / 86_400, 1200],
    ),
}
