"""Exercises whose answer is what an experiment gave, and what follows (used by all chapters)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mistral_lib.teaching.exercises.answers import Unreadable, described, named, numbers, shown
from mistral_lib.teaching.exercises.exercise import Exercise
from mistral_lib.teaching.exercises.running import NotTried


@dataclass(frozen=True, kw_only=True)
class Experiment(Exercise):
    """Numbers that the reader measures, and the letter of the claim that they bear out.

    An answer is a pair, such as `((0.82, 0.41), "b")`. A right number with a wrong conclusion is
    refused, and so is the right conclusion from another experiment.

    Args:
        solution: the pair. Its numbers are those of the shipped model; the
            chapter runs it in a folded cell.
        within: how far off a number may be.
        claims: letter -> what the chapter offers as a conclusion.
        refusals: letter of a wrong claim -> why the numbers do not bear it out.
        others: pairs (numbers, what to say to the experiment that gives them instead).
    """

    solution: tuple[Any, str]
    within: float
    claims: Mapping[str, str]
    refusals: Mapping[str, str]
    others: tuple[tuple[Any, str], ...] = ()

    def __post_init__(self):
        letters, right = [*self.claims], self.solution[1]
        if sorted([*self.refusals, right]) != sorted(letters):
            raise ValueError(f"{self.name} has claims {letters} and refuses {[*self.refusals]}.")

    @property
    def mistakes(self) -> tuple[tuple[tuple[Any, str], str], ...]:
        """Pairs (wrong answer, what to say to it): other experiments, and wrong conclusions."""
        measured, letter = self.solution
        others = [((wrong, letter), said) for wrong, said in self.others]
        return (*others, *(((measured, wrong), said) for wrong, said in self.refusals.items()))

    @property
    def asks(self) -> str:
        letters = " or ".join(f'"{letter}"' for letter in self.claims)
        form = described(numbers(self.solution[0]))
        return f"A pair of {form} and the letter of a claim, {letters},"

    def complaint(self, mine: Any) -> str | None:
        if not isinstance(mine, list | tuple) or len(mine) != 2:
            raise Unreadable(named(mine))
        measured, letter = mine
        if measured is ... or letter is ...:
            raise NotTried
        got, expected = numbers(measured), numbers(self.solution[0])
        if got.shape != expected.shape or got.dtype == bool:
            raise Unreadable(f"a pair that begins with {described(got)}")
        if not isinstance(letter, str) or letter.strip(" ()").casefold() not in self.claims:
            raise Unreadable(f"a pair that ends with {named(letter)}")
        if not (right := self._possible(got, expected)).all():
            return self._of_numbers(got, right)
        return self._of_claim(got, letter.strip(" ()").casefold())

    def _possible(self, got: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """For each number whether this experiment can give it."""
        return self._near(got, expected)

    def _of_claim(self, got: np.ndarray, letter: str) -> str | None:
        """What to say to a conclusion from numbers that are right."""
        if letter == self.solution[1]:
            return None
        return f"The numbers are right, but they do not say ({letter}): {self.refusals[letter]}"

    def _near(self, got: np.ndarray, expected: np.ndarray) -> np.ndarray:
        return abs(got.astype(float) - expected.astype(float)) <= self.within

    def _of_numbers(self, got: np.ndarray, right: np.ndarray) -> str:
        for wrong, said in self.others:
            if self._near(got, numbers(wrong)).all():
                return f"You measured {shown(got)}: {said}"
        if not right.any():
            return f"You measured {shown(got)}. None of it is what this experiment gives."
        first = int(np.flatnonzero(~right.ravel())[0])
        return (
            f"You measured {shown(got)}. {right.sum()} of {right.size} numbers are right; the "
            f"first that is not is number {first}, counted from 0."
        )

    def praise(self, mine: Any) -> str:
        return f" ({self.solution[1]}): {self.claims[self.solution[1]]}"


@dataclass(frozen=True, kw_only=True)
class Timing(Experiment):
    """What a clock said, and what follows from it.

    Times differ from machine to machine, so the conclusion is judged by the answer's own numbers.

    Args:
        solution: a pair that is right; other numbers with the claim that they bear out are, too.
        concludes: the letter of the claim that the numbers bear out, or `None` if they cannot be
            times of this experiment.
        doubt: what to say to numbers that cannot be.
        refusals: letter of each claim -> what to say where the numbers bear out another one.
        others: pairs (numbers that cannot be, what to say to them).
        another: a pair that is right as well, with another claim.
    """

    within: float = 0.0
    concludes: Callable[[np.ndarray], str | None]
    doubt: str
    another: tuple[Any, str]

    def __post_init__(self):
        if sorted(self.refusals) != sorted(self.claims):
            raise ValueError(f"{self.name} has claims {[*self.claims]}: each needs a refusal.")
        for measured, claim in (self.solution, self.another):
            if self.concludes(numbers(measured)) != claim:
                raise ValueError(f"{self.name}: {measured} does not bear out ({claim}).")

    @property
    def mistakes(self) -> tuple[tuple[tuple[Any, str], str], ...]:
        """Pairs (wrong answer, what to say to it): impossible numbers, and wrong conclusions."""
        measured, right = self.solution
        others = [((wrong, right), said) for wrong, said in self.others]
        impossible = (np.full(numbers(measured).shape, -1.0), right), self.doubt
        claimed = (
            (((self.another if wrong == right else self.solution)[0], wrong), said)
            for wrong, said in self.refusals.items()
        )
        return (*others, impossible, *claimed)

    @property
    def asks(self) -> str:
        claims = " or ".join(f'"{letter}"' for letter in self.claims)
        return f"A pair of {described(numbers(self.solution[0]))} and a claim, {claims},"

    def complaint(self, mine: Any) -> str | None:
        if isinstance(mine, list | tuple) and len(mine) == 2 and type(mine[1]) is int:
            mine = (mine[0], str(mine[1]))
        return super().complaint(mine)

    def _of_claim(self, got: np.ndarray, letter: str) -> str | None:
        if letter == self.concludes(got.astype(float)):
            return None
        return f"Your numbers do not say ({letter}): {self.refusals[letter]}"

    def _near(self, got: np.ndarray, expected: np.ndarray) -> np.ndarray:
        return np.isclose(got.astype(float), expected.astype(float))

    def _possible(self, got: np.ndarray, expected: np.ndarray) -> np.ndarray:
        real = np.isfinite(got.astype(float)).all() and self.concludes(got.astype(float))
        return np.full(got.shape, bool(real))

    def _of_numbers(self, got: np.ndarray, right: np.ndarray) -> str:
        said = [said for wrong, said in self.others if self._near(got, numbers(wrong)).all()]
        return f"You measured {shown(got)}: {said[0] if said else self.doubt}"

    def praise(self, mine: Any) -> str:
        letter = str(mine[1]).strip(" ()").casefold()
        return f" ({letter}): {self.claims[letter]}"
