"""The four versions of every figure: light and dark, for a screen and for a phone.

A notebook keeps one picture, the light one for a screen. When `notebooks.py` runs it, the other
three go to `book/_static/figures`, and `book/_ext/pictures.py` shows the one that fits. Each file
says what it was made from: the cell, the library's code that draws, and the notebook's picture.
"""

import ast
import base64
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell
from PIL import Image

import redraw
from house import BOOK, ROOT
from mistral_lib.teaching.model_parts import alt_text
from targets import captions

FOLDER = BOOK / "_static" / "figures"
TEACHING = "mistral_lib.teaching"
STYLE = {f"{TEACHING}.plots", f"{TEACHING}.layout"}  # every figure is drawn with these
# A colour that does not follow the style.
FIXED_COLOUR = re.compile(r"""(?:color|\b[fe]c|\bm[fe]c)["']?\s*[=:]\s*["'](?!none)[^"']+["']""")
MODEL = re.compile(r"\bdraw_chapter\((\d+)")


def picture(cell: NotebookNode) -> bytes | None:
    """The last picture that a cell shows, as PNG."""
    shown = [out.get("data", {}).get("image/png") for out in cell.get("outputs", [])]
    shown = [text for text in shown if text]
    return base64.b64decode(shown[-1]) if shown else None


def figures(notebook: NotebookNode) -> Iterator[tuple[str, int]]:
    """The key of each figure, and the index of the cell that draws it."""
    for index, key in captions(notebook):
        if index and picture(notebook.cells[index - 1]):
            yield key, index - 1


def files(key: str) -> list[Path]:
    """The files of a figure's other versions."""
    return [FOLDER / f"{key}-{ending}.png" for ending in redraw.STYLES]


def made_from(notebook: NotebookNode, index: int) -> str:
    """Changes with whatever a figure is made from: code, code that draws, and what it shows."""
    source = notebook.cells[index].source
    parts = [source.partition("\n")[2] if source.startswith("# @title") else source]
    parts += [module_code(name) for name in sorted(drawing_modules(notebook, index))]
    parts += [alt_text(int(number)) for number in MODEL.findall(source)]
    parts.append(redraw.digest(picture(notebook.cells[index]) or b""))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def drawing_modules(notebook: NotebookNode, index: int) -> set[str]:
    """The modules of the library that a cell draws with."""
    known: dict[str, str] = {}
    for cell in notebook.cells[: index + 1]:
        if cell.cell_type == "code" and TEACHING in cell.source:
            known |= imported(cell.source)
    names = {n.id for n in ast.walk(ast.parse(notebook.cells[index].source)) if type(n) is ast.Name}
    used = {module for name, module in known.items() if name in names}
    used = {module for module in used if "matplotlib" in module_code(module)}
    for module in list(used):
        used |= {m for m in imported(module_code(module)).values() if not m.endswith("model_parts")}
    return used | STYLE


def imported(source: str) -> dict[str, str]:
    """The names that code imports from `mistral_lib.teaching`, each with its module.

    >>> imported("from mistral_lib.teaching import plots as p")
    {'p': 'mistral_lib.teaching.plots'}
    """
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(TEACHING):
            for name in node.names:
                inner = f"{node.module}.{name.name}" if node.module == TEACHING else node.module
                found[name.asname or name.name] = inner
    return found


@cache
def module_code(name: str) -> str:
    """The code of a module, without comments and docstrings, which draw nothing."""
    path = ROOT / f"{name.replace('.', '/')}.py"
    if not path.exists():  # a package
        return ""
    lines = path.read_text().splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            text = node.body[0]
            lines[text.lineno - 1 : text.end_lineno] = [""] * (text.end_lineno - text.lineno + 1)
    return "\n".join(line for line in lines if line.strip() and line.strip()[0] != "#")


def draw_versions(client: NotebookClient, notebook: NotebookNode, index: int, key: str) -> None:
    """Lets the kernel that has just run a cell draw its figure in the other styles.

    Raises:
        ValueError: if the cell fails, or draws something else, when it runs again.
    """
    FOLDER.mkdir(exist_ok=True)
    cell = notebook.cells[index]
    arguments = [cell.source, str(FOLDER), key, made_from(notebook, index)]
    call = f"['versions'](globals(), *{arguments!r})"
    again = new_code_cell(f"print(__import__('runpy').run_path({redraw.__file__!r}){call})")
    try:
        client.execute_cell(again, index, store_history=False)
        found = again.outputs[-1].text.strip()
    except CellExecutionError as error:
        found = str(error)
    finally:
        notebook.cells[index] = cell  # nbclient puts what it ran there
    if found != redraw.digest(picture(cell) or b""):
        raise ValueError(
            f"The code of fig:{key} must draw the same figure whenever it runs, but does not. Let "
            "it change nothing that it did not make itself: no list, generator or model of another "
            f"cell. {found if len(found) > 16 else ''}"
        )


def problems(notebook: NotebookNode) -> Iterator[str]:
    """What is wrong with the versions of a notebook's figures."""
    for key, index in figures(notebook):
        cell = notebook.cells[index]
        fixed = FIXED_COLOUR.search(cell.source)
        if fixed:
            yield f"cell {index} has {fixed[0]}. Take a colour of plots, which follows the style."
        expected = made_from(notebook, index)
        for file in files(key):
            found = Image.open(file).info.get(redraw.MADE_FROM) if file.exists() else None
            if found != expected:
                state = "older than its code" if found else "missing"
                yield f"fig:{key}: {file.name} is {state}. Run the notebook with `make notebooks`."
        for number in MODEL.findall(cell.source):
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
            if alt != alt_text(int(number)):
                yield f"cell {index} has another alt text than its chapter. Run `make notebooks`."


def fill_alt_texts(notebook: NotebookNode) -> None:
    """Writes what the pictures of the model show into their cells' metadata."""
    for cell in notebook.cells:
        for number in MODEL.findall(cell.source) if cell.cell_type == "code" else []:
            cell.metadata["mystnb"] = {"image": {"alt": alt_text(int(number))}}


def drop_orphans(notebooks: list[NotebookNode]) -> None:
    """Deletes the files of figures that are no more."""
    kept = {file for notebook in notebooks for key, _ in figures(notebook) for file in files(key)}
    for file in set(FOLDER.glob("*.png")) - kept:
        file.unlink()
