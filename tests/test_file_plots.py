"""mistral_lib/teaching/file_plots.py: what is drawn is what is in the file."""

import matplotlib.pyplot as plt
import pytest

from mistral_lib.teaching import file_plots, plots
from mistral_lib.teaching.file_plots import draw_bytes, draw_names, draw_strip, draw_zoom


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_a_strip_is_to_scale_and_without_gaps(ax):
    draw_strip(ax, [("length", 8), ("", 56), ("numbers", 936)], unit=10, axis="tens")
    boxes = [patch.get_bbox() for patch in ax.patches]
    edges = [edge for box in boxes for edge in (box.x0, box.x1)]
    assert edges == pytest.approx([0, 0.8, 0.8, 6.4, 6.4, 100])
    assert ax.get_xlim() == (0, 100)
    assert texts(ax) == ["length", "", "numbers"]
    assert ax.get_xlabel() == "tens"


def test_neighbours_in_a_strip_look_different(ax):
    draw_strip(ax, [("a", 1), ("b", 1), ("c", 1)])
    colours = [patch.get_facecolor() for patch in ax.patches]
    assert colours[0] != colours[1] != colours[2]


def test_bytes_in_hexadecimal_and_as_characters(ax):
    draw_bytes(ax, [("number", b"\x40\xff"), ("header", b'{"')], text="header")
    assert texts(ax) == ["40", "ff", "number", "7b", "{", "22", '"', "header"]
    starts = [patch.get_x() for patch in ax.patches]
    assert starts == [0, 1, 2 + file_plots.GAP, 3 + file_plots.GAP]
    first, second = (list(line.get_xdata()) for line in ax.lines)
    assert first[0] < first[1] < 2 < second[0] < second[1] < ax.get_xlim()[1]


def test_a_zoom_joins_both_ends():
    figure, (above, below) = plt.subplots(2)
    draw_zoom(figure, above, (0.2, 0.3), below, (0, 1))
    lines = figure.artists
    assert [(line.xy1, line.xy2) for line in lines] == [((0.2, 0), (0, 1)), ((0.3, 0), (1, 1))]
    plt.close(figure)


def test_every_cell_of_a_table_shows_its_mark(ax):
    rows = [[("query", ""), ("wq", "P")], [("norm", ""), ("norm", "=")]]
    draw_names(ax, ["here", "there"], rows, [2, 3])
    found = texts(ax)
    assert found[:8] == ["here", "there", "query", "wq", "P", "norm", "norm", "="]
    for mark, (meaning, *_) in file_plots.ARRANGEMENTS.items():
        assert f"{mark}  {meaning}" in found
    wide = [patch for patch in ax.patches if patch.get_width() > 1]
    assert [(patch.get_x(), patch.get_width()) for patch in wide] == [(0, 2), (2, 3)] * 2
    assert [patch.get_hatch() for patch in ax.patches].count("////") == 1


def test_marks_differ_without_colour():
    hatches_and_symbols = {(mark, hatch) for mark, (_, _, hatch) in file_plots.ARRANGEMENTS.items()}
    assert len(hatches_and_symbols) == len(file_plots.ARRANGEMENTS)


def test_on_a_phone_the_table_is_a_list(ax):
    rows = [
        [("query", ""), ("q_proj", "T"), ("wq", "P")],
        [("up", ""), ("up_proj", "T"), ("w3", "T")],
    ]
    with plots.styled(dark=False, narrow=True):
        draw_names(ax, ["here", "transformers", "Mistral"], rows, [1, 2, 2])
    shown = texts(ax)
    assert shown[:7] == ["query", "transformers", "q_proj", "T", "Mistral", "wq", "P"]
    assert shown[-4:] == [f"{mark}  {what[0]}" for mark, what in file_plots.ARRANGEMENTS.items()]
    heights = [
        text.get_position()[1] for text in ax.texts if text.get_text() in ("q_proj", "wq", "up")
    ]
    assert heights == sorted(heights)
    assert [bool(patch.get_hatch()) for patch in ax.patches] == [False, True, False, False]


def test_on_a_phone_each_group_of_bytes_has_a_row_and_thin_parts_are_turned(ax):
    with plots.styled(dark=False, narrow=True):
        draw_bytes(ax, [("length", b"\x40\xff"), ("header", b'{"')], text="header")
        assert {patch.get_xy() for patch in ax.patches} == {(0, 0), (1, 0), (0, -3.4), (1, -3.4)}
        figure, other = plt.subplots()
        draw_strip(other, [("thin", 1), ("broad", 9)])
    assert [text.get_rotation() for text in other.texts] == [90, 0]
    plt.close(figure)
