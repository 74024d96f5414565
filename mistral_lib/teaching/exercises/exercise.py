"""What all exercises share, and texts that are not judged (used by all chapters)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from mistral_lib.teaching.exercises.answers import Unreadable, words
from mistral_lib.teaching.exercises.running import NotTried

KINDS = (
    "trace by hand",
    "predict, then run",
    "missing lines",
    "find the bug",
    "break this function",
    "estimate",
    "read the library",
    "run an experiment",
    "explain",
    "extend the library",
)
FEWEST_WORDS = 8  # of an explanation


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
        """Judges an answer; never raises, and never warns."""
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                if mine is ...:
                    raise NotTried
                complaint = self.complaint(mine)
            except NotTried:
                return Verdict(None, f"{self.name}: not tried yet.")
            except Unreadable as what:
                complaint = self.refusal(what)
            if complaint is None:
                return Verdict(True, f"{self.name}: right.{self.praise(mine)}")
            return Verdict(False, f"{self.name}: not yet.\n{complaint}")

    @property
    def asks(self) -> str:
        """What an answer has to be, in words that begin a sentence."""
        raise NotImplementedError

    def refusal(self, what: object) -> str:
        """What to say to an answer in another form than is asked for."""
        return f"Yours is {what}. {self.asks} is asked for."

    def complaint(self, mine: Any) -> str | None:
        """What is wrong with an answer, or `None` if it is right.

        Raises:
            Unreadable: the answer is in a form that is not asked for.
            NotTried: it is a stub.
        """
        raise NotImplementedError

    def praise(self, mine: Any) -> str:
        """What to add after "right."."""
        return ""


@dataclass(frozen=True, kw_only=True)
class Explanation(Exercise):
    """A text for a colleague, laid beside the points that it should make.

    Args:
        points: what a good text says.
    """

    points: tuple[str, ...]

    @property
    def asks(self) -> str:
        return "A text of three or four sentences"

    def examine(self, mine: Any) -> Verdict:
        """Lays a text beside the points; what is none is refused."""
        verdict = super().examine(mine)
        if verdict.right is not True:
            return verdict
        points = "".join(f"\n  [ ] {point}" for point in self.points)
        return Verdict(None, f"{self.name}: tick what your text says.{points}")

    def complaint(self, mine: Any) -> str | None:
        count = len(words(mine).split())
        if isinstance(mine, str) and not mine.strip():
            raise NotTried
        if count < FEWEST_WORDS:
            raise Unreadable(f"a text of {count} word{'s' * (count != 1)}")
        return None
