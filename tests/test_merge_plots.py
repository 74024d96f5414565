"""The merge tree draws what happened, and no text is small."""

import matplotlib.pyplot as plt
import pytest

from mistral_lib.teaching import plots
from mistral_lib.teaching.merge_plots import merge_tree
from mistral_lib.teaching.plots import BLUE, PALE

HISTORY = [(1, "re", 6), (1, "ref", 373), (2, "ix", 572), (1, "refix", 1366)]


@pytest.fixture
def drawn():
    figure, ax = plt.subplots()
    merge_tree(ax, "prefix", HISTORY, lost=[(2, 0, "pre 761")], title="The lowest rank goes first")
    yield {text.get_text(): text for text in ax.texts}, ax
    plt.close(figure)


def test_every_letter_and_merge_has_its_box(drawn):
    texts, ax = drawn
    assert {"p", "r", "e", "f", "i", "x", "re", "ref", "ix", "refix"} <= set(texts)
    assert {f"rank {rank:,}" for _, _, rank in HISTORY} <= set(texts)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["letters", "1", "2", "3", "4"]
    assert "The lowest rank goes first" in (ax.get_title(), ax.get_title(loc="left"))


def test_boxes_stand_between_their_parts_at_the_height_of_their_step(drawn):
    texts, _ = drawn
    assert texts["re"].get_position() == (1.5, 1)
    assert texts["ref"].get_position() == (2.25, 2)
    assert texts["ix"].get_position() == (4.5, 3)
    assert texts["refix"].get_position() == (3.375, 4)
    assert texts["pre 761"].get_position() == (0.75, 2)


def test_the_tokens_left_over_are_filled_and_bold(drawn):
    texts, _ = drawn
    for piece, left_over in (("p", True), ("refix", True), ("ref", False), ("x", False)):
        box = texts[piece].get_bbox_patch()
        expected = plt.matplotlib.colors.to_rgba(BLUE if left_over else PALE)
        assert box.get_facecolor() == expected, piece
        assert (texts[piece].get_weight() == "bold") is left_over


def test_a_lost_merge_is_dashed(drawn):
    _, ax = drawn
    styles = [line.get_linestyle() for line in ax.lines]
    assert styles.count("--") == 2
    assert styles.count("-") == 2 * len(HISTORY)


def test_text_is_at_least_nine_points(drawn):
    _, ax = drawn
    assert min(text.get_size() for text in ax.texts) >= 9


def test_on_a_phone_a_remark_takes_two_lines():
    with plots.styled(dark=False, narrow=True):
        figure, ax = plt.subplots()
        merge_tree(ax, "prefix", HISTORY, lost=[(2, 0, "pre, rank 761")])
    assert "pre,\nrank 761" in [text.get_text() for text in ax.texts]
    plt.close(figure)
