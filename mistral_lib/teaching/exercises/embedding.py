"""The exercises of chapter 3, "Embeddings and back"."""

from __future__ import annotations

import math

import numpy as np

from mistral_lib.teaching.exercises.answers import numbers, whole
from mistral_lib.teaching.exercises.kinds import (
    BreakingInput,
    Estimate,
    Explanation,
    Function,
    Value,
)


def _arrivals():
    """Token ids (S,), the gradients that arrive at their vectors (S, D), and V: short first."""
    for ids, vocabulary in (([0], 2), ([1, 0], 2), ([1, 1], 2), ([2, 0, 2, 2], 4)):
        yield np.array(ids), np.arange(1.0, 1 + 2 * len(ids)).reshape(-1, 2), vocabulary
    random = np.random.default_rng(3)
    yield np.array([3, 1, 3]), random.integers(-5, 6, (3, 4)).astype(float), 6


def _scatter(ids, arrived, vocabulary):
    gradient = np.zeros((vocabulary, arrived.shape[1]))
    np.add.at(gradient, ids, arrived)
    return gradient


def _last_one_stays(ids, arrived, vocabulary):
    gradient = np.zeros((vocabulary, arrived.shape[1]))
    gradient[ids] += arrived
    return gradient


def _averaged(ids, arrived, vocabulary):
    counts = np.bincount(ids, minlength=vocabulary)
    return _scatter(ids, arrived, vocabulary) / np.maximum(counts, 1)[:, None]


def _cosines(table, row):
    """The cosine of every row with one, and -inf for that row itself."""
    lengths = np.linalg.norm(table, axis=1)
    return _of_others(table @ table[row] / lengths / lengths[row], row)


def _of_others(scores, row):
    return np.where(np.arange(len(scores)) == row, -np.inf, scores)


def _nearest(table, row):
    """Which rows have the highest cosine: one, or several."""
    cosines = _cosines(table, row)
    return cosines > cosines.max() - 1e-9


def _finds_a_nearest(table, row):
    """Whether the row of the highest product is one of those of the highest cosine."""
    return _nearest(table, row)[_of_others(table @ table[row], row).argmax()]


def _refuse(table, row):
    """Whether this could be a table of vectors and one of its rows."""
    if table.ndim != 2 or len(table) < 3:
        return "Give a table of at least three rows."
    sizes = abs(table[table != 0])
    if not np.isfinite(table).all() or not ((sizes > 1e-50) & (sizes < 1e50)).all():
        return "The numbers have to be finite, and of ordinary size."
    if not table.any(axis=1).all():
        return "No row may be all zeros: it has no direction."
    return None if 0 <= row < len(table) else f"The row is one of 0 to {len(table) - 1}."


def _equally_long(table, row):
    lengths = np.delete(np.linalg.norm(table, axis=1), row)
    return np.allclose(lengths, lengths[0])


