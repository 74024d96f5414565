"""What every notebook of the book has to satisfy, without running it.

    python tools/check_notebooks.py [NOTEBOOK ...]

Each check takes a chapter and yields what is wrong, as a sentence that says where and what to do.
The test suite runs all checks on all notebooks, and each check on a notebook that breaks it.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode

import claims
import figures
import folds
import links
import solutions
import targets
from house import BOOK, ROOT, colab_link, notebook_paths
from notebooks import FACT, SETUP_TAGS, gather, normalise, setup_source

COLUMNS, LINES, FOLDED_LINES, LONG_CELLS = 88, 15, 45, 2
IGNORED_SHARE = 0.1
IGNORING = re.compile(r"^\s*#\s*NBVAL_(IGNORE_OUTPUT|SKIP)", re.MULTILINE | re.IGNORECASE)
IMAGES = ("image/png", "image/jpeg", "image/svg+xml", "image/gif")
WORDS = re.compile(
    r"\b(delv(e|es|ed|ing)|crucial(ly)?|powerful(ly)?|let[’']s|as we can see|it is important"
    r"|simply)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Chapter:
    """A notebook, and what it may refer to in the rest of the book."""

    path: Path
    notebook: NotebookNode
    facts: dict[str, str]
    targets: dict[str, targets.Target]
    claims: dict[str, dict] = field(default_factory=dict)  # recorded in the whole book
    made: Counter[str] = field(default_factory=Counter)  # in its prose

    def cells(self, kind: str) -> Iterator[tuple[str, NotebookNode]]:
        """The cells of one kind that hold anything, each with a name for messages."""
        for index, cell in enumerate(self.notebook.cells):
            if cell.cell_type == kind and cell.source.strip():
                yield f"cell {index}", cell


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def drawn(cell: NotebookNode) -> bool:
    """Whether a cell's output has a picture."""
    return any(kind in IMAGES for out in cell.get("outputs", []) for kind in out.get("data", {}))


def executed(chapter: Chapter) -> Iterator[str]:
    """Every cell was run: nbval compares nothing in a cell that was not."""
    for where, cell in chapter.cells("code"):
        if cell.execution_count is None:
            yield f"{where} was never run. Run `make notebooks`."


def no_errors(chapter: Chapter) -> Iterator[str]:
    """No cell ended in an error, but those that mean to."""
    for where, cell in chapter.cells("code"):
        failed = any(output.output_type == "error" for output in cell.outputs)
        if failed and "raises-exception" not in tags(cell):
            yield f"{where} ended in an error. Mend it, or tag it raises-exception."


def alt_texts(chapter: Chapter) -> Iterator[str]:
    """Every picture says in words what it shows."""
    for where, cell in chapter.cells("code"):
        if (
            drawn(cell)
            and not cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "").strip()
        ):
            yield (
                f"{where} draws a picture without alt text. Write it into the cell's metadata: "
                '{"mystnb": {"image": {"alt": "..."}}}.'
            )
    for where, cell in chapter.cells("markdown"):
        tagged = re.findall(r"<img\b[^>]*>", cell.source)
        bare = [tag for tag in tagged if not re.search(r"\balt=[\"'][^\"']", tag)]
        if bare or re.search(r"!\[\s*\]\(", cell.source):
            yield f"{where} shows a picture without alt text."


def set_up(chapter: Chapter) -> Iterator[str]:
    """The set-up cell follows the title and is the same as everywhere."""
    second = chapter.notebook.cells[1] if len(chapter.notebook.cells) > 1 else NotebookNode()
    same = second.get("source") == setup_source() and tags(second) == SETUP_TAGS
    others = [cell for cell in chapter.notebook.cells[2:] if "setup" in tags(cell)]
    if not same or others:
        yield "The second cell is not the book's set-up cell. Run `make notebooks`."


def title(chapter: Chapter) -> Iterator[str]:
    """The first cell holds the title, numbered as the file is, and the link to Colab."""
    first = chapter.notebook.cells[0].source if chapter.notebook.cells else ""
    number = re.match(r"\d+", chapter.path.stem)
    wanted = rf"# {int(number[0])}\. \S" if number else r"# \S"
    if not re.match(wanted, first):
        yield f"The first cell starts with {first[:30]!r}, not with a title: {wanted!r}."
    if colab_link(f"book/{chapter.path.name}") not in first:
        yield "The first cell has no link to Colab. Run `make notebooks`."


