"""The mask explorer, in Chromium: its rule is Python's, and it can be used without a mouse."""

from itertools import product

import numpy as np
import pytest

import browser
from mistral_lib.masks import attention_mask, can_see
from mistral_lib.teaching import plots
from mistral_lib.teaching.explorers import FOLDER

SYMBOLS = {
    "seen": plots.SEEN,
    "future": plots.FUTURE,
    "far": plots.TOO_FAR,
    "pad": plots.PADDED,
}
LENGTH = 8


@pytest.fixture(scope="module")
def page():
    """A page that holds nothing but the explorer; anything it tries to load is an error."""
    if browser.find_chromium() is None:
        pytest.skip("Chromium is not installed (Debian: sudo apt-get install chromium)")
    with browser.chromium() as running:
        context = running.new_context()
        context.set_default_timeout(browser.PATIENCE)
        page = context.new_page()
        page.complaints = []
        page.on("request", lambda request: page.complaints.append(request.url))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.set_content('<div class="mask-explorer">Only in the rendered book.</div>')
        page.add_style_tag(content=(FOLDER / "explorer.css").read_text())
        for name in ("common", "mask"):
            page.add_script_tag(content=(FOLDER / f"{name}.js").read_text())
        yield page
        assert page.complaints == []


def set_sliders(page, window, left, right, first):
    """Moves the four sliders, a window of `None` to the end of its slider."""
    values = [LENGTH + 1 if window is None else window, left, right, first]
    for slider, value in zip(page.locator("input[type=range]").all(), values, strict=True):
        slider.fill(str(value))


def shown(page):
    """The symbols of the grid, row by row."""
    return page.evaluate(
        "[...document.querySelectorAll('tbody tr')]"
        ".map(row => [...row.querySelectorAll('[role=gridcell]')].map(cell => cell.textContent))"
    )


def said(page):
    return page.locator("[role=status]").inner_text()


def ringed(page):
    return page.locator(".ringed").count()


def test_the_rule_is_pythons_for_every_small_pair(page):
    windows = [None, *range(1, 8)]
    triples = list(product(range(10), range(10), windows))
    said = page.evaluate("triples => triples.map(t => maskExplorer.canSee(...t))", triples)
    assert said == [bool(can_see(*triple)) for triple in triples]


@pytest.mark.parametrize("window", [1, 3, 4, 8, None])
@pytest.mark.parametrize(("left", "right", "first"), [(0, 0, 0), (2, 1, 0), (0, 3, 5), (4, 3, 7)])
def test_the_grid_shows_what_the_figures_show(page, window, left, right, first):
    set_sliders(page, window, left, right, first)
    keys = np.arange(LENGTH)
    real = (keys >= left) & (keys < LENGTH - right)
    expected = plots.mask_symbols(keys[first:], keys, window, real)
    assert shown(page) == expected.tolist()
    page_mask = np.array(shown(page)) == plots.SEEN
    np.testing.assert_array_equal(page_mask, attention_mask(keys[first:], keys, window, real))


def test_rings_count_what_differs(page):
    keys = np.arange(LENGTH)
    set_sliders(page, 4, 0, 0, 0)
    select = page.locator("select")
    right = attention_mask(keys, keys, 4)
    select.select_option("wider")
    assert ringed(page) == (attention_mask(keys, keys, 5) != right).sum() == 4
    select.select_option("both")
    both = abs(keys[:, None] - keys) < 4
    assert ringed(page) == (both != right).sum()
    set_sliders(page, 4, 0, 0, 5)
    select.select_option("index")
    late = attention_mask(keys[5:], keys, 4) != attention_mask(keys[:3], keys, 4)
    assert ringed(page) == late.sum()
    assert f"{late.sum()} cells differ" in said(page)
    select.select_option("")
    assert ringed(page) == 0


def test_one_is_not_many(page):
    set_sliders(page, 7, 0, 0, 0)
    page.locator("select").select_option("wider")
    assert ringed(page) == 1
    assert said(page).endswith("1 cell differs from W + 1.")
    page.locator("select").select_option("")
    set_sliders(page, 1, 1, 0, 0)
    assert said(page).endswith("1 row sees nothing.")


