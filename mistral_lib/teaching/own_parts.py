"""The parts of the reader's own package, and what judges each (used by all chapters).

A part that is an exercise of its chapter is judged by that exercise, so that the package and the
notebook accept the same solutions. The others have theirs here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mistral_lib.teaching.exercises import find
from mistral_lib.teaching.exercises.kinds import Function

TEMPLATE = Path(__file__).parent / "static" / "own_package"  # what `init` writes


@dataclass(frozen=True)
class Part:
    """A function of the reader's package.

    Attributes:
        chapter: the number of its chapter.
        module: the module in which it is.
        name: of the function.
        exercise: the name of the exercise that judges it, one of this module's, or `None` for a
            part that is judged in the whole model.
    """

    chapter: int
    module: str
    name: str
    exercise: str | Function | None = None

    def __str__(self):
        return f"{self.module}.{self.name}"

    @property
    def judge(self) -> Function | None:
        """The exercise that judges the function."""
        found = find(self.exercise) if isinstance(self.exercise, str) else self.exercise
        return found if isinstance(found, Function) else None


class Written:
    """A function that a message can show, because it is made from its text.

    >>> Written("lambda ids: ids + 1"), Written("lambda ids: ids + 1")(2)
    (lambda ids: ids + 1, 3)
    """

    def __init__(self, text: str):
        self.text, self.function = text, eval(text, {"np": np})

    def __call__(self, *arguments: object) -> object:
        return self.function(*arguments)

    def __repr__(self):
        return self.text


def _exercise(name: str, solution: Callable, cases: Callable, mistakes: dict) -> Function:
    return Function(
        name=name,
        kind="missing lines",
        minutes=5,
        difficulty=1,
        hints=("", "", ""),
        solution=solution,
        cases=cases,
        mistakes=mistakes,
    )


def _loops():
    """Ids, a model whose next token depends on the last one alone, and the most ids."""
    follow = "lambda ids: np.eye(5)[np.array({})[ids]]"
    yield [1], Written(follow.format([0, 3, 2, 2, 0])), 4  # 1 3 2: token 2 is </s>
    yield [1, 3], Written(follow.format([0, 3, 2, 4, 4])), 5  # 1 3 4 4 4: never ends
    yield [1, 2], Written(follow.format([0, 3, 3, 2, 0])), 6  # has ended already
    yield [1, 3, 4], Written(follow.format([0, 3, 0, 4, 2])), 3  # there is no room


def _write(ids, logits_of, most, *, end=2, beyond=0):
    ids = list(ids)
    while ids[-1] != end and len(ids) < most + beyond:
        ids = [*ids, int(logits_of(np.array(ids))[-1].argmax())]
    return ids


def _tables():
    yield np.array([1, 0, 1]), np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    yield np.array([2]), np.array([[1.0], [2.0], [3.0]])


def _products():
    yield np.array([[1.0, 2.0]]), np.array([[1.0, 0.0, 3.0], [0.0, 1.0, 1.0]])
    random = np.random.default_rng(3)
    for rows in (2, 3):
        yield (
            random.integers(-3, 4, (rows, 2)).astype(float),
            random.integers(-3, 4, (2, 2)).astype(float),
        )


def _product(name: str) -> Function:
    wrong = {"uses the kernel the other way round.": lambda x, kernel: x @ kernel.T}
    return _exercise(name, lambda x, kernel: x @ kernel, _products, wrong)


def _scores():
    yield (np.array([[0.0, 0.0]]),)
    yield (np.array([[0.0, 1.0], [2.0, -np.inf]]),)
    yield (np.array([[[1000.0, 999.0]], [[-1000.0, -1000.0]]]),)


def _softmax(scores, axis=-1):
    weights = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return weights / weights.sum(axis=axis, keepdims=True)


def _without_maximum(scores):
    return np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)


def _groups():
    """Queries (S, K, G, h), keys and values (T, K, h), and masks (S, T)."""
    random = np.random.default_rng(6)
    for S, K, G, h, T in ((1, 1, 1, 1, 2), (2, 1, 2, 4, 2), (2, 2, 1, 1, 2), (2, 2, 2, 4, 3)):
        query = random.integers(-2, 3, (S, K, G, h)).astype(float)
        key, value = random.integers(-3, 4, (2, T, K, h)).astype(float)
        yield query, key, value, np.tri(S, T, T - S, dtype=bool)
    yield query, 400 * key, value, np.tri(S, T, T - S, dtype=bool)


def _attend(query, key, value, mask, *, divide=True, hidden=-np.inf, axis=-1, softmax=_softmax):
    scores = np.einsum("skgh,tkh->kgst", query, key)
    scores = scores / query.shape[-1] ** 0.5 if divide else scores
    weights = softmax(np.where(mask, scores, hidden), axis)
    return np.einsum("kgst,tkh->skgh", weights, value)


def _other_grouping(query, key, value, mask):
    """Query head i reads key head i modulo K."""
    S, K, G, h = query.shape
    turns = query.reshape(S, G, K, h).swapaxes(1, 2)
    return _attend(turns, key, value, mask).swapaxes(1, 2).reshape(query.shape)


PARTS = (
    Part(
        1,
        "loop",
        "write",
        _exercise(
            "loop.write",
            _write,
            _loops,
            {
                "does not stop after `end`.": lambda *a: _write(*a, end=-1),
                "writes one token more than `most`.": lambda *a: _write(*a, beyond=1),
                "stops one token before `most`.": lambda *a: _write(*a, beyond=-1),
                "returns the new ids alone: those of the prompt come first.": lambda *a: _write(*a)[
                    len(a[0]) :
                ],
            },
        ),
    ),
    Part(2, "vocabulary", "best_pair", "tokenizer.merge"),
    Part(
        3,
        "embedding",
        "look_up",
        _exercise(
            "embedding.look_up",
            lambda ids, table: table[ids],
            _tables,
            {"takes columns: a token's vector is a row.": lambda ids, table: table[:, ids]},
        ),
    ),
    Part(3, "embedding", "score", _product("embedding.score")),
    Part(4, "head", "project", _product("head.project")),
    Part(
        4,
        "head",
        "softmax",
        _exercise(
            "head.softmax",
            lambda scores: _softmax(scores),
            _scores,
            {
                "does not subtract the highest score, so high ones become inf.": _without_maximum,
                "divides by the sum of everything: each row has its own.": lambda scores: (
                    np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
                ),
                "sums along the first axis: take the last.": lambda scores: _softmax(scores, 0),
            },
        ),
    ),
    Part(4, "head", "attend", "dense.attend"),
    Part(5, "positions", "turn", "rotary.turn"),
    Part(
        6,
        "heads",
        "attend",
        _exercise(
            "heads.attend",
            _attend,
            _groups,
            {
                "does not divide the scores by the root of h.": lambda *a: _attend(
                    *a, divide=False
                ),
                "hides a score by setting it to 0, and 0 is a score like any other.": lambda *a: (
                    _attend(*a, hidden=0)
                ),
                "sums over queries: the softmax runs along the keys.": lambda *a: _attend(
                    *a, axis=-2
                ),
                "does not use the mask.": lambda q, k, v, mask: _attend(
                    q, k, v, np.ones_like(mask)
                ),
                "gives query heads to key heads in turn: G neighbours share one.": _other_grouping,
            },
        ),
    ),
    Part(7, "mask", "visible", "masks.window"),
    Part(9, "norm", "norm", "rms_norm.write"),
    Part(10, "network", "network", "feedforward.write"),
    Part(11, "block", "block", "decoder.write"),
    Part(12, "model", "attention"),
    Part(12, "model", "streams"),
    Part(12, "model", "read"),
    Part(15, "cache", "held", "cache.held"),
    Part(15, "cache", "mask", "cache.mask"),
    Part(16, "sampling", "nucleus", "sampling.top_p"),
    Part(16, "sampling", "penalised", "sampling.penalty"),
)
