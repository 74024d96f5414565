"""mistral_lib/teaching/lora_plots.py: the product is drawn to scale."""

import matplotlib.pyplot as plt
import pytest

from mistral_lib.teaching import plots
from mistral_lib.teaching.lora_plots import draw_product


@pytest.fixture
def drawn():
    figure, ax = plt.subplots()
    draw_product(ax, 10, 192, 512, 8)
    yield ax
    plt.close(figure)


def test_every_matrix_has_its_size_and_none_overlap(drawn):
    boxes = [(p.get_x(), p.get_y(), p.get_width(), p.get_height()) for p in drawn.patches]
    assert [box[2:] for box in boxes] == [(192, 10), (512, 192), (192, 10), (8, 192), (512, 8)]
    for index, (left, low, width, height) in enumerate(boxes):
        for other_left, other_low, other_width, other_height in boxes[index + 1 :]:
            apart = (
                left + width <= other_left
                or other_left + other_width <= left
                or low + height <= other_low
                or other_low + other_height <= low
            )
            assert apart


def test_frozen_and_trained_differ_by_more_than_colour(drawn):
    hatches = [patch.get_hatch() for patch in drawn.patches]
    assert [bool(hatch) for hatch in hatches] == [False, True, False, False, False]


def test_the_texts_count_what_is_drawn(drawn):
    texts = " ".join(text.get_text() for text in drawn.texts)
    assert f"{192 * 512:,}, frozen" in texts
    assert f"{8 * (192 + 512):,}, trained" in texts
    assert all(text.get_fontsize() >= 9 for text in drawn.texts)


def test_on_a_phone_the_texts_break():
    with plots.styled(dark=False, narrow=True):
        figure, ax = plt.subplots()
        draw_product(ax, 10, 192, 512, 8)
    texts = " ".join(text.get_text() for text in ax.texts)
    assert "x: 192\nnumbers\na token" in texts
    assert "/" not in texts
    plt.close(figure)
