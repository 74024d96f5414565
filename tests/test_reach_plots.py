"""Figures of reach and tiles: what is drawn is what was given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mistral_lib.masks import attention_mask
from mistral_lib.teaching.reach_plots import draw_reach, draw_tiles


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def band(length, window):
    positions = np.arange(length)
    return attention_mask(positions, positions, window)


def test_each_layer_is_marked_one_window_further(ax):
    draw_reach(ax, window=8, layers=4, last=40)
    assert [line.get_xdata()[0] for line in ax.lines] == [7, 14, 21, 28]
    assert [line.get_linestyle() for line in ax.lines] == ["--", ":", ":", "--"]
    assert ax.get_xlim() == (0, 40)


def test_what_no_layer_reaches_is_hatched(ax):
    draw_reach(ax, window=8, layers=4, last=40)
    (beyond,) = ax.patches
    assert beyond.get_hatch()
    assert beyond.get_extents().transformed(ax.transData.inverted()).x0 == pytest.approx(28.5)
    assert "no path" in [text.get_text() for text in ax.texts]


def test_every_tile_is_framed_and_hatched_where_it_is(ax):
    draw_tiles(ax, band(6, 2), [(0, 3, 0, 3), (3, 6, 2, 6)], title="Two")
    assert [tile.get_xy() for tile in ax.patches] == [(0, 0), (2, 3)]
    assert [(t.get_width(), t.get_height()) for t in ax.patches] == [(3, 3), (4, 3)]
    assert all(tile.get_hatch() for tile in ax.patches)
    assert "Two" in (ax.get_title(), ax.get_title(loc="left"))


def test_filled_cells_are_those_that_are_seen(ax):
    mask = band(6, 2)
    draw_tiles(ax, mask, [(0, 6, 0, 6)])
    drawn = ax.collections[0].get_array()
    assert np.array_equal(~np.ma.getmaskarray(drawn).reshape(6, 6), mask)


@pytest.mark.parametrize(
    "tiles",
    [
        [(0, 3, 0, 3), (3, 6, 3, 6)],  # a seen cell is in none
        [(0, 6, 0, 6), (3, 6, 3, 6)],  # some cells are in two
    ],
)
def test_tiles_that_lose_or_repeat_a_cell_are_refused(ax, tiles):
    with pytest.raises(ValueError, match="each cell that is seen, and no cell twice"):
        draw_tiles(ax, band(6, 2), tiles)
