"""Answers to the exercises, as readers give them who know only the chapter.

One module for each module of exercises. `ANSWERS` has, for each exercise, a list of wrong answers
and a list of right ones in different styles. They are not the library's: none of them knows how a
check works.
"""

import importlib
import pkgutil


def collected() -> dict[str, tuple[list, list]]:
    """All answers by the names of the exercises: the wrong ones and the right ones."""
    modules = (
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
    )
    return {name: answers for module in modules for name, answers in module.ANSWERS.items()}


def sentences(exercise) -> list[str]:
    """The sentences that an author wrote for known mistakes."""
    known = exercise.mistakes
    return list(known) if hasattr(known, "items") else [said for _, said in known]
