"""The built pages in a real browser: whole without a network, and readable by everyone."""

import json
import re
from contextlib import contextmanager
from io import BytesIO
from itertools import product
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

import browser
import build_book
import house
import redraw
import targets

pytestmark = pytest.mark.slow

# Two pages of the API reference are seen for all: one of a class, one of functions.
PAGES = [*browser.page_names(), "book/api/layers.attention", "book/api/masks"]
THEMES, SIZES = ("light", "dark"), ("desktop", "phone")
# One page of each kind stands for the others where a test is slow and looks at what all share.
KINDS = [
    f"book/{name}" for name in ("intro", "07_sliding_windows", "claims", "exercises", "api/masks")
]
TARGETS = targets.load()
FIGURES: dict[str, list[str]] = {}
for _key, _target in TARGETS.items():
    if _key.startswith("fig:"):
        FIGURES.setdefault(_target.page.removesuffix(".ipynb"), []).append(
            _key.removeprefix("fig:")
        )
WITH_FIGURES = [name for name in PAGES if name in FIGURES]
# Explorers take the place of their pictures.
LIVE = "[...document.querySelectorAll('.explorer')].map(e => e.closest('figure')?.id ?? '')"
VERSIONS = "[...document.querySelectorAll('.bd-article picture img')]"
LIGHT = 2_000_000  # bytes that one view of a page may transfer
AXE = Axe()

# Elements that reach beyond the screen, unless something around them scrolls.
TOO_WIDE = """
() => [...document.querySelectorAll('body *')].filter(element => {
    if (element.getBoundingClientRect().right <= innerWidth + 1) return false;
    for (let e = element; e && e !== document.body; e = e.parentElement)
        if (getComputedStyle(e).overflowX !== 'visible' || getComputedStyle(e).position === 'fixed')
            return false;
    return true;
}).map(e => e.tagName + '.' + e.className).slice(0, 5)
"""


# The height of a page's text, and of its code that is in view.
HEIGHTS = """
() => {
    const height = element => element.getBoundingClientRect().height;
    const article = document.querySelector('.bd-article');
    const code = [...article.querySelectorAll('.cell_input')].filter(e => e.checkVisibility());
    return [height(article), code.map(height).reduce((a, b) => a + b, 0)];
}
"""
# What the book may not exceed again; what it aims at is 0.30 and 0.20.
MOST_CODE = {"a page": 0.37, "the book": 0.29}


@pytest.fixture(scope="module")
def built() -> Path:
    """The folder of the built book; only what changed is built anew."""
    result = build_book.build()
    assert result.returncode == 0, result.stdout
    return build_book.PAGES


@pytest.fixture(scope="module")
def address(built):
    """Where the built book is served."""
    with browser.serve(built) as url:
        yield url


@pytest.fixture(scope="module")
def page(chromium, address, request):
    """A page as it is shown. What it complains about stays with it.

    Its tests run one after the other, so that it is loaded once, and then it is closed.
    """
    name, theme, size = request.param
    with opened(chromium, address, name, theme, size) as page:
        yield page


@contextmanager
def opened(chromium, address, name, theme="light", size="desktop"):
    """Opens a page of the book in one theme and size."""
    context = chromium.new_context(viewport=browser.DESKTOP if size == "desktop" else browser.PHONE)
    refused, complaints, sizes = browser.block_network(context, address), [], {}
    context.on("console", lambda m: m.type == "error" and complaints.append(m.text))
    context.on("weberror", lambda e: complaints.append(str(e.error)))
    length = "content-length"
    context.on("response", lambda r: sizes.update({r.url: int(r.headers.get(length, 0))}))
    page = browser.open_page(context, f"{address}/{name}.html", theme)
    page.name, page.theme, page.size = name, theme, size
    page.refused, page.complaints, page.sizes = refused, complaints, dict(sizes)
    page.evaluate(browser.LOAD_ALL)
    try:
        yield page
    finally:
        context.close()


def shown(*names, themes=("light",), sizes=("desktop",)):
    """Runs a test on some pages, all if none is named, in each of the themes and sizes."""
    views = list(product(names or PAGES, themes, sizes))
    return pytest.mark.parametrize("page", views, indirect=True, ids="-".join)


