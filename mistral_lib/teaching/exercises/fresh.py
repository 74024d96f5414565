"""New numbers for exercises that are done again (used by all chapters).

An exercise whose answer is a formula of given numbers has a `Fresh`: its question as a text, the
formula, what to say to wrong formulas, and the ranges of the numbers. Those of the book are the
default. The questions are in `fresh_estimates`, `fresh_traces` and `fresh_numbers`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from mistral_lib.teaching.exercises.answers import numbers
from mistral_lib.teaching.exercises.exercise import Exercise
from mistral_lib.teaching.exercises.report import near
from mistral_lib.teaching.exercises.values import NEARLY, Estimate

TRIES = 1000


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """An exercise with other numbers.

    Args:
        text: the question, with the names of its numbers in braces.
        book: the numbers of the book.
        ranges: for each number, those from which one is drawn.
        answer: from the numbers, given by name, to the right answer.
        mistakes: from the numbers to pairs (wrong answer, what to say to it), tempting ones first.
        good: whether numbers make a good question; by default all do.
    """

    text: str
    book: Mapping[str, Any]
    ranges: Mapping[str, Sequence[Any]]
    answer: Callable[..., Any]
    mistakes: Callable[..., Iterable[tuple[Any, str]]]
    good: Callable[..., bool] = lambda **given: True

    def drawn(self, exercise: Exercise, seed: int) -> dict[str, Any]:
        """Numbers for a question: always the same for a seed, and never the book's.

        Args:
            exercise: the one with the book's numbers.
            seed: a whole number.
        """
        random = Random(f"{exercise.name} {seed}")
        for _ in range(TRIES):
            found = {key: random.choice(choices) for key, choices in self.ranges.items()}
            if found == self.book or not self.good(**found):
                continue
            tempting, _ = next(iter(self.mistakes(**found)))
            if not alike(exercise, tempting, self.answer(**found)):
                return found
        raise RuntimeError(f"{exercise.name} has no question among {TRIES} draws.")

    def at(self, exercise: Exercise, given: Mapping[str, Any]) -> Exercise:
        """The exercise with these numbers."""
        answer = self.answer(**given)
        told = (pair for pair in self.mistakes(**given) if not alike(exercise, pair[0], answer))
        return dataclasses.replace(exercise, **dict(solution=answer, mistakes=tuple(told)))


def bfloat16_step(number: float) -> float:
    """How far apart the bfloat16 numbers near a positive one are.

    >>> bfloat16_step(20), bfloat16_step(1003)
    (0.125, 4)
    """
    return 2 ** (math.floor(math.log2(number)) - 7)


def alike(exercise: Exercise, wrong: Any, right: Any) -> bool:
    """Whether a wrong formula gives the right numbers by chance, or nearly so."""
    if isinstance(exercise, Estimate):
        return 1 / NEARLY < wrong / right < NEARLY
    return near(numbers(wrong), numbers(right)) or near(numbers(right), numbers(wrong))
