"""book/_ext: a link with a broken key stops the build, titles become folds."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

import build_book
import house

pytestmark = pytest.mark.slow
CONFIG = """\
title: Small
only_build_toc_files: true
execute: {{ execute_notebooks: 'off' }}
sphinx:
  local_extensions: {{ folded: {ext}, linked: {ext} }}
"""


@pytest.fixture
def build(tmp_path):
    """Builds a book with a page of these cells; gives what was said, and the page."""

    def call(*cells):
        (tmp_path / "_config.yml").write_text(CONFIG.format(ext=house.BOOK / "_ext"))
        (tmp_path / "_toc.yml").write_text(
            "format: jb-book\nroot: index\nchapters: [{file: page}]\n"
        )
        (tmp_path / "index.md").write_text("# Front\n")
        language = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
        notebook = nbformat.v4.new_notebook(cells=list(cells), metadata=language)
        nbformat.write(notebook, tmp_path / "page.ipynb")
        result = build_book.build(tmp_path)
        page = tmp_path / "_build/html/page.html"
        return result, page.read_text() if page.exists() else ""

    return call


def test_keys_lead_into_the_book_whatever_the_address(build):
    text = "# Page\n\nSee [Figure 7.1](https://a.org)<!-- =fig:distances -->."
    result, page = build(
        new_markdown_cell(text), new_code_cell("# @title A & B\nx = 1\ny = 2"), new_code_cell("z")
    )
    assert result.returncode == 0, result.stdout
    assert 'href="book/07_sliding_windows.html#fig-distances"' in page
    assert "fig:distances" not in page
    assert "a.org" not in page
    assert '<details class="fold"><summary>A &amp; B</summary>' in page
    assert page.count('<details class="fold">') == 1
    assert "@title" not in page


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a](https://a.org)<!-- =fig:no-such -->", "fig:no-such' is nothing in the book"),
        ("[](fig:distances)", "target not found: 'fig:distances'"),
        ("**Figure 7.1.**<!-- =fig:distances --> A.", "a caption must follow a picture"),
    ],
)
def test_what_is_broken_stops_the_build(build, text, message):
    result, _ = build(new_markdown_cell(f"# Page\n\n{text}"), new_code_cell("x = 1"))
    assert result.returncode != 0
    assert message in result.stdout
