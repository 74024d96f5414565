"""Versions of figures: drawn again in the same kernel, signed with what they were made from."""

import base64
from io import BytesIO

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

import figures
import house
import redraw
from mistral_lib.teaching import plots
from mistral_lib.teaching.model_parts import alt_text

SETUP = """\
import matplotlib.pyplot as plt
from mistral_lib.teaching import head_plots, plots
plots.style()
heights, calls = [1, 2], []"""
CODE = """\
# @title Code of Figure 1.1
figure, ax = plt.subplots(figsize=(6, 3))
title = "A finding about two bars that is too long for a phone's column"
head_plots.draw_bars(ax, ["▁a", "b"], heights, title=title)
plt.show()"""


def notebook(code=CODE):
    cells = [
        new_code_cell(SETUP),
        new_code_cell(code),
        new_markdown_cell("**fig:bars.** Two bars."),
    ]
    cells.append(new_code_cell("print(sorted(set(dir()) & {'ax', 'title', 'redraw', 'runpy'}))"))
    cells.append(new_code_cell("print(plots.PAPER, plots.narrow(), len(calls), plt.get_fignums())"))
    return new_notebook(cells=cells)


def run(book, monkeypatch, folder):
    """Runs a notebook as `notebooks.run` does; gives its last two outputs."""
    monkeypatch.setattr(figures, "FOLDER", folder)
    client = NotebookClient(book, timeout=300, kernel_name="python3")
    with client.setup_kernel():
        for index, cell in enumerate(book.cells):
            client.execute_cell(cell, index)
            if index == 1:
                figures.draw_versions(client, book, index, "bars")
    return [cell.outputs[0].text.strip() for cell in book.cells[3:]]


@pytest.mark.slow
def test_versions_are_drawn_beside_the_notebook_and_leave_nothing_in_it(monkeypatch, tmp_path):
    book = notebook()
    names, state = run(book, monkeypatch, tmp_path)
    assert names == "['ax', 'title']"
    assert state == f"{plots.LIGHT['PAPER']} False 0 []"
    assert [output.output_type for output in book.cells[1].outputs] == ["display_data"]
    assert list(figures.problems(book)) == []
    pictures = {file.stem: Image.open(file) for file in tmp_path.iterdir()}
    assert set(pictures) == {"bars-dark", "bars-narrow", "bars-dark-narrow"}
    corners = {name: picture.convert("RGB").getpixel((0, 0)) for name, picture in pictures.items()}
    dark, light = (tuple(bytes.fromhex(p["PAPER"][1:])) for p in (plots.DARK, plots.LIGHT))
    assert corners == {"bars-dark": dark, "bars-narrow": light, "bars-dark-narrow": dark}
    own = Image.open(BytesIO(figures.picture(book.cells[1])))
    assert pictures["bars-dark"].size == own.size
    assert pictures["bars-narrow"].width <= 2 * plots.NARROW_COLUMN < own.width
    assert all(float(picture.info[redraw.SMALLEST]) >= 9 for picture in pictures.values())
    book.cells[1].source += "\n# a remark that draws nothing is code, too"
    assert len(list(figures.problems(book))) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("calls.append(1); heights = [1, len(calls)]", ""),
        ("assert not calls; calls.append(1)", "Assert"),
    ],
)
def test_a_cell_that_cannot_be_repeated_is_named(monkeypatch, tmp_path, line, found):
    title, _, rest = CODE.partition("\n")
    book = notebook(f"{title}\n{line}\n{rest}")
    with pytest.raises(ValueError, match=rf"(?s)fig:bars must draw the same figure.*{found}"):
        run(book, monkeypatch, tmp_path)


def small():
    """A notebook whose picture is not looked at."""
    book = notebook()
    data = {"image/png": base64.b64encode(b"a picture").decode()}
    book.cells[1].outputs = [new_output("display_data", data)]
    return book


@pytest.mark.parametrize(
    "change",
    [
        lambda book: book.cells[1].update(source=CODE.replace("(6, 3)", "(6, 4)")),
        lambda book: book.cells[1].outputs[0].data.update({"image/png": "YSBwaWN0dXJl"[::-1]}),
        lambda book: figures.module_code.cache_clear(),
    ],
    ids=["code", "picture", "nothing"],
)
def test_what_a_figure_is_made_from(change, request):
    before = figures.made_from(small(), 1)
    book = small()
    change(book)
    changed = figures.made_from(book, 1) != before
    assert changed == ("nothing" not in request.node.callspec.id)


def test_the_number_in_the_title_is_no_part_of_it():
    book = small()
    book.cells[1].source = CODE.replace("1.1", "1.2")
    assert figures.made_from(book, 1) == figures.made_from(small(), 1)


def test_the_code_that_draws_is_a_part_of_it():
    own = "mistral_lib.teaching.head_plots"
    expected = figures.STYLE | {own, "mistral_lib.teaching.next_token"}
    assert figures.drawing_modules(small(), 1) == expected
    assert '"""' not in figures.module_code(own).partition("def ")[2]
    assert "draw_bars" in figures.module_code(own)


@pytest.mark.parametrize(
    ("code", "fixed"),
    [
        ("ax.plot(x, color=plots.RED)", False),
        ("ax.plot(x, mfc='none')", False),
        ("ax.bar(x, ec='k')", True),
        ('box = {"facecolor": "white"}', True),
        ("ax.hist(x, color='#0072B2')", True),
    ],
)
def test_colours_follow_the_style(code, fixed):
    assert bool(figures.FIXED_COLOUR.search(code)) == fixed


def test_the_picture_of_the_model_gets_its_words_from_the_table():
    book = new_notebook(cells=[new_code_cell("draw_chapter(7)"), new_code_cell("x = 1")])
    figures.fill_alt_texts(book)
    assert book.cells[0].metadata.mystnb.image.alt == alt_text(7)
    assert "mystnb" not in book.cells[1].metadata


def test_files_of_figures_that_are_no_more_are_deleted(monkeypatch, tmp_path):
    monkeypatch.setattr(figures, "FOLDER", tmp_path)
    for name in ("bars-dark.png", "gone-dark.png"):
        (tmp_path / name).write_bytes(b"")
    figures.drop_orphans([small()])
    assert [file.name for file in tmp_path.iterdir()] == ["bars-dark.png"]


def test_every_file_belongs_to_a_figure_and_says_how_small_its_text_is():
    books = [nbformat.read(path, 4) for path in house.notebook_paths()]
    kept = {
        file for book in books for key, _ in figures.figures(book) for file in figures.files(key)
    }
    found = set(figures.FOLDER.glob("*"))
    assert found <= kept
    assert all(float(Image.open(file).info[redraw.SMALLEST]) >= 9 for file in found)
