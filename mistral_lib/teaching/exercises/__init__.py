"""Self-checking exercises (used by all chapters).

    check("masks.window", my_window)    says whether the answer is right, and if not, where and why
    hint("masks.window", 1)             the concept; 2 the place; 3 the code
    question("masks.row", seed=7)       asks again with other numbers, where an exercise has them;
    check("masks.row", mine, seed=7)    judges the answer to that

None of them ever raises on a wrong answer, so that *Run All* reaches the end of a chapter. The
exercises named `masks.…` stand in the module `masks` of this package: one module a chapter, each a
list `EXERCISES` made of the kinds in `kinds`.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from types import ModuleType

from mistral_lib.teaching.exercises import fresh_estimates, fresh_numbers, fresh_traces, progress
from mistral_lib.teaching.exercises.exercise import Exercise, Explanation

FRESH = {**fresh_estimates.FRESH, **fresh_numbers.FRESH, **fresh_traces.FRESH}

# How answers are judged; the other modules are the chapters.
HELPERS = set(
    "answers calls exercise experiments fresh fresh_estimates fresh_numbers fresh_traces "
    "functions kinds progress report running units values".split()
)


def check(name: str, mine: object, *, seed: int | None = None) -> None:
    """Prints whether `mine` solves the exercise called `name`.

    Args:
        name: the exercise's name, as printed above it in the chapter.
        mine: the answer: a function, a number, an array, a tuple or a text, as the exercise asks.
        seed: judges the question that `question` printed for this seed.

    Raises:
        ValueError: no exercise has that name.

    >>> check("masks.right_padding", 12)
    masks.right_padding: not yet.
    You answered 12: those cells are hidden already, because a pad on the right is in the future.
    >>> check("masks.right_padding", ...)
    masks.right_padding: not tried yet.
    """
    if seed is not None and find(name).name not in FRESH:
        print(_the_same(name))
        return
    verdict = _with_numbers(name, seed).examine(mine)
    print(verdict.message)
    if verdict.right:
        progress.note(name)


def question(name: str, *, seed: int | None = None) -> None:
    """Prints the question of an exercise, with new numbers.

    Args:
        name: the exercise's name.
        seed: a whole number; each gives other numbers, and always the same. `None` gives those of
            the book.

    Raises:
        ValueError: no exercise has that name.

    >>> question("masks.row", seed=7)
    masks.row, seed 7:
    With W = 5: which positions does the token at position 19 see? Write them in order, the
    smallest first.
    >>> check("masks.row", [15, 16, 17, 18, 19], seed=7)
    masks.row: right.
    >>> question("masks.window", seed=7)
    masks.window has no other numbers: its question is the one in the chapter.
    """
    if find(name).name not in FRESH:
        print(_the_same(name))
        return
    fresh = FRESH[name]
    numbers = fresh.book if seed is None else fresh.drawn(find(name), seed)
    head = name if seed is None else f"{name}, seed {seed}"
    print(f"{head}:\n{fresh.text.format(**numbers)}")


def _the_same(name: str) -> str:
    return f"{name} has no other numbers: its question is the one in the chapter."


def _with_numbers(name: str, seed: int | None) -> Exercise:
    """An exercise with the book's numbers, or with those of a seed."""
    exercise = find(name)
    if seed is None:
        return exercise
    return FRESH[name].at(exercise, FRESH[name].drawn(exercise, seed))


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


def print_progress() -> None:
    """Prints for each chapter how many exercises are solved, of those that are judged."""
    solved, chapters = progress.solved(), {}
    for exercise in all_exercises():
        if not isinstance(exercise, Explanation):
            chapters.setdefault(_title(exercise.name), []).append(exercise.name in solved)
    for (number, title), done in sorted(chapters.items()):
        print(f"{number or '':2}  {title:36} {sum(done):2} of {len(done):2}")
    everything = [one for done in chapters.values() for one in done]
    print(f"{sum(everything)} of {len(everything)} exercises are solved.")
    where = progress.file()
    if where is None:
        print(f"Nothing is noted, because {progress.VARIABLE} is {progress.OFF}.")
    else:
        print(f"In notebooks, check(...) notes what is solved in {where}")


def _title(name: str) -> tuple[int, str]:
    """The number and the title of an exercise's chapter; the on-ramp has 0."""
    about = _module(name.partition(".")[0]).__doc__ or ""
    named = re.search(r'chapter (\d+), "([^"]+)"', about)
    return (int(named[1]), named[2]) if named else (0, "On-ramp")


def _chapters() -> list[str]:
    return sorted({module.name for module in pkgutil.iter_modules(__path__)} - HELPERS)


def _load(chapter: str) -> list[Exercise]:
    return _module(chapter).EXERCISES


def _module(chapter: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{chapter}")
