"""Plots: the symbols say what the mask says, and the picture shows the cells it was given."""

import ast
from io import BytesIO
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from mistral_lib.masks import attention_mask
from mistral_lib.teaching import plots


@pytest.fixture(autouse=True)
def _plain_figures():
    with mpl.rc_context():
        mpl.use("agg")
        yield
        plt.close("all")


def cells_of(ax):
    """The text of every cell, in rows."""
    placed = {(t.get_position()[1] - 0.5, t.get_position()[0] - 0.5): t for t in ax.texts}
    return {place: text.get_text() for place, text in placed.items()}


def test_style_sets_readable_text_on_an_opaque_page():
    plots.style()
    assert plt.rcParams["font.size"] >= 9
    assert plt.rcParams["figure.facecolor"] == plots.PAPER


COLOURS = ("BLUE", "ORANGE", "GREEN", "RED", "PURPLE", "SKY")
UNDER_TEXT = ("SKY", "TINT", "SAND", "PALE", "PAPER")
# How someone without one kind of cone sees linear RGB (Machado, Oliveira and Fernandes, 2009).
EYES = {
    "all cones": np.eye(3),
    "no long": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "no medium": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "no short": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
TO_XYZ = np.array([[0.412, 0.358, 0.181], [0.213, 0.715, 0.072], [0.019, 0.119, 0.951]])
THEMES = {"light": plots.LIGHT, "dark": plots.DARK}


def linear(colour):
    shares = np.array(mpl.colors.to_rgb(colour))
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    darker, lighter = sorted(linear(colour) @ TO_XYZ[1] for colour in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


def lab(colour, eyes):
    """A colour in CIELAB, where a step of 2.3 can just be seen."""
    xyz = TO_XYZ @ np.clip(EYES[eyes] @ linear(colour), 0, 1) / TO_XYZ.sum(axis=1)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("eyes", EYES)
def test_any_two_colours_can_be_told_apart_by_everyone(theme, eyes):
    seen = {name: lab(THEMES[theme][name], eyes) for name in COLOURS}
    for one, other in combinations(COLOURS, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 10, (one, other)


@pytest.mark.parametrize("theme", THEMES)
def test_text_can_be_read_on_what_it_lies_on(theme):
    colours = THEMES[theme]
    for name in ("INK", "GREY", "BLUE", "GREEN", "RED", "PURPLE"):
        assert contrast(colours[name], colours["PAPER"]) >= 4.5, name
    for name in UNDER_TEXT:
        assert contrast(colours["INK"], colours[name]) >= 4.5, name
    assert contrast(colours["PAPER"], colours["BLUE"]) >= 4.5
    assert contrast(colours["GREY"], colours["PALE"]) >= 4.5


def test_a_style_is_for_a_while():
    plots.style()
    with plots.styled(dark=True, narrow=True):
        assert plots.PAPER == plots.DARK["PAPER"] == plt.rcParams["figure.facecolor"]
        assert plots.narrow()
        with pytest.raises(KeyError), plots.styled(dark=False, narrow=False):
            raise KeyError
        assert plots.DARK["PAPER"] == plots.PAPER
    assert plots.PAPER == plots.LIGHT["PAPER"] == plt.rcParams["figure.facecolor"]
    assert not plots.narrow()


def test_nobody_keeps_a_colour_of_the_style_in_which_a_module_was_imported():
    for path in Path(plots.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == plots.__name__:
                assert not {name.name for name in node.names} & set(plots.LIGHT), path.name


@pytest.mark.parametrize("theme", THEMES)
def test_a_mask_has_the_colours_of_its_style(theme):
    with plots.styled(dark=theme == "dark", narrow=False):
        figure, ax = plt.subplots(figsize=(2, 2))
        plots.draw_mask(ax, np.tri(3, dtype=bool))
        image = Image.open(BytesIO(plots.picture(figure)[0])).convert("RGB")
    counted = image.getcolors(1 << 16)
    common = {"#{:02X}{:02X}{:02X}".format(*rgb) for _, rgb in sorted(counted)[-3:]}
    assert common == {THEMES[theme][name] for name in ("BLUE", "PALE", "PAPER")}


def test_a_picture_says_how_small_its_text_is_and_keeps_its_figure():
    plots.style()
    figure = plt.figure(figsize=(2, 1))
    figure.text(0.5, 0.5, "small", size=7.5)
    image = Image.open(BytesIO(plots.picture(figure)[0]))
    assert image.info["smallest text"] == "7.5"
    assert figure.get_dpi() == plots.PIXELS_PER_INCH


@pytest.mark.parametrize("narrow", [False, True])
def test_one_axes_becomes_two(narrow):
    with plots.styled(dark=False, narrow=narrow):
        figure, ax = plt.subplots(figsize=(3, 2))
        above, below = plots.split(ax)
        figure.draw_without_rendering()
        assert above.bbox.y0 > below.bbox.y1
        assert figure.get_figheight() == 4


def test_a_picture_is_sharp_small_and_says_its_size():
    plots.style()
    figure, ax = plt.subplots(figsize=(4, 4))
    plots.draw_mask(ax, np.tri(8, dtype=bool))
    data, size = plots.picture(figure)
    image = Image.open(BytesIO(data))
    assert (image.width // 2, image.height // 2) == (size["width"], size["height"])
    assert 300 < size["width"] <= 4 * plots.PIXELS_PER_INCH
    plain = BytesIO()
    figure.savefig(plain, dpi=2 * plots.PIXELS_PER_INCH, bbox_inches="tight")
    assert len(data) < 0.6 * len(plain.getvalue())
    middle = image.convert("RGB").getpixel((image.width // 12, image.height // 12))
    assert "#{:02X}{:02X}{:02X}".format(*middle) in (plots.BLUE, plots.PAPER)


@pytest.mark.parametrize("window", [None, 1, 3])
def test_symbols_are_dots_exactly_where_the_mask_is_true(window):
    queries, keys = np.arange(3, 7), np.arange(7)
    real = np.array([True, False, True, True, True, False, True])
    symbols = plots.mask_symbols(queries, keys, window, real)
    mask = attention_mask(queries, keys, window, real)
    np.testing.assert_array_equal(symbols == plots.SEEN, mask)


def test_symbols_say_why_a_key_is_hidden():
    real = np.array([True, True, True, False])
    symbols = plots.mask_symbols(np.arange(4), np.arange(4), 2, real)
    assert "".join(symbols[0]) == plots.SEEN + 3 * plots.FUTURE
    assert "".join(symbols[3]) == 2 * plots.TOO_FAR + plots.SEEN + plots.PADDED


def test_draw_mask_shows_tokens_symbols_and_rings():
    mask = np.tri(3, dtype=bool)
    ring = np.zeros((3, 3), bool)
    ring[2, 0] = True
    _, ax = plt.subplots()
    plots.draw_mask(ax, mask, rows=["a", "b", "c"], columns=["a", "b", "long"], ring=ring)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "long"]
    assert [label.get_rotation() for label in ax.get_xticklabels()] == [0, 0, 90]
    shown = cells_of(ax)
    assert {place for place, text in shown.items() if text == plots.SEEN} == {
        (row, column) for row in range(3) for column in range(row + 1)
    }
    rings = {(patch.center[1] - 0.5, patch.center[0] - 0.5) for patch in ax.patches}
    assert rings == {(2, 0)}
    filled = ax.collections[0].get_array()
    np.testing.assert_array_equal(~np.ma.getmaskarray(filled), mask)


def test_the_first_query_is_the_top_row():
    _, ax = plt.subplots()
    plots.draw_mask(ax, np.tri(3, dtype=bool))
    assert ax.get_ylim() == (3, 0)


def test_the_key_explains_every_symbol():
    figure, _ = plt.subplots()
    plots.symbol_key(figure)
    text = figure.get_supxlabel()
    for symbol in (plots.SEEN, plots.FUTURE, plots.TOO_FAR, plots.PADDED):
        assert symbol in text
