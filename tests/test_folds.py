"""tools/folds.py: which cells are folded, and which may be."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import folds
from targets import Target

FIGURES = {"fig:leak": Target("Figure 7.2", "x"), "fig:far": Target("Figure 7.3", "x")}


def notebook(*sources: str):
    kind = {True: new_markdown_cell, False: new_code_cell}
    return new_notebook(cells=[kind[source.startswith("**")](source) for source in sources])


@pytest.mark.parametrize(
    ("source", "title"),
    [
        ("# @title Set-up\nimport os", "Set-up"),
        ("# @title Nothing in it", "Nothing in it"),
        ("import os\n# @title Late", None),
        ("# @title", None),
        ("", None),
    ],
)
def test_the_first_line_is_the_title(source, title):
    assert folds.title(new_code_cell(source)) == title
    assert folds.title(new_markdown_cell(source)) is None


def test_titles_get_the_number_of_the_next_figure():
    cells = (
        "# @title Data of fig:leak\nx = 1",
        "# @title Code of Figure 1.1\nplt.show()",
        "**fig:leak.** A leak.",
        "print('fig:leak')",
        "# @title Code of fig:far",
        "**Figure 7.3.**<!-- =fig:far --> Far.",
        "# @title Checks of fig:far\nassert x",
    )
    filled = notebook(*cells)
    folds.fill_titles(filled, FIGURES)
    assert [cell.source.partition("\n")[0] for cell in filled.cells if cell != "code"] == [
        "# @title Data of Figure 7.2",
        "# @title Code of Figure 7.2",
        "**fig:leak.** A leak.",
        "print('fig:leak')",
        "# @title Code of Figure 7.3",
        "**Figure 7.3.**<!-- =fig:far --> Far.",
        "# @title Checks of fig:far",
    ]


@pytest.mark.parametrize(
    "source",
    ["import os", "x = 1\nfrom os import path", "plt.show()", "draw_plots.bars(x)", "record(a=1)"],
)
def test_chores_in_view_are_found(source):
    (problem,) = folds.unfolded_chores(notebook("x = 1", source))
    assert problem.startswith("cell 1 is in view")
    assert list(folds.unfolded_chores(notebook(f"# @title Chores\n{source}"))) == []
    shown = new_notebook(cells=[new_code_cell(source, metadata={"tags": ["in-view"]})])
    assert list(folds.unfolded_chores(shown)) == []


def test_what_teaches_is_no_chore():
    sources = ("recorded = 1", "important = 2", "def f():\n    import this", "x = subplots(2)")
    assert list(folds.unfolded_chores(notebook(*sources))) == []


FOLDED = "# @title Helpers\ndef f():\n    return 1\n\n\nclass C:\n    pass"


def test_a_lesson_in_a_fold_is_found():
    hidden = folds.hidden_lessons
    (problem,) = hidden(notebook(FOLDED, "print(f())"))
    assert problem.startswith("cell 0 is folded and defines f()")
    assert "defines C()" in next(hidden(notebook(FOLDED, "def g():\n    return C()")))
    (problem,) = hidden(notebook('# @title Exercise\ncheck("masks.row", 1)'))
    assert "has an exercise" in problem
    failing = new_notebook(
        cells=[new_code_cell("# @title Bug\n1 / 0", metadata={"tags": ["raises-exception"]})]
    )
    assert "fails on purpose" in next(hidden(failing))


def test_a_fold_may_use_its_own_functions():
    later = "# @title Checks\nassert f() == 1"
    assert list(folds.hidden_lessons(notebook("f = 2", FOLDED, later, "print(x.f, 'f')"))) == []
