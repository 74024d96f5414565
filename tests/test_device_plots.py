"""mistral_lib/teaching/device_plots.py: which device holds what, and where it is drawn."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from mistral_lib.teaching import plots
from mistral_lib.teaching.device_plots import (
    SMALL,
    draw_held,
    draw_mesh,
    draw_parts,
    draw_schedule,
    parts_of,
)


class Device:
    """What a sharding's map has as a key: something with a number."""

    def __init__(self, number):
        self.id = number


def sharded(shape, places):
    """Something that says of itself, as a JAX array does, which device holds which part."""
    of_device = {Device(number): place for number, place in places.items()}
    sharding = SimpleNamespace(devices_indices_map=lambda shape: of_device)
    return SimpleNamespace(shape=shape, sharding=sharding)


WHOLE = slice(None)
COLUMNS = {3: (WHOLE, slice(4, 8)), 0: (WHOLE, slice(0, 4)), 1: (WHOLE, slice(4, 8))}


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_parts_are_in_order_and_name_all_their_devices():
    parts = parts_of(sharded((6, 8), COLUMNS))
    assert list(parts.items()) == [(((0, 6), (0, 4)), [0]), (((0, 6), (4, 8)), [1, 3])]


def test_a_part_is_drawn_where_it_lies_and_as_large_as_it_is(ax):
    draw_parts(ax, parts_of(sharded((6, 8), COLUMNS)), corner=(10, 20), name="up")
    boxes = [(*box.get_xy(), box.get_width(), box.get_height()) for box in ax.patches]
    assert boxes == [(10, 20, 4, 6), (14, 20, 4, 6)]
    texts = {text.get_text(): text for text in ax.texts}
    assert texts["0"].get_position() == (12, 23)
    assert texts["1 3"].get_position() == (16, 23)
    assert texts["up"].get_position()[1] < 20


def test_rows_are_cut_downwards(ax):
    halves = {0: (slice(0, 3), WHOLE), 1: (slice(3, 6), WHOLE)}
    draw_parts(ax, parts_of(sharded((6, 8), halves)), corner=(0, 0), name="down")
    assert [box.get_xy() for box in ax.patches] == [(0, 0), (0, 3)]


def test_a_column_of_the_mesh_looks_like_its_part(ax):
    draw_mesh(ax, [[0, 1], [2, 3]], corner=(0, 0), cell=(2, 1))
    mesh = [box.get_hatch() for box in ax.patches]
    assert mesh == mesh[:2] * 2
    assert mesh[0] != mesh[1]
    draw_parts(ax, parts_of(sharded((6, 8), COLUMNS)), corner=(0, 9), name="up")
    assert [box.get_hatch() for box in ax.patches[4:]] == mesh[:2]


def test_many_devices_stand_along_the_longer_side_and_no_text_is_small(ax):
    narrow = {((0, 90), (0, 9)): [0, 2, 4, 6], ((0, 9), (9, 99)): [1, 3]}
    draw_parts(ax, narrow, corner=(0, 0), name="key")
    assert [text.get_rotation() for text in ax.texts] == [90, 0, 0]
    assert min(text.get_fontsize() for text in ax.texts) == SMALL


def test_a_complete_sum_is_filled_and_what_is_sent_has_a_thick_frame(ax):
    held = np.array([[1, 22], [10, 20]])
    draw_held(ax, held, corner=(3, 5), title="now", complete=[11, 22], sends=[1, 1])
    filled = [to_hex(box.get_facecolor()) == plots.SKY.lower() for box in ax.patches]
    assert filled == [False, True, False, False]
    assert [box.get_linewidth() > 2 for box in ax.patches] == [False, True, False, True]
    assert ax.texts[3].get_position() == (4.5, 6.5)


def test_a_stage_is_drawn_when_it_works_and_hatched_when_it_waits(ax):
    draw_schedule(ax, np.array([[0, 1], [1, 3]]), [1, 2])
    bubble = [box for box in ax.patches if box.get_hatch()]
    assert [(box.get_x(), box.get_width()) for box in bubble] == [(0, 5)] * 2
    work = [(box.get_x(), box.get_width()) for box in ax.patches if not box.get_hatch()]
    assert work == [(0, 1), (1, 1), (1, 2), (3, 2)]
    assert [text.get_text() for text in ax.texts] == ["0", "1"] * 2
