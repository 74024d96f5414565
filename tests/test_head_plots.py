"""Figures of heads: what is drawn is what was given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mistral_lib.teaching import plots
from mistral_lib.teaching.head_plots import draw_bars, draw_grid, draw_table, draw_turn, draw_wiring
from mistral_lib.teaching.plots import FUTURE


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_the_area_of_a_square_is_its_value_and_the_largest_fills_its_cell(ax):
    draw_grid(ax, np.array([[4.0, 1.0], [2.0, 8.0]]))
    areas = [square.get_width() * square.get_height() for square in ax.patches]
    assert np.allclose(np.array(areas) / areas[3], [0.5, 0.125, 0.25, 1])
    assert 0.8 < areas[3] < 1


def test_negative_squares_are_hollow(ax):
    draw_grid(ax, np.array([[1.0, -1.0], [1.0, 1.0]]))
    colours = [square.get_facecolor() for square in ax.patches]
    assert colours[1] == (1, 1, 1, 1)
    assert len(set(colours)) == 2


def test_the_future_is_neither_drawn_nor_counted_as_largest(ax):
    draw_grid(ax, np.array([[1.0, 100.0], [1.0, 1.0]]), mask=np.tri(2) > 0)
    assert len(ax.patches) == 3
    assert ax.patches[0].get_width() > 0.9
    assert [(text.get_text(), text.get_position()) for text in ax.texts] == [(FUTURE, (1, 0))]


def test_the_row_that_is_followed_is_framed_and_its_token_bold(ax):
    draw_grid(ax, np.ones((3, 3)), tokens=["a", "\n", "c"], row=1)
    assert ax.patches[-1].get_xy() == (-0.5, 0.5)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "⏎", "c"]
    assert [label.get_weight() for label in ax.get_yticklabels()] == ["normal", "bold", "normal"]


def test_bars_are_as_high_as_their_values_and_the_marked_are_hatched(ax):
    draw_bars(ax, "abc", [1, 3, 2], marked=[2])
    assert [bar.get_height() for bar in ax.patches] == [1, 3, 2]
    assert [bar.get_hatch() for bar in ax.patches] == [None, None, "////"]
    assert ax.get_xticklabels()[2].get_weight() == "bold"


def test_a_bar_in_the_future_is_a_symbol(ax):
    draw_bars(ax, "abc", [1, 2, 50], mask=[True, True, False], write=".0f")
    assert len(ax.patches) == 2
    assert [text.get_text() for text in ax.texts] == ["1", "2", FUTURE]
    assert ax.get_ylim()[1] < 5


def test_cells_of_a_table_are_filled_as_high_as_their_numbers(ax):
    ring = np.array([[False, True]])
    labels = {"rows": ["a"], "columns": ["x", "y"], "title": "Two"}
    draw_table(ax, np.array([[0.5, 1.0]]), write=".0%", ring=ring, **labels)
    fills = [patch for patch in ax.patches if patch.get_fill()]
    assert fills[0].get_height() / fills[1].get_height() == pytest.approx(0.5)
    assert len(ax.patches) == 3
    assert ax.get_title(loc="left") or ax.get_title() == "Two"


def test_arrows_point_where_they_were_turned_and_the_angle_is_written(ax):
    draw_turn(ax, 5.0, 2.0)
    tips = [arrow.xy for arrow in ax.texts if hasattr(arrow, "arrow_patch")]
    assert np.allclose(tips, [[np.cos(5), np.sin(5)], [np.cos(2), np.sin(2)]])
    assert "172°" in [text.get_text() for text in ax.texts]


@pytest.mark.slow
def test_equal_distances_have_equal_angles(ax):
    for query, key in ((5, 2), (12, 9)):
        draw_turn(ax, 0.1 * query, 0.1 * key)
    assert [text.get_text() for text in ax.texts].count("17°") == 2


@pytest.mark.parametrize(
    ("key_heads", "ends"), [(4, [0, 1, 2, 3]), (2, [1, 1, 2, 2]), (1, [1.5] * 4)]
)
def test_neighbouring_queries_share_a_key_box(ax, key_heads, ends):
    draw_wiring(ax, 4, key_heads, size=768 * key_heads, title="Shared")
    assert [line.get_xdata()[1] for line in ax.lines] == ends
    assert sum(box.get_width() for box in ax.patches) == key_heads


def test_on_a_phone_the_tallest_bars_keep_their_tokens(ax):
    heights = np.arange(48.0)
    heights[7] = 100
    with plots.styled(dark=False, narrow=True):
        draw_bars(ax, [f"t{place}" for place in range(48)], heights)
    labels = [label.get_text() for label in ax.get_xticklabels()]
    named = [place for place, label in enumerate(labels) if label]
    assert {7, 47} <= set(named)
    assert 16 <= len(named) <= 24
    assert min(np.diff(named)) >= 2
    assert len(ax.patches) == 48
