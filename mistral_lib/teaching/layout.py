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
_SQUEEZE = 0.75
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
    >>> figure.get_size_inches()[0] <= 358 / 96, axes[1].get_subplotspec().rowspan.start
    (True, 1)
    """
    _show_blanks(figure)
    inches = column / PIXELS_PER_INCH
    if stack and figure.get_figwidth() > inches:
        figure.set_size_inches(inches, _stack(figure, inches))
    for _ in range(5):
        figure.draw_without_rendering()
        changed = stack and (_break_lines(figure, column) | _turn_crowded(figure))
        excess = _width(figure) - column
        if excess > 0.5:  # text beside an axes makes the picture wider than the figure
            figure.set_figwidth(figure.get_figwidth() - (excess + 1) / PIXELS_PER_INCH)
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
    sizes = [text.get_size() for text in _shown(figure)]
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
    placed = [(ax, ax.get_subplotspec()) for ax in figure.axes]
    if not placed or any(spec is None for _, spec in placed):
        return height
    grid = placed[0][1].get_gridspec()
    panel = old_width / grid.ncols
    fits = [n for n in range(1, grid.ncols + 1) if width / n >= _SQUEEZE * panel]
    across = max([n for n in fits if len(placed) % n == 0], default=1)
    row = height / grid.nrows
    if all(ax.get_aspect() != "auto" for ax, _ in placed):  # panels that keep their shape
        row *= width / across / panel
    if across == grid.ncols:
        return row * grid.nrows
    new = figure.add_gridspec(len(placed) // across, across)
    for number, (ax, _) in enumerate(placed):
        ax.set_subplotspec(new[number // across, number % across])
    for ax, _ in placed:  # what stood beside shared its axis, and had no numbers of its own
        if any(ax.get_shared_y_axes().joined(ax, other) for other, _ in placed if other is not ax):
            ax.tick_params(axis="y", labelleft=True)
    return row * len(placed) // across


def _break_lines(figure: Figure, column: int) -> bool:
    """Breaks titles and labels that leave the column; says whether there were any."""
    room = column / PIXELS_PER_INCH * figure.dpi
    left = figure.get_tightbbox().x0 * figure.dpi
    broken = [_break(text, room) for text in figure.texts]
    for ax in figure.axes:
        titles = [t for t in ax.get_children() if isinstance(t, Text) and t not in ax.texts]
        for text in titles:
            broken.append(_break(text, room - max(text.get_window_extent().x0 - left, 0)))
        broken.append(_break(ax.xaxis.label, room))
        broken.append(_break(ax.yaxis.label, 1.3 * ax.bbox.height))
    return any(broken)


def _break(text: Text, room: float) -> bool:
    """Breaks each line of a text that is longer than its room; says whether there was one."""
    words = text.get_text()
    if not words.strip():
        return False
    box = text.get_window_extent()
    length = max(box.width, box.height) if text.get_rotation() == 90 else box.width
    if length <= room:
        return False
    lines = words.split("\n")
    most = max(int(max(map(len, lines)) * room / length), 8)
    new = "\n".join(textwrap.fill(line, most, break_long_words=False) for line in lines)
    text.set_text(new)
    return new != words


def _turn_crowded(figure: Figure) -> bool:
    """Turns the labels along an axis where they lie on each other; says whether there were any."""
    turned = False
    for ax in figure.axes:
        labels = [t for t in ax.get_xticklabels() if t.get_text() and not t.get_rotation()]
        boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.x0)
        if any(one.x1 + 2 > other.x0 and one.y0 < other.y1 for one, other in pairwise(boxes)):
            ax.tick_params(axis="x", labelrotation=90)
            turned = True
    return turned
