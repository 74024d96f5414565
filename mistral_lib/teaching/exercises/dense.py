"""The exercises of chapter 4, "One head"."""

from __future__ import annotations

import math

import numpy as np

from mistral_lib.teaching.exercises.answers import numbers
from mistral_lib.teaching.exercises.kinds import (
    BreakingInput,
    Experiment,
    Function,
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


def _vectors():
    """Vectors (S, D), three kernels (D, h) and an output kernel (h, D)."""
    one = np.array([[1.0, 2.0]])
    yield one, np.ones((2, 1)), np.ones((2, 1)), np.array([[1.0], [0.0]]), np.array([[3.0, 5.0]])
    random = np.random.default_rng(4)
    for tokens, width, size in ((2, 2, 1), (3, 3, 2), (3, 2, 4)):
        x = random.integers(-2, 3, (tokens, width)).astype(float)
        kernels = random.integers(-2, 3, (3, width, size)).astype(float)
        yield x, *kernels, random.integers(-2, 3, (size, width)).astype(float)


def _softmax(scores, axis=-1):
    weights = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return weights / weights.sum(axis=axis, keepdims=True)


def _attend(query, key, value, *, size=math.sqrt, tri=0, hidden=-np.inf, axis=-1):
    scores = query @ key.T / size(query.shape[1])
    visible = np.tri(len(query), len(key), tri, dtype=bool)
    return _softmax(np.where(visible, scores, hidden), axis) @ value


def _head(x, query_kernel, key_kernel, value_kernel, output_kernel):
    return _attend(x @ query_kernel, x @ key_kernel, x @ value_kernel) @ output_kernel


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
            "Divide the two exponentials by their sum: these are the weights of 10 and 20.",
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
            "np.where(np.tri(S, dtype=bool), ..., ...) chooses between two arrays. Subtract the "
            "highest score of each row before np.exp, and use keepdims=True.",
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
            "Two tokens are enough. Print suspicious(...) for a square of zeros, and change one "
            "entry until the future gets weight.",
        ),
    ),
    Function(
        name="dense.head",
        kind="missing lines",
        minutes=6,
        difficulty=2,
        solution=_head,
        cases=_vectors,
        mistakes={
            "returns what the head collected: the output kernel makes D numbers of it.": (
                lambda x, q, k, v, o: _attend(x @ q, x @ k, x @ v)
            ),
            "makes queries and keys by one kernel: each has its own.": (
                lambda x, q, k, v, o: _head(x, q, q, v, o)
            ),
            "asks with the keys: the query kernel comes first.": (
                lambda x, q, k, v, o: _head(x, k, q, v, o)
            ),
            "hands over the keys: values have a kernel of their own.": (
                lambda x, q, k, v, o: _head(x, q, k, k, o)
            ),
            "sees the future: attention has to be causal.": lambda x, q, k, v, o: (
                _softmax((x @ q) @ (x @ k).T / q.shape[1] ** 0.5) @ (x @ v) @ o
            ),
            "divides by the root of D: the scores are sums of h products.": lambda x, q, k, v, o: (
                _attend(x @ q, x @ k, x @ v, size=lambda h: math.sqrt(x.shape[1])) @ o
            ),
            "does not divide the scores by the root of h.": lambda x, q, k, v, o: (
                _attend(x @ q, x @ k, x @ v, size=lambda h: 1) @ o
            ),
            "adds x: that is done after the head, and for all heads at once.": (
                lambda x, q, k, v, o: x + _head(x, q, k, v, o)
            ),
        },
        hints=(
            "Three of the matrices are used before attention, and one after it.",
            "x has a row for each token, so a kernel is the right side of its product.",
            "The arguments of causal_attention are three products, and its result is the left side "
            "of a fourth.",
        ),
    ),
    Experiment(
        name="dense.routes",
        kind="run an experiment",
        minutes=12,
        difficulty=3,
        solution=((1.15, 1.31, 2.45), "b"),
        within=0.03,
        claims={
            "a": "without one route, the other makes up for most of it.",
            "b": "the routes add up.",
            "c": "without one route, the other is worth nothing.",
        },
        refusals={
            "a": "then all three would cost hardly more than the larger of the two losses.",
            "c": "then one route would cost as much as both.",
        },
        others=(
            ((0.42, 1.17, 1.60), "those are all names. Take those that begin with a letter."),
            ((-0.08, 1.40, 1.36), "those are names of one piece."),
            ((0.20, 0.80, 0.99), "those are names whose first piece is longer than a letter."),
            ((1.04, 1.74, 2.74), "that is the half of the panel that is for looking around."),
            ((1.62, 1.46, 0.32), "those are the leads that are left. How much is lost?"),
            ((1.15, 0.67, 1.80), "5.4 was still at work. Silence it together with 5.3."),
        ),
        hints=(
            "Compare the third number with the larger of the first two, and with their sum.",
            "lead_lost takes several settings at once, stacked, and returns a row for each. It "
            "gives the loss of every prompt; only some of them are about a letter.",
            "np.stack three calls of off(...), then the mean over the columns where kinds is "
            '"letter first".',
        ),
    ),
    Experiment(
        name="dense.weights",
        kind="run an experiment",
        minutes=12,
        difficulty=2,
        solution=((0.61, 0.60, 0.63, 0.23), "b"),
        within=0.02,
        claims={
            "a": "the colleague is right.",
            "b": "they look equally hard, and one of them is worth more than the other.",
            "c": "attention weights say nothing about what a model does.",
        },
        refusals={
            "a": "the weights are alike, but one head is worth more than twice as much.",
            "c": "they say where a head looks, and both do look at the name. Other heads do not.",
        },
        others=(
            ((0.71, 0.84, 0.86, 0.41), "those are names of one piece alone."),
            ((0.56, 0.43, 0.63, 0.09), "those are names that begin with a letter alone."),
            ((0.57, 0.54, 0.39, 0.17), "those are names whose first piece is longer alone."),
            ((0.62, 0.61, 0.58, 0.19), "that is the half that is for looking around."),
            ((0.60, 0.61, 0.23, 0.63), "the two heads are swapped."),
            ((0.63, 0.23, 0.61, 0.60), "the weights come first, then what the heads are worth."),
        ),
        hints=(
            "Where a head looks and whether anyone uses what it finds are two questions.",
            "on_name has the weights, and lost has what five heads are worth, prompt by prompt.",
            "on_name[5, 4] and lost[5, 4] are arrays of 36 numbers. Take their means, and those of "
            "5.5.",
        ),
    ),
]
