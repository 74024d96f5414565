"""A warning stops the book, the second time too."""

import pytest

import build_book
import house

pytestmark = pytest.mark.slow


@pytest.fixture
def small_book(tmp_path):
    """A book of one page under this book's settings, less what they take from its files."""
    config = "title: Small\nonly_build_toc_files: true\nexecute: { execute_notebooks: 'off' }\n"
    (tmp_path / "_config.yml").write_text(config)
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: page\n")
    (tmp_path / "page.md").write_text("# Page\n\nText.\n")
    return tmp_path


def test_a_sound_book_is_built(small_book):
    result = build_book.build(small_book)
    assert result.returncode == 0, result.stdout
    assert (small_book / "_build/html/page.html").exists()


def test_a_warning_is_an_error_until_it_is_mended(small_book):
    (small_book / "page.md").write_text("# Page\n\nSee {ref}`nowhere`.\n")
    for _ in range(2):
        result = build_book.build(small_book)
        assert result.returncode != 0
        assert "nowhere" in result.stdout


def test_build_is_where_the_tools_look():
    assert build_book.PAGES == house.ROOT / "_build" / "html"
