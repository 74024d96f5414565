"""Every claim that the book makes about a model: the page that lists them, and their checks.

    python tools/claims.py

A sentence is marked `<!-- claim:head-copies -->`, and a cell records under that name what it rests
on (`mistral_lib.teaching.claims`). The page `book/claims.md` puts the two side by side.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from house import BOOK, notebook_paths
from mistral_lib.teaching.claims import CLAIM, NAME
from mistral_lib.teaching.facts import PREFIX
from model_numbers import recorded_as_counts

PAGE = BOOK / "claims.md"
MARK = re.compile(rf"<!-- {CLAIM}(?P<name>{NAME.pattern}) -->")
# The space before a new sentence: after a stop, and up to two closing marks.
STOP = re.compile(r"(?<=[.!?]) |(?<=[.!?][)\"”*_]) |(?<=[.!?][)\"”*_]{2}) ")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
INTERVAL = re.compile(r"\(\S+ to \S+, [\d,]+ \w+\)|\(\S+ to \S+, n = [\d,]+\)")
HEAD = """\
# Every claim about the model

One example shows how something works; it never shows that it holds. So each sentence of this book
that says something about a model was measured on many texts, or on several training runs, and is
listed here with its estimate, its interval of 95 %, the number n of texts or runs, and a verdict
that follows from the interval. Texts are those of the book's panel, which the model was not trained
on. What was looked for on one half of them was measured again on the other half, "confirm", and
only that is quoted.
"""
NONE_YET = "\nNo chapter has recorded a claim yet.\n"
ROW = "| {sentence} | {estimate} | {n} | {on} | {verdict} |"


def recorded(notebook: NotebookNode) -> dict[str, dict]:
    """What a notebook's cells recorded for its claims, by the claim's name.

    Raises:
        ValueError: two cells recorded one claim differently.
    """
    found: dict[str, dict] = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            name = output.get("metadata", {}).get("scrapbook", {}).get("name", "")
            if name.startswith(CLAIM):
                kept = json.loads(output.data[f"{PREFIX}text/plain"])
                if found.setdefault(name.removeprefix(CLAIM), kept) != kept:
                    raise ValueError(f"{name} is recorded twice, differently. Rename one of them.")
    return found


def gather(notebooks: list[Path]) -> dict[str, dict]:
    """What all notebooks recorded.

    Raises:
        ValueError: two notebooks recorded claims of one name.
    """
    every: dict[str, dict] = {}
    for path in notebooks:
        for name, kept in recorded(nbformat.read(path, 4)).items():
            if name in every:
                raise ValueError(f"{path.name} and a notebook before it both record {name}.")
            every[name] = kept
    return every


def texts(path: Path) -> list[str]:
    """The pieces of prose of a notebook or a page."""
    if path.suffix == ".md":
        return [path.read_text()]
    cells = nbformat.read(path, 4).cells
    return [cell.source for cell in cells if cell.cell_type == "markdown"]


def written(paths: list[Path]) -> Counter[str]:
    """How often the prose of notebooks and pages makes each claim."""
    return Counter(name for path in paths for text in texts(path) for name in MARK.findall(text))


def sentences(text: str) -> Iterator[tuple[str, str]]:
    """The claims of a piece of Markdown, each with its sentence, of which nothing is left to mark.

    >>> list(
    ...     sentences(
    ...         "It reads. Head 3 copies 1<!-- =x -->\\n[names](a.md).<!-- claim:copies --> So."
    ...     )
    ... )
    [('copies', 'Head 3 copies 1 names.')]
    """
    for match in MARK.finditer(text):
        around = f"{text[: match.start()]}\0{text[match.end() :]}"
        around = COMMENT.sub("", around)
        around = re.sub(r"\{\w+\}`[^`]*`", "", around)  # citations
        around = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", around)
        (paragraph,) = [p for p in re.split(r"\n\s*\n|\n(?=\s*[-*#>]\s)", around) if "\0" in p]
        paragraph = re.sub(r"^[-*#>]+ ", "", " ".join(paragraph.split()))
        paragraph = re.sub(r"([.!?][)\"”*_]*)\0", "\0\\1", paragraph)  # the mark before the stop
        (sentence,) = [s for s in re.split(STOP, paragraph) if "\0" in s]
        yield match["name"], sentence.replace(" \0", "\0").replace("\0", "")


def page() -> str:
    """The whole page."""
    claims = gather(notebook_paths())
    sections = []
    for path in notebook_paths():
        found = [pair for text in texts(path) for pair in sentences(text)]
        rows = [
            ROW.format(sentence=sentence.replace("|", "\\|"), **claims[name])
            for name, sentence in found
            if name in claims
        ]
        if rows:
            title = texts(path)[0].partition("\n")[0].removeprefix("# ")
            head = [f"\n## {title}\n", f"[Open the chapter]({path.name}).\n"]
            sections += [
                *head,
                "| claim | estimate | n | measured on | verdict |",
                "|---|---|---|---|---|",
            ]
            sections += rows
    return HEAD + ("\n".join(sections) + "\n" if sections else NONE_YET)


def claim_problems(notebook: NotebookNode, claims: dict[str, dict], made: Counter) -> Iterator[str]:
    """What is wrong with the claims of a notebook.

    Args:
        notebook: the notebook.
        claims: what the whole book recorded.
        made: how often the prose of the whole book makes each claim.
    """
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            yield from (
                f"cell {index} {problem}" for problem in prose_problems(cell.source, claims)
            )
    for name, kept in recorded(notebook).items():
        if not made[name]:
            yield f"records the claim {name}, which no sentence makes. Mark it, or drop the record."
        if not INTERVAL.search(kept.get("estimate", "")) or not kept.get("n"):
            yield f"records the claim {name} without n and interval: {kept}."


def prose_problems(text: str, claims: dict[str, dict]) -> Iterator[str]:
    """What is wrong with the claims of a piece of prose."""
    marks = MARK.findall(text)
    for name in marks:
        if name not in claims:
            yield f"makes the claim {name}, which no cell records with an estimate."
    if marks and not re.search(r"<!-- =\w+_n -->", text):
        fact = f"{marks[0].replace('-', '_')}_n"
        yield f"makes the claim {marks[0]} without n. Write it: n = ?<!-- ={fact} -->."
    if text.count(f"<!-- {CLAIM}") + text.count(f"<!--{CLAIM}") > len(marks):
        yield "has a mark that is not of the form <!-- claim:name -->."


def number_problems(notebook: NotebookNode) -> Iterator[str]:
    """Numbers about a model that a notebook records as if they were counts."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for name in recorded_as_counts("\n".join(code)):
        yield (
            f"records {name}, a number about the model, with `record`, which is for counts and "
            "arithmetic. Record it with `example` if one text gave it, or with `claim`."
        )


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
