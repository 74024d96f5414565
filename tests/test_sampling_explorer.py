"""The explorer "Sampling", in Chromium: what its settings leave is what the library leaves."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import browser
from mistral_lib.generation.sampling import filter_logits, make_sampler
from mistral_lib.teaching import explorers

pytestmark = pytest.mark.slow
V, USED = 200, [3, 7, 11]
LOGITS = np.random.default_rng(0).normal(0, 2.5, V).round(3)
OFF = {"penalty": 1, "temperature": 1, "topK": 51, "topP": 1, "minP": 0}
NAMES = {"topK": "top_k", "topP": "top_p", "minP": "min_p", "penalty": "repetition_penalty"}


@pytest.fixture(scope="module")
def page():
    """A page that holds nothing but the explorer, with recorded logits; it may load nothing."""
    if browser.find_chromium() is None:
        pytest.skip("Chromium is not installed (Debian: sudo apt-get install chromium)")
    order = np.argsort(-LOGITS)
    recorded = {
        "text": "Return",
        "megabytes": 6.3,
        "logits": LOGITS.tolist(),
        "used": USED,
        "pieces": [(int(i), f"▁{i}") for i in order[:40]],
    }
    with browser.chromium() as running:
        page = running.new_context(viewport=browser.DESKTOP).new_page()
        page.set_default_timeout(browser.PATIENCE)
        complaints = []
        page.on("request", lambda request: complaints.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.set_content(explorers.html("sampling", recorded))
        yield page
        assert complaints == []


def set_all(page, **settings):
    for slider, value in zip(
        page.locator("input[type=range]").all(), (OFF | settings).values(), strict=True
    ):
        slider.fill(str(value))


def expected(**settings):
    """The library's probabilities, with the settings that are not off."""
    given = {NAMES.get(name, name): value for name, value in settings.items() if value != OFF[name]}
    used = jnp.zeros(V, bool).at[jnp.array(USED)].set(True)
    sampler = make_sampler(**{"temperature": 1.0} | given)
    return np.asarray(jax.nn.softmax(filter_logits(jnp.array(LOGITS, "float32"), sampler, used)))


def shown(page):
    rows = page.locator(".bars li[data-id]").evaluate_all(
        "all => all.map(li => [+li.dataset.id, li.querySelector('.chance').textContent])"
    )
    return {token: float(chance.rstrip("%")) / 100 for token, chance in rows}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.5},
        {"topK": 5},
        {"topP": 0.6},
        {"minP": 0.1},
        {"penalty": 1.5},
        {"penalty": 1.3, "temperature": 1.4, "topK": 12, "topP": 0.9, "minP": 0.05},
    ],
)
def test_bars_are_the_librarys(page, settings):
    set_all(page, **settings)
    probabilities = expected(**settings)
    found = shown(page)
    assert len(found) == 12
    for token, chance in found.items():
        assert chance == pytest.approx(probabilities[token], abs=1e-3)
    left = int((probabilities > 0).sum())
    assert page.locator(".step").inner_text() == f"{left} of {V} tokens are left"
    cut = page.locator(".bars .cut").evaluate_all("all => all.map(li => +li.dataset.id)")
    assert {token for token in found if probabilities[token] == 0} == {*cut}


def test_no_temperature_is_greedy(page):
    set_all(page, temperature=0)
    assert [*shown(page).values()][:2] == [1, 0]
    assert page.locator(".bars .said").nth(1).inner_text() == "greedy"


def test_a_hundred_are_drawn_from_what_is_left(page):
    set_all(page, topK=4)
    page.get_by_role("button", name="Draw 100").click()
    counts = page.locator(".bars .said").all_inner_texts()
    drawn = [int(text.removeprefix("× ")) for text in counts if text.startswith("×")]
    assert sum(drawn) == 100
    assert set(counts[4:-1]) == {"top-k"}
    assert re.match(r"100 drawn: \d different tokens, most often", said(page))
    set_all(page, topK=1)
    page.get_by_role("button", name="Draw 100").press("Enter")
    assert said(page).startswith("100 drawn: 1 token, most often")
    assert said(page).endswith("100 times.")


def said(page):
    return page.locator("[role=status]").inner_text()


def test_sliders_say_what_they_are_set_to_and_reset(page):
    set_all(page, minP=0.1)
    sliders = page.locator("input[type=range]")
    values = sliders.evaluate_all("all => all.map(s => s.getAttribute('aria-valuetext'))")
    assert values == ["off", "1.00", "off", "off", "0.10"]
    sliders.nth(2).focus()
    page.keyboard.press("ArrowLeft")
    assert sliders.nth(2).get_attribute("aria-valuetext") == "50"
    page.get_by_role("button", name="Reset").click()
    assert page.locator(".step").inner_text() == f"{V} of {V} tokens are left"
    assert page.locator("output, [aria-live], [role=status], [role=alert]").count() == 1
