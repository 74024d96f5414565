"""Claims: what is recorded, what the prose says of it, and the page that puts both side by side."""

import json

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

import claims
import house
import notebooks
from mistral_lib.teaching.claims import CLAIM, claim
from mistral_lib.teaching.estimates import Estimate
from mistral_lib.teaching.facts import PREFIX

FOUND = Estimate(0.163, 0.094, 0.238, 36)
ON = "docstrings, confirm"


@pytest.fixture
def published():
    """Makes a claim inside IPython, and gives its verdict and what it published, by name."""
    InteractiveShell.instance()

    def call(*arguments, **options):
        with capture_output() as captured:
            verdict = claim(*arguments, **options)
        assert captured.stdout == captured.stderr == ""
        kind = f"{PREFIX}text/plain"
        return verdict, {o.metadata["scrapbook"]["name"]: o.data[kind] for o in captured.outputs}

    yield call
    InteractiveShell.clear_instance()


def test_a_claim_gives_the_prose_its_numbers(published):
    verdict, numbers = published("head-copies", FOUND, on=ON, above=0)
    kept = json.loads(numbers.pop("claim:head-copies"))
    assert verdict == "holds"
    assert numbers == {
        "head_copies": "0.16",
        "head_copies_low": "0.09",
        "head_copies_high": "0.24",
        "head_copies_n": "36",
    }
    assert kept == {
        "estimate": "0.16 (0.09 to 0.24, n = 36)",
        "n": 36,
        "on": ON,
        "verdict": "holds",
    }


@pytest.mark.parametrize(
    ("numbers", "bound", "expected"),
    [
        ((0.16, 0.09, 0.24), {"above": 0}, "holds"),
        ((-0.16, -0.24, -0.09), {"above": 0}, "does not hold"),
        ((0.02, -0.03, 0.08), {"above": 0}, "no difference larger than 0.08"),
        ((0.02, -0.09, 0.08), {"below": 0}, "no difference larger than 0.09"),
        ((-0.16, -0.24, -0.09), {"below": 0}, "holds"),
        ((0.16, 0.09, 0.24), {"below": 0}, "does not hold"),
        ((0.16, 0.09, 0.24), {"above": 0.2}, "not decided"),
        ((0.16, 0.09, 0.24), {"below": 0.5}, "holds"),
        ((0.02, -0.03, 0.08), {"within": 0.1}, "holds"),
        ((0.02, -0.03, 0.08), {"within": 0.05}, "not decided"),
        ((0.16, 0.09, 0.24), {"within": 0.05}, "does not hold"),
        ((0.16, 0.09, 0.24), {}, "measured"),
    ],
)
def test_the_verdict_follows_from_the_interval(numbers, bound, expected):
    assert claim("x", Estimate(*numbers, 36), on=ON, **bound) == expected


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("Head_copies", FOUND), {"on": ON}, "is not made of small letters, digits and hyphens"),
        (("x", FOUND), {"on": "docstrings, discover"}, "Measure it on the half 'confirm'"),
        (("x", FOUND), {"on": ON, "above": 0, "below": 1}, "A claim has one bound"),
        (("x", Estimate(0.165, 0.1, 0.2, 36)), {"on": ON}, "not steady"),
        (("x", Estimate(0.1, 0.00003, 0.2, 36)), {"on": ON, "above": 0}, "ends at the bound"),
    ],
)
def test_a_bad_claim_is_refused_and_publishes_nothing(published, arguments, options, message):
    InteractiveShell.instance()
    with capture_output() as captured, pytest.raises(ValueError, match=message):
        claim(*arguments, **options)
    assert not captured.outputs


# The prose ---------------------------------------------------------------------------------------

KEPT = {"estimate": "0.16 (0.09 to 0.24, n = 36)", "n": 36, "on": ON, "verdict": "holds"}
PROSE = "It copies (n = 36<!-- =copies_n -->).<!-- claim:copies -->"


def notebook(prose=PROSE, name="copies", kept=KEPT) -> nbformat.NotebookNode:
    """A chapter with one claim, and its record."""
    output = new_output(
        "display_data",
        {f"{PREFIX}text/plain": json.dumps(kept), "text/plain": ""},
        metadata={"scrapbook": {"name": f"{CLAIM}{name}"}},
    )
    cells = [new_markdown_cell("# 4. One head"), new_markdown_cell(prose)]
    return nbformat.v4.new_notebook(cells=[*cells, new_code_cell("claim()", outputs=[output])])


