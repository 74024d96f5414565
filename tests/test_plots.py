"""Plots: the symbols say what the mask says, and the picture shows the cells it was given."""

from io import BytesIO

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


def test_a_picture_is_sharp_small_and_says_its_size():
    plots.style()
    figure, ax = plt.subplots(figsize=(4, 4))
    plots.draw_mask(ax, np.tri(8, dtype=bool))
    data, size = plots.picture(figure)
    image = Image.open(BytesIO(data))
    assert (image.width // 2, image.height // 2) == (size["width"], size["height"])
    assert 300 < size["width"] <= 4 * plots.PIXELS_PER_INCH + 40
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
