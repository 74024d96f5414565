"""The shipped model alive on a page, in Chromium: what it computes is Python's, and nothing is in the way.

The page is a small one of its own: what the whole book needs besides is seen in test_pages.py.
"""

import json
import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

import browser
import house
from mistral_lib import MistralCausalLM
from mistral_lib.teaching import explorers
from mistral_lib.teaching.facts import PROMPT

sys.path.insert(0, str(house.BOOK / "_ext"))
import live

pytestmark = pytest.mark.slow
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>A page</title>
<meta name="viewport" content="width=device-width">
<link rel="stylesheet" href="_static/explorer/explorer.css"><main><h1>A page</h1>
<div class="cell_output">{html}<figure><img alt="A still picture" src="data:,">
<figcaption>A caption.</figcaption></figure></div></main>
<script src="_static/explorer/common.js"></script><script src="_static/explorer/write.js"></script>
"""
TEXT = "Return the name of the"


@pytest.fixture(scope="module")
def model():
    return MistralCausalLM.from_preset("mistral_tiny_en", dtype="float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    """A page with the explorer "Write", the scripts, and the model's files."""
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(explorers.FOLDER, folder / "_static" / "explorer")
    shutil.copytree(house.BOOK / "_static" / "model", folder / "_static" / "model")
    live.write_model(folder / "_static" / "model")
    recorded = explorers.record_writing(model, PROMPT)
    html = explorers.html("write", recorded)
    (folder / "notebook.html").write_text(f"<!doctype html><meta charset='utf-8'>{html}")
    html = re.sub(r"<style>.*?</style>|<script>.*?</script>", "", html, flags=re.DOTALL)
    (folder / "page.html").write_text(PAGE.format(html=html))
    return folder


@pytest.fixture(scope="module")
def chromium():
    if browser.find_chromium() is None:
        pytest.skip("Chromium is not installed (Debian: sudo apt-get install chromium)")
    with browser.chromium() as running:
        yield running


@pytest.fixture(scope="module")
def address(folder):
    with browser.serve(folder) as url:
        yield url


@contextmanager
def opened(chromium, address, name="page.html", **options):
    """The page; what is asked of it, and what it complains about, stays with it."""
    context = chromium.new_context(**options)
    context.set_default_timeout(browser.PATIENCE)
    page = context.new_page()
    page.asked, page.complaints = [], []
    context.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(f"{address}/{name}")
    try:
        yield page
    finally:
        context.close()


def load(page):
    """Presses the button, and waits until the model is there."""
    page.get_by_role("button", name="Load the model").click()
    page.get_by_role("button", name="Load the model").wait_for(state="hidden")
    ready(page)


def ready(page):
    """Waits until the model has nothing to do."""
    page.wait_for_function(
        "!document.querySelector('.step').textContent.includes('the model reads')"
        " && ![...document.querySelectorAll('button')].some(b => b.textContent === 'Stop')"
    )


def bars(page):
    """The tokens of the bars with the probabilities that are written beside them."""
    rows = page.locator(".bars button").evaluate_all(
        "all => all.map(b => [+b.dataset.id, b.querySelector('.chance').textContent])"
    )
    return {token: float(chance.rstrip("%")) / 100 for token, chance in rows}


def expected(model, ids):
    """The library's probabilities after some tokens."""
    inputs = {"token_ids": np.array([ids]), "padding_mask": np.ones((1, len(ids)), bool)}
    logits = model.predict(inputs, verbose=0)[0, -1].astype("float64")
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def way(page):
    return page.locator(".way [role=button]").all_inner_texts()


def status(page):
    return page.locator("[role=status]").inner_text()


def test_what_it_shows_is_what_the_library_computes(chromium, address, model):
    tokenizer = model.preprocessor.tokenizer
    ids = tokenizer.encode(TEXT, add_bos=True)
    with opened(chromium, address) as page:
        seen = page.evaluate_handle("""() => {
            const seen = {most: 0}, bar = document.querySelector('progress');
            new MutationObserver(() => seen.most = Math.max(seen.most, bar.value))
                .observe(bar, {attributes: true});
            return seen;
        }""")
        assert not any("model.safetensors" in url for url in page.asked)
        load(page)
        assert seen.evaluate("seen => seen.most") > 6e6
        page.get_by_label("Your text").fill(TEXT)
        page.get_by_role("button", name="Next token").click()
        ready(page)
        page.locator(".way [role=button]").first.click()
        ready(page)
        for _ in range(2):
            probabilities = expected(model, ids)
            shown = bars(page)
            assert [*shown] == np.argsort(-probabilities)[: len(shown)].tolist()
            for token, chance in shown.items():
                assert chance == pytest.approx(probabilities[token], abs=1e-3)
            # The second way: not the likeliest token.
            token = [*shown][1]
            page.locator(f".bars button[data-id='{token}']").click()
            ready(page)
            ids = [*ids, token]
        page.get_by_role("button", name="Write 20 tokens").click()
        page.get_by_role("button", name="Stop").wait_for()
        ready(page)
        text = model.generate(ids, max_length=len(ids) + 20)[len(ids) :]
        found = page.evaluate("new URLSearchParams(location.search).get('write.tokens')").split(",")
        assert [int(token) for token in found][2:] == [int(i) for i in text]
        assert {url.split("/_static")[0] for url in page.asked} <= {address, f"{address}/page.html"}
        assert page.complaints == []

        # The second time nothing is fetched, and the address says where the reader was.
        before = way(page)
        page.asked.clear()
        page.reload()
        load(page)
        assert page.locator(".explorer").get_attribute("data-stored") == "true"
        assert not any("model.safetensors" in url for url in page.asked)
        page.context.set_offline(True)
        page.reload() if False else None
        assert len(way(page)) == len(before)
        page.get_by_role("button", name="Reset").click()
        ready(page)
        assert page.get_by_label("Your text").input_value() == PROMPT
        assert "?" not in page.url
