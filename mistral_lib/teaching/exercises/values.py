"""Exercises whose answer is a number, a list or a word (used by all chapters)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mistral_lib.teaching.exercises.answers import (
    Unreadable,
    cut,
    described,
    numbers,
    shown,
    whole,
    words,
)
from mistral_lib.teaching.exercises.exercise import Exercise
from mistral_lib.teaching.exercises.report import RELATIVE, direction, near, same
from mistral_lib.teaching.exercises.units import other_unit, read
from mistral_lib.teaching.sources import body_lines, line_number

EXACTLY = 1.004  # an estimate this near to a known mistake is no rough one, but that mistake
NEARLY = 1.03


@dataclass(frozen=True, kw_only=True)
class Value(Exercise):
    """One right answer.

    Args:
        solution: the right value.
        mistakes: pairs (wrong value, what to say to it).
        unit: what the numbers count, if that can be mistaken.
    """

    solution: object
    mistakes: tuple[tuple[object, str], ...]
    unit: str = ""

    @property
    def asks(self) -> str:
        if isinstance(self.solution, str):
            return "A text"
        form = described(numbers(self.solution)).capitalize()
        return f"{form} ({self.unit})" if self.unit else form

    def complaint(self, mine: Any) -> str | None:
        if isinstance(self.solution, str):
            return self._of_words(words(mine), words(self.solution))
        got, expected = read(mine, self.unit), numbers(self.solution)
        if got.size == expected.size == 1:
            got = got.reshape(expected.shape)
        if same(got, expected):
            return None
        for wrong, said in self.mistakes:
            if near(got, numbers(wrong)):
                return f"You answered {shown(got)}: {said}"
        if got.shape != expected.shape or got.dtype == bool:
            raise Unreadable(described(got))
        if unit := other_unit(got, expected, self.unit, 1 + RELATIVE):
            return f"{shown(got)} is right in {unit}, but {self.unit} are asked for."
        return f"You answered {shown(got)}. {direction(got, expected)}"

    def _of_words(self, got: str, expected: str) -> str | None:
        if got == expected:
            return None
        for wrong, said in self.mistakes:
            if got == words(wrong):
                return f'You answered "{got}": {said}'
        if " " not in expected:
            return f'"{cut(got)}" is none of the names that the question is about.'
        pairs = enumerate(zip(got.split(), expected.split()), 1)
        place = next((number for number, (mine, right) in pairs if mine != right), "the last")
        return f'"{cut(got)}" goes wrong at word {place}.'


@dataclass(frozen=True, kw_only=True)
class Line(Exercise):
    """A line of a function that a chapter prints with `show_source(function, numbers=True)`.

    Args:
        function: what is printed.
        line: a part of the right line, which no other line has.
        wrong: a part of each tempting line -> what to say to it.
    """

    function: Callable
    line: str
    wrong: Mapping[str, str]

    @property
    def solution(self) -> int:
        """The number of the right line."""
        return line_number(self.function, self.line)

    @property
    def mistakes(self) -> tuple[tuple[int, str], ...]:
        """Pairs (number of a tempting line, what to say to it)."""
        numbers = (line_number(self.function, part) for part in self.wrong)
        return tuple(zip(numbers, self.wrong.values()))

    @property
    def asks(self) -> str:
        return f"The number of a line (1 to {len(body_lines(self.function))})"

    def complaint(self, mine: Any) -> str | None:
        number, lines = whole(mine), body_lines(self.function)
        if number == self.solution:
            return None
        if not 1 <= number <= len(lines):
            raise Unreadable(str(number))
        said = dict(self.mistakes).get(number, "the question is about another one.")
        line = lines[number - 1].strip()
        return f"Line {number} is {f'`{line}`' if line else 'empty'}: {said}"


@dataclass(frozen=True, kw_only=True)
class Estimate(Exercise):
    """A number that is right within a factor.

    Args:
        solution: the exact number.
        factor: answers between `solution / factor` and `solution * factor` count.
        unit: in what it is counted.
        mistakes: pairs (wrong number, what to say to it), recognised within 3 %, and where they
            are within the factor, within 0.4 %.
    """

    solution: float
    factor: float
    mistakes: tuple[tuple[float, str], ...]
    unit: str = ""

    @property
    def asks(self) -> str:
        return f"One number ({self.unit})" if self.unit else "One number"

    def complaint(self, mine: Any) -> str | None:
        found = read(mine, self.unit)
        if found.size != 1 or found.dtype == bool:
            raise Unreadable(described(found))
        found = found.reshape(())
        number = float(found)
        if not math.isfinite(number):
            raise Unreadable(f"{number}")
        ratio = number / self.solution
        right = 1 / self.factor <= ratio <= self.factor
        tolerance = EXACTLY if right else NEARLY
        for wrong, said in self.mistakes:
            if 1 / tolerance <= number / wrong <= tolerance:
                return f"{shown(found)} is {_times(ratio)}: {said}"
        near_enough = EXACTLY if right else self.factor
        unit = other_unit(found, numbers(self.solution), self.unit, near_enough)
        if unit and not isinstance(mine, str):  # a text may have said its unit
            return f"{shown(found)} is right in {unit}, but {self.unit} are asked for."
        return None if right else f"{shown(found)} is {_times(ratio)}."

    def praise(self, mine: Any) -> str:
        return f" Exactly: {self.solution:,} {self.unit}".rstrip() + "."


def _times(ratio: float) -> str:
    """How far off a number is, in words."""
    if ratio <= 0:
        return "not positive"
    factor, word = (ratio, "large") if ratio > 1 else (1 / ratio, "small")
    return f"{float(f'{factor:.3g}'):,.15g} × too {word}"
