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
    >>> figure.get_size_inches()[0] <= 358 / 96, axes[1].get_subplotspec().rowspan.start
    (True, 1)
    """
    _show_blanks(figure)
    inches = column / PIXELS_PER_INCH
    if stack and figure.get_figwidth() > inches:
        figure.set_size_inches(inches, _stack(figure, inches))
    whole: dict[Text, str] = {}
    for _ in range(6):
        figure.draw_without_rendering()
        changed = stack and (_break_lines(figure, column, whole) | _turn_crowded(figure))
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


def _break_lines(figure: Figure, column: int, whole: dict[Text, str]) -> bool:
    """Breaks titles and labels that leave the column; says whether there were any.

    `whole` remembers each text as it was, so that it can be broken again.
    """
    left = figure.get_tightbbox().x0 * figure.dpi
    right = left + column / PIXELS_PER_INCH * figure.dpi
    new_lines = sum(_break(text, left, right, whole) for text in figure.texts)
    changed = new_lines > 0
    for ax in figure.axes:
        spec = ax.get_subplotspec()
        last, beside = (spec.is_last_col(), spec.get_gridspec().ncols) if spec else (True, 1)
        titles = [t for t in ax.get_children() if isinstance(t, Text) and t not in ax.texts]
        for text in [*titles, ax.xaxis.label]:
            new_lines += _break(text, left, right if last else ax.bbox.x1, whole) / beside
        low, high = ax.bbox.y0 - 0.2 * ax.bbox.height, ax.bbox.y1 + 0.2 * ax.bbox.height
        changed |= _break(ax.yaxis.label, low, high, whole) > 0
    figure.set_figheight(figure.get_figheight() + _LINE * new_lines)  # or the axes would shrink
    return changed or new_lines > 0


def _break(text: Text, first: float, last: float, whole: dict[Text, str]) -> int:
    """Breaks a text that leaves its room, from `first` to `last`; how many lines that adds."""
    words = whole.get(text, text.get_text())
    if not words.strip():
        return 0
    box = text.get_window_extent()
    start, end = (box.y0, box.y1) if text.get_rotation() == 90 else (box.x0, box.x1)
    length, room = end - start, last - first
    if text.get_ha() == "left" and text.get_rotation() == 0:
        room = last - max(start, first)
    elif text.get_rotation() == 0:
        room = 2 * min((start + end) / 2 - first, last - (start + end) / 2)
    before = text.get_text().split("\n")
    if length <= room + 1:
        return 0
    longest = max(map(len, before))
    lines = textwrap.wrap(words, max(int(longest * room / length), 8), break_long_words=False)
    whole[text] = words
    text.set_text("\n".join(lines))
    return max(len(lines) - len(before), 0)


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