EXERCISES = [
    Value(
        name="embedding.by_hand",
        kind="trace by hand",
        minutes=3,
        difficulty=1,
        solution=[[5, 5], [0, 0], [3, -1], [0, 0]],
        mistakes=(
            (
                [[5, 5], [0, 0], [2, -1], [0, 0]],
                "row 2 was read twice, and both gradients count. Yours kept the last.",
            ),
            (
                [[5, 5], [0, 0], [1, 0], [0, 0]],
                "row 2 was read twice, and both gradients count. Yours kept the first.",
            ),
            (
                [[5, 5], [0, 0], [1.5, -0.5], [0, 0]],
                "that is the average of what arrived at row 2. A gradient is a sum.",
            ),
            (
                [[1, 0], [5, 5], [2, -1]],
                "that is what arrived, token by token. The table has four rows.",
            ),
        ),
        hints=(
            "A row that is moved a little moves every vector that was read from it.",
            "Which tokens read row 0, 1, 2 and 3?",
            "Row 2 gets (1, 0) + (2, -1), row 0 gets (5, 5), the others nothing.",
        ),
    ),
    Function(
        name="embedding.scatter",
        kind="missing lines",
        minutes=5,
        difficulty=2,
        solution=_scatter,
        cases=_arrivals,
        mistakes={
            "keeps only the last gradient of a row that was read twice.": _last_one_stays,
            "averages over the times a row was read: a gradient is a sum.": _averaged,
            "returns a row for each token that was read, not for each row of the table.": (
                lambda ids, arrived, vocabulary: arrived
            ),
            "counts how often a row was read, and forgets what arrived.": (
                lambda ids, arrived, vocabulary: _scatter(ids, np.ones_like(arrived), vocabulary)
            ),
            "gives every row the sum of all gradients: which rows were read?": (
                lambda ids, arrived, vocabulary: np.tile(arrived.sum(axis=0), (vocabulary, 1))
            ),
        },
        hints=(
            "Start with zeros. Then each vector that arrives is added to the row it came from.",
            "NumPy's += with repeated indices keeps one of them. Which function adds them all?",
            "gradient = np.zeros((V, D)), then np.add.at(gradient, ids, arrived)",
        ),
    ),
    BreakingInput(
        name="embedding.nearest",
        kind="break this function",
        minutes=4,
        difficulty=2,
        right=lambda table, row: True,
        broken=_finds_a_nearest,
        solution=([[1, 0], [2, 0], [9, 9]], 0),
        form="A pair (table, row), such as ([[1, 0], [0, 1], [1, 1]], 0),",
        readers=(numbers, whole),
        valid=_refuse,
        mistakes={
            "The other rows are equally long: then the order of products is that of cosines.": (
                _equally_long
            ),
            "Several rows have the highest cosine, and the function returns one of them.": (
                lambda table, row: _nearest(table, row).sum() > 1
            ),
            "The row of the highest product has the highest cosine, too.": lambda table, row: True,
        },
        hints=(
            "A product is a cosine times two lengths. Which of them differs between candidates?",
            "Put one row in nearly the same direction and another, much longer, far aside.",
            "([[1, 0], [2, 0], [9, 9]], 0)",
        ),
    ),
    Estimate(
        name="embedding.share",
        kind="estimate",
        minutes=3,
        difficulty=1,
        solution=round(100 * 2 * 32_000 * 4_096 / 7_241_732_096, 2),
        factor=1.15,
        unit="%",
        mistakes=(
            (
                100 * 32_000 * 4_096 / 7_241_732_096,
                "that is one of the two tables, as if they were tied.",
            ),
            (2 * 32_000 * 4_096 / 7_241_732_096, "that is the fraction. Percent are asked for."),
            (25, "that is the shipped model's share. Here the rest is far larger."),
        ),
        hints=(
            "How many numbers does a table of V rows of D numbers hold, and how many tables?",
            "32,000 times 4,096 is 131 million; take it twice, and divide by 7.24 billion.",
            "100 * 2 * 32_000 * 4_096 / 7.24e9",
        ),
    ),
    Estimate(
        name="embedding.rungs",
        kind="estimate",
        minutes=4,
        difficulty=2,
        solution=round(100 * (math.exp(1 / 8) - 1), 1),
        factor=1.2,
        unit="%",
        mistakes=(
            (100 * (math.exp(1 / 16) - 1), "the step of 1/16 holds between 8 and 16, not at 20."),
            (100 / 16, "the step of 1/16 holds between 8 and 16, not at 20."),
            (100 * (math.exp(1 / 4) - 1), "the step is 1/4 only from 32 on."),
            (1 / 8, "that is the step of the logit. What does it do to a probability, in percent?"),
            (100 / 256, "that is how far a number moves. Logits stand in an exponent."),
        ),
        hints=(
            "Which numbers near 20 does bfloat16 know, and what does a step of a logit do?",
            "From 16 to 32 there are 128 steps. A step s is a factor of e to the s.",
            "100 * (np.exp(16 / 128) - 1)",
        ),
    ),
    Explanation(
        name="embedding.explain",
        kind="explain",
        minutes=5,
        difficulty=2,
        points=(
            "equal shapes do not make equal tables: these two were trained apart",
            "the config says whether they are tied; a checkpoint of untied ones holds both",
            "nothing crashes: the symptom is a loss above that of a uniform guess",
            "tying is a decision before training, and it saves one table of V times D numbers",
        ),
        hints=(
            "What do the two tables of one token have in common in this model?",
            "What happened to the bits per byte when one table did the work of both?",
            "Say how one would notice: compare the loss with that of a uniform guess.",
        ),
    ),
]
