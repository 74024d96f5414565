"""How a finished figure is made to fit its page, above all a phone (used by all chapters).

The code of a figure is written for a screen. For a phone the same figure is laid out again: panels
stand below each other, titles break, and nothing gets smaller.
"""

from __future__ import annotations

import math
import textwrap
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

PIXELS_PER_INCH = 96
# A panel may become this much narrower before panels move below each other.
_SQUEEZE = 0.8
_NAME = 24  # characters of a name beside a vertical axis
_LINE = 0.17  # inches that another line of a title takes
_PAD = 0.02  # inches around a picture, as `plots.style` sets them
_BLANK, _DRAWN_BLANK = "▁", "␣"


def fit(figure: Figure, column: int, *, stack: bool = False) -> None:
    """Lays a figure out so that it is no wider than a page's column; changes it in place.

    Args:
        figure: a figure with all that is drawn in it.
        column: width of the page's column, in pixels.
        stack: whether panels may move below each other, for a column that is narrow.

    >>> import matplotlib.pyplot as plt
    >>> figure, axes = plt.subplots(1, 2, figsize=(7, 3))
    >>> fit(figure, 358, stack=True)
    >>> float(figure.get_figwidth()) <= 358 / 96, axes[1].get_subplotspec().rowspan.start
    (True, 1)
    """
    _show_blanks(figure)
    inches = column / PIXELS_PER_INCH
    if stack and figure.get_figwidth() > inches:
        figure.set_size_inches(inches, _stack(figure, inches))
        _break_names(figure)
    inside = _inside(figure) if stack else []
    if stack:
        _break_lines(figure)
    for _ in range(4):
        figure.draw_without_rendering()
        changed = stack and _turn_crowded(figure)
        for ax, text in inside:
            _pull_in(ax, text)
        excess = _width(figure) - column
        if excess > 0.5:  # text beside an axes makes the picture wider than the figure
            figure.set_figwidth(figure.get_figwidth() - (excess + 1) / PIXELS_PER_INCH)
            _break_lines(figure)
        elif not changed:
            break


def smallest_text(figure: Figure) -> float:
    """The size of the smallest text that a figure shows, in points, once it was drawn.

    >>> import matplotlib.pyplot as plt
    >>> figure = plt.figure()
    >>> _ = figure.text(0, 0, "note", size=9)
    >>> smallest_text(figure)
    9.0
    """
    sizes = [float(text.get_fontsize()) for text in _shown(figure)]
    return min(sizes, default=math.inf)


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """The pairs of texts that lie on each other.

    >>> import matplotlib.pyplot as plt
    >>> figure = plt.figure()
    >>> _ = figure.text(0.5, 0.5, "one"), figure.text(0.51, 0.5, "two")
    >>> overlaps(figure)
    [('one', 'two')]
    """
    figure.draw_without_rendering()
    boxes = [(text, text.get_window_extent().padded(-2)) for text in _shown(figure)]
    return [
        (one.get_text(), other.get_text())
        for number, (one, box) in enumerate(boxes)
        for other, beside in boxes[number + 1 :]
        if box.overlaps(beside)
    ]


def _show_blanks(figure: Figure) -> None:
    """Replaces SentencePiece's sign for a blank, which looks like an underscore."""
    texts = [*figure.texts, *(text for ax in figure.axes for text in ax.texts)]
    for text in texts:
        text.set_text(text.get_text().replace(_BLANK, _DRAWN_BLANK))
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        labels = [label.get_text() for label in axis.get_ticklabels()]
        if any(_BLANK in label for label in labels):
            axis.set_ticks(axis.get_ticklocs(), [n.replace(_BLANK, _DRAWN_BLANK) for n in labels])


def _shown(figure: Figure) -> list[Text]:
    """The texts that are seen of a figure that was drawn."""
    texts = [text for ax in figure.axes if ax.get_visible() for text in _texts_of(ax)]
    texts += figure.texts
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


def _texts_of(ax: Axes) -> list[Text]:
    """The texts of an axes, without the labels of ticks outside its limits and what is off."""
    ticks = []
    for axis in (ax.xaxis, ax.yaxis) if ax.axison else ():
        low, high = sorted(axis.get_view_interval())
        margin = 1e-6 * (high - low)
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            if low - margin <= tick.get_loc() <= high + margin:
                ticks += [tick.label1, tick.label2]
        ticks.append(axis.label)
    titles = [child for child in ax.get_children() if isinstance(child, Text)]
    legend = ax.get_legend()
    return [*ticks, *titles, *(legend.get_texts() if legend else [])]


def _width(figure: Figure) -> float:
    """The width of a figure's picture in pixels, with all that lies outside the figure."""
    return (figure.get_tightbbox().width + 2 * _PAD) * PIXELS_PER_INCH


