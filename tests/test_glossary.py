"""The glossary: sorted, short, and every word stands in the chapter that it names."""

import re

import nbformat
import pytest

from house import BOOK

TEXT = (BOOK / "glossary.md").read_text()
ENTRY = re.compile(
    r"^\*\*(?P<term>[^*]+)\.\*\* (?P<meaning>.+?)\s\[(?P<title>[^]]+)\]\((?P<file>[^)]+)\)$",
    re.MULTILINE | re.DOTALL,
)
ENTRIES = {match["term"]: match for match in ENTRY.finditer(TEXT)}


def test_every_paragraph_is_an_entry_or_the_head():
    paragraphs = re.split(r"\n\n+", TEXT.strip())[2:]
    entries = [text for text in paragraphs if not re.fullmatch(r"## [A-Z]", text)]
    assert [text for text in entries if not ENTRY.fullmatch(text)] == []
    assert len(entries) == len(ENTRIES) > 50


def test_words_are_sorted_under_their_letters():
    words = [term.casefold() for term in ENTRIES]
    assert words == sorted(words)
    under = [part.split("\n", 1) for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]]
    letters = [letter for letter, _ in under]
    assert letters == sorted(set(letters))
    for letter, part in under:
        assert {match["term"][0].upper() for match in ENTRY.finditer(part)} == {letter}


@pytest.mark.parametrize("term", ENTRIES)
def test_a_word_is_explained_in_one_or_two_sentences(term):
    meaning = ENTRIES[term]["meaning"]
    sentences = re.findall(r"[.!?](?=\s|$)", meaning)
    assert 1 <= len(sentences) <= 2
    assert len(meaning.split()) <= 45
    assert meaning.rstrip().endswith(".")


@pytest.mark.parametrize("term", ENTRIES)
def test_a_word_stands_in_the_chapter_that_it_links_to(term):
    title, file = ENTRIES[term]["title"], ENTRIES[term]["file"]
    cells = nbformat.read(BOOK / file, 4).cells
    assert cells[0].source.startswith(f"# {title}\n")
    prose = " ".join(cell.source for cell in cells if cell.cell_type == "markdown")
    prose = re.sub(r"[\s*`]+", " ", prose).casefold()
    for word in term.casefold().split(", "):
        assert word in prose or word.replace(" ", "") in prose, f"{word} is not in {file}"