def wording(chapter: Chapter) -> Iterator[str]:
    """No filler in the prose."""
    for kind in ("markdown", "code"):
        for where, cell in chapter.cells(kind):
            for match in WORDS.finditer(cell.source):
                yield f"{where} says {match[0]!r}. Say it without."


def code_shape(chapter: Chapter) -> Iterator[str]:
    """Cells are short and narrow; folded ones, and a few that are tagged, may be longer."""
    long_cells = 0
    for where, cell in chapter.cells("code"):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        wide = [line for line in lines if len(line) > COLUMNS]
        if wide:
            yield f"{where} has a line of {len(wide[0])} columns; {COLUMNS} is the limit."
        if folds.title(cell):
            if len(lines) > FOLDED_LINES:
                yield f"{where} has {len(lines)} lines; {FOLDED_LINES} is the limit of a fold."
        elif len(lines) > LINES:
            long_cells += 1
            if "long-cell" not in tags(cell):
                yield f"{where} has {len(lines)} lines; {LINES} is the limit. Split it."
    if long_cells > LONG_CELLS:
        yield f"{long_cells} cells have more than {LINES} lines; {LONG_CELLS} may."


def plain_markdown(chapter: Chapter) -> Iterator[str]:
    """The prose reads whole in Jupyter and on Colab: nothing of MyST, which they show as text."""
    for where, cell in chapter.cells("markdown"):
        if re.search(r"^\s*(`{3,}|:{3,})\s*\{", cell.source, re.MULTILINE):
            yield f"{where} has a MyST directive, which Jupyter and Colab show as code."
        if re.search(r"^\([\w-]+\)=\s*$", cell.source, re.MULTILINE):
            yield f"{where} has a MyST target, which Jupyter and Colab show as text."
        for role in re.findall(r"\{([\w:+-]+)\}`", cell.source):
            yield f"{where} uses the role {{{role}}}. Write a link, as in [](fig:leak)."


def linked(chapter: Chapter) -> Iterator[str]:
    """Every link leads somewhere and says where."""
    for where, cell in chapter.cells("markdown"):
        yield from (
            f"{where} {problem}" for problem in links.problems(cell.source, chapter.targets)
        )


def captioned(chapter: Chapter) -> Iterator[str]:
    """A caption follows every picture, and nothing else."""
    captions = {index for index, _ in targets.captions(chapter.notebook)}
    pictures = {i for i, cell in enumerate(chapter.notebook.cells) if drawn(cell)}
    for index in sorted(pictures):
        if index + 1 not in captions:
            yield (
                f"cell {index} draws a picture without a caption. Begin the Markdown after it with "
                "**fig:name.** and what there is to see."
            )
    for index in sorted(captions):
        if index - 1 not in pictures:
            yield f"cell {index} begins with a caption, but no picture is right before it."


def versioned(chapter: Chapter) -> Iterator[str]:
    """Every figure has a dark version and two for phones, as new as its code."""
    yield from figures.problems(chapter.notebook)


def folded(chapter: Chapter) -> Iterator[str]:
    """A cell in view teaches; what a reader does not come for is folded, under a title."""
    yield from folds.unfolded_chores(chapter.notebook)
    yield from folds.hidden_lessons(chapter.notebook)
    before = [cell.source for cell in chapter.notebook.cells]
    copy = nbformat.from_dict(chapter.notebook)
    folds.fill_titles(copy, chapter.targets)
    if [cell.source for cell in copy.cells] != before:
        yield "The title of a fold has another figure's number. Run `make notebooks`."


def silent(chapter: Chapter) -> Iterator[str]:
    """A folded cell prints or draws what it means to show, and nothing else."""
    for where, cell in chapter.cells("code"):
        values = [output for output in cell.outputs if output.output_type == "execute_result"]
        if folds.title(cell) and values:
            yield (
                f"{where} is folded and shows the value of its last line, as of a `claim` or a "
                "`steady`. Assert something about it, or print it."
            )


