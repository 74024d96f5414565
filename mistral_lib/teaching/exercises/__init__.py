"""Self-checking exercises (used by all chapters).

    check("masks.window", my_window)    says whether the answer is right, and if not, where and why
    hint("masks.window", 1)             the concept; 2 the place; 3 the code

Neither ever raises on a wrong answer, so that *Run All* reaches the end of a chapter. The exercises
named `masks.…` stand in the module `masks` of this package: one module a chapter, each a list
`EXERCISES` made of the kinds in `kinds`.
"""

from __future__ import annotations

import importlib
import pkgutil

from mistral_lib.teaching.exercises.exercise import Exercise

# How answers are judged; the other modules are the chapters.
HELPERS = set(
    "answers calls exercise experiments functions kinds report running units values".split()
)


def check(name: str, mine: object) -> None:
    """Prints whether `mine` solves the exercise called `name`.

    Args:
        name: the exercise's name, as printed above it in the chapter.
        mine: the answer: a function, a number, an array, a tuple or a text, as the exercise asks.

    Raises:
        ValueError: no exercise has that name.

    >>> check("masks.right_padding", 12)
    masks.right_padding: not yet.
    You answered 12: those cells are hidden already, because a pad on the right is in the future.
    >>> check("masks.right_padding", ...)
    masks.right_padding: not tried yet.
    """
    print(find(name).examine(mine).message)


def accepted(name: str, mine: object) -> bool:
    """Whether `mine` solves the exercise called `name`.

    Args:
        name: the exercise's name.
        mine: the answer.

    Raises:
        ValueError: no exercise has that name.

    >>> accepted("masks.right_padding", 12)
    False
    """
    return find(name).examine(mine).right is True


def hint(name: str, step: int = 1) -> None:
    """Prints one of the three hints of an exercise: 1 the concept, 2 the place, 3 the code.

    Raises:
        ValueError: no exercise has that name, or no hint has that number.

    >>> hint("masks.right_padding", 1)
    masks.right_padding, hint 1 of 3 (concept): Which rule hides a pad from a real token already?
    """
    exercise = find(name)
    if step not in (1, 2, 3):
        raise ValueError(f"hint step {step!r} does not exist: take 1, 2 or 3")
    kind = ("concept", "place", "code")[step - 1]
    print(f"{name}, hint {step} of 3 ({kind}): {exercise.hints[step - 1]}")


def find(name: str) -> Exercise:
    """The exercise called `name`.

    Raises:
        ValueError: no exercise has that name; the message lists those of the same chapter.
    """
    chapter = name.partition(".")[0]
    if chapter not in _chapters():
        raise ValueError(f"no exercises are called {name!r}: chapters are {', '.join(_chapters())}")
    exercises = {exercise.name: exercise for exercise in _load(chapter)}
    if name not in exercises:
        raise ValueError(f"no exercise is called {name!r}: there are {', '.join(exercises)}")
    return exercises[name]


def all_exercises() -> list[Exercise]:
    """Every exercise of the book, chapter modules in alphabetical order."""
    return [exercise for chapter in _chapters() for exercise in _load(chapter)]


def _chapters() -> list[str]:
    return sorted({module.name for module in pkgutil.iter_modules(__path__)} - HELPERS)


def _load(chapter: str) -> list[Exercise]:
    return importlib.import_module(f"{__name__}.{chapter}").EXERCISES
