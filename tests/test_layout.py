"""Layout: a figure fits its column, no letter gets smaller, and panels move below each other."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from mistral_lib.teaching import layout, plots


@pytest.fixture(autouse=True)
def _plain_figures():
    with mpl.rc_context():
        mpl.use("agg")
        plots.style()
        yield
        plt.close("all")


def width(figure):
    figure.draw_without_rendering()
    return figure.get_tightbbox().width * 96


def panels(rows, columns, **looks):
    figure, axes = plt.subplots(rows, columns, squeeze=False, **looks)
    for number, ax in enumerate(axes.flat):
        ax.plot([0, 1], [0, number])
        ax.set_title(f"A finding that is long enough to leave a phone's column, {number}")
        ax.set(xlabel="a label that is a good deal longer than its axes", ylabel="height")
    return figure, axes.flatten()


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 3)])
def test_a_figure_fits_a_phone_and_keeps_its_letters(shape):
    figure, _ = panels(*shape, figsize=(7, 3 * shape[0]))
    figure.draw_without_rendering()
    before = layout.smallest_text(figure)
    layout.fit(figure, 358, stack=True)
    assert width(figure) <= 358 + 1
    assert layout.smallest_text(figure) == before == 10
    assert layout.overlaps(figure) == []


def test_a_screen_keeps_the_panels_where_they_are():
    figure, axes = plt.subplots(1, 2, figsize=(7, 3))
    axes[0].set_title("A finding of one line")
    layout.fit(figure, 672)
    assert [ax.get_subplotspec().colspan.start for ax in axes] == [0, 1]
    assert axes[0].get_title(loc="left") == "A finding of one line"


def test_a_title_that_leaves_the_screen_is_broken():
    figure, axes = panels(1, 2, figsize=(7, 3))
    layout.fit(figure, 672)
    assert width(figure) <= 672 + 1
    assert "\n" in axes[1].get_title(loc="left")


@pytest.mark.parametrize(
    ("shape", "across"), [((1, 2), 1), ((1, 3), 1), ((1, 4), 2), ((4, 3), 2), ((2, 2), 1)]
)
def test_panels_move_below_each_other_in_the_order_of_reading(shape, across):
    figure, axes = plt.subplots(*shape, figsize=(6.6, 3))
    axes = axes.flatten()
    layout.fit(figure, 358, stack=True)
    places = [(a.get_subplotspec().rowspan.start, a.get_subplotspec().colspan.start) for a in axes]
    assert places == [divmod(number, across) for number in range(len(axes))]
    assert figure.get_figheight() == pytest.approx(3 / shape[0] * len(axes) / across)


def test_a_panel_that_shared_an_axis_gets_numbers_of_its_own():
    figure, axes = panels(1, 2, figsize=(7, 3), sharey=True)
    layout.fit(figure, 358, stack=True)
    figure.draw_without_rendering()

    assert axes[1].yaxis.get_tick_params()["labelleft"]


def test_squares_stay_squares_and_do_not_grow():
    figure, ax = plt.subplots(figsize=(7, 7))
    plots.draw_mask(ax, np.tri(4, dtype=bool))
    layout.fit(figure, 358, stack=True)
    assert figure.get_figheight() == pytest.approx(358 / 96, rel=0.05)
    figure, axes = plt.subplots(1, 3, figsize=(6, 2))
    for ax in axes:
        plots.draw_mask(ax, np.tri(2, dtype=bool))
    layout.fit(figure, 358, stack=True)
    assert figure.get_figheight() == pytest.approx(6)


def test_labels_on_an_axis_turn_only_where_they_would_meet():
    for words, turned in (("ab", 0), (["a long word"] * 8, 90)):
        figure, ax = plt.subplots(figsize=(7, 3))
        ax.set_xticks(range(len(words)), words)
        layout.fit(figure, 358, stack=True)
        assert {label.get_rotation() for label in ax.get_xticklabels()} == {turned}


def test_text_beside_an_axes_makes_the_axes_narrower():
    figure, ax = plt.subplots(figsize=(7, 3))
    ax.set_xlim(0, 1)
    ax.text(1.02, 0.5, "beside the axes")
    layout.fit(figure, 672)
    assert width(figure) <= 672


def test_a_blank_is_not_drawn_like_an_underscore():
    figure, ax = plt.subplots()
    ax.text(0, 0, "▁the_end")
    ax.set_yticks([0, 1], ["▁a", "b"])
    ax.get_yticklabels()[0].set(weight="bold")
    layout.fit(figure, 672)
    figure.draw_without_rendering()
    assert ax.texts[0].get_text() == "␣the_end"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["␣a", "b"]
    assert ax.get_yticklabels()[0].get_weight() == "bold"


def test_the_smallest_text_is_one_that_is_seen():
    figure, ax = plt.subplots()
    ax.text(0.5, 0.5, "small", size=7)
    ax.text(0.5, 0.2, "hidden", size=3, visible=False)
    ax.text(0.5, 0.2, " ", size=4)
    figure.draw_without_rendering()
    assert layout.smallest_text(figure) == 7


def test_overlaps_are_found():
    figure, ax = plt.subplots()
    ax.text(0.5, 0.5, "one")
    ax.text(0.5, 0.5, "other")
    ax.text(0.1, 0.1, "far")
    assert layout.overlaps(figure) == [("one", "other")]


def test_text_in_an_axes_is_pulled_in_and_the_axes_keep_their_width():
    figure, ax = plt.subplots(figsize=(7, 3))
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.text(0.3, 0.5, "a remark that ends where its author wanted it", ha="right")
    ax.text(0.7, 0.2, "a remark that begins there")
    layout.fit(figure, 358, stack=True)
    figure.draw_without_rendering()
    assert ax.bbox.width > 0.8 * 358
    for text in ax.texts:
        box = text.get_window_extent()
        assert ax.bbox.x0 - 1 <= box.x0
        assert box.x1 <= ax.bbox.x1 + 1


def test_a_long_title_does_not_make_the_axes_narrower():
    figure, ax = plt.subplots(figsize=(7, 3))
    ax.set_title(
        "A finding that is three times as long as a phone is wide, and so takes three lines"
    )
    figure.draw_without_rendering()
    layout.fit(figure, 358, stack=True)
    figure.draw_without_rendering()
    assert ax.bbox.width > 0.8 * 358


def test_long_names_are_broken_and_turned_labels_thinned():
    figure, ax = plt.subplots(figsize=(7, 3))
    ax.set_yticks([0, 1], ["one name that is far longer than it should be", "short"])
    layout.fit(figure, 358, stack=True)
    assert ax.get_yticklabels()[0].get_text().count("\n") == 1
    figure, ax = plt.subplots(figsize=(7, 3))
    ax.set_xticks(range(60), [f"token {n}" for n in range(60)], rotation=90)
    layout.fit(figure, 358, stack=True)
    assert 15 <= sum(bool(label.get_text()) for label in ax.get_xticklabels()) <= 30
    assert layout.overlaps(figure) == []