def solved(chapter: Chapter) -> Iterator[str]:
    """The solution of an experiment is run below it."""
    yield from solutions.problems(chapter.notebook)


def numbers(chapter: Chapter) -> Iterator[str]:
    """Every number that a cell computes is in the prose as it was computed."""
    for where, cell in chapter.cells("markdown"):
        yield from (f"{where} {problem}" for problem in number_problems(cell.source, chapter.facts))


def number_problems(text: str, facts: dict[str, str]) -> Iterator[str]:
    """What is wrong with the marked numbers of a text."""
    for match in FACT.finditer(text):
        name, found = match["name"], match["text"]
        if name not in facts:
            yield f"names the number {name}, which no cell records."
        elif found != facts[name]:
            yield f"has {found} for {name}; the cell recorded {facts[name]}. Run `make notebooks`."
    others = FACT.sub("", links.MARK.sub("", text))
    if "<!-- =" in others:
        yield "has a mark <!-- =... --> that is not of the form <!-- =name -->."


def claimed(chapter: Chapter) -> Iterator[str]:
    """What the prose says about the model was measured, and what was measured is said."""
    yield from claims.claim_problems(chapter.notebook, chapter.claims, chapter.made)


def counted(chapter: Chapter) -> Iterator[str]:
    """Numbers about the model are recorded as examples or as claims, not as counts."""
    yield from claims.number_problems(chapter.notebook)


def compared(chapter: Chapter) -> Iterator[str]:
    """Nearly every output is compared when the notebook is run again."""
    code = [cell for _, cell in chapter.cells("code")]
    marks = {"nbval-ignore-output", "nbval-skip"}
    ignored = [cell for cell in code if marks & {*tags(cell)} or IGNORING.search(cell.source)]
    if len(ignored) > IGNORED_SHARE * len(code):
        yield f"{len(ignored)} of {len(code)} outputs are ignored; one in ten may be."


def tidied(chapter: Chapter) -> Iterator[str]:
    """Nothing in the file but what the book needs."""
    before = nbformat.writes(chapter.notebook)
    after = nbformat.reads(before, 4)
    normalise(after)
    if nbformat.writes(after) != before:
        yield "The file holds metadata of a front end. Run `make notebooks`."


CHECKS = [
    executed,
    no_errors,
    alt_texts,
    set_up,
    title,
    wording,
    code_shape,
    plain_markdown,
    linked,
    captioned,
    versioned,
    folded,
    silent,
    solved,
    numbers,
    claimed,
    counted,
    compared,
    tidied,
]


def load(paths: list[Path]) -> list[Chapter]:
    """The notebooks as chapters of one book."""
    every = notebook_paths()
    shared = (
        gather(every),
        targets.load(),
        claims.gather(every),
        claims.written([*every, *pages()]),
    )
    return [Chapter(path, nbformat.read(path, 4), *shared) for path in paths]


def pages() -> list[Path]:
    """The pages of the book that are no notebooks, and the README."""
    return [path for path in [ROOT / "README.md", *BOOK.glob("*.md")] if path.exists()]


def page_problems(
    page: Path,
    facts: dict[str, str],
    recorded: dict[str, dict],
    known: dict[str, targets.Target],
) -> Iterator[str]:
    """What is wrong with the numbers, claims and links of a page."""
    text = page.read_text()
    yield from number_problems(text, facts)
    yield from claims.prose_problems(text, recorded)
    yield from links.problems(text, known)


def main() -> None:
    """Prints every problem of the named notebooks, or of all."""
    paths = [Path(name).resolve() for name in sys.argv[1:]] or notebook_paths()
    problems = [
        f"{chapter.path.name}: {problem}"
        for chapter in load(paths)
        for check in CHECKS
        for problem in check(chapter)
    ]
    facts, recorded = gather(notebook_paths()), claims.gather(notebook_paths())
    known = targets.load()
    for page in pages():
        problems += [f"{page.name}: {p}" for p in page_problems(page, facts, recorded, known)]
    sys.exit("\n".join(problems) or None)


if __name__ == "__main__":
    main()
