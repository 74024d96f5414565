"""The exercises of chapter 13, "Training a Mistral from nothing"."""

from __future__ import annotations

import math

import numpy as np

from mistral_lib.teaching.exercises.kinds import Estimate, Explanation, Function, Line, Value
from mistral_lib.teaching.facts import MISTRAL_7B
from mistral_lib.training_loss import token_losses

H100 = 4e14  # FLOPs a second that one sustains in training
FOREVER = 10**6  # steps after which nothing is left to correct


def _documents():
    """Lists of documents, short ones first, and the length of a row."""
    yield [[1, 2, 3, 4, 5]], 2
    yield [[1, 7, 2], [1, 8, 9, 2]], 3
    yield [[1, 5, 2], [1, 6, 7, 8, 9, 2], [1, 4, 3, 2]], 4
    yield [list(range(10 * i, 10 * i + 7)) for i in range(5)], 5


def _rows(documents, length):
    stream = np.concatenate(documents)
    starts = np.arange(0, len(stream) - length, length)
    return stream[starts[:, None] + np.arange(length + 1)]


def _cut(documents, length):
    """Rows of `length` tokens that share none."""
    stream = np.concatenate(documents)
    return stream[: len(stream) // length * length].reshape(-1, length)


def _one_row_each(documents, length):
    rows = np.zeros((len(documents), length + 1), int)
    for row, document in zip(rows, documents):
        kept = document[: length + 1]
        row[: len(kept)] = kept
    return rows


def _states():
    """Weights, gradients, both averages, the number of the step and the rate."""
    yield 1.0, 2.0, 0.0, 0.0, 1, 0.1
    yield 1.0, -2.0, 0.5, 4.0, 2, 0.1
    yield 1.0, 0.0, 0.0, 0.0, 1, 0.1  # only epsilon keeps 0 / 0 away
    yield 1.0, 0.0001, 0.0, 0.0, 1, 0.1
    random = np.random.default_rng(13)
    for step in (1, 5, 50):
        weight, gradient, mean = random.integers(-4, 5, (3, 4)).astype(float)
        yield weight, gradient, mean, random.integers(1, 9, 4).astype(float), step, 0.1


def _averages(gradient, mean, square, step):
    """Both averages after this gradient, corrected for their start at zero."""
    mean = (0.9 * mean + 0.1 * gradient) / (1 - 0.9**step)
    square = (0.98 * square + 0.02 * gradient**2) / (1 - 0.98**step)
    return mean, square


def _adam(weight, gradient, mean, square, step, rate, *, epsilon=1e-8, under_root=0.0):
    mean, square = _averages(gradient, mean, square, step)
    return weight - rate * mean / (np.sqrt(square + under_root) + epsilon)


def _losses():
    """Losses of tokens, and the tokens in a chunk: with and without a rest."""
    yield np.array([1.0, 2.0, 6.0]), 2
    yield np.array([4.0]), 3
    yield np.arange(6.0), 3
    yield np.arange(10.0) ** 2, 4


def _in_chunks(losses, size):
    count = -(-len(losses) // size)
    padded = np.pad(losses, (0, count * size - len(losses)))
    return padded.reshape(count, size)


EXERCISES = [
    Function(
        name="training_loss.rows",
        kind="missing lines",
        minutes=6,
        difficulty=2,
        solution=_rows,
        cases=_documents,
        mistakes={
            "cuts rows that share no token: each row's last token is never read, only asked for.": (
                lambda documents, length: _cut(documents, length + 1)
            ),
            "cuts rows that share no token, and stops where they do not come out even.": (
                lambda documents, length: np.concatenate(documents).reshape(-1, length + 1)
            ),
            "has rows of `length` tokens: the label of the last one is missing.": _cut,
            "gives every document a row of its own, with padding.": _one_row_each,
        },
        hints=(
            "A row of S questions holds S + 1 tokens. Which token do two neighbours share?",
            "Rows start every `length` tokens and are `length + 1` tokens long.",
            "stream[np.arange(0, len(stream) - length, length)[:, None] + np.arange(length + 1)]",
        ),
    ),
    Estimate(
        name="training_loss.padding",
        kind="estimate",
        minutes=2,
        difficulty=1,
        solution=round(100 * (1 - 167 / 4096), 1),
        factor=1.03,
        unit="per cent",
        mistakes=(
            (100 * 167 / 4096, "that is the share of the tokens. Padding is asked for."),
            (1 - 167 / 4096, "that is the fraction; per cent are asked for."),
            (4096 / 167, "so many documents fit into a row. Which share is empty with one?"),
        ),
        hints=(
            "How many places of a row does a document fill, and how many are there?",
            "167 of 4,096 places are filled, on average. The others are padding.",
            "100 * (1 - 167 / 4096)",
        ),
    ),
    Value(
        name="training_loss.first_step",
        kind="trace by hand",
        minutes=3,
        difficulty=1,
        solution=0.023,
        mistakes=(
            (0.017, "a negative gradient says that the loss falls when the weight grows."),
            (
                0.0200015,
                "gradient descent moves it that little. Adam divides by the size it has seen.",
            ),
            (0.02 + 0.003 * 0.1 / math.sqrt(0.02), "both averages start at 0: correct for it."),
            (0.0203, "the mean is corrected from 0.1 g to g. Without it a tenth is left."),
            (0.003, "that is the change. The weight was 0.02 before."),
        ),
        hints=(
            "In the first step the two averages know a single gradient, g.",
            "Corrected, the mean is g and the root of the square is |g|. Their ratio is a sign.",
            "0.02 - 0.003 * (-0.0005 / 0.0005)",
        ),
    ),
    Function(
        name="training_loss.adam",
        kind="missing lines",
        minutes=6,
        difficulty=2,
        solution=_adam,
        cases=_states,
        mistakes={
            "does not correct the averages, which start at zero.": (
                lambda weight, gradient, mean, square, step, rate: _adam(
                    weight, gradient, mean, square, FOREVER, rate
                )
            ),
            "has no epsilon: where nothing has arrived yet, it divides 0 by 0.": (
                lambda *state: _adam(*state, epsilon=0)
            ),
            "adds epsilon to the mean square: it is to be added to the root.": (
                lambda *state: _adam(*state, epsilon=0, under_root=1e-8)
            ),
            "divides by the mean square; its root has the unit of the gradient.": (
                lambda weight, gradient, mean, square, step, rate: (
                    weight
                    - rate
                    * _averages(gradient, mean, square, step)[0]
                    / (_averages(gradient, mean, square, step)[1] + 1e-8)
                )
            ),
            "follows the last gradient; Adam follows the mean of the last ones.": (
                lambda weight, gradient, mean, square, step, rate: (
                    weight
                    - rate * gradient / (_averages(gradient, mean, square, step)[1] ** 0.5 + 1e-8)
                )
            ),
            "goes uphill: a step is subtracted.": (
                lambda weight, *state: 2 * weight - _adam(weight, *state)
            ),
            "returns the change alone, without the weight.": (
                lambda weight, *state: _adam(0 * weight, *state)
            ),
            "is plain gradient descent.": (
                lambda weight, gradient, mean, square, step, rate: weight - rate * gradient
            ),
        },
        hints=(
            "Two averages, of the gradient and of its square; a step is their ratio.",
            "Divide the new averages by 1 - 0.9**step and 1 - 0.98**step before the root.",
            "weight - rate * (m / (1 - 0.9**step)) / (np.sqrt(s / (1 - 0.98**step)) + 1e-8)",
        ),
    ),
    Function(
        name="training_loss.chunks",
        kind="find the bug",
        minutes=4,
        difficulty=2,
        solution=lambda losses, size: _in_chunks(losses, size).sum() / len(losses),
        cases=_losses,
        mistakes={
            "is the function as it was: zeros that fill the last chunk count as tokens.": (
                lambda losses, size: _in_chunks(losses, size).mean(axis=1).mean()
            ),
            "averages the chunks: a short last chunk then counts as much as a full one.": (
                lambda losses, size: np.mean(
                    [losses[i : i + size].mean() for i in range(0, len(losses), size)]
                )
            ),
            "is the sum of the chunks' means.": (
                lambda losses, size: _in_chunks(losses, size).mean(axis=1).sum()
            ),
        },
        hints=(
            "Take three losses and chunks of two. By what is the total divided?",
            "Keep sums of chunks, and divide once, at the end, by the number of tokens.",
            "padded.reshape(count, size).sum() / len(losses)",
        ),
    ),
    Line(
        name="training_loss.library",
        kind="read the library",
        minutes=4,
        difficulty=2,
        function=token_losses,
        line="@jax.checkpoint",
        wrong={
            "size = min(": "this line says how many tokens a chunk has. Without it nothing runs.",
            "logits = token_embedding(": (
                "without this line there are no logits to take a loss from."
            ),
            "results = map_in_order(": (
                "this line runs the chunks one after the other. Without it there is no result."
            ),
        },
        hints=(
            "The backward pass needs every chunk's logits. Where could it have them from?",
            "A line that computes nothing, and says how the lines below it are differentiated.",
            "Look for the decorator.",
        ),
    ),
    Estimate(
        name="training_loss.bytes",
        kind="estimate",
        minutes=3,
        difficulty=1,
        solution=round(16 * MISTRAL_7B / 2**30, 1),
        factor=1.05,
        unit="GiB",
        mistakes=(
            (4 * MISTRAL_7B / 2**30, "those are the weights alone."),
            (8 * MISTRAL_7B / 2**30, "weights and gradients. What does Adam remember?"),
            (12 * MISTRAL_7B / 2**30, "Adam remembers two numbers for every weight."),
            (16 * MISTRAL_7B / 1e9, "those are GB, of 1000 cubed bytes; GiB are asked for."),
        ),
        hints=(
            "Which numbers exist once for every weight?",
            "Weight, gradient, mean, mean square: four numbers of four bytes each.",
            "16 * 7_241_732_096 / 2**30",
        ),
    ),
    Estimate(
        name="training_loss.gpu_days",
        kind="estimate",
        minutes=4,
        difficulty=2,
        solution=round(6 * MISTRAL_7B * 1e12 / H100 / 86_400),
        factor=1.15,
        unit="days",
        mistakes=(
            (2 * MISTRAL_7B * 1e12 / H100 / 86_400, "that is the forward pass alone."),
            (4 * MISTRAL_7B * 1e12 / H100 / 86_400, "that is the backward pass alone."),
            (6 * MISTRAL_7B * 1e12 / H100 / 3_600, "those are hours."),
            (6 * MISTRAL_7B * 1e12 / 9.89e14 / 86_400, "no GPU keeps its peak rate in training."),
        ),
        hints=(
            "FLOPs in all, by FLOPs a second, by seconds a day.",
            "6 N D with N = 7.24e9 and D = 1e12, at 4e14 a second; a day has 86,400 seconds.",
            "6 * 7.24e9 * 1e12 / 4e14 / 86_400",
        ),
    ),
    Explanation(
        name="training_loss.explain",
        kind="explain",
        minutes=5,
        difficulty=2,
        points=(
            "whoever unpacks needs the weights: they are many times larger than the held-out text",
            "xz may read the training text first, too: then it needs 1.77 bits, not 2.39",
            "the held-out text is of the same kind as the training text; elsewhere it may lose",
            "a coder runs the whole model for every token, in the same order on both machines",
        ),
        hints=(
            "What does the receiver need in order to unpack?",
            "Look at the figure: how much of the lead is left when both have read the same text?",
            "Compare the bytes of the weights with the bytes that the model saves.",
        ),
    ),
]
