"""Exercises about functions: one to write, or one to break (used by all chapters)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mistral_lib.teaching.exercises.answers import Unreadable, cut, named, numbers
from mistral_lib.teaching.exercises.calls import call, literal
from mistral_lib.teaching.exercises.exercise import Exercise
from mistral_lib.teaching.exercises.report import difference, same
from mistral_lib.teaching.exercises.running import alike, check_arguments, parameters, result


@dataclass(frozen=True, kw_only=True)
class Function(Exercise):
    """A function to write or mend.

    Args:
        solution: the right function.
        cases: called without arguments, yields the argument tuples to try, smallest first.
        mistakes: sentence -> a wrong function; an answer that equals it everywhere is told so.
        also: sentence -> another function that is right, and what to say to it.
    """

    solution: Callable
    cases: Callable[[], Iterable[tuple]]
    mistakes: Mapping[str, Callable]
    also: Mapping[str, Callable] = field(default_factory=dict)

    @property
    def asks(self) -> str:
        return f"A function of {parameters(self.solution)}"

    def complaint(self, mine: Any) -> str | None:
        cases = list(self.cases())
        check_arguments(mine, len(cases[0]))
        got = [result(mine, case) for case in cases]
        expected = [numbers(self.solution(*case)) for case in cases]
        triples = list(zip(cases, got, expected, strict=True))
        wrong = [triple for triple in triples if not alike(*triple[1:])]
        if not wrong or self._equal_to(got, self.also):
            return None
        # What is wrong with the form of a result comes before what is wrong with its numbers.
        case, its, right = next((t for t in wrong if _differ_in_form(*t[1:])), wrong[0])
        # A mistake is compared where there are finite numbers, if the answer is wrong there.
        finite = any(not alike(its, right, finite=True) for _, its, right in wrong)
        return "\n".join(
            [
                f"Smallest failing case: {call(mine, case)}",
                its if isinstance(its, str) else difference(its, right),
                *(f"It {said}" for said in self._equal_to(got, self.mistakes, finite=finite)),
            ]
        )

    def praise(self, mine: Any) -> str:
        got = [result(mine, case) for case in self.cases()] if self.also else []
        return "".join(f" It {said}" for said in self._equal_to(got, self.also))

    def _equal_to(self, got: list, known: Mapping[str, Callable], finite: bool = False) -> list:
        """The sentence of the first known function that gives the same results, if one does."""
        for said, function in known.items():
            pairs = zip(got, self.cases(), strict=True)
            if all(alike(mine, result(function, case), finite=finite) for mine, case in pairs):
                return [said]
        return []


def _differ_in_form(mine: np.ndarray | str, right: np.ndarray) -> bool:
    return isinstance(mine, str) or mine.shape != right.shape


@dataclass(frozen=True, kw_only=True)
class BreakingInput(Exercise):
    """An input on which `broken` differs from `right`.

    Args:
        right: the correct function.
        broken: the function to break.
        solution: arguments that break it.
        form: what arguments are asked for, in words that begin a sentence.
        readers: for each argument, one of `answers`: it makes numbers or a text of what was given.
        valid: returns `None` for arguments that are allowed, otherwise what is wrong with them.
        mistakes: sentence -> which arguments it is about, of those that do not break the function.
    """

    right: Callable
    broken: Callable
    solution: tuple
    form: str
    readers: tuple[Callable, ...]
    valid: Callable[..., str | None]
    mistakes: Mapping[str, Callable[..., bool]]

    @property
    def asks(self) -> str:
        return self.form

    def complaint(self, mine: Any) -> str | None:
        refusal = None
        for form in self._forms(mine):
            try:
                arguments = [read(part) for read, part in zip(self.readers, form)]
            except Unreadable as what:
                refusal = self.refusal(what)
                continue
            refusal = self.valid(*arguments)
            if refusal is None:
                return self._judged(arguments)
        return refusal

    def _forms(self, mine: Any) -> list[tuple]:
        """The ways to read an answer as arguments: a single one may come in a tuple or alone."""
        forms = [(mine,)] if len(self.readers) == 1 else []
        if isinstance(mine, list | tuple) and len(mine) == len(self.readers):
            forms.append(tuple(mine))
        if not forms:
            raise Unreadable(named(mine))
        return forms

    def _judged(self, arguments: list) -> str | None:
        if not same(self.broken(*arguments), self.right(*arguments)):
            return None
        said = [said for said, fits in self.mistakes.items() if fits(*arguments)]
        given = cut(", ".join(map(literal, arguments)), 200)
        return "\n".join([f"({given}) does not break it.", *said[:1]])
