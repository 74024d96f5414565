"""Cells that run the solutions of experiments: put below them, kept, and compared with them."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import solutions

ASKED = 'my_losses = ...\nmy_claim = ...\n\ncheck("dense.routes", (my_losses, my_claim))'
SOLVED = """\
<details>
<summary>Solution</summary>

```python
my_losses, my_claim = [1.15, 1.31, 2.45], "b"
```

It adds up.

</details>"""


@pytest.fixture
def notebook():
    other = 'my_sum = ...\n\ncheck("dense.by_hand", my_sum)'
    cells = [
        new_code_cell(ASKED),
        new_markdown_cell(SOLVED),
        new_code_cell(other),
        new_markdown_cell(SOLVED),
    ]
    return new_notebook(cells=cells)


def test_the_solution_of_an_experiment_runs_below_it(notebook):
    assert len(list(solutions.problems(notebook))) == 1
    solutions.place(notebook)
    assert list(solutions.problems(notebook)) == []
    assert len(notebook.cells) == 5
    names = {}
    exec(notebook.cells[2].source, names)
    assert names["my_claim"] == "b"


def test_one_that_the_check_refuses_stops_the_notebook(notebook):
    notebook.cells[1].source = SOLVED.replace("2.45", "1.45")
    solutions.place(notebook)
    with pytest.raises(AssertionError):
        exec(notebook.cells[2].source, {})


def test_an_experiment_without_a_solution_is_not_passed_over(notebook):
    notebook.cells[1].source = "Soon."
    assert len(list(solutions.problems(notebook))) == 1
    solutions.place(notebook)
    with pytest.raises(AssertionError):
        exec(f"my_losses = my_claim = ...\n{notebook.cells[2].source}", {})


def test_a_cell_that_is_laid_out_otherwise_is_kept_and_one_with_other_code_is_not(notebook):
    solutions.place(notebook)
    made = notebook.cells[2]
    made.source = made.source.replace("[1.15,", "[\n    1.15,")
    made.outputs = ["kept"]
    solutions.place(notebook)
    assert notebook.cells[2].outputs == ["kept"]
    notebook.cells[1].source = SOLVED.replace("1.15", "1.16")
    assert len(list(solutions.problems(notebook))) == 1
    solutions.place(notebook)
    assert "1.16" in notebook.cells[2].source
    assert notebook.cells[2].outputs == []
