"""The explorer "Heads": what it says of every head is what the library computes."""

import json

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from test_explorers import DATA, committed

import browser
from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.teaching import explorers, heads_explorer
from mistral_lib.teaching.facts import PROMPT

TEXT = "Return the name of the file, not its path."


@pytest.fixture(scope="module")
def model():
    return MistralCausalLM.from_preset("mistral_tiny_en", dtype="float32")


@pytest.fixture(scope="module")
def shipped(model):
    """What chapter 4 has recorded, and what the library computes."""
    html = next(html for name, html in committed() if name == "04_one_head")
    recorded = json.loads(DATA.search(html)[1])
    assert recorded["text"] == PROMPT
    return recorded, heads_explorer.rows(model, PROMPT)


@pytest.fixture(scope="module")
def small(model):
    """A model with a short window and another number of key heads, recorded and computed."""
    backbone = MistralBackbone(2048, 2, 4, 16, 24, 2, sliding_window=5, head_dim=6)
    random = np.random.default_rng(0)
    for variable in backbone.weights:
        variable.assign(random.normal(0.3, 0.5, variable.shape))
    model = MistralCausalLM(backbone, preprocessor=model.preprocessor)
    return heads_explorer.record_heads(model, TEXT), heads_explorer.rows(model, TEXT)