def test_book_builds_without_a_warning(built):
    assert (built / "index.html").exists()


@shown()
def test_page_is_whole_without_a_network(page):
    assert page.refused == []
    assert page.complaints == []
    assert page.title()
    broken = "[...document.images].filter(i => !i.naturalWidth).map(i => i.src)"
    assert page.evaluate(broken) == []


@shown()
def test_every_picture_has_words(page):
    # A picture without alt text gets a file name, which for an output is a hash.
    silent = "[...document.images].filter(i => !/\\S+\\s+\\S/.test(i.alt)).map(i => i.src)"
    assert page.evaluate(silent) == []


@shown()
def test_formulas_are_typeset(page):
    raw = ".filter(e => !e.querySelector('mjx-container')).map(e => e.textContent)"
    assert page.evaluate(f"[...document.querySelectorAll('.math')]{raw}") == []
    assert page.evaluate("[...document.querySelectorAll('mjx-merror')].map(e => e.title)") == []


@shown(sizes=("phone",))
def test_page_fits_a_phone(page):
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= browser.PHONE["width"]


@shown(sizes=("phone",))
def test_pictures_keep_their_proportions_on_a_phone(page):
    stretch = "i.clientWidth / i.clientHeight / (i.naturalWidth / i.naturalHeight)"
    found = page.evaluate(f"[...document.querySelectorAll('.cell_output img')].map(i => {stretch})")
    assert found == pytest.approx([1] * len(found), rel=0.03)


CODE = {"exclude": [["pre"], ["mjx-container"]]}  # thousands of words, each an element


def barriers(page, context=CODE, **options) -> dict[str, tuple[int, str]]:
    """What shuts out readers with screen readers, keyboards or weak eyes, as far as axe knows."""
    page.evaluate("scrollTo(0, 9000); scrollTo(0, 8000)")  # the button that leads back is shown
    violations = AXE.run(page, context=context, options=options).response["violations"]
    serious = [v for v in violations if v["impact"] in ("serious", "critical")]
    return {v["id"]: (len(v["nodes"]), v["nodes"][0]["html"]) for v in serious}


@shown()
def test_page_has_no_barrier(page):
    rules = {"label-content-name-mismatch": True, "color-contrast": page.name in KINDS}
    assert barriers(page, rules={name: {"enabled": on} for name, on in rules.items()}) == {}


@shown(*KINDS, themes=("dark",))
def test_the_words_of_a_dark_page_stand_out(page):
    assert barriers(page, runOnly=["color-contrast", "link-in-text-block"]) == {}


@shown(*KINDS, sizes=("phone",))
def test_page_has_no_barrier_on_a_phone(page):
    assert barriers(page, rules={"color-contrast": {"enabled": False}}) == {}


@shown(sizes=("phone",))
def test_whatever_scrolls_can_be_scrolled_by_keyboard(page):
    assert barriers(page, None, runOnly=["scrollable-region-focusable"]) == {}


# The lowest contrast between a word of the code and what is behind it, as WCAG 2 defines it.
CONTRAST = """
() => {
    const light = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(c => c / 255)
        .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0.05);
    const ratio = (a, b) => Math.max(light(a) / light(b), light(b) / light(a));
    const behind = e => {
        const colour = getComputedStyle(e).backgroundColor;
        return /, 0\\)$/.test(colour) ? behind(e.parentElement) : colour;
    };
    return Math.min(21, ...[...document.querySelectorAll('.bd-article pre, .bd-article pre *')]
        .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
        .map(e => ratio(getComputedStyle(e).color, behind(e))));
}
"""


@shown(*KINDS, themes=THEMES)
def test_code_stands_out(page):
    assert page.evaluate(CONTRAST) >= 4.5


@shown("book/12_the_backbone", "book/07_sliding_windows", themes=THEMES, sizes=SIZES)
def test_a_figure_is_shown_in_the_version_that_fits(page):
    files = page.evaluate(f"{VERSIONS}.map(i => new URL(i.currentSrc).pathname.split('/').pop())")
    dark, narrow = page.theme == "dark", page.size == "phone"
    ending = ("-dark" if dark else "") + ("-narrow" if narrow else "")
    live = {figure.removeprefix("fig-") for figure in page.evaluate(LIVE)}
    keys = [key for key in FIGURES[page.name] if key not in live]
    if ending:
        assert files == [f"{key}{ending}.png" for key in keys]
    else:
        assert len(files) == len(keys)
        assert not any("narrow" in file or "dark" in file for file in files)


