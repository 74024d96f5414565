"""The picture of the model: each part is there, lit and marked, and nothing lies on anything."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from mistral_lib.teaching import layout, model_parts, plots
from mistral_lib.teaching.model_picture import BOXES, draw_chapter, draw_model


@pytest.fixture(params=["wide", "narrow"], autouse=True)
def _styles(request):
    with mpl.rc_context():
        mpl.use("agg")
        with plots.styled(dark=False, narrow=request.param == "narrow"):
            yield
        plt.close("all")


def texts(figure):
    return {text.get_text(): text for text in figure.axes[0].texts}


def filled(figure):
    """How many boxes are filled."""
    boxes = [p for p in figure.axes[0].patches if isinstance(p, FancyBboxPatch)]
    return sum(box.get_facecolor() == to_rgba(plots.BLUE) for box in boxes)


def test_every_part_has_a_box():
    assert {box.part for box in BOXES.values()} | {"block", "loop"} == set(model_parts.PARTS)
    assert {box.words for box in BOXES.values()} <= set(texts(draw_model()))


@pytest.mark.parametrize("part", sorted(model_parts.PARTS))
def test_a_lit_part_is_filled_and_bold_and_no_other_is(part):
    figure = draw_model(lit={part})
    own = [box.words for box in BOXES.values() if box.part == part]
    assert filled(figure) == len(own)
    shown = texts(figure)
    words = own or {"block": ["block, L times", "+"], "loop": ["the loop: append the token"]}[part]
    bold = {text for text, artist in shown.items() if artist.get_weight() == "bold"}
    assert bold == {*words, "+"}


@pytest.mark.parametrize("part", sorted(model_parts.PARTS))
def test_a_part_of_the_reader_has_a_tick(part):
    ticked = [text for text in texts(draw_model(mine={part})) if text.startswith("✓ ")]
    own = {f"✓ {box.words}" for box in BOXES.values() if box.part == part}
    own |= {"block": {"✓ block, L times"}, "loop": {"✓ the loop: append the token"}}.get(
        part, set()
    )
    assert set(ticked) == own | {"✓ yours by its end"}


def test_every_arrow_has_a_shape_beside_it():
    figure = draw_model()
    arrows = [p for p in figure.axes[0].patches if isinstance(p, FancyArrowPatch)]
    shapes = [
        text for text in figure.axes[0].texts if "(B" in text.get_text() or "·h" in text.get_text()
    ]
    assert len(arrows) >= 18
    assert len(shapes) >= len(arrows) - 3  # the three from the norm share one; the loop has words


@pytest.mark.parametrize("chapter", [0, 7, 12, 20])
def test_no_text_lies_on_another_or_leaves_the_picture(chapter):
    figure = draw_chapter(chapter)
    column = plots.NARROW_COLUMN if plots.narrow() else plots.WIDE_COLUMN
    height = figure.get_figheight()
    layout.fit(figure, column, stack=plots.narrow())
    assert layout.overlaps(figure) == []
    assert figure.get_figheight() == height
    assert layout.smallest_text(figure) >= 9


@pytest.mark.parametrize("chapter", [1, 9, 12])
def test_words_fit_into_their_boxes(chapter):
    figure = draw_chapter(chapter)
    figure.draw_without_rendering()
    boxes = [p for p in figure.axes[0].patches if isinstance(p, FancyBboxPatch)]
    frames = [box.get_window_extent() for box in boxes]
    for text, artist in texts(figure).items():
        inside = [f for f in frames if f.contains(*artist.get_window_extent().get_points().mean(0))]
        for frame in inside:
            extent = artist.get_window_extent()
            assert frame.x0 <= extent.x0, text
            assert extent.x1 <= frame.x1, text


def test_notes_stand_in_their_boxes():
    assert "query\n36,864" in texts(draw_model(notes={"query": "36,864"}))


@pytest.mark.parametrize(
    "arguments", [{"lit": {"mosk"}}, {"mine": {"mosk"}}, {"notes": {"mosk": "1"}}]
)
def test_a_misspelt_part_is_refused(arguments):
    with pytest.raises(ValueError, match="but there is 'mosk'"):
        draw_model(**arguments)
