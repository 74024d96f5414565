"""The exercises of chapter 13, "Training a Mistral from nothing"."""

from __future__ import annotations

import math

import numpy as np

from mistral_lib.teaching.exercises.kinds import Experiment, Explanation, Function, Value

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


def _logits():
    """Logits and labels: one position of two tokens first."""
    yield np.array([[[0.0, 0.0]]]), np.array([[1]])
    yield np.array([[[1.0, 3.0]]]), np.array([[0]])
    yield np.array([[[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]]]), np.array([[1, 2]])
    yield np.array([[[900.0, 901.0]], [[-900.0, -901.0]]]), np.array([[0], [0]])  # overflow
    random = np.random.default_rng(13)
    yield random.integers(-3, 4, (2, 3, 4)).astype(float), random.integers(0, 4, (2, 3))


def _surprises(logits, labels):
    largest = logits.max(axis=-1, keepdims=True)
    total = np.exp(logits - largest).sum(axis=-1)
    right = np.take_along_axis(logits - largest, labels[..., None], axis=-1)[..., 0]
    return np.log(total) - right


def _unstable(logits, labels):
    right = np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return (np.log(np.exp(logits).sum(axis=-1)) - right).mean()


def _below_the_highest(logits, labels):
    right = np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return (logits.max(axis=-1) - right).mean()


EXERCISES = [
    Function(
        name="training_loss.write",
        kind="missing lines",
        minutes=6,
        difficulty=2,
        solution=lambda logits, labels: _surprises(logits, labels).mean(),
        cases=_logits,
        mistakes={
            "returns the sum over positions: a batch of twice the size has twice the loss.": (
                lambda logits, labels: _surprises(logits, labels).sum()
            ),
            "overflows: subtract the largest logit before you take exponentials.": _unstable,
            "goes by the highest logit alone. The soft maximum adds up all exponentials.": (
                _below_the_highest
            ),
            "has the wrong sign: a loss falls as the right logit rises.": (
                lambda logits, labels: -_surprises(logits, labels).mean()
            ),
            "is in bits; the loss is in nats, with the natural logarithm.": (
                lambda logits, labels: _surprises(logits, labels).mean() / np.log(2)
            ),
            "returns the loss of each position: the mean is asked for.": _surprises,
        },
        hints=(
            "For each position you need two numbers: the soft maximum, and one logit.",
            "np.take_along_axis wants indices with as many axes as the logits: labels[..., None].",
            "Begin with right = np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0].",
        ),
    ),
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
            "np.arange(0, len(stream) - length, length) are the starts of the rows. What do you "
            "add to each?",
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
            "Corrected, the mean is g and the root of the square is |g|. What is their ratio?",
            "The step is the rate times that ratio. Mind its direction: a step goes downhill.",
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
            "Begin with m = 0.9 * mean + 0.1 * gradient, and correct it in a line of its own.",
        ),
    ),
    Experiment(
        name="training_loss.initialisation",
        kind="run an experiment",
        minutes=10,
        difficulty=2,
        solution=((1.27, 0.75), "b"),
        within=0.15,
        claims={
            "a": "large first weights cost something in the first step only.",
            "b": "training undoes a part of the handicap, but after 30 steps the rest is there.",
            "c": "with such large first weights nothing is learned.",
        },
        refusals={
            "a": "the second number is more than half of the first, twenty steps later.",
            "c": "the handicap shrinks, and the loss itself falls by more than a nat.",
        },
        others=(
            ((8.91, 7.17), "those are losses. By how much are they above those with factor 1?"),
            ((-1.27, -0.75), "that is how much better factor 1 is. Subtract the other way round."),
            ((0.75, 1.27), "the first step comes first."),
            ((1.27, 1.27), "the second number is the mean over steps 21 to 30."),
        ),
        hints=(
            "Both factors read the same batches, so subtract the losses step by step.",
            "train(...)[1] is the list of losses. Take number 0, and the mean of the last ten.",
            "Write a function of the factor that returns the losses of the three seeds, an array "
            "(3, 30).",
        ),
    ),
    Experiment(
        name="training_loss.accumulation",
        kind="run an experiment",
        minutes=12,
        difficulty=3,
        solution=((0.61, 0.99, 1.0), "b"),
        within=0.006,
        claims={
            "a": "only the length is wrong, and Adam repairs that.",
            "b": "the direction is wrong, too, where the numbers of labels differ between "
            "micro-batches.",
            "c": "every accumulated gradient is inexact, and small micro-batches are the worst.",
        },
        refusals={
            "a": "a factor of the length would leave every cosine at 1.",
            "c": "the third one is exact, and its micro-batches have a single text, too.",
        },
        others=(
            ((1.0, 1.0, 1.0), "those are the cosines of the sums. Take mean_of_means."),
            ((1.55, 0.15, 0.0), "those are distances. A cosine divides by both lengths."),
            (
                (0.61, 0.61, 1.0),
                "the second has a long and a short text in each micro-batch.",
            ),
        ),
        hints=(
            "A cosine of 1 means the same direction, whatever the lengths.",
            "Gradients of sums add up: a micro-batch of two has gradients[:4] + gradients[4:], and "
            "its labels likewise.",
            "For the third, take the first eight of documents, as wide as batch, and a copy of the "
            "mask with False from column 21 on. gradients.sum(axis=0) has the direction of the "
            "whole batch.",
        ),
    ),
    Explanation(
        name="training_loss.explain",
        kind="explain",
        minutes=5,
        difficulty=2,
        points=(
            "to unpack, you need the weights, which are many times larger than the held-out text",
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