@pytest.mark.parametrize("name", WITH_FIGURES)
def test_every_figure_comes_in_all_versions(built, name):
    html = (built / f"{name}.html").read_text()
    named = set(re.findall(r'srcset="[^"]*/([^/"?]+)\.png', html))
    expected = {
        f"{key}{version}"
        for key in FIGURES[name]
        for version in ("-dark", "-narrow", "-dark-narrow")
    }
    assert expected <= named


@shown(*WITH_FIGURES, sizes=SIZES)
def test_the_text_of_figures_is_large_enough(page):
    """A pixel of a page is 3/4 of a point; figures have two for each one of the page."""
    files = page.evaluate(f"{VERSIONS}.map(i => [i.currentSrc, i.clientWidth])")
    small = {}
    for address, width in files:
        with urlopen(address) as response:
            picture = Image.open(BytesIO(response.read()))
        points = float(picture.info[redraw.SMALLEST]) * width / (picture.width / 2)
        if round(points, 1) < 9:  # a picture is scaled to whole pixels
            small[urlsplit(address).path] = points
    assert small == {}


@shown("book/12_the_backbone")
def test_figures_follow_the_switch_of_the_page(page):
    switch = "document.documentElement.dataset.theme = "
    shown = f"{VERSIONS}[0].currentSrc"
    page.evaluate(switch + "'dark'")
    page.wait_for_function(f"{shown}.endsWith('-dark.png?v=' + {shown}.split('=')[1])")
    page.evaluate(switch + "'light'")
    page.wait_for_function(f"!{shown}.includes('-dark')")


def test_a_reader_who_wants_dark_pages_gets_dark_figures_without_a_script(chromium, address):
    context = chromium.new_context(color_scheme="dark")
    context.route("**/figures.js*", lambda route: route.abort())
    page = context.new_page()
    page.goto(f"{address}/book/12_the_backbone.html")
    first = page.locator("picture img").first
    first.scroll_into_view_if_needed()
    assert "(prefers-color-scheme: dark)" in page.locator("picture source").last.get_attribute(
        "media"
    )
    context.close()


@shown("book/12_the_backbone", themes=("dark",))
def test_a_figure_opens_large_and_closes(page):
    figure = page.locator("figure:has(picture)").first
    dialog = page.locator("#enlarged")
    button = figure.locator("button.enlarge")
    assert re.fullmatch(r"Enlarge Figure 12\.\d+", button.get_attribute("aria-label"))
    for opening in (lambda: figure.locator("img").click(), lambda: page.keyboard.press("Enter")):
        button.focus()
        opening()
        assert dialog.is_visible()
        assert dialog.get_attribute("aria-label").startswith("Figure 12.")
        large = dialog.locator("img")
        page.wait_for_function(
            "document.querySelector('#enlarged img').currentSrc.includes('dark')"
        )
        assert large.get_attribute("alt") == figure.locator("img").get_attribute("alt")
        assert large.bounding_box()["width"] > 1.2 * figure.locator("img").bounding_box()["width"]
        page.keyboard.press("Escape")
        assert not dialog.is_visible()
    assert page.evaluate("document.activeElement.className") == "enlarge"
    figure.locator("img").click()
    dialog.get_by_role("button", name="Close").click()
    assert not dialog.is_visible()


@shown()
def test_a_page_is_light(page):
    heaviest = sorted(page.sizes.items(), key=lambda entry: -entry[1])[:5]
    assert sum(page.sizes.values()) <= LIGHT, heaviest


@shown("book/07_sliding_windows", sizes=SIZES)
def test_the_mask_is_a_grid_of_equal_squares(page):
    boxes = page.evaluate(
        "[...document.querySelectorAll('.mask-explorer [role=gridcell]')]"
        ".map(cell => cell.getBoundingClientRect()).map(box => [box.width, box.height])"
    )
    assert len(boxes) == 8**2
    assert max(map(max, boxes)) - min(map(min, boxes)) < 2
    assert min(map(min, boxes)) >= 24  # large enough for a finger


