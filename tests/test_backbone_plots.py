"""Figures of a whole model: every part and every number that was given is drawn."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import Rectangle

from mistral_lib.teaching import plots
from mistral_lib.teaching.backbone_plots import lens_grid
from mistral_lib.teaching.plots import ORANGE, style


@pytest.fixture
def ax():
    with mpl.rc_context():
        style()
        figure, ax = plt.subplots(figsize=(7, 4.6))
        yield ax
        plt.close(figure)


def texts(ax):
    return [text.get_text() for text in ax.texts]


RIGHT, ROWS = ["a", "\n", "c"], ["embedding", "block 0"]
LIKELIEST = [["x", "\n", "x"], ["a", "x", "c"]]
CHANCES = np.array([[0.1, 0.5, 0.0], [0.7, 0.2, 0.9]])


def test_the_likeliest_token_is_bold_where_it_is_right(ax):
    lens_grid(ax, RIGHT, ROWS, LIKELIEST, CHANCES)
    bold = [text for text in ax.texts if text.get_weight() == "bold"]
    assert [(text.get_text(), text.get_position()) for text in bold] == [
        ("⏎", (1.5, 0.72)),
        ("a", (0.5, 1.72)),
        ("c", (2.5, 1.72)),
    ]


def test_the_bar_is_as_long_as_the_right_tokens_probability(ax):
    lens_grid(ax, RIGHT, ROWS, LIKELIEST, CHANCES)
    orange = mpl.colors.to_rgba(ORANGE)
    bars = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_facecolor() == orange]
    assert np.allclose([bar.get_width() / 0.84 for bar in bars], CHANCES.ravel())
    assert [text for text in texts(ax) if "%" in text] == ["10%", "50%", "0%", "70%", "20%", "90%"]


def test_the_first_station_is_below_and_the_right_tokens_are_on_top(ax):
    lens_grid(ax, RIGHT, ROWS, LIKELIEST, CHANCES, title="Late")
    below, above = ax.get_ylim()
    assert below < above
    assert [label.get_text() for label in ax.get_yticklabels()] == ROWS
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "⏎", "c"]


def test_on_a_phone_the_second_half_stands_below_the_first(ax):
    right, rows = list("abcdefgh"), ["embedding", "block 0"]
    with plots.styled(dark=False, narrow=True):
        lens_grid(ax, right, rows, [right, right], np.full((2, 8), 0.5), title="Twice")
    first, second = ax.figure.axes
    assert [label.get_text() for label in first.get_xticklabels()] == list("abcd")
    assert [label.get_text() for label in second.get_xticklabels()] == list("efgh")
    assert first.get_title(loc="left") == "Twice"
    assert second.get_title(loc="left") == ""
