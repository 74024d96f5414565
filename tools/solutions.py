"""The solutions of experiments, each run in a folded cell below it.

An author writes the solution once, in the exercise. `notebooks.py` copies it into a cell of its
own, so that every run of the notebook measures what the reader is told to measure, and `accepted`
stops it when the exercise's check would not take that for an answer.
"""

import ast
import re
from collections.abc import Iterator

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from mistral_lib.teaching.exercises import find
from mistral_lib.teaching.exercises.experiments import Experiment

TITLE = "# @title The solution, run"
CALL = re.compile(r'^check\("([\w.]+)", (.+)\)$', re.MULTILINE)
SOLUTION = re.compile(r"<summary>Solution</summary>\s*```python\n(.*?)```", re.DOTALL)


def place(notebook: NotebookNode) -> None:
    """Puts a cell that runs it after the solution of each experiment, in place of an old one."""
    old = [cell for cell in notebook.cells if cell.source.startswith(TITLE)]
    others = [cell for cell in notebook.cells if not cell.source.startswith(TITLE)]
    expected = dict(_runs(others))
    notebook.cells = []
    for index, cell in enumerate(others):
        notebook.cells.append(cell)
        if index in expected:
            same = (made for made in old if _same(made.source, expected[index]))
            notebook.cells.append(next(same, None) or new_code_cell(expected[index]))


def problems(notebook: NotebookNode) -> Iterator[str]:
    """What is wrong with the cells that run solutions."""
    found = [cell.source for cell in notebook.cells if cell.source.startswith(TITLE)]
    others = [cell for cell in notebook.cells if not cell.source.startswith(TITLE)]
    expected = [source for _, source in _runs(others)]
    if len(found) != len(expected) or not all(map(_same, found, expected)):
        yield "A folded cell does not run the solution above it. Run `make notebooks`."


def _runs(cells: list[NotebookNode]) -> Iterator[tuple[int, str]]:
    """For each experiment the index of the cell with its solution, and the cell that runs it."""
    for index, cell in enumerate(cells):
        call = CALL.search(cell.source) if cell.cell_type == "code" else None
        if not call or not isinstance(find(call[1]), Experiment):
            continue
        after = next(i for i in range(index, len(cells)) if cells[i].cell_type == "markdown")
        solution = SOLUTION.search(cells[after].source)
        imported = "from mistral_lib.teaching.exercises import accepted"
        ending = f'assert accepted("{call[1]}", {call[2]})'
        # Without a solution the dots are not accepted, and the notebook stops.
        yield after, f"{TITLE}\n{imported}\n\n{solution[1] if solution else ''}\n{ending}"


def _same(one: str, other: str) -> bool:
    """Whether two pieces of code differ in their layout alone."""
    return ast.dump(ast.parse(one)) == ast.dump(ast.parse(other))
