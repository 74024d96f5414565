"""Runs the notebooks in place, and keeps what several of them share the same everywhere.

    python tools/notebooks.py run   [NOTEBOOK ...]    run, then sync everything
    python tools/notebooks.py sync                    without running
    python tools/notebooks.py short [NOTEBOOK ...]    links as keys again, to edit the prose

Syncing writes the set-up cell and the link to Colab, copies recorded numbers into the prose of
every notebook and page, fills in links, captions, titles of folds (`links.py`, `folds.py`) and what
pictures of the model show (`figures.py`), drops metadata that would only make differences between
versions long, and writes the index of exercises, the bibliography and the page of all claims.
"""

import argparse
import hashlib
import os
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

import api_pages
import bibliography
import claims
import exercise_index
import figures
import folds
import links
import solutions
import targets
from house import BOOK, PROJECT, REPOSITORY, ROOT, TAG, colab_link, notebook_paths
from mistral_lib.teaching.exercises import progress
from mistral_lib.teaching.facts import NAME, NUMBER, PREFIX

SECONDS_PER_CELL = 300
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}
SETUP_TAGS = ["setup"]
SETUP = """\
# @title Set-up for Colab: installs the book's library there, does nothing elsewhere
import importlib.util
import os
import subprocess
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")
find = importlib.util.find_spec
if find("google") and find("google.colab") and not find("mistral_lib"):
    library = "git+{repository}@{tag}"
    needed = "{keras} {sentencepiece} {jaxtyping} wadler_lindig".split()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, *needed, library], check=True)
    importlib.invalidate_caches()"""
# What an explorer carries with it for a notebook that runs; its recorded values stay.
SCRIPT = re.compile(r"<(script|style)>.*?</\1>", re.DOTALL)
# A number in the prose, or a question mark that waits for one, and the name it was recorded under.
FACT = re.compile(rf"((?<![\w.,])(?P<text>{NUMBER.pattern}|\?))?<!-- =(?P<name>{NAME.pattern}) -->")


def setup_source() -> str:
    """The code of the set-up cell, for this repository and version."""
    bounds = {needed.split(">")[0]: needed for needed in PROJECT["dependencies"]}
    return SETUP.format(repository=REPOSITORY, tag=TAG, **bounds)