@pytest.mark.parametrize(("theme", "size"), [("light", "desktop"), ("dark", "phone")])
def test_the_model_runs_in_the_page(chromium, address, theme, size):
    with opened(chromium, address, "book/intro", theme, size) as page:
        before = page.locator(".bars").inner_text()
        button = page.get_by_role("button", name="Load the model")
        assert f"{sum(model_files(address).values()) / 1e6:.1f} MB" in button.inner_text()
        button.click()
        button.wait_for(state="hidden")
        page.get_by_role("button", name="Write 20 tokens").click()
        page.get_by_role("button", name="Write 20 tokens").wait_for()
        page.get_by_text("prefix", exact=False).last.wait_for()
        assert before
        assert page.evaluate(TOO_WIDE) == []
        assert page.refused == []
        assert page.complaints == []
        assert barriers(page, rules={"label-content-name-mismatch": {"enabled": True}}) == {}


def model_files(address):
    """The names and sizes of the model's files."""
    with urlopen(f"{address}/_static/model/index.json") as response:
        return json.load(response)["files"]


@shown("book/07_sliding_windows")
def test_icons_are_drawn(page):
    glyphs = """
    [...document.querySelectorAll('i[class*=fa-], span[class*=fa-]')]
        .filter(e => e.checkVisibility())
        .map(e => [e.className, getComputedStyle(e, '::before').content, e.clientWidth])
    """
    found = page.evaluate(glyphs)
    assert found
    assert all(content not in ("none", "normal") and width > 4 for _, content, width in found), (
        found
    )


@shown()
def test_links_within_the_book_lead_somewhere(page, address, built):
    dead = []
    for link in page.evaluate("[...document.links].map(a => a.href)"):
        parts = urlsplit(link)
        if not link.startswith(address):
            continue
        target = built / unquote(parts.path).lstrip("/")
        anchor = unquote(parts.fragment)
        if not target.is_file() or (anchor and f'id="{anchor}"' not in target.read_text()):
            dead.append(link)
    assert dead == []


def test_everything_that_text_may_link_to_is_there(built):
    ids = {}
    for page in {target.page.rpartition(".")[0] for target in TARGETS.values()}:
        ids[page] = set(re.findall(r'\bid="([^"]+)"', (built / f"{page}.html").read_text()))
    missing = {
        key
        for key, target in TARGETS.items()
        if target.anchor and target.anchor not in ids[target.page.rpartition(".")[0]]
    }
    assert missing == set()


@shown()
def test_the_book_never_leaves_itself(page):
    links = page.evaluate(
        "[...document.querySelectorAll('.bd-article a')].map(a => [a.textContent.trim(), a.href])"
    )
    own = (f"{house.REPOSITORY}/blob", house.colab_link("book"), targets.PUBLISHED or "none")
    outside = {text for text, link in links if link.startswith(own)}
    assert outside <= {"Open in Colab", "source", "tests"}


@shown()
def test_nothing_of_the_notation_is_seen(page):
    notation = r"<!-- =?\w+:.*|@title.*|\{[a-z]+\}`.*|\]\((?:cite|fig|chapter|term|api):.*"
    assert re.findall(notation, page.inner_text(".bd-article")) == []


@shown()
def test_every_picture_of_a_cell_has_its_caption_once(page):
    pictures = "[...document.querySelectorAll('.cell_output :is(img:not(.only-dark), .explorer)')]"
    captions = page.evaluate(
        f"{pictures}.map(i => i.closest('figure')?.querySelector('figcaption').innerText ?? '')"
    )
    numbers = [re.match(r"Figure (\d+\.\d+)\. \S", caption) for caption in captions]
    assert all(numbers)
    expected = [
        t.text for t in TARGETS.values() if t.page == f"{page.name}.ipynb" and "fig-" in t.anchor
    ]
    assert [f"Figure {match[1]}" for match in numbers] == expected
    for caption in captions:
        assert page.inner_text(".bd-article").count(caption.strip("#\n ")) == 1