def test_it_can_be_used_with_the_keyboard_alone(page):
    set_sliders(page, 4, 0, 0, 0)
    # Tab order: four sliders, the list, one cell of the grid.
    page.locator("input[type=range]").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("label .value").first.inner_text() == "5"
    page.keyboard.press("ArrowLeft")
    for _ in range(5):
        page.keyboard.press("Tab")
    focused = page.evaluate("document.activeElement.dataset.place")
    assert focused is not None
    assert page.locator("[role=gridcell][tabindex='0']").count() == 1
    query, key = map(int, focused.split(","))
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.place") == f"{query - 1},{key + 1}"
    assert f"Query {query - 1} " in said(page)
    for _ in range(12):  # beyond the edge nothing moves
        page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.dataset.place") == f"{query - 1},0"


def test_keys_reach_the_ends_of_the_grid(page):
    set_sliders(page, 4, 0, 0, 2)
    page.locator("[data-place='5,3']").focus()
    for key, place in (
        ("Home", "5,0"),
        ("End", "5,7"),
        ("PageUp", "2,7"),
        ("PageDown", "7,7"),
        ("Control+Home", "2,0"),
        ("Control+End", "7,7"),
    ):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.dataset.place") == place


def test_what_is_described_has_an_outline(page):
    set_sliders(page, 4, 1, 0, 2)
    page.locator("[data-place='5,3']").hover()
    outlined = page.locator(".described").all_inner_texts()
    assert outlined == ["(", ")", "●"]  # the key's token, the query's, and the cell
    assert said(page).startswith("Query 5 “)”, key 3 “(”")


def test_empty_rows_are_marked(page):
    set_sliders(page, 2, 3, 0, 0)
    keys = np.arange(LENGTH)
    seen = attention_mask(keys, keys, 2, keys >= 3)
    marks = page.locator("tbody th").all_inner_texts()
    assert ["∅" in mark for mark in marks] == (~seen.any(axis=1)).tolist()
    assert said(page).endswith("3 rows see nothing.")


def test_no_window_is_called_so(page):
    set_sliders(page, None, 0, 0, 0)
    slider = page.locator("input[type=range]").first
    assert slider.get_attribute("aria-valuetext") == "none"


def test_one_part_of_it_speaks(page):
    assert page.locator("output, [aria-live], [role=status], [role=alert]").count() == 1


def test_reset_brings_the_beginning_back(page):
    set_sliders(page, 4, 0, 0, 0)
    first = shown(page)
    set_sliders(page, 2, 3, 1, 4)
    page.locator("select").select_option("both")
    page.get_by_role("button", name="Reset").click()
    assert shown(page) == first
    assert page.locator("select").input_value() == ""


def test_words_of_the_key_stay_together_on_a_phone(page):
    page.set_viewport_size(browser.PHONE)
    heights = page.locator("p.key span").evaluate_all("all => all.map(s => s.offsetHeight)")
    page.set_viewport_size(browser.DESKTOP)
    assert len(heights) == 5
    assert max(heights) < 1.5 * min(heights)


def test_a_screen_reader_is_told_why(page):
    set_sliders(page, 4, 1, 0, 0)
    label = page.locator("[data-place='6,3']").get_attribute("aria-label")
    assert label.endswith("distance 3. Seen.")
    for place, why in (("6,2", "not below W = 4"), ("6,7", "in the future"), ("2,0", "padding")):
        assert why in page.locator(f"[data-place='{place}']").get_attribute("aria-label")


def test_the_symbols_are_those_of_the_figures(page):
    set_sliders(page, 3, 1, 1, 0)
    for name, symbol in SYMBOLS.items():
        texts = set(page.locator(f"td.is-{name}").all_inner_texts())
        assert texts == {symbol}
    key = page.locator("p.key").inner_text().split()
    assert key == [*plots.SYMBOL_KEY.split(), *"∅ the row sees nothing".split()]
