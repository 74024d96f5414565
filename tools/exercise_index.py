"""Writes the index of exercises, a page of the book, from the notebooks and the exercises' cards.

    python tools/exercise_index.py

Which chapter an exercise stands in, and where in it, is read from the notebooks; kind, minutes and
difficulty are those of its card in `mistral_lib.teaching.exercises`. How the checks were tried is
counted anew, with the answers of `tests/exercise_answers`.
"""

import contextlib
import importlib
import io
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import nbformat

import links
import targets
from house import BOOK, ROOT, notebook_paths
from mistral_lib.teaching.exercises import FRESH, find
from mistral_lib.teaching.exercises.kinds import Exercise

PAGE = BOOK / "exercises.md"
CHECKED = re.compile(r'^check\("([\w.]+)",', re.MULTILINE)
HEAD = """\
# Index of exercises

{total} exercises, {estimates} of them estimates, {hours} hours in all if none resists. Each stands
in its chapter, right after the idea that it needs, with three hints and a solution, and
`check("masks.window", my_mask)` says whether an answer is right and, if not, where it first goes
wrong. Exercises are named after the module that their chapter explains.

* {fresh} of them can be asked again with other numbers: `question("masks.row", seed=7)` prints such
  a question, and `check("masks.row", my_row, seed=7)` judges the answer.
* `python -m mistral_lib exercises progress` says what you have solved. `check` notes it in a file
  on your machine, which holds the names of the exercises and nothing else.
* `python -m mistral_lib exercises init my_mistral` writes a package of stubs with the book's names.
  Fill it chapter by chapter: `python -m mistral_lib exercises check my_mistral` judges it as the
  notebooks do, and in the end runs the shipped model in it.

The checks were tried with answers that readers might give. All of {wrong:,} wrong answers were
refused, {own:,} of them with a sentence about that very mistake, and all of {right:,} right ones
were accepted.

<details>
<summary>How the checks were tried, by chapter</summary>

| chapter | wrong, refused | with their own sentence | right, accepted |
|---|---|---|---|
{rows}

</details>
"""


def title_and_exercises(notebook: Path) -> tuple[str, list[Exercise]]:
    """A notebook's title, and its exercises in the order in which they stand there.

    Raises:
        ValueError: the notebook checks an exercise that has no card.
    """
    cells = nbformat.read(notebook, 4).cells
    title = cells[0].source.partition("\n")[0].removeprefix("# ")
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    return title, [find(name) for name in dict.fromkeys(CHECKED.findall(code))]


def section(title: str, link: str, exercises: list[Exercise]) -> str:
    """The part of the page about one chapter.

    >>> print(section("7. Sliding windows", "07.ipynb", [find("masks.row")]))
    ## 7. Sliding windows
    <BLANKLINE>
    1 exercise, 2 minutes. [Open the chapter](07.ipynb).
    <BLANKLINE>
    | name | kind | minutes | difficulty |
    |---|---|---|---|
    | [](exercise:masks.row) | trace by hand | 2 | ★☆☆ |
    <BLANKLINE>
    """
    minutes = sum(exercise.minutes for exercise in exercises)
    count = "1 exercise" if len(exercises) == 1 else f"{len(exercises)} exercises"
    lines = [
        f"## {title}",
        "",
        f"{count}, {minutes} minutes. [Open the chapter]({link}).",
        "",
        "| name | kind | minutes | difficulty |",
        "|---|---|---|---|",
    ]
    for exercise in exercises:
        stars = "★" * exercise.difficulty + "☆" * (3 - exercise.difficulty)
        name = f"[](exercise:{exercise.name})"
        lines.append(f"| {name} | {exercise.kind} | {exercise.minutes} | {stars} |")
    return "\n".join(lines) + "\n"


@cache
def answers() -> tuple[ModuleType, dict[str, tuple[list, list]]]:
    """The package of answers in the tests, and the wrong and right ones for each exercise."""
    sys.path.append(str(ROOT / "tests"))
    try:
        exercise_answers = importlib.import_module("exercise_answers")
        return exercise_answers, exercise_answers.collected()
    finally:
        sys.path.remove(str(ROOT / "tests"))


@cache
def score(name: str) -> tuple[int, int, int]:
    """How many wrong answers to an exercise are refused, how many of them with a sentence of their
    own, and how many right ones are accepted; nothing for one that is not judged.

    Raises:
        ValueError: a wrong answer is accepted. That the right ones are accepted is left to the
            tests, because it takes long.
    """
    module, known = answers()
    wrong, right = known.get(name, ([], []))
    exercise = find(name)
    with contextlib.redirect_stdout(io.StringIO()):  # an answer may print
        refusals = [exercise.examine(answer) for answer in wrong]
    if any(verdict.right is not False for verdict in refusals):
        raise ValueError(f"{name} accepts a wrong answer of tests/exercise_answers.")
    sentences = module.sentences(exercise) if wrong else []
    own = sum(any(said in verdict.message for said in sentences) for verdict in refusals)
    return len(wrong), own, len(right)


def page() -> str:
    """The whole page, with its links as keys."""
    chapters = [(*title_and_exercises(path), path.name) for path in notebook_paths()]
    every = [exercise for _, exercises, _ in chapters for exercise in exercises]
    scores = {
        title: [sum(counts) for counts in zip(*(score(one.name) for one in found))]
        for title, found, _ in chapters
        if found
    }
    wrong, own, right = (sum(counts) for counts in zip(*scores.values()))
    rows = [
        f"| {title} | {wrong:,} | {own:,} | {right:,} |"
        for title, (wrong, own, right) in scores.items()
    ]
    head = HEAD.format(
        **dict(wrong=wrong, own=own, right=right, rows="\n".join(rows)),
        fresh=sum(exercise.name in FRESH for exercise in every),
        total=len(every),
        estimates=sum(exercise.kind == "estimate" for exercise in every),
        hours=round(sum(exercise.minutes for exercise in every) / 60),
    )
    sections = [section(title, link, found) for title, found, link in chapters if found]
    return "\n".join([head, *sections])


def main() -> None:
    """Writes the page."""
    PAGE.write_text(links.fill(page(), targets.load()))


if __name__ == "__main__":
    main()
