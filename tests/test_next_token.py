"""Next-token figures: bars as long as the numbers, and the taken token led back into the text."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_rgba

from mistral_lib.teaching import next_token, plots

TEXTS = ["Return the *", "Return the *name"]
TOKENS = [["name", "file"], ["*", "\n"]]
CHANCES = [[0.5, 0.25], [0.75, 0.125]]


@pytest.fixture(autouse=True)
def _plain_figures():
    with mpl.rc_context():
        mpl.use("agg")
        plots.style()
        yield
        plt.close("all")


@pytest.fixture
def panels():
    """The axes of a drawn figure of two steps: text, bars, text, bars."""
    figure = next_token.writing_steps(TEXTS, TOKENS, CHANCES, title="One after the other")
    figure.draw_without_rendering()
    return figure.axes


@pytest.mark.filterwarnings("error:constrained_layout not applied")
def test_five_steps_fit_on_their_figure():
    """Older versions of Matplotlib would make room for the lines that lead back, and find none."""
    words = ["If", "▁the", "▁implementation", "▁is", "▁easy"]
    tokens = [[word, "▁a", "▁b", "▁c"] for word in words]
    texts = ["".join(words[:step]).replace("▁", " ") for step in range(5)]
    texts = [f"If the implementation is hard to explain, it's a bad idea.\n{t}" for t in texts]
    figure = next_token.writing_steps(texts, tokens, [[0.5, 0.2, 0.1, 0.05]] * 5, title="On")
    plots.picture(figure)


def test_bars_are_as_long_as_the_probabilities_and_only_the_first_is_filled():
    _, ax = plt.subplots()
    next_token.next_token_bars(ax, ["a", "\n", "▁c"], [0.5, 0.25, 0.125], title="Half is a")
    assert [bar.get_width() for bar in ax.patches] == [0.5, 0.25, 0.125]
    filled = [bar.get_facecolor() == to_rgba(plots.BLUE) for bar in ax.patches]
    assert filled == [True, False, False]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "⏎", "▁c"]
    assert [text.get_text() for text in ax.texts] == ["50.0%", "25.0%", "12.5%"]
    assert ax.get_title(loc="left") == "Half is a"


def test_the_likeliest_token_is_on_top():
    _, ax = plt.subplots()
    next_token.next_token_bars(ax, ["a", "b"], [0.5, 0.25])
    bottom, top = ax.get_ylim()
    assert bottom > top


def test_a_token_without_a_probability_is_refused():
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match=r"shorter|shape mismatch"):
        next_token.next_token_bars(ax, ["a", "b", "c"], [0.5, 0.25])


def test_every_row_ends_with_the_token_that_the_row_above_took(panels):
    shown = [[text.get_text() for text in ax.texts if text.get_text()] for ax in panels[::2]]
    assert shown == [["Return the *"], ["Return the *", "name"]]
    boxes = [[text for text in ax.texts if text.get_bbox_patch()] for ax in panels[::2]]
    assert [len(found) for found in boxes] == [0, 1]


def test_the_line_runs_from_the_taken_bar_to_the_token_in_the_next_text(panels):
    label, box = panels[1].get_yticklabels()[0], panels[2].texts[1]
    assert (label.get_text(), box.get_text()) == ("name", "name")
    down, head = panels[2].texts[2:]
    assert down.anncoords is label
    assert head.xycoords is box
    # It goes down through free space: right of every text, left of every label.
    gutter = panels[2].transAxes.transform((next_token._GUTTER, 0))[0]
    assert box.get_window_extent().x1 < gutter
    assert all(tick.get_window_extent().x0 > gutter for tick in panels[1].get_yticklabels())


def test_long_texts_are_cut_in_front_at_a_space_and_spaces_are_written():
    texts = ["a" * 50, "a" * 50 + " end of " + "b" * 20 + " it"]
    figure = next_token.writing_steps(texts, [["▁it", "."], ["▁is", "."]], CHANCES, title="Cut")
    (whole, _), (start, taken, *_) = (ax.texts[:2] for ax in figure.axes[::2])
    assert whole.get_text() == "… " + "a" * (next_token._CHARACTERS - 2)
    assert taken.get_text() == " it"
    assert start.get_text() == "… end of " + "b" * 20


def test_the_title_looks_like_every_other(panels):
    figure = panels[0].figure
    assert figure.get_suptitle() == "One after the other"
    assert figure._suptitle.get_size() == plt.rcParams["axes.titlesize"]


def test_surprise_stands_over_its_token_line_by_line():
    pieces, bits = ["Re", "turn", "▁it", "\n", "\n", "▁▁", "If"], [9, 0.5, 3, 2, 1, 0.1, 6]
    figure = next_token.surprise_strips(pieces, bits, marked=[6], title="Costs")
    first, second = figure.axes
    assert [bar.get_height() for bar in first.patches] == bits[:5]
    assert [bar.get_height() for bar in second.patches] == bits[5:]
    # A bar is as wide as its token, less a gap, and begins where the token does.
    starts = [bar.get_x() - 0.1 for bar in first.patches]
    assert starts == pytest.approx([0, 2, 6, 9, 10])
    written = [text for text in first.texts if text.get_text() in ("Re", "turn", " it", "⏎")]
    assert [text.get_position()[0] for text in written] == pytest.approx(starts)
    hatched = [bar.get_hatch() for ax in figure.axes for bar in ax.patches]
    assert [bool(hatch) for hatch in hatched] == [False] * 6 + [True]
    assert "6.0" in [text.get_text() for text in second.texts]
    assert figure.get_suptitle() == "Costs"


def test_lines_that_are_too_long_are_broken_between_tokens():
    pieces = ["abcd"] * 40
    lines = next_token._lines(pieces)
    assert [index for line in lines for index in line] == list(range(40))
    assert max(4 * len(line) for line in lines) <= next_token._line_width()
    assert len(lines) == 3


def test_written_text_goes_on_where_the_prompt_ends():
    _, ax = plt.subplots()
    next_token.written_text(ax, "One\n\ntwo *", "three*\nfour")
    placed = {text.get_text(): text for text in ax.texts}
    assert list(placed) == ["One", "two *", "three*", "four"]
    assert placed["three*"].xyann[0] == 5 * next_token.MONOSPACE_WIDTH
    assert placed["three*"].xyann[1] == placed["two *"].xyann[1]
    assert placed["four"].xyann[0] == 0
    assert placed["four"].xyann[1] < placed["three*"].xyann[1] < placed["One"].xyann[1]
    assert [text.get_weight() for text in ax.texts] == ["normal", "normal", "bold", "bold"]


def test_on_a_phone_a_text_is_broken_at_blanks_and_goes_on_where_it_ends():
    _, ax = plt.subplots()
    prompt = "a text that is a little longer than a line"
    with plots.styled(dark=False, narrow=True):
        next_token.written_text(ax, prompt, " and goes on")
        most = next_token._line_width()
    lines = [text.get_text() for text in ax.texts]
    assert "".join(lines) == prompt + " and goes on"
    assert max(map(len, lines)) <= most
    assert all(line.endswith(" ") for line in lines[:1])
    assert ax.texts[2].xyann[1] == ax.texts[1].xyann[1]


def test_on_a_phone_each_text_stands_above_its_bars():
    with plots.styled(dark=False, narrow=True):
        figure = next_token.writing_steps(TEXTS, TOKENS, CHANCES, title="One after the other")
        figure.draw_without_rendering()
    tops = [ax.bbox.y1 for ax in figure.axes]
    assert tops == sorted(tops, reverse=True)
    assert len({round(ax.bbox.x0) for ax in figure.axes[1::2]}) == 1