def problems(book: nbformat.NotebookNode) -> list[str]:
    prose = [cell.source for cell in book.cells if cell.cell_type == "markdown"]
    made = claims.Counter(name for text in prose for name in claims.MARK.findall(text))
    return list(claims.claim_problems(book, claims.recorded(book), made))


def test_a_claim_that_is_measured_and_made_is_right():
    assert problems(notebook()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(name="other"), "makes the claim copies, which no cell records"),
        (dict(prose="Nothing."), "records the claim copies, which no sentence makes"),
        (dict(prose="It copies.<!-- claim:copies -->"), "without n. Write it: n = ?<!-- =copies_n"),
        (dict(prose=f"{PROSE} Two.<!-- claim:Two -->"), "not of the form <!-- claim:name -->"),
        (dict(prose=f"{PROSE} Two.<!--claim:two-->"), "not of the form <!-- claim:name -->"),
        (dict(kept={**KEPT, "estimate": "0.16"}), "without n and interval"),
        (dict(kept={**KEPT, "n": 0}), "without n and interval"),
    ],
)
def test_a_wrong_claim_is_found(changes, message):
    assert any(message in problem for problem in problems(notebook(**changes)))


def test_an_interval_over_seeds_is_one_too():
    assert problems(notebook(kept={**KEPT, "estimate": "2.18 (2.16 to 2.21, 3 seeds)"})) == []


def test_one_claim_with_two_records_is_refused(tmp_path):
    twice = notebook()
    twice.cells += notebook(kept={**KEPT, "n": 35}).cells[-1:]
    with pytest.raises(ValueError, match="claim:copies is recorded twice, differently"):
        claims.recorded(twice)
    for name in "ab":
        nbformat.write(notebook(), tmp_path / f"{name}.ipynb")
    with pytest.raises(ValueError, match=r"b.ipynb and a notebook before it both record copies"):
        claims.gather(sorted(tmp_path.glob("*.ipynb")))


def test_records_of_claims_are_no_numbers_of_the_prose():
    assert notebooks.recorded(notebook()) == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One. Two is three.<!-- claim:a --> Four.", "Two is three."),
        ("One. Two is three<!-- claim:a -->, they say. Four.", "Two is three, they say."),
        (
            "One. Two\nis 3.5<!-- =x --> (*n* = 3).<!-- claim:a -->\n\nFour.",
            "Two is 3.5 (*n* = 3).",
        ),
        ("One.\n\n## Two is three<!-- claim:a -->\n\nFour.", "Two is three"),
        ("- One.\n- Two is three.<!-- claim:a -->\n- Four.", "Two is three."),
        ("See [Figure 2](a.md). Two {cite}`b2000` is three!<!-- claim:a -->", "Two is three!"),
        ("**One.** Two is about 2.3 as “said.”<!-- claim:a -->", "Two is about 2.3 as “said.”"),
        ("One. *Two is three.*<!-- claim:a --> Four.", "*Two is three.*"),
        ("Two is three<!-- claim:a --><!-- claim:b -->.", "Two is three."),
    ],
)
def test_the_sentence_of_a_claim_is_found(text, sentence):
    assert next(claims.sentences(text)) == ("a", sentence)


def test_the_page_has_a_row_for_each_sentence(tmp_path, monkeypatch):
    path = tmp_path / "04_one_head.ipynb"
    nbformat.write(notebook(prose=f"{PROSE}\n\nAgain | so.<!-- claim:copies -->"), path)
    monkeypatch.setattr(claims, "notebook_paths", lambda: [path])
    row = " | 0.16 (0.09 to 0.24, n = 36) | 36 | docstrings, confirm | holds |"
    page = claims.page()
    assert "## 4. One head\n\n[Open the chapter](04_one_head.ipynb)." in page
    assert f"| It copies (n = 36).{row}\n| Again \\| so.{row}\n" in page


def test_the_page_in_the_book_is_current():
    assert claims.PAGE.read_text() == claims.page(), "run tools/claims.py"


def test_the_page_is_written_by_syncing(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "PAGE", tmp_path / "claims.md")
    claims.PAGE.write_text("old")
    monkeypatch.setattr(
        notebooks, "_write", lambda path, text: path == claims.PAGE and path.write_text(text)
    )
    monkeypatch.setattr(notebooks, "tidy", lambda notebook, *_: notebook)
    notebooks.sync(house.notebook_paths())
    assert claims.PAGE.read_text() == claims.page()
