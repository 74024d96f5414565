"""Figures of choosing: bars beside what they were, and a tree whose lines do not cross."""

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_hex

from mistral_lib.teaching import plots
from mistral_lib.teaching.estimates import Estimate
from mistral_lib.teaching.plots import BLUE, RED
from mistral_lib.teaching.sampling_plots import (
    _heights,
    _percent,
    draw_choices,
    draw_rounds,
    draw_speed,
    draw_trade,
    draw_tree,
)

PATHS = {
    ("a",): 0.6,
    ("b",): 0.4,
    ("a", "c"): 0.24,
    ("a", "e"): 0.1,
    ("b", "d"): 0.36,
    ("b", "d", "\n"): 0.3,
}


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_bars_have_the_old_chances_as_outlines(ax):
    draw_choices(ax, ["\n", "b", "c"], [0.9, 0.001, 0.0], [0.5, 0.3, 0.2], title="Sharper")
    assert [bar.get_width() for bar in ax.patches] == [0.9, 0.001, 0, 0.5, 0.3, 0.2]
    assert [bar.get_fill() for bar in ax.patches] == [True] * 3 + [False] * 3
    assert [text.get_text() for text in ax.texts] == ["90%", "<1%", "×"]
    assert ax.get_yticklabels()[0].get_text() == "⏎"


def test_the_ends_of_a_tree_stand_below_each_other_in_order():
    heights = _heights(PATHS)
    ends = [("a", "c"), ("a", "e"), ("b", "d", "\n")]
    assert [heights[end] for end in ends] == [0, 1, 2]
    assert heights["a",] == 0.5
    assert heights["b",] == heights["b", "d"] == 2


def test_best_greedy_and_dropped_paths_look_different(ax):
    kept = [path for path in PATHS if path != ("a", "e")]
    draw_tree(ax, PATHS, kept, best=("b", "d", "\n"), greedy=("a", "c"), title="Two ways")
    looks = {t.get_text(): to_hex(t.get_bbox_patch().get_facecolor()) for t in ax.texts}
    assert looks["⏎ 30.0%"] == looks["b 40.0%"] == BLUE.lower()
    assert looks["a 60.0%"] != looks["e 10.0%"]
    lines = [(line.get_color(), line.get_linestyle()) for line in ax.lines]
    assert lines.count((RED, "--")) == 2
    assert lines.count((BLUE, "-")) == 3


def test_small_percentages_keep_two_digits():
    assert [_percent(p) for p in (0.596, 0.032, 0.0004, 0.00041)] == [
        "59.6%",
        "3.2%",
        "0.040%",
        "0.041%",
    ]


def test_rounds_tell_accepted_refused_and_own_tokens_apart(ax):
    rounds = [(["a", "b", "c"], 3, "d"), (["e", "\n", "g"], 1, "h")]
    draw_rounds(ax, rounds, title="Two rounds")
    assert [text.get_text() for text in ax.texts] == [*"abcd", "e", "⏎", "g", "h"]
    filled = [to_hex(p.get_facecolor()) == BLUE.lower() for p in ax.patches]
    assert filled == [True, True, True, False, True, False, False, False]
    dashed = [p.get_linestyle() == "--" for p in ax.patches]
    assert dashed == [False] * 5 + [True, False, False]


def test_on_a_phone_a_tree_is_an_outline(ax):
    with plots.styled(dark=False, narrow=True):
        draw_tree(ax, PATHS, list(PATHS), best=("b", "d", "\n"), greedy=("a", "c"))
    rows = sorted(ax.texts, key=lambda text: text.get_position()[1])
    assert [text.get_position()[1] for text in rows] == list(range(6))
    assert [text.get_text().split()[0] for text in rows] == ["a", "c", "e", "b", "d", "⏎"]
    assert [text.get_position()[0] for text in rows] == [1, 2, 2, 1, 2, 3]


def test_a_trade_has_a_line_for_each_sampler_and_a_cross_for_each_setting(ax):
    low, high = Estimate(0.3, 0.2, 0.4, 36), Estimate(0.8, 0.7, 0.85, 36)
    draw_trade(ax, {"top_k": [(low, high), (high, low)], "min_p": [(low, low)]}, level=0.6)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["top-k", "min-p"]
    joined = next(line for line in ax.lines if line.get_label() == "top-k")
    assert joined.get_xydata().tolist() == [[0.8, 0.3], [0.3, 0.8]]
    across, up = ax.lines[:2]
    assert across.get_xydata().tolist() == [[0.7, 0.3], [0.85, 0.3]]
    assert up.get_xydata().tolist() == [[0.8, 0.2], [0.8, 0.4]]
    assert "a person" in [text.get_text() for text in ax.texts]


def test_the_gain_of_a_draft_is_drawn_beside_none(ax):
    draw_speed(ax, [1, 10, 100], {"often": [3, 2, 0.5], "seldom": [1, 0.9, 0.4]}, title="Faster")
    assert [text.get_text() for text in ax.texts] == ["often", "seldom", "no gain"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "4", "16", "64"]
    assert ax.get_ylim()[1] > 3