@shown()
def test_folds_have_labels_and_start_closed(page):
    folds = "[...document.querySelectorAll('details.fold')]"
    labels = page.evaluate(f"{folds}.map(d => d.firstChild.textContent)")
    assert all(label.strip() for label in labels)
    assert not page.evaluate(f"{folds}.some(d => d.open)")
    if page.name == "book/intro":
        assert labels == []
    elif (house.ROOT / f"{page.name}.ipynb").exists():
        assert labels[0].startswith("Set-up for Colab")
        assert not page.evaluate(f"{folds}.some(d => d.querySelector('.cell_output'))")


@pytest.fixture(scope="module")
def heights():
    """The heights of a page's text and of its code in view, by page; filled as pages are seen."""
    return {}


@shown()
def test_code_in_view_takes_no_more_than_its_share(page, heights):
    whole, code = heights[page.name] = page.evaluate(HEIGHTS)
    if page.name != "book/mistral_in_one_file":  # which is a program
        assert code / whole <= MOST_CODE["a page"]


def test_code_in_view_of_the_whole_book(chromium, address, heights):
    for name in {*PAGES} - {*heights}:  # the test was run alone
        with opened(chromium, address, name) as page:
            heights[name] = page.evaluate(HEIGHTS)
    del heights["book/mistral_in_one_file"]
    with_code = [(whole, code) for whole, code in heights.values() if code]
    share = sum(code for _, code in with_code) / sum(whole for whole, _ in with_code)
    assert share < MOST_CODE["the book"]


@shown("book/07_sliding_windows")
def test_a_link_says_where_it_leads_before_it_is_followed(page):
    preview = page.locator("#preview")
    for kind, start in (("cite", "transformers. Issue 29623"), ("term", "A whole number")):
        link = page.locator(f"a.{kind}").first
        link.focus()
        assert preview.is_visible()
        assert preview.inner_text().startswith(start)
        assert link.get_attribute("aria-describedby") == "preview"
        page.keyboard.press("Escape")
        assert not preview.is_visible()
    link.blur()
    link.hover()
    assert preview.is_visible()
    preview.hover()
    page.wait_for_timeout(300)
    assert preview.is_visible()
    page.mouse.move(0, 0)
    preview.wait_for(state="hidden")


@shown("book/18_quantization")
def test_the_contents_follow_the_reader(page):
    marked = "document.querySelector('.page-toc a.active')?.getAttribute('href')"
    titles = page.evaluate(
        "[...document.querySelectorAll('.bd-article h2')].map(h => h.parentNode.id)"
    )
    jump = "document.getElementById(id).getBoundingClientRect().top + rows"
    for title in (titles[4], titles[1], titles[-1]):
        for rows in (-50, 150):  # right below the screen's edge, and inside the section
            page.evaluate(f"([id, rows]) => scrollBy(0, {jump})", [title, rows])
            page.wait_for_function(f"{marked} === '#{title}'", timeout=10_000)
    assert page.evaluate("document.querySelectorAll('.page-toc a.active').length") == 1


@shown("book/04_one_head", "book/18_quantization", "book/glossary")
def test_the_sidebar_shows_where_the_page_is(page):
    current = page.evaluate(
        "document.querySelector('.bd-sidebar-primary a.current').getBoundingClientRect().toJSON()"
    )
    assert current["top"] >= 0
    assert current["bottom"] <= browser.DESKTOP["height"]


SIZES_OF_TYPE = """
() => {
    const size = e => parseFloat(getComputedStyle(e).fontSize);
    const sizes = what => [...document.querySelectorAll(`.bd-article ${what}`)].map(size);
    const line = e => size(e) / size(e.parentElement.closest('p, li, td, div'));
    const formulas = [...document.querySelectorAll('.bd-article p mjx-container')].map(line);
    return [sizes('pre'), sizes('h2'), formulas].map(s => [Math.min(...s), Math.max(...s)]);
}
"""


@shown("book/04_one_head", "book/18_quantization", sizes=SIZES)
def test_type_has_its_size(page):
    code, second, formulas = page.evaluate(SIZES_OF_TYPE)
    assert code[0] >= 14
    assert second == [26, 26]
    assert formulas[0] >= 1
    assert formulas[1] <= 1.1


