"""Every notebook satisfies every check, and every check is seen to find what it looks for."""

import subprocess
import sys
import types
from importlib.machinery import ModuleSpec

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import check_notebooks
import claims
import figures
import folds
import house
import notebooks
import redraw
import targets

CHAPTERS = {chapter.path.stem: chapter for chapter in check_notebooks.load(house.notebook_paths())}
FACTS = {"params": "2,704"}
TARGETS = {
    **{key: target for key, target in targets.load().items() if key.startswith(("cite:", "term:"))},
    "fig:mask": targets.Target("Figure 7.1", "book/07_sliding_windows.ipynb", "fig-mask"),
}
PATH = house.BOOK / "07_sliding_windows.ipynb"
PNG = new_output("display_data", {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"})


@pytest.mark.parametrize("check", check_notebooks.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CHAPTERS)
def test_notebook(name, check):
    assert list(check(CHAPTERS[name])) == []


@pytest.fixture(scope="module")
def gathered():
    """What the notebooks recorded, and what may be linked to."""
    facts, recorded = (tool.gather(house.notebook_paths()) for tool in (notebooks, claims))
    return facts, recorded, targets.load()


@pytest.mark.parametrize(
    "page", [house.ROOT / "README.md", *house.BOOK.glob("*.md")], ids=lambda page: page.name
)
def test_numbers_claims_and_links_of_page(page, gathered):
    assert list(check_notebooks.page_problems(page, *gathered)) == []


def good() -> nbformat.NotebookNode:
    """A small notebook with nothing wrong."""
    cells = [
        new_markdown_cell(
            "# 7. Sliding windows and masks\n\nIt has 2,704<!-- =params --> weights."
        ),
        new_code_cell("print(2)", outputs=[new_output("stream", name="stdout", text="2\n")]),
        new_code_cell(
            "# @title Code of fig:mask\nshow()",
            outputs=[PNG],
            metadata={"mystnb": {"image": {"alt": "a mask"}}},
        ),
        new_markdown_cell("**fig:mask.** A mask."),
        new_markdown_cell("As [](fig:mask) shows ([](cite:jiang2023mistral))."),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebooks.place_setup(notebook)
    notebooks.place_colab_link(notebook, PATH)
    notebooks.tidy(notebook, PATH, FACTS, TARGETS)
    for count, cell in enumerate(c for c in notebook.cells if c.cell_type == "code"):
        cell.execution_count = count
    notebooks.normalise(notebook)
    return notebook


@pytest.fixture(autouse=True, scope="module")
def _versions(tmp_path_factory):
    """The good notebook's figure has its other versions."""
    every, folder, said = figures.files, tmp_path_factory.mktemp("figures"), PngInfo()
    own = [folder / file.name for file in every("mask")]
    said.add_text(redraw.MADE_FROM, figures.made_from(good(), 3))
    for file in own:
        Image.new("RGB", (2, 2)).save(file, pnginfo=said)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "files", lambda key: own if key == "mask" else every(key))
        yield


def problems(check, notebook, path=PATH) -> list[str]:
    """What one check says about a notebook."""
    return list(check(check_notebooks.Chapter(path, notebook, FACTS, TARGETS)))


@pytest.mark.parametrize("check", check_notebooks.CHECKS, ids=lambda check: check.__name__)
def test_check_is_silent_about_a_good_notebook(check):
    assert problems(check, good()) == []


def _error(notebook):
    notebook.cells[2].outputs = [new_output("error", ename="E", evalue="e", traceback=[])]


def _source(text, index=-1):
    def change(notebook):
        notebook.cells[index].source = text

    return change


def _experiment(notebook):
    solution = "<summary>Solution</summary>\n\n```python\nmine = 1\n```"
    notebook.cells += [
        new_code_cell('mine = ...\n\ncheck("dense.routes", mine)'),
        new_markdown_cell(solution),
    ]


def _value(notebook):
    notebook.cells[2].source = "# @title Checks\nclaim('x')"
    notebook.cells[2].outputs = [new_output("execute_result", {"text/plain": "'holds'"})]


def _tag(*tags):
    def change(notebook):
        notebook.cells[2].metadata.tags = [*tags]

    return change


BROKEN = {
    "not run": (
        "executed",
        lambda nb: nb.cells[2].update(execution_count=None),
        "cell 2 was never",
    ),
    "error": ("no_errors", _error, "cell 2 ended in an error"),
    "no alt": (
        "alt_texts",
        lambda nb: nb.cells[3].metadata.pop("mystnb"),
        "cell 3 draws a picture",
    ),
    "blank alt": (
        "alt_texts",
        lambda nb: nb.cells[3].metadata.mystnb.image.update(alt=" "),
        "cell 3 draws a picture",
    ),
    "image without alt": ("alt_texts", _source("![](mask.png)"), "cell 5 shows a picture"),
    "tag without alt": ("alt_texts", _source('<img src="mask.png">'), "cell 5 shows a picture"),
    "tag with empty alt": ("alt_texts", _source('<img alt="" src="x.png">'), "cell 5 shows"),
    "no set-up": ("set_up", lambda nb: nb.cells.pop(1), "not the book's set-up cell"),
    "other set-up": ("set_up", _source("import os", 1), "not the book's set-up cell"),
    "late set-up": ("set_up", lambda nb: nb.cells.append(nb.cells.pop(1)), "set-up cell"),
    "second set-up": ("set_up", lambda nb: nb.cells.append(nb.cells[1]), "set-up cell"),
    "untitled": ("title", _source("Windows", 0), "The first cell starts with 'Windows'"),
    "other number": ("title", _source("# 8. Reach", 0), "The first cell starts with '# 8. Reach'"),
    "no link": ("title", _source("# 7. Sliding windows", 0), "no link to Colab"),
    "filler": ("wording", _source("This is a Powerful idea."), "cell 5 says 'Powerful'"),
    "curly filler": ("wording", _source("Now let’s see."), "cell 5 says 'let’s'"),
    "filler in code": ("wording", _source("x = 1  # simply one", 2), "cell 2 says 'simply'"),
    "wide": ("code_shape", _source("x = 1" + "0" * 84, 2), "a line of 89 columns"),
    "long": ("code_shape", _source("x = 1\n" * 16, 2), "cell 2 has 16 lines"),
    "directive": ("plain_markdown", _source("```{note}\nHm.\n```"), "a MyST directive"),
    "colon directive": ("plain_markdown", _source(":::{note}\nHm.\n:::"), "a MyST directive"),
    "target": ("plain_markdown", _source("(here)=\n## Here"), "a MyST target"),
    "role": ("plain_markdown", _source("See {doc}`intro`."), "the role {doc}"),
    "citation of MyST": ("plain_markdown", _source("{cite}`jiang2023mistral`"), "Write a link"),
    "long fold": (
        "code_shape",
        _source("# @title Set-up\n" + "x = 1\n" * 45, 2),
        "46 lines; 45 is the limit of a fold",
    ),
    "no such key": ("linked", _source("So [](cite:nobody1900)."), "'cite:nobody1900', which is"),
    "not filled in": ("linked", _source("So [](fig:mask)."), "not filled in"),
    "no caption": ("captioned", lambda nb: nb.cells.pop(4), "cell 3 draws a picture without a"),
    "no picture": ("captioned", lambda nb: nb.cells.pop(3), "cell 3 begins with a caption"),
    "older version": (
        "versioned",
        _source("# @title Code of Figure 7.1\nshow(2)", 3),
        "mask-dark.png is older than its code",
    ),
    "no version": (
        "versioned",
        lambda nb: nb.cells[4].update(source="**fig:other.** A mask."),
        "other-narrow.png is missing",
    ),
    "fixed colour": (
        "versioned",
        _source("# @title Code of Figure 7.1\nshow(color='k')", 3),
        "cell 3 has color='k'. Take a colour of plots",
    ),
    "alt text of another chapter": (
        "versioned",
        _source("# @title Code of Figure 7.1\ndraw_chapter(7)", 3),
        "cell 3 has another alt text than its chapter",
    ),
    "import in view": (
        "folded",
        _source("from os import path", 2),
        "cell 2 is in view and has 'from'",
    ),
    "drawing in view": ("folded", _source("plt.show()", 2), "cell 2 is in view and has 'plt.'"),
    "recording in view": ("folded", _source("record(params=1)", 2), "has 'record('"),
    "other figure's title": (
        "folded",
        _source("# @title Code of Figure 7.2\nshow()", 3),
        "has another figure's number",
    ),
    "value of a fold": ("silent", _value, "cell 2 is folded and shows the value of its last line"),
    "solution not run": ("solved", _experiment, "does not run the solution above it"),
    "other number in prose": ("numbers", _source("2,703<!-- =params -->"), "has 2,703 for params"),
    "waiting number": ("numbers", _source("?<!-- =params -->"), "has ? for params"),
    "lost number": ("numbers", _source("about <!-- =params -->"), "has None for params"),
    "unknown number": ("numbers", _source("7<!-- =depth -->"), "no cell records"),
    "misspelt mark": ("numbers", _source("2,704<!-- =Params -->"), "not of the form"),
    "claim without record": (
        "claimed",
        _source("Head 3 copies.<!-- claim:copies -->"),
        "cell 5 makes the claim copies, which no cell records",
    ),
    "counted by a model": (
        "counted",
        _source("# @title Numbers\nrecord(chance=f'{model(x):.2f}')", 2),
        "records chance, a number about the model",
    ),
    "ignored tag": ("compared", _tag("nbval-ignore-output"), "1 of 3 outputs are ignored"),
    "skipped": ("compared", _tag("nbval-skip"), "1 of 3 outputs are ignored"),
    "ignored mark": ("compared", _source("# NBVAL_IGNORE_OUTPUT\nf()", 2), "1 of 3 outputs"),
    "front end": ("tidied", lambda nb: nb.cells[2].metadata.update(collapsed=True), "metadata"),
    "pieces": ("tidied", lambda nb: nb.cells[2].outputs.append(nb.cells[2].outputs[0]), "metadata"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_check_finds(fault):
    check, breaks, message = BROKEN[fault]
    notebook = good()
    breaks(notebook)
    found = problems(getattr(check_notebooks, check), notebook)
    assert any(message in problem for problem in found), found


def test_every_check_is_seen_to_find_something():
    assert {check.__name__ for check in check_notebooks.CHECKS} == {
        c for c, _, _ in BROKEN.values()
    }


def test_an_error_that_is_meant_is_accepted():
    notebook = good()
    _error(notebook)
    _tag("raises-exception")(notebook)
    assert problems(check_notebooks.no_errors, notebook) == []


def test_two_long_cells_are_accepted_and_three_are_not():
    notebook = good()
    long_cell = new_code_cell("x = 1\n" * 16, metadata={"tags": ["long-cell"]})
    notebook.cells += [long_cell] * 2
    assert problems(check_notebooks.code_shape, notebook) == []
    notebook.cells += [long_cell]
    assert problems(check_notebooks.code_shape, notebook) == [
        "3 cells have more than 15 lines; 2 may."
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("?<!-- =params -->", "2,704<!-- =params -->"),
        ("**1,000<!-- =params -->** weights", "**2,704<!-- =params -->** weights"),
        ("10-20<!-- =params -->", "10-2,704<!-- =params -->"),
        ("(−3.5e-05<!-- =params -->)", "(2,704<!-- =params -->)"),
        ("97.5%<!-- =other --> stays", "97.5%<!-- =other --> stays"),
    ],
)
def test_numbers_are_written_into_prose(before, after):
    assert notebooks.write_facts(before, FACTS) == after


def test_one_name_for_two_numbers_is_refused(tmp_path):
    kind = f"{notebooks.PREFIX}text/plain"
    for name, text in (("a", "1"), ("b", "2")):
        output = new_output("display_data", {kind: text}, metadata={"scrapbook": {"name": "depth"}})
        notebook = nbformat.v4.new_notebook(cells=[new_code_cell("", outputs=[output])])
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    with pytest.raises(ValueError, match=r"depth is 2 in b.ipynb, but 1"):
        notebooks.gather(sorted(tmp_path.glob("*.ipynb")))


def test_tidying_twice_changes_nothing():
    once = notebooks.tidy(good(), PATH, FACTS, TARGETS)
    first = nbformat.writes(once)
    assert nbformat.writes(notebooks.tidy(once, PATH, FACTS, TARGETS)) == first


def test_tidying_fills_in_and_folds():
    notebook = good()
    assert notebook.cells[1].metadata == {"tags": ["setup"], **folds.METADATA}
    assert notebook.cells[2].metadata == {}
    assert notebook.cells[3].source == "# @title Code of Figure 7.1\nshow()"
    assert notebook.cells[3].metadata.cellView == "form"
    assert notebook.cells[4].source == "**Figure 7.1.**<!-- =fig:mask --> A mask."
    assert "[Figure 7.1](https://" in notebook.cells[5].source


def test_shortened_links_are_filled_in_again(tmp_path):
    path = tmp_path / "07_sliding_windows.ipynb"
    nbformat.write(good(), path)
    before = nbformat.writes(good())
    notebooks.shorten(path)
    cells = nbformat.read(path, 4).cells
    assert cells[5].source == "As [](fig:mask) shows ([](cite:jiang2023mistral))."
    assert cells[4].source == "**fig:mask.** A mask."
    again = notebooks.tidy(nbformat.read(path, 4), PATH, FACTS, TARGETS)
    assert nbformat.writes(again) == before


def test_an_old_link_and_set_up_cell_are_replaced():
    notebook = good()
    notebook.cells[0].source = "# 7. Windows\n\n[Open in Colab](https://example.org/old)\n\nText."
    notebook.cells[1].source = "import old"
    notebooks.tidy(notebook, PATH, FACTS, TARGETS)
    link = house.colab_link("book/07_sliding_windows.ipynb")
    assert notebook.cells[0].source == f"# 7. Windows\n\n[Open in Colab]({link})\n\nText."
    assert notebook.cells[1].source == notebooks.setup_source()


@pytest.mark.slow
def test_running_stores_outputs_and_recorded_numbers(tmp_path):
    path = tmp_path / "07_small.ipynb"
    code = "from mistral_lib.teaching.facts import record\nrecord(depth=3)\nprint(6 * 7)"
    cells = [new_markdown_cell("# 7. Small"), new_code_cell(code)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    notebooks.run(path)
    stored = nbformat.read(path, 4)
    assert [cell.get("execution_count") for cell in stored.cells] == [None, 1, 2]
    assert "42" in "".join(output.get("text", "") for output in stored.cells[2].outputs)
    assert notebooks.recorded(stored) == {"depth": "3"}


def test_a_failing_notebook_keeps_its_file(tmp_path):
    path = tmp_path / "07_small.ipynb"
    cells = [new_markdown_cell("# 7. Small"), new_code_cell("1 / 0")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    before = path.read_bytes()
    with pytest.raises(SystemExit, match="ZeroDivisionError"):
        notebooks.run(path)
    assert path.read_bytes() == before


def run_setup(monkeypatch, present: set[str]) -> list[list[str]]:
    """Runs the set-up cell as if only some packages were there; gives the commands it ran."""
    commands = []
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: ModuleSpec(name, None) if name in present else None
    )
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    module = types.ModuleType("cell")
    exec(notebooks.setup_source(), module.__dict__)
    assert module.os.environ["KERAS_BACKEND"] == "jax"
    return commands


def test_set_up_installs_on_colab_without_dependencies(monkeypatch):
    (command,) = run_setup(monkeypatch, {"google", "google.colab", "keras"})
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert "--no-deps" in command
    assert command[-1] == f"git+{house.REPOSITORY}@{house.TAG}"


@pytest.mark.parametrize(
    "present", [set(), {"google"}, {"google", "google.colab", "mistral_lib"}, {"mistral_lib"}]
)
def test_set_up_does_nothing_elsewhere(monkeypatch, present, capfd):
    assert run_setup(monkeypatch, present) == []
    assert capfd.readouterr() == ("", "")


def test_set_up_is_short():
    assert len(notebooks.setup_source().splitlines()) <= check_notebooks.LINES
