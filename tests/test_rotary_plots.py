"""Figures of rotary positions: what is drawn is what was given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mistral_lib.teaching.rotary_plots import draw_pairs, draw_points


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_a_cell_is_the_cosine_of_the_angle_between_query_and_key(ax):
    draw_pairs(ax, np.array([1.0, 0.5]), 6)
    shown = ax.images[0].get_array()
    assert np.allclose(shown[:, 0], 1)
    assert np.isclose(shown[0, 3], np.cos(3))
    assert np.isclose(shown[1, 6], np.cos(3))


def test_a_mark_stands_at_one_wavelength_and_only_where_it_is_in_view(ax):
    draw_pairs(ax, np.array([1.0, 0.1, 0.01]), 100)
    places = [line.get_xdata()[0] for line in ax.lines]
    assert np.allclose(places, [2 * np.pi] * 2 + [20 * np.pi] * 2)  # each with its rim


def test_every_point_is_inside_the_ring(ax):
    points = np.random.default_rng(0).normal(size=(30, 2))
    draw_points(ax, points)
    assert np.allclose(ax.collections[0].get_offsets(), points)
    assert np.hypot(*points.T).max() < ax.patches[0].radius
