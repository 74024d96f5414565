"""Writes the index of exercises, a page of the book, from the notebooks and the exercises' cards.

    python tools/exercise_index.py

Which chapter an exercise stands in, and where in it, is read from the notebooks; kind, minutes and
difficulty are those of its card in `mistral_lib.teaching.exercises`.
"""

import re
from pathlib import Path

import nbformat

import links
import targets
from house import BOOK, notebook_paths
from mistral_lib.teaching.exercises import find
from mistral_lib.teaching.exercises.kinds import Exercise

PAGE = BOOK / "exercises.md"
CHECKED = re.compile(r'^check\("([\w.]+)",', re.MULTILINE)
HEAD = """\
# Index of exercises

{total} exercises, {estimates} of them estimates, {hours} hours in all if none resists. Each stands
in its chapter, right after the idea that it needs, with three hints and a solution, and
`check("masks.window", my_mask)` says whether an answer is right and, if not, where it first goes
wrong. Exercises are named after the module that their chapter explains.
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


def page() -> str:
    """The whole page, with its links as keys."""
    chapters = [(*title_and_exercises(path), path.name) for path in notebook_paths()]
    every = [exercise for _, exercises, _ in chapters for exercise in exercises]
    head = HEAD.format(
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