def recorded(notebook: NotebookNode) -> dict[str, str]:
    """The numbers that a notebook's cells recorded, by name."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    marked = [output for output in outputs if "scrapbook" in output.get("metadata", {})]
    kept = {out.metadata["scrapbook"]["name"]: out.data[f"{PREFIX}text/plain"] for out in marked}
    return {name: text for name, text in kept.items() if not name.startswith(claims.CLAIM)}


def gather(paths: list[Path]) -> dict[str, str]:
    """The recorded numbers of several notebooks.

    Raises:
        ValueError: if two notebooks recorded different numbers under one name.
    """
    facts: dict[str, str] = {}
    for path in paths:
        for name, text in recorded(nbformat.read(path, 4)).items():
            if facts.setdefault(name, text) != text:
                raise ValueError(
                    f"{name} is {text} in {path.name}, but {facts[name]} in a notebook before it. "
                    "Give one of the two another name."
                )
    return facts


def write_facts(text: str, facts: dict[str, str]) -> str:
    """A text with every known number in it as it was recorded.

    >>> write_facts("It has ?<!-- =params --> parameters.", {"params": "2,704"})
    'It has 2,704<!-- =params --> parameters.'
    """

    def replace(match: re.Match) -> str:
        known = facts.get(match["name"], match["text"] or "")
        return f"{known}<!-- ={match['name']} -->"

    return FACT.sub(replace, text)


def place_setup(notebook: NotebookNode) -> None:
    """Makes the set-up cell the first code cell, right after the cell with the title."""
    others = [c for c in notebook.cells if "setup" not in c.metadata.get("tags", [])]
    old = [c for c in notebook.cells if "setup" in c.metadata.get("tags", [])]
    cell = old[0] if old else nbformat.v4.new_code_cell()
    if cell.source != setup_source():
        cell.source, cell.outputs = setup_source(), []
    cell.metadata = NotebookNode(tags=SETUP_TAGS)
    notebook.cells = [*others[:1], cell, *others[1:]]


def place_colab_link(notebook: NotebookNode, path: Path) -> None:
    """Puts a link to Colab under the title, in place of an old one."""
    link = f"[Open in Colab]({colab_link(path.relative_to(ROOT).as_posix())})"
    title, _, rest = notebook.cells[0].source.partition("\n")
    rest = re.sub(r"^\[Open in Colab\]\(\S*\)\n*", "", rest.lstrip("\n"))
    notebook.cells[0].source = f"{title}\n\n{link}\n\n{rest}".rstrip("\n")


def normalise(notebook: NotebookNode) -> None:
    """Keeps of the metadata what the book needs, and joins output that arrived in pieces."""
    notebook.metadata = NotebookNode(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    taken: set[str] = set()
    count = 0
    for cell in notebook.cells:
        kept = {key: cell.metadata[key] for key in ("tags", "mystnb") if key in cell.metadata}
        cell.metadata = nbformat.from_dict(kept | (folds.METADATA if folds.title(cell) else {}))
        cell.id = hashlib.sha256(cell.source.encode()).hexdigest()[:8]
        while cell.id in taken:
            cell.id += "-"
        taken.add(cell.id)
        if cell.cell_type == "code":
            if cell.execution_count is not None:
                count += 1
                cell.execution_count = count
            cell.outputs = [_plain_output(o, count) for o in _joined(cell.outputs)]


def _plain_output(output: NotebookNode, count: int) -> NotebookNode:
    """An output without scripts and the metadata of front ends, but with the size of a picture.

    Without it Jupyter shows a picture drawn for sharp screens at twice its size.
    """
    if "metadata" in output:
        kept = ("scrapbook", "image/png")
        output.metadata = NotebookNode(
            {key: value for key, value in output.metadata.items() if key in kept}
        )
    if "text/html" in output.get("data", {}):  # an explorer: the rendered book has its script
        output.data["text/html"] = SCRIPT.sub("", output.data["text/html"])
    if output.output_type == "execute_result":
        output.execution_count = count
    return output


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """The outputs, with neighbouring pieces of one stream as a single piece."""
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            last["text"] += output.text
        else:
            joined.append(output)
    return joined


def tidy(
    notebook: NotebookNode, path: Path, facts: dict[str, str], known: dict[str, targets.Target]
) -> NotebookNode:
    """Brings one notebook to the form in which it is committed; changes it in place."""
    place_setup(notebook)
    place_colab_link(notebook, path)
    solutions.place(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = links.fill(write_facts(cell.source, facts), known)
    folds.fill_titles(notebook, known)
    figures.fill_alt_texts(notebook)
    normalise(notebook)
    return notebook


def sync(paths: list[Path]) -> None:
    """Tidies the notebooks, and refreshes links and numbers in pages and README."""
    facts, known = gather(paths), targets.load()
    for path in paths:
        notebook = nbformat.read(path, 4)
        _write(path, nbformat.writes(tidy(notebook, path, facts, known)) + "\n")
    for path in [ROOT / "README.md", *BOOK.glob("*.md")]:
        _write(path, links.fill(write_facts(path.read_text(), facts), known))
    figures.drop_orphans([nbformat.read(path, 4) for path in paths])
    _write(exercise_index.PAGE, links.fill(exercise_index.page(), known))
    _write(bibliography.PAGE, links.fill(bibliography.page(), known))
    _write(claims.PAGE, links.fill(claims.page(), known))
    _write(api_pages.PAGE, links.fill(api_pages.page(), known))


def shorten(path: Path) -> None:
    """Writes the links of a notebook as their keys."""
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = links.short(cell.source)
    _write(path, nbformat.writes(notebook) + "\n")


def _write(path: Path, text: str) -> None:
    """Writes a file, but only if that changes it."""
    if path.read_text() != text:
        path.write_text(text)
        print(f"Rewrote {path.name}")


def run(path: Path) -> None:
    """Runs one notebook from top to bottom and stores its outputs, unless a cell fails.

    After a cell that draws a figure, the kernel draws the figure's other versions.
    """
    print(f"Running {path.name}", flush=True)
    os.environ[progress.VARIABLE] = progress.OFF  # for the kernel: nobody solves anything here
    notebook = nbformat.read(path, 4)
    place_setup(notebook)
    solutions.place(notebook)
    client = NotebookClient(
        notebook,
        timeout=SECONDS_PER_CELL,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--log-level=40"],  # the kernel warns about its own network otherwise
    )
    drawings = {index - 1: key for index, key in targets.captions(notebook)}
    try:
        with client.setup_kernel():
            for index, cell in enumerate(notebook.cells):
                client.execute_cell(cell, index)
                if index in drawings and figures.picture(cell):
                    figures.draw_versions(client, notebook, index, drawings[index])
    except (CellExecutionError, ValueError) as error:
        sys.exit(f"{path.name} stopped in this cell; the file is as it was.\n{error}")
    normalise(notebook)
    path.write_text(nbformat.writes(notebook) + "\n")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("action", choices=["run", "sync", "short"])
    parser.add_argument("notebook", nargs="*", type=Path, help="all by default; sync takes all")
    arguments = parser.parse_args()
    chosen = [path.resolve() for path in arguments.notebook or notebook_paths()]
    if arguments.action == "short":
        for path in chosen:
            shorten(path)
        return
    if arguments.action == "run":
        for path in chosen:
            run(path)
    sync(notebook_paths())


if __name__ == "__main__":
    main()
