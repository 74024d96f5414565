"""The text of the small model: what is kept, what is dropped, and that the split holds."""

import sys
from types import SimpleNamespace

import pytest

from mistral_lib.teaching import corpus
from mistral_lib.teaching.corpus import Document, clean

SENTENCE = "The window slides over the text and shows {} tokens to every query that asks."


def documents(*texts):
    return [Document("stdlib", f"module.py:{i}", text) for i, text in enumerate(texts)]


def numbered(count):
    """Documents of five long lines each, none of which occurs twice."""
    return documents(
        *("\n".join(SENTENCE.format(f"{i} times {j}") for j in range(5)) for i in range(count))
    )


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package on the path that would be noticed if anything imported it."""
    folder = tmp_path / "documented"
    (folder / "tests").mkdir(parents=True)
    (folder / "__init__.py").write_text(
        f'"""{SENTENCE.format("all")}"""\nraise AssertionError("imported")\n'
    )
    (folder / "part.py").write_text(
        "class Part:\n"
        f'    """{SENTENCE.format("some")}"""\n'
        "    async def work(self):\n"
        f'        """{SENTENCE.format("no")}"""\n'
        "    def short(self):\n"
        '        """Too short."""\n'
    )
    (folder / "broken.py").write_text("def (:\n")
    (folder / "tests" / "part.py").write_text(f'"""{SENTENCE.format("test")}"""\n')
    monkeypatch.syspath_prepend(tmp_path)
    return "documented"


@pytest.fixture
def short_library(tmp_path, monkeypatch):
    """In place of the standard library: two topics."""
    folder = tmp_path / "lib" / "pydoc_data"
    folder.mkdir(parents=True)
    (folder / "topics.py").write_text(
        f"topics = {{'with': {SENTENCE.format('with')!r}, 'for': {SENTENCE.format('for')!r}}}\n"
    )
    monkeypatch.setattr(
        corpus, "sysconfig", SimpleNamespace(get_path={"stdlib": folder.parent}.__getitem__)
    )


@pytest.fixture(scope="module")
def library():
    return corpus.build_corpus(packages=())


def test_clean_keeps_sections_and_indentation():
    text = (
        "Return the mean.\n\n    Parameters\n    ----------\n    values : list of float\n"
        "        The numbers to average, in any order."
    )
    assert clean(text) == (
        "Return the mean.\n\nParameters\n----------\nvalues : list of float\n"
        "    The numbers to average, in any order."
    )


@pytest.mark.parametrize(
    "noise",
    [
        ">>> mean([1, 2, 3])\n2.0",
        ".. versionadded:: 3.4\n   With the keyword argument.",
        "+------+------+\n| a    | b    |\n+------+------+",
        "array([[0.12, 0.55, 0.91],\n       [0.33, 0.07, 0.64]])",
        "Examples\n--------",
        "Example:",
        "name      meaning     since\nfirst     the one     early\nlast      the other   late",
        "Das Maß für die Größe der Fläche.",
    ],
)
def test_clean_drops_what_is_not_prose(noise):
    text = clean(f"Return the mean of the values.\n\n{noise}\n\nRaises an error if there are none.")
    expected = "Return the mean of the values.\n\nRaises an error if there are none."
    # A heading that has something below it stays, so these two are put at the end.
    if noise.startswith("Example"):
        text = clean(f"Return the mean of the values.\n\n{noise}")
        expected = "Return the mean of the values."
    assert text == expected


def test_a_heading_goes_with_the_section_below_it():
    doctest = ">>> mean([1])\n1"
    text = f"Notes\n-----\n\n{doctest}\n\nSee Also\n--------\nmedian, the middle value"
    assert clean(text) == "See Also\n--------\nmedian, the middle value"


def test_docstrings_are_read_and_nothing_is_imported(short_library, package):
    found = list(corpus.read_documents([package, "no_such_package_anywhere"]))
    assert [(d.place, d.text) for d in found] == [
        ("pydoc_data/topics.py:for", SENTENCE.format("for")),
        ("pydoc_data/topics.py:with", SENTENCE.format("with")),
        ("documented/__init__.py:1", SENTENCE.format("all")),
        ("documented/part.py:1", SENTENCE.format("some")),
        ("documented/part.py:3", SENTENCE.format("no")),
    ]
    assert package not in sys.modules


def test_copies_go_and_the_first_stays():
    first, other = "One line that is long enough to count as a passage.", "Another line " * 5
    near = f"{first}\nand a short end"
    kept = corpus.without_duplicates(documents(first, first.replace(" ", "\n"), near, other))
    assert [d.text for d in kept] == [first, other]


def test_half_of_the_lines_may_be_known():
    lines = [SENTENCE.format(i) for i in range(6)]
    half_new = "\n".join(lines[2:6])
    mostly_known = "\n".join([*lines[:2], SENTENCE.format("few")])
    kept = corpus.without_duplicates(documents("\n".join(lines[:4]), half_new, mostly_known))
    assert [d.place for d in kept] == ["module.py:0", "module.py:1"]


def test_the_split_is_a_twentieth_and_leaves_nothing_out():
    text = corpus.split(numbered(4000))
    assert len(text.held_out) == pytest.approx(200, abs=45)
    assert len(text.training) + len(text.held_out) == 4000
    assert (text.leaked, text.shared_lines) == (0, 0.0)


def test_a_document_stays_on_its_side_whatever_comes_with_it():
    small, large = corpus.split(numbered(400)), corpus.split(numbered(900))
    assert {d.text for d in small.held_out} < {d.text for d in large.held_out}
    assert {d.text for d in small.training} < {d.text for d in large.training}


def test_held_out_documents_that_repeat_the_training_text_are_dropped():
    text = corpus.split(numbered(400))
    borrowed = text.training[0].text.split("\n")[0]
    repeating = [
        Document(d.source, d.place, f"{borrowed}\n{d.text}")
        for d in corpus.split(numbered(4000)).held_out
    ]
    again = corpus.split([*text.training, *repeating])
    # One line in six is borrowed: below the limit of a fifth. Two in seven are above.
    assert again.leaked == 0
    assert again.shared_lines == pytest.approx(1 / 6)
    borrowed = "\n".join(text.training[0].text.split("\n")[:2])
    repeating = [Document(d.source, d.place, d.text + "\n" + borrowed) for d in repeating]
    again = corpus.split([*text.training, *repeating])
    assert again.leaked > 0
    assert again.held_out == []


def test_fingerprint_sees_every_text_and_their_order():
    one, two = documents("one", "two")
    prints = [corpus.fingerprint(d) for d in ([one, two], [two, one], [one], documents("onetwo"))]
    assert len(set(prints)) == 4


@pytest.mark.slow
def test_the_standard_library_gives_a_megabyte_of_prose(library):
    assert sum(len(d.text) for d in library.training) > 1_000_000
    assert {d.source for d in library.training} == {corpus.STANDARD_LIBRARY}
    held_out = sum(len(d.text) for d in library.held_out)
    assert 0.02 < held_out / sum(len(d.text) for d in library.training) < 0.08
    assert library.shared_lines < 0.05
    assert not {d.text for d in library.training} & {d.text for d in library.held_out}
    for document in library.held_out:
        assert len(document.text) >= corpus.SHORTEST
        assert not any(part.startswith(">>>") for part in document.text.split("\n\n"))


@pytest.mark.slow
def test_topics_of_the_language_reference_are_in_it(library):
    places = {d.place for d in (*library.training, *library.held_out)}
    assert "pydoc_data/topics.py:assignment" in places
    assert any(place.startswith("json/decoder.py:") for place in places)
    assert not any("/test/" in place or "site-packages" in place for place in places)
