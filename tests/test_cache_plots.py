"""Figures of a cache: positions are found by their numbers, and drawn where they are."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mistral_lib.teaching import plots
from mistral_lib.teaching.cache_plots import (
    draw_film,
    draw_places,
    draw_sizes,
    draw_throughput,
    find_positions,
)
from mistral_lib.teaching.estimates import Estimate
from mistral_lib.teaching.exercises.cache import _held

SLOTS, FRAMES = 3, 5


@pytest.fixture
def keys():
    return np.random.default_rng(0).normal(size=(FRAMES, 4))


@pytest.fixture
def held():
    return np.array([_held(frame + 1, SLOTS) for frame in range(FRAMES)])


@pytest.fixture
def film(keys, held):
    return np.where(held[..., None] < 0, 0.0, keys[held])


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_positions_are_found_by_their_keys(film, keys, held):
    np.testing.assert_array_equal(find_positions(film, keys), held)
    np.testing.assert_array_equal(held[-1], [3, 4, 2])


def test_a_slot_with_something_else_is_refused(film, keys):
    film[2, 1] += 0.01
    with pytest.raises(ValueError, match="Slot 1 of frame 2 equals the keys of 0 positions"):
        find_positions(film, keys)


def test_two_equal_keys_are_refused(film, keys):
    keys[1] = keys[0]
    with pytest.raises(ValueError, match="of 2 positions"):
        find_positions(film, keys)


def test_every_cell_says_what_it_holds_and_what_it_was_written_over(ax, film, held):
    draw_film(ax, film, held, ["▁a", "b", "\n", "d", "e"], title="It rolls")
    texts = {}
    for text in ax.texts:
        x, y = text.get_position()
        texts.setdefault((int(y), int(x)), []).append(text.get_text())
    assert texts[0, 0] == ["0", "a"]
    assert texts[0, 1] == ["empty"]
    assert texts[2, 2] == ["2", "⏎"]
    assert texts[3, 0] == ["3", "d", "was 0"]
    assert texts[4, 0] == ["3", "d"]
    assert texts[4, 1] == ["4", "e", "was 1"]
    assert [label.get_text() for label in ax.get_yticklabels()][1] == "1  b"


def test_the_written_slot_is_filled_and_an_overwritten_one_framed(ax, film, held):
    draw_film(ax, film, held, "abcde")
    filled = [p for p in ax.patches if p.get_fill() and p.get_y() == 4]
    assert len({p.get_facecolor() for p in filled}) == 2
    framed = [(round(p.get_y()), round(p.get_x())) for p in ax.patches if not p.get_fill()]
    assert framed == [(3, 0), (4, 1)]


def test_the_strips_are_the_numbers_of_the_array(ax, film, held):
    draw_film(ax, film, held, "abcde")
    assert len(ax.images) == FRAMES
    np.testing.assert_allclose(ax.images[4].get_array(), film[4].reshape(1, -1))
    assert ax.images[0].get_array().mask.sum() == 2 * film.shape[2]


def test_on_a_phone_a_cell_has_room_for_two_numbers(ax, film, held):
    with plots.styled(dark=False, narrow=True):
        draw_film(ax, film, held, "abcde")
    shown = [text.get_text() for text in ax.texts]
    assert {"3", "(0)", "4", "(1)", "empty"} <= set(shown)
    assert not set(shown) & set("abcde")
    assert [label.get_text() for label in ax.get_yticklabels()][3] == "3  d"


def test_means_are_drawn_in_the_middle_of_their_places(ax):
    groups = [Estimate(0.5, 0.4, 0.7, 26), Estimate(0.2, 0.1, 0.3, 26)]
    draw_places(ax, groups, np.zeros(64), np.ones(64))
    (points,) = [line for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(points.get_xdata(), [15.5, 47.5])
    np.testing.assert_allclose(points.get_ydata(), [0.5, 0.2])
    labels = {text.get_text() for text in ax.get_legend().get_texts()}
    assert labels == {"single chunks", "mean of 26 documents"}


def test_caches_of_one_size_are_drawn_side_by_side(ax):
    estimate = Estimate(0.5, 0.4, 0.7, 26)
    draw_sizes(ax, (8, 16), {"recent": [estimate] * 2, "first": [estimate] * 2})
    recent, first = (next(line for line in ax.lines if line.get_marker() == m) for m in "os")
    assert (recent.get_xdata() < (8, 16)).all()
    assert (first.get_xdata() > (8, 16)).all()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["8", "16"]


def test_each_curve_of_throughput_carries_its_name(ax):
    draw_throughput(ax, [1, 10, 100], {"real": [300, 2000, 4000], "ideal": [300, 3000, 30000]})
    assert [text.get_text() for text in ax.texts] == ["real", "ideal"]
    assert ax.get_xscale() == ax.get_yscale() == "log"
