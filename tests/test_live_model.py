"""The shipped model alive on a page, in Chromium: it computes what Python does, whatever happens.

The page is a small one of its own: what the whole book needs besides is seen in test_pages.py.
"""

import json
import re
import shutil
import sys
from contextlib import contextmanager
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
from test_explorers import DATA, committed

import browser
import build_book
import house
from mistral_lib import MistralCausalLM
from mistral_lib.teaching import explorers, heads_explorer
from mistral_lib.teaching.facts import PROMPT

sys.path.insert(0, str(house.BOOK / "_ext"))
import live

pytestmark = pytest.mark.slow
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>A page</title>
<meta name="viewport" content="width=device-width">
<link rel="stylesheet" href="_static/explorer/explorer.css"><main><h1>A page</h1>
<div class="cell_output">{html}<figure><img alt="A still picture" src="data:,">
<figcaption>A caption.</figcaption></figure></div></main>
<script src="_static/explorer/common.js"></script>
<script src="_static/explorer/{name}.js"></script>
"""
TEXT = "Return the name of the"
NOTHING = {"text": "", "megabytes": 6.3, "logits": [0] * 2048, "used": [], "pieces": []}


@pytest.fixture(scope="module")
def model():
    return MistralCausalLM.from_preset("mistral_tiny_en", dtype="float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The introduction's explorer on a small page, and as a cell shows it when it is run."""
    shipped = build_book.PAGES / "_static" / "model"
    live.write_model(shipped)
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(explorers.FOLDER, folder / "_static" / "explorer")
    shutil.copytree(house.BOOK / "_static" / "model", folder / "_static" / "model")
    for name in (*live.FILES, "index.json"):
        shutil.copyfile(shipped / name, folder / "_static" / "model" / name)
    html = next(html for name, html in committed() if name == "intro")
    (folder / "page.html").write_text(PAGE.format(html=html, name="write"))
    html = explorers.html("sampling", NOTHING).partition("<style>")[0]
    (folder / "sampling.html").write_text(PAGE.format(html=html, name="sampling"))
    html = next(html for name, html in committed() if name == "04_one_head")
    (folder / "heads.html").write_text(PAGE.format(html=html, name="heads"))
    html = next(html for name, html in committed() if name == "intro")
    html = explorers.html("write", json.loads(DATA.search(html)[1]))
    (folder / "notebook.html").write_text(
        f"<!doctype html><meta charset='utf-8'><div id='output-area'><img alt='Still'>{html}</div>"
    )
    return folder


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


