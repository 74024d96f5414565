"""The table of parts agrees with what the chapters say about themselves."""

import re
from itertools import pairwise

import nbformat
import pytest

import house
from mistral_lib.teaching import model_parts
from mistral_lib.teaching.model_parts import CHAPTERS, PARTS, TALLY, alt_text, mine, tally

NOTEBOOKS = {n: p for p in house.notebook_paths() if (n := house.chapter_number(p))}
SAID = re.compile(r"\*\*Tally\.\*\*.*?(\d+) of (\d+)", re.DOTALL)
# How the prose calls the parts, where its word is another.
WORDS = {"network": r"network|feed-forward network"}


def tally_said(path):
    """The paragraph in which a chapter counts its readers' parts, and its two numbers."""
    text = "\n\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown")
    text = re.sub(r"<!--.*?-->|\]\(.*?\)", "", text)
    match = SAID.search(text)
    return match and (match[0], int(match[1]), int(match[2]))


def test_every_chapter_has_its_row():
    assert list(CHAPTERS) == sorted(NOTEBOOKS)
    for chapter in CHAPTERS.values():
        assert chapter.lit
        assert chapter.lit | chapter.written <= set(PARTS)


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_the_tally_of_a_chapter_is_that_of_the_table(number):
    said = tally_said(NOTEBOOKS[number])
    if said is None:
        assert number > 12, "Chapters 1 to 12 write a part each, and count them."
        return
    paragraph, count, of = said
    assert (count, of) == (tally(number), len(TALLY))
    new = CHAPTERS[number].written & set(TALLY)
    for part in new:
        assert re.search(WORDS.get(part, part), paragraph, re.IGNORECASE)


def test_every_part_of_the_tally_is_written_once():
    assert sorted(part for c in CHAPTERS.values() for part in c.written & set(TALLY)) == sorted(
        TALLY
    )
    assert tally(0) == 0
    assert tally(20) == len(TALLY)


def test_what_is_written_stays():
    numbers = sorted(CHAPTERS)
    assert all(mine(before) <= mine(after) for before, after in pairwise(numbers))


def test_alt_texts_say_what_is_lit_and_whose_it_is():
    assert "Lit: the mask. Marked" in alt_text(7)
    assert alt_text(7).endswith("the rotary positions, the grouped heads, the mask.")
    assert "Lit" not in alt_text(0)
    assert "Marked" not in alt_text(0)
    assert len({alt_text(number) for number in range(12)}) == 12


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_every_chapter_shows_the_model_as_it_sees_it(number):
    cells = [c.source for c in nbformat.read(NOTEBOOKS[number], 4).cells if c.cell_type == "code"]
    drawn = re.findall(r"\bdraw_chapter\((\d+)", "\n".join(cells))
    assert drawn == [str(number)]


def test_the_introduction_shows_it_too():
    cells = [c.source for c in nbformat.read(house.BOOK / "intro.ipynb", 4).cells]
    assert sum("draw_chapter(0)" in source for source in cells) == 1
    assert model_parts.CHAPTERS.keys().isdisjoint({0})