def _stack(figure: Figure, width: float) -> float:
    """Moves panels below each other until each is wide enough; returns the figure's new height."""
    old_width, height = figure.get_size_inches()
    placed = [(ax, spec) for ax in figure.axes if (spec := ax.get_subplotspec())]
    if not placed:
        return height
    grid = placed[0][1].get_gridspec()
    panel = old_width / grid.ncols
    fits = [n for n in range(1, grid.ncols + 1) if width / n >= _SQUEEZE * panel]
    across = max([n for n in fits if len(placed) % n == 0], default=1)
    row = height / grid.nrows
    if all(ax.get_aspect() != "auto" for ax, _ in placed):  # panels that keep their shape
        row *= min(width / across / panel, 1)
    if across == grid.ncols:
        return row * grid.nrows
    new = figure.add_gridspec(len(placed) // across, across)
    for number, (ax, _) in enumerate(placed):
        ax.set_subplotspec(new[number // across, number % across])
    for ax, _ in placed:  # what stood beside shared its axis, and had no numbers of its own
        if any(ax.get_shared_y_axes().joined(ax, other) for other, _ in placed if other is not ax):
            ax.tick_params(axis="y", labelleft=True)
    return row * (len(placed) // across)


def _inside(figure: Figure) -> list[tuple[Axes, Text]]:
    """What is written inside axes, and not at their end, where it belongs to what ends there.

    It is taken out of the layout: an axes would make room for it by becoming narrower.
    """
    found = []
    written = [(ax, text) for ax in figure.axes for text in ax.texts if type(text) is Text]
    for _, text in written:
        text.set_in_layout(False)
    figure.draw_without_rendering()
    for ax, text in written:
        pixel = text.get_transform().transform(_place(text))
        across, up = ax.transAxes.inverted().transform(pixel)
        most = 0.9 if text.get_horizontalalignment() == "left" else 1
        inside = -0.01 <= across <= most and -0.01 <= up <= 1.01
        text.set_in_layout(not inside)
        if inside and text.get_text().strip():
            found.append((ax, text))
    return found


def _place(text: Text) -> tuple[float, float]:
    """Where a text is anchored, as numbers: names along an axis are numbers, too."""
    x, y = text.get_position()
    return float(text.convert_xunits(x)), float(text.convert_yunits(y))


def _pull_in(ax: Axes, text: Text) -> None:
    """Moves a text so far that it is between the ends of its axes."""
    box = text.get_window_extent()
    shift = max(ax.bbox.x0 - box.x0, 0) or min(ax.bbox.x1 - box.x1, 0)
    shift = max(shift, ax.bbox.x0 - box.x0) if shift < 0 else shift
    if shift:
        to_pixels = text.get_transform()
        x, y = to_pixels.transform(_place(text))
        new_x, new_y = to_pixels.inverted().transform((x + shift, y))
        text.set_position((new_x, new_y))


def _break_names(figure: Figure) -> None:
    """Breaks the names along vertical axes where they would take the room of what they name."""
    for axis in (ax.yaxis for ax in figure.axes):
        names = [label.get_text() for label in axis.get_ticklabels()]
        if any(len(name) > _NAME and "$" not in name for name in names):
            broken = [textwrap.fill(name, _NAME) if len(name) > _NAME else name for name in names]
            axis.set_ticks(axis.get_ticklocs(), broken)


def _break_lines(figure: Figure) -> None:
    """Breaks titles and labels that leave the figure or meet those of the next panel.

    The axes are laid out without them first: for a title that is too long an axes becomes narrower,
    and then it stays so.
    """
    titles = {
        text: ax
        for ax in figure.axes
        for text in [*ax.get_children(), ax.xaxis.label, ax.yaxis.label]
        if isinstance(text, Text) and text not in ax.texts and text.get_text().strip()
    }
    words = {text: text.get_text() for text in [*titles, *figure.texts]}
    for text in words:
        text.set_text("")
    figure.draw_without_rendering()
    edge, lines = figure.bbox.x1, 0.0
    for text in words:
        text.set_text(words[text])
        ax = titles.get(text)
        if ax is None:
            lines += _break(text, edge)
        elif text is ax.yaxis.label:
            _break(text, 1.3 * ax.bbox.height)
        else:
            spec = ax.get_subplotspec()
            last, beside = (spec.is_last_col(), spec.get_gridspec().ncols) if spec else (True, 1)
            room = (edge if last else ax.bbox.x1) - ax.bbox.x0 - 2
            lines += _break(text, room) / beside
    figure.set_figheight(figure.get_figheight() + _LINE * lines)  # or the axes would shrink


def _break(text: Text, room: float) -> int:
    """Breaks a text that is longer than its room, in pixels; how many lines that adds."""
    words, box = text.get_text(), text.get_window_extent()
    length = box.height if text.get_rotation() == 90 else box.width
    lines = words.split("\n")
    if length <= room:
        return 0
    for characters in range(len(words), 7, -1):
        lines = textwrap.wrap(words, characters, break_long_words=False)
        text.set_text("\n".join(lines))
        box = text.get_window_extent()
        if (box.height if text.get_rotation() == 90 else box.width) <= room:
            break
    return len(lines) - len(words.split("\n"))


def _turn_crowded(figure: Figure) -> bool:
    """Turns the labels along an axis where they would meet, and leaves some out where turned ones
    would; says whether there were any.
    """
    changed = False
    for axis in (ax.xaxis for ax in figure.axes):
        labels = [label for label in axis.get_ticklabels() if label.get_text()]
        boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.x0)
        close = [b.x0 - a.x1 for a, b in pairwise(boxes) if a.y0 < b.y1]
        if not close or min(close) >= 0:
            continue
        if not any(label.get_rotation() for label in labels):
            axis.set_tick_params(labelrotation=90)
        else:
            apart = min(b.x0 - a.x0 for a, b in pairwise(boxes))
            step = math.ceil(max(box.width for box in boxes) / max(apart, 1))
            shown = [label.get_text() for label in axis.get_ticklabels()][::step]
            axis.set_ticks(axis.get_ticklocs()[::step], shown)
        changed = True
    return changed
