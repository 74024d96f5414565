"""The exercises of chapter 4, "One head"."""

from __future__ import annotations

import math

import numpy as np

from mistral_lib.layers.dense import masked_attention
from mistral_lib.teaching.exercises.answers import numbers
from mistral_lib.teaching.exercises.kinds import (
    BreakingInput,
    Estimate,
    Explanation,
    Function,
    Line,
    Value,
)


def _heads():
    """Queries, keys (S, h) and values (S, 2): short ones first, then very low and high scores."""
    ones = np.ones((1, 4))
    yield ones, ones, np.array([[1.0, 2.0]])
    yield np.array([[0.0] * 4, [1.0] * 4]), np.array([[1.0, 0, 0, 0], [1.0] * 4]), 4 * np.eye(2)
    random = np.random.default_rng(4)
    for length, size in ((3, 4), (4, 9), (5, 1)):
        query, key = random.integers(-2, 3, (2, length, size)).astype(float)
        yield query, key, random.integers(-9, 10, (length, 2)).astype(float)
    # The first token sees itself alone, with a score of -90,000; the last two have 1,600.
    yield np.array([[300.0], [1.0]]), np.array([[-300.0], [1.0]]), np.eye(2)
    yield np.array([[0.0], [40.0]]), np.array([[39.0], [40.0]]), np.eye(2)


def _softmax(scores, axis=-1):
    weights = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return weights / weights.sum(axis=axis, keepdims=True)


def _attend(query, key, value, *, size=math.sqrt, tri=0, hidden=-np.inf, axis=-1):
    scores = query @ key.T / size(query.shape[1])
    visible = np.tri(len(query), len(key), tri, dtype=bool)
    return _softmax(np.where(visible, scores, hidden), axis) @ value


def _without_maximum(query, key, value):
    scores = query @ key.T / math.sqrt(query.shape[1])
    weights = np.tril(np.exp(scores))
    return weights / weights.sum(axis=1, keepdims=True) @ value


def _masked_after(query, key, value):
    weights = _softmax(query @ key.T / query.shape[1] ** 0.5)
    return np.tril(weights) @ value


def _weights(scores, hidden=-np.inf):
    return _softmax(np.where(np.tri(len(scores), dtype=bool), scores, hidden))


def _refuse(scores):
    """Whether the scores could come from a sequence of tokens."""
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1] or not scores.size:
        return "Give one square of scores, a row for each query: [[...], [...]]."
    return None if np.isfinite(scores).all() else "Scores are finite numbers."


