"""Folded cells: a code cell whose first line is `# @title Set-up` is shown by that title alone.

The first line is the only source. Colab reads it; from it come the metadata with which Colab and
JupyterLab hide the code, and the label of the fold in the rendered page (`book/_ext/folded.py`).
What a cell prints or draws stays in view. In a title `fig:leak` becomes the number of the figure:
the one that the cell draws, or that the next cells draw.
"""

import ast
import re
from collections.abc import Iterator

from nbformat import NotebookNode

from targets import Target, captions

TITLE = re.compile(r"\A# @title (\S.*)\n")
METADATA = {"cellView": "form", "jupyter": {"source_hidden": True}}
FIGURE = re.compile(r"\bfig:([\w-]+)|\bFigure \d+\.\d+")
# What a reader does not come for: imports, drawing, numbers for the prose.
CHORES = re.compile(
    r"^(?:from|import) |\bplt\.|\b\w*plots\.|\b(?:record|example|claim)\(", re.MULTILINE
)
IN_VIEW = "in-view"  # the tag of a cell whose point is an import or a picture's code


def title(cell: NotebookNode) -> str | None:
    """The title of a folded cell; `None` for a cell in view."""
    match = TITLE.match(cell.source + "\n") if cell.cell_type == "code" else None
    return match[1] if match else None


def fill_titles(notebook: NotebookNode, targets: dict[str, Target]) -> None:
    """Writes the numbers of figures into the titles, in place."""
    figures = captions(notebook)
    for index, cell in enumerate(notebook.cells):
        following = [f"fig:{key}" for place, key in figures if place > index]
        if title(cell) and following and following[0] in targets:
            first, line, rest = cell.source.partition("\n")
            first = FIGURE.sub(targets[following[0]].text, first)
            cell.source = f"{first}{line}{rest}"


def unfolded_chores(notebook: NotebookNode) -> Iterator[str]:
    """Cells in view that import, draw or record."""
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or title(cell) or IN_VIEW in cell.metadata.get("tags", []):
            continue
        found = CHORES.search(cell.source)
        if found:
            yield (
                f"cell {index} is in view and has {found[0].strip()!r}. Move that into a cell of "
                "its own whose first line is `# @title` and what it holds."
            )


def hidden_lessons(notebook: NotebookNode) -> Iterator[str]:
    """Folded cells with what a reader has to see: exercises, failures, functions in use."""
    for index, cell in enumerate(notebook.cells):
        if not title(cell):
            continue
        if re.search(r'^check\("', cell.source, re.MULTILINE):
            yield f"cell {index} is folded and has an exercise. Take its title away."
        if "raises-exception" in cell.metadata.get("tags", []):
            yield f"cell {index} is folded and fails on purpose. Take its title away."
        for name in sorted(_defined(cell) & _used_in_view(notebook.cells[index + 1 :])):
            yield (
                f"cell {index} is folded and defines {name}(), which a later cell in view uses. "
                "Move the function into a cell in view."
            )


def _defined(cell: NotebookNode) -> set[str]:
    """The functions and classes that a cell defines."""
    body = ast.parse(cell.source).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def _used_in_view(cells: list[NotebookNode]) -> set[str]:
    """The names that the cells in view use."""
    code = [cell.source for cell in cells if cell.cell_type == "code" and not title(cell)]
    trees = (ast.walk(ast.parse(source)) for source in code)
    return {node.id for tree in trees for node in tree if isinstance(node, ast.Name)}