@shown(*WITH_FIGURES)
def test_a_line_of_code_fits_beside_the_sidebars(page):
    """A notebook's lines have at most 88 columns."""
    cut = """[...document.querySelectorAll('.cell_input pre')].filter(
        e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)"""
    assert page.evaluate(cut) == []


@shown("book/bibliography")
def test_the_bibliography_leads_back(page):
    link = "#jiang2023mistral ~ a.cited[href*='07_sliding']"
    assert page.get_attribute(link, "href") == "07_sliding_windows.html#cite-jiang2023mistral"


@shown()
def test_the_head_describes_the_page(page, address):
    head = page.locator("head")
    assert head.locator("meta[name=viewport]").count() == 1
    assert len(head.locator("meta[name=description]").get_attribute("content")) > 40
    title = page.title()
    assert title.count("Building Mistral") == 1
    assert title == "Building Mistral" or title.endswith(" – Building Mistral")
    published = head.locator("link[rel=canonical], meta[property='og:image']").count()
    assert published == (2 if targets.PUBLISHED else 0)


@shown()
def test_exercises_are_boxes(page):
    boxes = """[...document.querySelectorAll('.exercise-box')].map(box => [
        box.id,
        box.querySelectorAll('.cell_input').length > 0,
        [...box.querySelectorAll('summary')].map(e => e.textContent).filter(
            text => /^(Hint|Solution$)/.test(text)).map(text => text[0]).join(''),
    ])"""
    expected = [
        [target.anchor, True, "HHHS"]
        for key, target in TARGETS.items()
        if key.startswith("exercise:") and target.page == f"{page.name}.ipynb"
    ]
    assert page.evaluate(boxes) == expected


FIRST_RESULTS = "[...document.querySelectorAll('#search-results li > a')].map(a => a.href)"


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("GQA", "book/06_many_heads.html#sharing-keys"),
        ("rolling buffer", "book/15_rolling_cache.html"),
        ("flash attention", "book/08_reach_and_banding.html"),
        ("RoPE", "book/05_rotary_positions.html"),
        ("can_see", "book/"),
    ],
)
def test_search_finds_chapters_first(chromium, address, query, first):
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{address}/search.html?q={query}")
    page.wait_for_selector("#search-results li", timeout=20_000)
    page.wait_for_function("document.querySelector('#search-results p').textContent.length > 20")
    found = [link.removeprefix(f"{address}/") for link in page.evaluate(FIRST_RESULTS)]
    context.close()
    assert found[0].startswith(first)
    in_reference = [link.startswith("book/api") for link in found]
    assert in_reference == sorted(in_reference)


def test_search_ignores_folded_code(built):
    index = (built / "searchindex.js").read_text()
    assert '"find_spec"' not in index  # from the cell that sets Colab up
    assert '"grouped-query attention"' in index


def test_classes_have_their_own_arguments(built):
    page = (built / "book/api/layers.attention.html").read_text()
    text = re.sub(r"<[^>]+>", "", page)
    assert "*args, **kwargs" not in text
    assert "MistralAttention(config" in text


def test_a_broken_address_leads_back(chromium, address, built):
    context = chromium.new_context()
    context.route("**/no/such/page.html", lambda r: r.fulfill(path=built / "404.html"))
    page = context.new_page()
    page.goto(f"{address}/no/such/page.html")
    page.get_by_role("link", name="Begin at the introduction").click()
    assert page.url == f"{address}/book/intro.html"
    context.close()


@shown("book/12_the_backbone")
def test_paper_shows_what_explains(page):
    page.emulate_media(media="print")
    assert not page.locator("details.fold, .enlarge, #pst-back-to-top").filter(visible=True).count()
    closed = page.locator(".bd-article details:not([open], .fold, .exercise-box *)").count()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert not page.locator(".bd-article details:not([open], .fold, .exercise-box *)").count()
    assert page.locator(".exercise-box details:not([open])").count()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator(".bd-article details:not([open], .fold, .exercise-box *)").count() == closed
    page.emulate_media(media="screen")
