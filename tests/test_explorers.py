"""Explorers in notebooks: what a cell carries, and that what is committed is Python's."""

import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from nbval.plugin import get_sanitize_patterns

import house
import notebooks
from mistral_lib import MistralCausalLM
from mistral_lib.teaching import explorers

RECORDED = {"text": "</script><b>", "end": 2, "megabytes": 6.3, "steps": {"": [[5, "▁a", 0.5]]}}
DATA = re.compile(r'<script type="application/json">(.*?)</script>', re.DOTALL)
SANITIZER = Path(__file__).with_name("nbval_sanitize.cfg")


def committed():
    """The recorded values of every explorer in the book's notebooks."""
    for path in house.notebook_paths():
        for cell in nbformat.read(path, 4).cells:
            for output in cell.get("outputs", []):
                html = output.get("data", {}).get("text/html", "")
                if "-explorer" in html:
                    yield path.stem, html


def tidied(html):
    """The HTML that the runner leaves in a notebook."""
    cell = new_code_cell(outputs=[new_output("display_data", {"text/html": html})])
    notebook = new_notebook(cells=[cell])
    notebooks.normalise(notebook)
    return notebook.cells[0].outputs[0].data["text/html"]


def test_an_explorer_holds_all_that_it_needs():
    html = explorers.html("write", RECORDED)
    assert json.loads(DATA.search(html)[1]) == RECORDED
    assert html.count("</script>") == 3  # the values and two scripts: the text closes none
    assert ".explorer {" in html
    assert not re.search(r"(?:src|href)=|@import", html)


def test_the_runner_keeps_the_values_and_no_script():
    html = explorers.html("write", RECORDED)
    kept = tidied(html)
    assert kept == html.partition("<style>")[0]
    assert tidied(kept) == kept


def test_nbval_compares_the_sentence_and_not_the_values():
    def sanitized(html):
        for pattern, replacement in get_sanitize_patterns(SANITIZER.read_text()):
            html = re.sub(pattern, replacement, html)
        return html

    html = explorers.html("write", RECORDED)
    assert sanitized(html) == sanitized(tidied(html.replace("0.5", "0.6")))
    assert explorers.SENTENCE in sanitized(html)


def test_names_are_checked():
    with pytest.raises(ValueError, match=r"must be one of .*'write'.*, but is 'right'"):
        explorers.show("right")


@pytest.fixture(scope="module")
def model():
    return MistralCausalLM.from_preset("mistral_tiny_en")


@pytest.mark.slow
def test_show_draws_a_picture_and_carries_the_values(model, monkeypatch):
    monkeypatch.setattr(explorers, "display", lambda html: shown.append(html.data))
    shown, text = [], "Return the name of the"
    plt.close("all")
    for name in ("write", "sampling", "heads"):
        explorers.show(name, model=model, text=text)
    assert len(plt.get_fignums()) == 3
    writing, sampling, heads = (json.loads(DATA.search(html)[1]) for html in shown)
    assert writing["text"] == sampling["text"] == heads["text"] == text
    weights = np.exp(sampling["logits"])
    likeliest = writing["steps"][""]
    for (token, piece, chance), named in zip(likeliest, sampling["pieces"]):
        assert named == [token, piece]
        assert weights[token] / weights.sum() == pytest.approx(chance, abs=1e-3)
    ids = model.preprocessor.tokenizer.encode(text, add_bos=True)
    assert sampling["used"] == sorted({*ids})


@pytest.mark.slow
def test_what_is_committed_is_what_the_library_computes(model):
    found = [(name, html) for name, html in committed() if "write-explorer" in html]
    assert {"intro", "01_one_token"} <= {name for name, _ in found}
    for name, html in found:
        kept = json.loads(DATA.search(html)[1])
        again = explorers.record_writing(model, kept["text"])
        assert {**kept, "steps": 0} == {**again, "steps": 0}, name
        same = kept["steps"].keys() & again["steps"].keys()
        # Where two tokens are nearly level, another machine may go another way.
        assert len(same) > 0.9 * len(kept["steps"])
        for path in same:
            mine = {token: chance for token, _, chance in again["steps"][path]}
            for token, piece, chance in kept["steps"][path]:
                assert mine.get(token, chance) == pytest.approx(chance, abs=2e-3)
                assert model.preprocessor.tokenizer.id_to_token(token) == piece