EXERCISES = [
    Value(
        name="dense.by_hand",
        kind="trace by hand",
        minutes=4,
        difficulty=1,
        solution=17.5,
        mistakes=(
            (22, "the last token was asked too: it is in the future of the middle one."),
            (20, "that is the value of the winner alone. The others have a say, too."),
            (15, "that is the plain average of what it sees. The weights are 1 to 3."),
            (14, "the weights of all three were taken, and what the future had was dropped."),
            (70, "the weights have to be divided by their sum."),
        ),
        hints=(
            "Which of the three tokens does the middle one see?",
            "It sees two of them. The exponentials of their scores are 1 and 3.",
            "(1 * 10 + 3 * 20) / (1 + 3)",
        ),
    ),
    Function(
        name="dense.attend",
        kind="missing lines",
        minutes=8,
        difficulty=2,
        solution=_attend,
        cases=_heads,
        mistakes={
            "does not subtract the highest score before exp, which high scores make infinite.": (
                _without_maximum
            ),
            "hides scores behind a number that is not low enough: a token's own may be lower.": (
                lambda q, k, v: _attend(q, k, v, hidden=-100.0)
            ),
            "sees the future: no score is hidden.": lambda q, k, v: (
                _softmax(q @ k.T / q.shape[1] ** 0.5) @ v
            ),
            "does not divide the scores: the square root of h is missing.": lambda q, k, v: _attend(
                q, k, v, size=lambda h: 1
            ),
            "divides by h: take its square root.": lambda q, k, v: _attend(
                q, k, v, size=lambda h: h
            ),
            "divides by the root of the number of tokens: h is the size of a query.": (
                lambda q, k, v: _attend(q, k, v, size=lambda h: math.sqrt(len(q)))
            ),
            "hides a score by setting it to 0, and 0 is a score like any other.": (
                lambda q, k, v: _attend(q, k, v, hidden=0)
            ),
            "hides weights after the softmax: the rows no longer sum to 1.": _masked_after,
            "sums over queries: the softmax runs along the keys, the last axis.": (
                lambda q, k, v: _attend(q, k, v, axis=0)
            ),
            "lets every token see one token ahead.": lambda q, k, v: _attend(q, k, v, tri=1),
        },
        hints=(
            "Three steps: a score for every pair, no score for the future, weights from the rest.",
            "Hide scores before the softmax, not weights after it: exp(-inf) is 0.",
            "scores = query @ key.T / h**0.5, then np.where(np.tri(S, dtype=bool), scores, "
            "-np.inf), the softmax of each row, and @ value.",
        ),
    ),
    BreakingInput(
        name="dense.break_it",
        kind="break this function",
        minutes=5,
        difficulty=2,
        right=_weights,
        broken=lambda scores: _weights(scores, hidden=-100.0),
        solution=([[-200.0, 0.0], [0.0, 0.0]],),
        form="A square of scores, such as [[1, 2], [3, 4]],",
        readers=(numbers,),
        valid=_refuse,
        mistakes={
            "With one token there is no future to hide.": lambda scores: len(scores) == 1,
            "You made scores of the future large, but those are overwritten.": (
                lambda scores: abs(np.triu(scores, 1)).max() > abs(np.tril(scores)).max()
            ),
            "Every row sees a score that is far above -100, and next to it -100 is nothing.": (
                lambda scores: True
            ),
        },
        hints=(
            "When is -100 not much smaller than a score?",
            "The first row sees one score only. What if that score is very low itself?",
            "A tuple with one square: ([[-200.0, 0.0], [0.0, 0.0]],)",
        ),
    ),
    Estimate(
        name="dense.unscaled",
        kind="estimate",
        minutes=3,
        difficulty=2,
        solution=round(math.exp(math.sqrt(128))),
        factor=2,
        unit="times",
        mistakes=(
            (math.e, "that is the factor with the division. Here the scores are not divided."),
            (math.sqrt(128), "so far apart are the scores. A weight is the exponential of one."),
            (128, "that is the variance. Its root is the standard deviation."),
            (math.exp(8), "the root of 64 was taken: Mistral 7B has heads of 128."),
        ),
        hints=(
            "How large is the standard deviation of a sum of 128 products?",
            "The root of 128 is 11.3: so much higher is the one score. What does exp make of it?",
            "math.exp(128**0.5)",
        ),
    ),
    Estimate(
        name="dense.square",
        kind="estimate",
        minutes=3,
        difficulty=1,
        solution=32 * 8_192**2 * 4 / 2**30,
        factor=1.25,
        unit="GiB",
        mistakes=(
            (
                8_192**2 * 4 / 2**30,
                "that is one head. There are 32, each with a square of its own.",
            ),
            (32 * 8_192**2 / 2**30, "that counts the scores. Each takes four bytes."),
            (32 * 8_192**2 * 2 / 2**30, "two bytes are bfloat16; scores are float32."),
            (32 * 8_192 * 128 * 4 / 2**30, "those are the queries: S times h, not S times S."),
            (32 * 32 * 8_192**2 * 4 / 2**30, "one layer is asked for, not all 32."),
        ),
        hints=(
            "Each head has one score for every pair of tokens.",
            "8,192 squared is 67 million, times 32 heads, times the bytes of a float32.",
            "32 * 8192**2 * 4 / 2**30",
        ),
    ),
    Line(
        name="dense.library",
        kind="read the library",
        minutes=4,
        difficulty=2,
        function=masked_attention,
        line="scores = jnp",
        wrong={
            "scores = scores": "this line scales them. In which dtype do they come into being?",
            "weights =": "the softmax takes the dtype that it is given.",
            "return jnp": "this line makes bfloat16 of the weights again, for the second product.",
        },
        hints=(
            "A product of two bfloat16 arrays is bfloat16, unless one asks for another sum.",
            "Look for the word float32.",
            "preferred_element_type says in which dtype the products are added up.",
        ),
    ),
    Explanation(
        name="dense.explain",
        kind="explain",
        minutes=5,
        difficulty=2,
        points=(
            "a weight says where a head looks, not what the model does with what it finds there",
            "three heads of the last block have large weights on the name; silencing them matters "
            "less than silencing the one of block 2",
            "to see what a head does, take it away (or change its input) and measure the output",
            "one text is one text: another prompt may need another head",
        ),
        hints=(
            "What did we do to find the head of this chapter, before we looked at its weights?",
            "Compare the weights on the name in the last block with what silencing costs there.",
            "Name an experiment: silence the head, swap a token, and measure the probability.",
        ),
    ),
]