@pytest.fixture(scope="module")
def page(chromium, shipped):
    """A page that holds nothing but the explorer, with its recorded values; it may load nothing."""
    page = chromium.new_context(viewport=browser.DESKTOP).new_page()
    page.set_default_timeout(browser.PATIENCE)
    complaints = []
    page.on("request", lambda request: complaints.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    html = explorers.html("heads", shipped[0])
    page.set_content(f"<html lang=en><title>A page</title><main><h1>A page</h1>{html}</main>")
    yield page
    assert complaints == []
    page.context.close()


def places(found):
    """Some tokens of a text, the first and the last among them."""
    last = len(found["pieces"]) - 1
    return [*range(0, last, 9), last]


def test_a_row_is_read_digit_by_digit():
    """One token, one block, one head, and numbers of one digit that mean what they are."""
    ranges = dict.fromkeys(("size", "score", "drop", "written", "word", "effect"), (1, 0, 63))
    recorded = {"rows": ["B" + "KAD" + "ABCCBA" + "98/ABC"], "words": "x ▁y z", "ranges": ranges}
    (block,) = heads_explorer.unpack(recorded | {"windows": [None], "heads": 1}, 0)
    assert block["stream"] == 1
    (head,) = block["heads"]
    assert head["first"] == 0
    assert head["scores"] == [10]
    assert head["written"] == 3
    assert head["raised"] == [("x", 61), ("▁y", 60), ("z", 63)]
    assert head["lowered"] == [("z", 0), ("▁y", 1), ("x", 2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shipped", "small"])
def test_what_is_recorded_is_what_the_library_computes(name, request):
    recorded, found = request.getfixturevalue(name)
    assert recorded["pieces"] == found["pieces"]
    _, low, high = recorded["ranges"]["effect"]
    exact = (high - low) / 64**2 / 2 + 1e-4
    assert exact < (1e-3 if name == "shipped" else 2e-3)
    for place in places(found):
        for block, row in enumerate(heads_explorer.unpack(recorded, place)):
            assert row["stream"] == pytest.approx(found["stream"][block, place], abs=1e-3)
            seen = np.flatnonzero(found["seen"][block, place])
            for head, values in enumerate(row["heads"]):
                at = block, place, head
                assert values["first"] == seen[0]
                scores, weights = (found[key][at][seen] for key in ("scores", "weights"))
                np.testing.assert_allclose(values["scores"], scores, atol=0.01)
                shown = heads_explorer.weights_of(values["scores"])
                np.testing.assert_allclose(shown, weights, atol=1e-3)
                assert values["written"] == pytest.approx(found["written"][at], abs=0.01)
                ranked = np.sort(found["effects"][at])
                raised, lowered = ([e for _, e in values[key]] for key in ("raised", "lowered"))
                np.testing.assert_allclose(raised, ranked[:-4:-1], atol=exact)
                np.testing.assert_allclose(lowered, ranked[:3], atol=exact)


@pytest.mark.slow
def test_scores_and_the_mask_give_the_weights(small, shipped):
    for _, found in (small, shipped):
        masked = np.where(found["seen"][:, :, None], found["scores"], -np.inf)
        powers = np.exp(masked - masked.max(axis=-1, keepdims=True))
        weights = powers / powers.sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(weights, found["weights"], atol=1e-4)


@pytest.mark.slow
def test_a_text_may_not_be_too_long(model):
    with pytest.raises(ValueError, match="text has 201 tokens, but at most 128"):
        heads_explorer.rows(model, " ".join("a" * 200))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shipped", "small"])
def test_the_page_unpacks_what_was_packed(page, name, request):
    recorded, found = request.getfixturevalue(name)
    everything = page.evaluate(
        "([data, places]) => places.map(place => headsExplorer.recordedRow(data, place).blocks)",
        [recorded, places(found)],
    )
    for place, blocks in zip(places(found), everything, strict=True):
        for block, expected in zip(blocks, heads_explorer.unpack(recorded, place), strict=True):
            assert block["stream"] == pytest.approx(expected["stream"])
            for head, values in zip(block["heads"], expected["heads"], strict=True):
                assert head["first"] == values["first"]
                np.testing.assert_allclose(head["scores"], values["scores"], atol=1e-9)
                assert head["written"] == pytest.approx(values["written"])
                for key in ("raised", "lowered"):
                    assert [piece for piece, _ in head[key]] == [p for p, _ in values[key]]
        for number, block in enumerate(blocks):
            for index, head in enumerate(block["heads"]):
                sizes = found["values"][number, head["first"] : place + 1, index]
                np.testing.assert_allclose(head["values"], sizes, atol=1e-3)


def choose(page, place=None, head=None):
    if place is not None:
        page.locator(".tokens button").nth(place).click()
    if head is not None:
        page.locator(f"[data-place='{head}']").click()


def said(page):
    return page.locator("[role=status]").inner_text()


@pytest.mark.slow
@pytest.mark.parametrize(("place", "block", "head"), [(48, 2, 3), (8, 2, 3), (33, 1, 0), (0, 5, 5)])
def test_what_is_shown_is_what_the_library_computes(page, shipped, place, block, head):
    found, at = shipped[1], (block, place, head)
    choose(page, place, f"{block}.{head}")
    table = page.locator(".keys tbody tr").evaluate_all(
        "all => all.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    weights = found["weights"][at][: place + 1]
    keys = [row for row in table if row[1]]
    assert len(keys) == min(5, place + 1)
    for name, score, weight, size in keys:
        key = int(name.split()[-1])
        assert name == f"{found['pieces'][key]} {key}"
        assert float(score) == pytest.approx(found["scores"][at][key], abs=0.061)
        assert float(weight.rstrip("%")) / 100 == pytest.approx(weights[key], abs=1.5e-3)
        assert float(size) == pytest.approx(found["values"][block, key, head], abs=0.051)
    assert sum(float(row[2].rstrip("%")) for row in table) == pytest.approx(100, abs=0.4)
    words = page.locator(".steps").inner_text()
    assert f"has the length {found['written'][at]:.1f}" in words
    assert f"a vector of the length {found['stream'][block, place]:.1f}." in words
    hidden = len(found["pieces"]) - place - 1
    assert (f"The mask hides {hidden} tokens" in words) == (hidden > 0)
    ranked = np.sort(found["effects"][at])
    effects = page.locator(".favoured").all_inner_texts()
    shown = [float(text.split()[-1].replace("−", "-")) for text in effects]
    np.testing.assert_allclose(shown, [*ranked[:-4:-1], *ranked[:3]], atol=6.1e-3)
    marks = page.locator(".tokens .weight").evaluate_all("all => all.map(e => e.dataset.weight)")
    assert marks[place + 1 :] == ["▸"] * hidden
    for mark, weight in zip(marks, weights):
        assert float(mark.rstrip("%") or 0) / 100 == pytest.approx(weight, abs=6.1e-3)
    best = found["pieces"][int(weights.argmax())].replace("▁", "")
    assert f"head {block}.{head} gives {weights.max():.1%}"[:-3] in said(page)
    assert f"to “{best}”" in said(page)


@pytest.mark.slow
def test_it_can_be_used_with_the_keyboard_alone(page):
    page.get_by_role("button", name="Reset").click()
    assert page.locator(".tokens [tabindex='0']").count() == 1
    assert page.locator("[role=gridcell][tabindex='0']").count() == 1
    page.locator(".tokens [tabindex='0']").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("Return, ")
    assert said(page).startswith("From “Return”, head 2.3 gives")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.place") == "2.3"
    for key, place in (
        ("ArrowUp", "1.3"),
        ("ArrowLeft", "1.2"),
        ("End", "1.5"),
        ("ArrowRight", "1.5"),
        ("PageDown", "5.5"),
        ("Control+Home", "0.0"),
    ):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.dataset.place") == place
    assert "head 0.0 gives" in said(page)
    page.get_by_role("button", name="Reset").click()
    assert page.locator(".tokens [aria-current]").inner_text().startswith("▁*")
    assert page.locator("[aria-selected=true]").get_attribute("data-place") == "2.3"


@pytest.mark.slow
def test_it_can_be_read_by_everyone(page):
    page.set_viewport_size(browser.PHONE)
    choose(page, 8)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= browser.PHONE["width"]
    rules = {"rules": {"label-content-name-mismatch": {"enabled": True}}}
    found = Axe().run(page, options=rules).response["violations"]
    assert [(entry["id"], entry["nodes"][0]["html"]) for entry in found] == []
    sizes = page.locator(".tokens button, [role=gridcell]").evaluate_all(
        "all => all.map(e => Math.min(e.offsetWidth, e.offsetHeight))"
    )
    assert min(sizes) >= 24  # large enough for a finger
    assert page.locator("output, [aria-live], [role=status], [role=alert]").count() == 1
    page.set_viewport_size(browser.DESKTOP)
