"""book/_ext/described.py: what other sites are told, where the book is published and where not."""

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell

import build_book
import house

pytestmark = pytest.mark.slow
CONFIG = """\
title: Small
only_build_toc_files: true
html: {{ baseurl: "{site}" }}
sphinx:
  local_extensions: {{ described: {book}/_ext }}
  config: {{ templates_path: [{book}/_templates] }}
"""


def page_of(folder, site):
    """The page of a book that is published there."""
    (folder / "_config.yml").write_text(CONFIG.format(site=site, book=house.BOOK))
    (folder / "_toc.yml").write_text("format: jb-book\nroot: page\n")
    text = "# A page\n\n[Open in Colab](https://a.org)\n\nIt has 3<!-- =count --> words."
    nbformat.write(nbformat.v4.new_notebook(cells=[new_markdown_cell(text)]), folder / "page.ipynb")
    result = build_book.build(folder)
    assert result.returncode == 0, result.stdout
    return (folder / "_build/html/page.html").read_text()


def test_a_published_book_says_where(tmp_path):
    page = page_of(tmp_path, "https://a.org/v1/")
    assert '<meta name="description" content="It has 3 words."/>' in page
    assert '<link rel="canonical" href="https://a.org/v1/page.html"' in page
    assert '<meta property="og:image" content="https://a.org/v1/_static/card.png"/>' in page
    assert (
        "<loc>https://a.org/v1/page.html</loc>"
        in (tmp_path / "_build/html/sitemap.xml").read_text()
    )
    assert '<base href="https://a.org/v1/"/>' in (tmp_path / "_build/html/404.html").read_text()


def test_a_book_that_is_not_says_nothing_of_it(tmp_path):
    page = page_of(tmp_path, "")
    assert 'property="og:title"' in page
    assert "canonical" not in page
    assert "og:image" not in page
    assert not (tmp_path / "_build/html/sitemap.xml").exists()
    assert '<base href="/"/>' in (tmp_path / "_build/html/404.html").read_text()