def bars(page, rows=".bars button"):
    """The tokens of the bars with the probabilities that are written beside them."""
    rows = page.locator(rows).evaluate_all(
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
    ids = [int(i) for i in model.preprocessor.tokenizer.encode(TEXT, add_bos=True)]
    with opened(chromium, address) as page:
        seen = page.evaluate_handle(MOST_OF_THE_BAR)
        assert model_requests(page) == []
        load(page)
        assert seen.evaluate("seen => seen.most") > 6e6
        page.get_by_label("Your text").fill(TEXT)
        page.wait_for_function("document.querySelectorAll('.way [role=button]').length === 1")
        for _ in range(2):
            ready(page)
            shown, probabilities = bars(page), expected(model, ids)
            assert [*shown] == np.argsort(-probabilities)[: len(shown)].tolist()
            for token, chance in shown.items():
                assert chance == pytest.approx(probabilities[token], abs=1e-3)
            ids.append([*shown][1])  # another way than the likeliest
            page.locator(f".bars button[data-id='{ids[-1]}']").click()
        ready(page)
        page.get_by_role("button", name="Write 20 tokens").click()
        page.get_by_role("button", name="Write 20 tokens").wait_for()
        ready(page)
        written = model.generate(ids, max_length=len(ids) + 20)
        assert in_address(page)["write.tokens"] == ",".join(str(i) for i in written[len(ids) - 2 :])
        assert all(url.startswith(address) for url in page.asked)
        assert page.complaints == []


def test_sampling_starts_from_what_the_library_computes(chromium, address, model):
    ids = [int(i) for i in model.preprocessor.tokenizer.encode(TEXT, add_bos=True)]
    with opened(chromium, address, "sampling.html") as page:
        load(page)
        page.get_by_label("Your text").fill(TEXT)
        page.wait_for_function(
            "document.querySelector('[role=status]').textContent.includes('file')"
        )
        probabilities = expected(model, ids)
        shown = bars(page, ".bars li[data-id]")
        assert [*shown] == np.argsort(-probabilities)[: len(shown)].tolist()
        for token, chance in shown.items():
            assert chance == pytest.approx(probabilities[token], abs=1e-3)
        assert page.complaints == []


HEADS = """async ([text, places]) => {
    const rows = [];
    for (const place of places)
        await explorers.model.heads({text, place}, ({row}) => row && rows.push(row));
    return rows;
}"""
LOOKED = "document.querySelector('[role=status]').textContent.startsWith('From “file”')"


def test_heads_of_any_text_are_those_of_the_library(chromium, address, model):
    found = heads_explorer.rows(model, TEXT + " file")
    places = range(len(found["pieces"]))
    with opened(chromium, address, "heads.html") as page:
        load(page)
        page.get_by_label("Your text").fill(TEXT + " file")
        page.wait_for_function(LOOKED)
        page.locator("[data-place='1.2']").click()
        looks = found["weights"][1, -1, 2]
        assert f"head 1.2 gives {looks.max():.1%}"[:-3] in status(page)
        before = page.locator(".steps").inner_text()
        page.reload()
        assert page.locator(".tokens").is_hidden()
        load(page)
        page.wait_for_function(LOOKED)
        assert page.locator(".steps").inner_text() == before
        rows = page.evaluate(HEADS, [TEXT + " file", [*places]])
        assert page.complaints == []
    for place, row in zip(places, rows, strict=True):
        assert row["pieces"] == found["pieces"]
        for block, values in enumerate(row["blocks"]):
            assert values["stream"] == pytest.approx(found["stream"][block, place], abs=1e-3)
            for number, head in enumerate(values["heads"]):
                at = block, place, number
                scores, sizes = found["scores"][at], found["values"][block, :, number]
                np.testing.assert_allclose(head["scores"], scores[: place + 1], atol=1e-3)
                np.testing.assert_allclose(head["values"], sizes[: place + 1], atol=1e-3)
                assert head["written"] == pytest.approx(found["written"][at], abs=1e-3)
                ranked = np.sort(found["effects"][at])
                raised, lowered = ([e for _, e in head[key]] for key in ("raised", "lowered"))
                np.testing.assert_allclose(raised, ranked[:-4:-1], atol=1e-3)
                np.testing.assert_allclose(lowered, ranked[:3], atol=1e-3)


MOST_OF_THE_BAR = """() => {
    const seen = {most: 0}, bar = document.querySelector('progress');
    const look = () => { if (bar.checkVisibility()) seen.most = Math.max(seen.most, bar.value); };
    new MutationObserver(look).observe(bar, {attributes: true});
    return seen;
}"""


def model_requests(page):
    return [url for url in page.asked if "model.safetensors" in url]


def in_address(page):
    return dict(parse_qsl(urlsplit(page.url).query))


def test_the_second_time_nothing_is_fetched_and_the_page_is_as_it_was(chromium, address):
    with opened(chromium, address) as page:
        load(page)
        page.get_by_label("Your text").fill(TEXT)
        page.wait_for_function("document.querySelectorAll('.way [role=button]').length === 1")
        ready(page)
        page.get_by_role("button", name="Write 20 tokens").click()
        page.get_by_role("button", name="Write 20 tokens").wait_for()
        page.locator(".way [role=button]").nth(2).click()
        before, shown = way(page), bars(page)
        page.asked.clear()
        page.reload()
        assert page.get_by_label("Your text").input_value() == TEXT
        page.context.set_offline(True)
        load(page)
        assert page.locator(".explorer").get_attribute("data-stored") == "true"
        assert model_requests(page) == []
        assert bars(page) == shown
        assert len(way(page)) == len(before)
        assert way(page)[:3] == before[:3]
        page.get_by_role("button", name="Reset").click()
        assert page.get_by_label("Your text").input_value() == PROMPT
        assert in_address(page) == {}


def test_it_can_be_used_with_the_keyboard_alone(chromium, address):
    """Recorded values suffice, so nothing is loaded."""
    with opened(chromium, address) as page:
        first = page.locator(".way [role=button]").first
        assert first.get_attribute("aria-current") == "step"
        first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        assert page.locator("[aria-current=step]").inner_text() == "refix"
        assert "After “p”, most likely next: “refix”" in status(page)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.matches('.bars button')")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        other = page.evaluate("document.activeElement.querySelector('.token').textContent")
        page.keyboard.press("Enter")
        assert "".join(way(page)).strip() == f"p{other} ?"
        assert page.evaluate("document.activeElement.matches('.bars li:first-child button')")
        page.get_by_role("button", name="Write 20 tokens").press("Enter")
        assert len(way(page)) > 3
        assert page.locator("output, [aria-live], [role=status], [role=alert]").count() == 1
        assert model_requests(page) == []


def test_a_long_text_can_be_stopped_and_the_page_stays_alive(chromium, address):
    with opened(chromium, address) as page:
        load(page)
        page.get_by_label("Your text").fill("Return the name. " * 50)
        page.wait_for_function("document.querySelector('.step').textContent.includes(' of ')")
        page.get_by_role("button", name="Stop").click()
        page.get_by_label("Your text").fill(TEXT)
        page.wait_for_function("document.querySelectorAll('.bars button').length > 0")
        assert page.complaints == []


def without(name):
    return lambda context: context.route(f"**/{name}*", lambda route: route.fulfill(status=404))


def cut(context):
    context.route("**/tokenizer.model*", lambda route: route.fulfill(body="half"))


def broken_off(context):
    context.route("**/model.safetensors*", lambda route: route.abort())


def too_large(context):
    config = {"num_hidden_layers": 1, "sliding_window": 1e15, "num_key_value_heads": 1}
    config |= {"hidden_size": 1, "num_attention_heads": 1}
    body = json.dumps(config).ljust(CONFIG_BYTES)
    context.route("**/config.json*", lambda route: route.fulfill(body=body))


CONFIG_BYTES = 643


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (without("index.json"), r"index.json is not on the server \(404\)"),
        (without("model.safetensors"), r"model.safetensors is not on the server \(404\)"),
        (cut, "tokenizer.model has 4 bytes and not"),
        (broken_off, "The connection broke off"),
        (too_large, "too little memory"),
        (without("worker.js"), "The model's program could not start"),
        (lambda context: context.set_offline(True), "(?i)offline|could not start"),
    ],
)
def test_what_goes_wrong_becomes_a_sentence(chromium, address, broken, said):
    with opened(chromium, address) as page:
        broken(page.context)
        button = page.get_by_role("button", name="Load the model")
        button.click()
        page.wait_for_function(
            "!document.querySelector('[role=status]').textContent.includes('is loading')"
        )
        assert re.search(said, status(page))
        assert button.is_enabled()
        assert bars(page)  # what was recorded is still there


@pytest.mark.parametrize("name", ["page.html", "notebook.html"])
def test_from_the_disk_and_in_a_notebook_it_shows_recorded_values(chromium, folder, name):
    with opened(chromium, folder.as_uri(), name) as page:
        words = "make serve" if name == "page.html" else "run the cell again"
        assert words in page.locator(".note").inner_text()
        assert page.get_by_role("button", name="Load the model").count() == 0
        page.get_by_role("button", name="Next token").click()
        assert "After “p”, most likely next: “refix”" in status(page)
        assert page.locator("img").count() == 0
        assert page.complaints == []


def test_heads_from_the_disk_are_those_that_were_recorded(chromium, folder):
    with opened(chromium, folder.as_uri(), "heads.html") as page:
        assert "make serve" in page.locator(".note").inner_text()
        assert page.get_by_label("Your text").is_hidden()
        page.locator(".tokens button").nth(8).click()
        page.locator("[data-place='2.3']").click()
        assert re.match("From “\\*”, head 2.3 gives .* of its weight to “<s>”", status(page))
        assert page.complaints == []
