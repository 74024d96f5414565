"""The kinds of exercise, and how each looks at an answer (used by all chapters).

`Function`     write or mend a function: it must equal the solution on every case, smallest first
`Value`        trace, predict, read: one right answer (a number, a list, an array, a word)
`Line`         the number of a line of the library, found by what stands in it
`Estimate`     a number that counts as right within a factor
`BreakingInput` an input on which a broken function goes wrong
`Explanation`  a text for a colleague: never right or wrong, it is laid beside what it should say
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mistral_lib.teaching.exercises.report import difference, same
from mistral_lib.teaching.sources import line_number

KINDS = (
    "trace by hand",
    "predict, then run",
    "missing lines",
    "find the bug",
    "break this function",
    "estimate",
    "read the library",
    "explain",
)


@dataclass(frozen=True)
class Verdict:
    """What `check` found: `right` is `None` for an answer that was not tried or is not judged."""

    right: bool | None
    message: str


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """What all kinds share.

    Args:
        name: "module.what", printed above the exercise.
        kind: one of `KINDS`.
        minutes: how long it takes a reader of the chapter.
        difficulty: 1, 2 or 3 stars.
        hints: three texts: the concept, the place, the code.
    """

    name: str
    kind: str
    minutes: int
    difficulty: int
    hints: tuple[str, str, str]

    def examine(self, mine: Any) -> Verdict:
        """Judges an answer; never raises."""
        if _untouched(mine):
            return Verdict(None, f"{self.name}: not tried yet.")
        try:
            complaint = self.complaint(mine)
        except _NotTried:
            return Verdict(None, f"{self.name}: not tried yet.")
        except Exception as error:
            complaint = f"Your answer raised {type(error).__name__}: {error}"
        if complaint is None:
            return Verdict(True, f"{self.name}: right.{self.praise()}")
        return Verdict(False, f"{self.name}: not yet.\n{complaint}")

    def complaint(self, mine: Any) -> str | None:
        """What is wrong with an answer, or `None` if it is right."""
        raise NotImplementedError

    def praise(self) -> str:
        """What to add after "right."."""
        return ""


@dataclass(frozen=True, kw_only=True)
class Function(Exercise):
    """A function to write or mend.

    Args:
        solution: the right function.
        cases: called without arguments, yields the argument tuples to try, smallest first.
        mistakes: sentence -> a wrong function; an answer that equals it everywhere is told so.
        also_right: other right answers, for the tests.
    """

    solution: Callable
    cases: Callable[[], Iterable[tuple]]
    mistakes: Mapping[str, Callable] = field(default_factory=dict)
    also_right: tuple[Callable, ...] = ()

    def complaint(self, mine: Any) -> str | None:
        if not callable(mine):
            return f"A function is asked for, and this is {type(mine).__name__}."
        for case in self.cases():
            expected, got = self.solution(*case), mine(*case)
            if _untouched(got):
                raise _NotTried
            if got is None:
                return "Your function returned None: is a `return` missing?"
            if not same(got, expected):
                shown = ", ".join(_short(argument) for argument in case)
                lines = [f"Smallest failing case: ({shown})", difference(got, expected)]
                return "\n".join(lines + self._named_mistake(mine))
        return None

    def _named_mistake(self, mine: Callable) -> list[str]:
        """The sentence of the known mistake that equals `mine` on every case, if one does."""
        for sentence, wrong in self.mistakes.items():
            if all(_agree(mine, wrong, case) for case in self.cases()):
                return [f"It {sentence}"]
        return []


@dataclass(frozen=True, kw_only=True)
class Value(Exercise):
    """One right answer.

    Args:
        solution: the right value.
        mistakes: pairs (wrong value, what to say to it).
    """

    solution: object
    mistakes: tuple[tuple[object, str], ...] = ()

    def complaint(self, mine: Any) -> str | None:
        return _compare(mine, self.solution, self.mistakes)


def _compare(mine, solution, mistakes) -> str | None:
    if same(mine, solution):
        return None
    for wrong, sentence in mistakes:
        if same(mine, wrong):
            return f"You answered {_short(mine)}: {sentence}"
    return f"{_short(mine)} is not it."


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

    def complaint(self, mine: Any) -> str | None:
        return _compare(mine, self.solution, self.mistakes)


@dataclass(frozen=True, kw_only=True)
class Estimate(Exercise):
    """A number that is right within a factor.

    Args:
        solution: the exact number.
        factor: answers between `solution / factor` and `solution * factor` count.
        unit: named in the praise.
        mistakes: pairs (wrong number, what to say to it), recognised within 3 %.
    """

    solution: float
    factor: float
    unit: str = ""
    mistakes: tuple[tuple[float, str], ...] = ()

    def complaint(self, mine: Any) -> str | None:
        ratio = float(mine) / self.solution
        if 1 / self.factor <= ratio <= self.factor:
            return None
        for wrong, sentence in self.mistakes:
            if 0.97 * wrong <= float(mine) <= 1.03 * wrong:
                return f"{_times(ratio)}: {sentence}"
        return f"{_times(ratio)}."

    def praise(self) -> str:
        return f" Exactly: {self.solution:,}{' ' if self.unit else ''}{self.unit}."


@dataclass(frozen=True, kw_only=True)
class BreakingInput(Exercise):
    """An input on which `broken` differs from `right`.

    Args:
        right: the correct function.
        broken: the function to break.
        solution: one tuple of arguments that breaks it.
        valid: returns `None` for arguments that are allowed, otherwise what is wrong with them.
        also_right: other breaking inputs, for the tests.
        harmless: argument tuples that do not break it, for the tests.
    """

    right: Callable
    broken: Callable
    solution: tuple
    valid: Callable[..., str | None]
    also_right: tuple[tuple, ...] = ()
    harmless: tuple[tuple, ...] = ()

    def complaint(self, mine: Any) -> str | None:
        arguments = tuple(mine)
        refusal = self.valid(*arguments)
        if refusal:
            return refusal
        if same(self.broken(*arguments), self.right(*arguments)):
            shown = ", ".join(_short(argument) for argument in arguments)
            return f"On ({shown}) the broken function is still right."
        return None


@dataclass(frozen=True, kw_only=True)
class Explanation(Exercise):
    """A text for a colleague, laid beside the points that it should make.

    Args:
        points: what a good text says.
    """

    points: tuple[str, ...]

    def examine(self, mine: Any) -> Verdict:
        if _untouched(mine) or not str(mine).strip():
            return Verdict(None, f"{self.name}: not tried yet.")
        points = "".join(f"\n  [ ] {point}" for point in self.points)
        return Verdict(None, f"{self.name}: tick what your text says.{points}")


class _NotTried(Exception):
    """A stub that still returns `...`."""


def _untouched(answer: Any) -> bool:
    return answer is ...


def _agree(mine: Callable, wrong: Callable, case: tuple) -> bool:
    try:
        return same(mine(*case), wrong(*case))
    except Exception:
        return False


def _times(ratio: float) -> str:
    if ratio <= 0:
        return "A positive number is asked for"
    return f"{ratio:.3g} × too large" if ratio > 1 else f"{1 / ratio:.3g} × too small"


def _short(argument: Any) -> str:
    """An argument as the reader would write it, arrays as lists."""
    text = repr(argument.tolist() if hasattr(argument, "tolist") else argument)
    return text if len(text) <= 60 else text[:57] + "..."
