"""The reader's own package, filled with the solutions that the notebooks print."""

import ast
import functools
import re
import textwrap
from pathlib import Path

from exercise_cells import exercises_in

from mistral_lib.teaching import own_package
from mistral_lib.teaching.own_parts import PARTS

BOOK = Path(__file__).parents[1] / "book"
BACKBONE = BOOK / "12_the_backbone.ipynb"
HELPERS = {"model": ("turned", "one_block", "unembed")}  # of chapter 12's page


@functools.cache
def solutions():
    """The code of the solution of each exercise, by its name."""
    return {
        name: "\n".join(re.findall(r"```python\n(.*?)```", details["Solution"], re.DOTALL))
        for notebook in sorted(BOOK.glob("*.ipynb"))
        for name, _, details, _ in exercises_in(notebook)
    }


@functools.cache
def page():
    """The functions of chapter 12's page, by their names."""
    sources = re.findall(r"```python\n(.*?)```", "", re.DOTALL)
    from nbformat import read

    for cell in read(BACKBONE, 4).cells:
        if cell.cell_type == "code" and "def " in cell.source and "# @title" not in cell.source:
            sources.append(re.sub(r"^[%!].*$", "", cell.source, flags=re.MULTILINE))
    nodes = [node for source in sources for node in ast.parse(source).body]
    return {node.name: node for node in nodes[::-1] if isinstance(node, ast.FunctionDef)}


def solution_of(part):
    """The functions that go before a part's, and the part's own."""
    if isinstance(part.exercise, str):
        body = ast.parse(solutions()[part.exercise]).body
        return body[:-1], body[-1]
    return [], page()[part.name]


def put(folder, part, before, function):
    """Puts the body of a function in the place of a stub's dots."""
    path = folder / f"{part.module}.py"
    text = path.read_text()
    stub = next(n for n in ast.parse(text).body if getattr(n, "name", "") == part.name)
    asked = [argument.arg for argument in stub.args.args]
    given = [argument.arg for argument in function.args.args]
    assert given == asked[: len(given)], f"{part}: {given} instead of {asked}"
    lines = text.splitlines()
    assert lines[stub.end_lineno - 1] == "    return ..."
    lines[stub.end_lineno - 1] = textwrap.indent("\n".join(map(ast.unparse, function.body)), "    ")
    lines.insert(stub.lineno - 1, "\n".join(map(ast.unparse, before)))
    path.write_text("\n".join(lines) + "\n")


def fill(folder, wanted=lambda part: True):
    """Fills a package that `init` wrote."""
    for part in PARTS:
        if wanted(part):
            put(folder, part, *solution_of(part))
    if wanted(next(part for part in PARTS if part.module == "model")):
        path = folder / "model.py"
        helpers = [ast.unparse(page()[name]) for name in HELPERS["model"]]
        path.write_text(path.read_text() + "\n\n" + "\n\n\n".join(helpers) + "\n")
    return folder


def filled(folder, **options):
    """A package of solutions in a new folder."""
    return fill(own_package.init(folder), **options)
