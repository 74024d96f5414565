"""The boxes of a text and the steps of a merge draw what happened, and no text is small."""

from itertools import pairwise

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_rgba

from mistral_lib.teaching import layout, plots
from mistral_lib.teaching.merge_plots import merge_steps, text_boxes

HISTORY = [(1, "re", 6), (1, "ref", 373), (2, "ix", 572), (1, "refix", 1366)]
RANKS = {"pr": 801, "re": 6, "ef": 111, "ix": 572, "pre": 761, "ref": 373, "refix": 1366}
PIECES, IDS, SIZES = ["Return", "▁a", "\n", "▁text"], [416, 264, 1955, 964], [6, 2, 1, 5]


@pytest.fixture
def steps():
    figure, ax = plt.subplots(figsize=(5.6, 4.2))
    merge_steps(ax, "prefix", HISTORY, RANKS, title="The lowest rank goes first")
    yield ax
    plt.close(figure)


def texts_at(ax, step):
    """What is written in a row, from left to right, and where: tokens, then ranks."""
    texts = sorted(ax.texts, key=lambda text: text.get_position())
    tokens = [text.get_text() for text in texts if text.get_position()[1] == step]
    ranks = [text for text in texts if text.get_position()[1] == step + 0.4]
    return tokens, ranks


def test_each_row_has_the_tokens_of_its_step(steps):
    rows = [texts_at(steps, step)[0] for step in range(5)]
    assert rows[:3] == [[*"prefix"], ["p", "re", "f", "i", "x"], ["p", "ref", "i", "x"]]
    assert rows[3:] == [["p", "ref", "ix"], ["p", "refix"]]
    names = [label.get_text() for label in steps.get_yticklabels()]
    assert names == ["letters", "re", "ref", "ix", "refix"]
    assert "The lowest rank goes first" in (steps.get_title(), steps.get_title(loc="left"))


def test_every_pair_that_makes_a_piece_has_its_rank_and_the_lowest_is_framed(steps):
    for step, (index, _, rank) in enumerate(HISTORY):
        tokens, written = texts_at(steps, step)
        pairs = [a + b for a, b in pairwise(tokens) if a + b in RANKS]
        assert [text.get_text() for text in written] == [f"{RANKS[pair]:,}" for pair in pairs]
        (bold,) = [text for text in written if text.get_weight() == "bold"]
        assert bold.get_text() == f"{rank:,}" == f"{min(RANKS[pair] for pair in pairs):,}"
        assert bold.get_position()[0] == sum(map(len, tokens[: index + 1]))
        styles = [text.get_bbox_patch().get_linestyle() for text in written]
        assert sorted(styles) == ["-"] + ["--"] * (len(written) - 1)
    assert not texts_at(steps, 4)[1]


def test_the_tokens_left_over_are_filled_and_bold(steps):
    filled = [p for p in steps.patches if p.get_facecolor() == to_rgba(plots.BLUE)]
    assert len(filled) == 2
    bold = [t.get_text() for t in steps.texts if t.get_weight() == "bold" and t.get_size() == 12]
    assert sorted(bold) == ["p", "refix"]


@pytest.mark.parametrize("narrow", [False, True])
def test_a_text_has_a_box_an_id_and_a_size_for_each_token(narrow):
    with plots.styled(dark=False, narrow=narrow):
        figure, ax = plt.subplots()
        text_boxes(ax, PIECES * 6, IDS * 6, SIZES * 6, title="Four")
        plots.picture(figure)
        written = [text.get_text() for text in ax.texts]
        assert len(ax.patches) == 24
        assert written.count("␣text") == written.count("⏎") == written.count("964") == 6
        assert written.count("id") == written.count("bytes") == (5 if narrow else 3)
        assert not layout.overlaps(figure)
        assert min(text.get_size() for text in ax.texts) >= 9
    plt.close(figure)


def test_boxes_of_a_line_do_not_touch():
    figure, ax = plt.subplots()
    text_boxes(ax, ["a", "▁preferred", "b"], [1, 2, 3], [1, 10, 1])
    boxes = sorted((p.get_x(), p.get_x() + p.get_width()) for p in ax.patches)
    assert all(end < start for (_, end), (start, _) in pairwise(boxes))
    plt.close(figure)
