"""Figures of files: bytes as a strip, one by one, and a table of names (used by chapter 17)."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle

from mistral_lib.teaching import plots
from mistral_lib.teaching.plots import SMALL, Looks

GAP = 0.4  # between groups of bytes, in cells

# How a tensor of a file becomes ours: a symbol, its meaning, its cell's colour and hatch.
ARRANGEMENTS = {
    "=": ("as it is", "PAPER", None),
    "H": ("heads have an axis of their own", "PALE", None),
    "T": ("rows and columns exchanged", "TINT", None),
    "P": ("exchanged, and the rows permuted", "SAND", "////"),
}


def draw_strip(
    ax: Axes, parts: Sequence[tuple[str, int]], *, unit: int = 1, axis: str | None = None
) -> None:
    """Draws the parts of a file as one bar, to scale, with a label in each part that has one.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        parts: a label, which may be empty, and the number of bytes, in the order of the file.
        unit: bytes that one unit of the axis stands for.
        axis: what the unit is called.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_strip(ax, [("length", 8), ("header", 56), ("numbers", 64)])
    >>> [patch.get_width() for patch in ax.patches]
    [8.0, 56.0, 64.0]
    """
    start = 0.0
    for number, (label, size) in enumerate(parts):
        width = size / unit
        colour = (plots.PALE, plots.PAPER)[number % 2]
        ax.add_patch(Rectangle((start, 0), width, 1, facecolor=colour, edgecolor=plots.INK, lw=0.8))
        ax.text(start + width / 2, 0.5, label, ha="center", va="center", fontsize=SMALL)
        start += width
    if plots.narrow():  # a part of less than a third is too narrow for its words
        for text, (_, size) in zip(ax.texts, parts, strict=True):
            text.set_rotation(90 if 3 * size / unit < start else 0)
    ax.set(xlim=(0, start), ylim=(0, 1), yticks=[])
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(length=3, labelsize=SMALL)
    if axis:
        ax.set_xlabel(axis, fontsize=SMALL, loc="right", labelpad=0)


def draw_bytes(ax: Axes, groups: Sequence[tuple[str, bytes]], *, text: str) -> None:
    """Draws groups of bytes as cells, each byte in hexadecimal, with a label under each group.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        groups: the label and the bytes of each.
        text: the label of the group whose bytes are characters, which are shown as well.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_bytes(ax, [("length", b"\\x40"), ("header", b"{")], text="header")
    >>> [text.get_text() for text in ax.texts]
    ['40', 'length', '7b', '{', 'header']
    """
    place = last = row = 0.0
    for label, data in groups:
        if plots.narrow() and place:  # each group in a row of its own
            place, row = 0.0, row - 3.4
        start = place
        for byte in data:
            centre: Looks = {"x": place + 0.5, "ha": "center", "va": "center"}
            ax.add_patch(
                Rectangle((place, row), 1, 2, facecolor=plots.PAPER, edgecolor=plots.GREY, lw=0.6)
            )
            ax.text(y=row + 1.45, s=f"{byte:02x}", fontsize=SMALL, **centre)
            if label == text:
                ax.text(y=row + 0.55, s=chr(byte), color=plots.BLUE, weight="bold", **centre)
            place += 1
        ax.plot([start + 0.15, place - 0.15], [row - 0.25] * 2, color=plots.INK, lw=1.5)
        at = (start, "left") if plots.narrow() else ((start + place) / 2, "center")
        ax.text(at[0], row - 0.45, label, ha=at[1], va="top", fontsize=SMALL)
        place += GAP
        last = max(last, place - GAP)
    ax.set(xlim=(0, last), ylim=(row - 1.3, 2.05))
    if plots.narrow():
        figure = plots.figure_of(ax)
        figure.set_figheight(figure.get_figheight() + 1.2 * (len(groups) - 1))
    ax.axis("off")


def draw_zoom(
    figure: Figure, above: Axes, part: tuple[float, float], below: Axes, whole: tuple[float, float]
) -> None:
    """Draws two lines from a part of a strip to the ends of the strip below, which shows it larger.

    Args:
        figure: both are in it.
        above: the axes of a strip.
        part: where the part begins and ends there.
        below: the axes of the other strip.
        whole: its ends.

    >>> import matplotlib.pyplot as plt
    >>> figure, (above, below) = plt.subplots(2)
    >>> draw_zoom(figure, above, (0, 0.1), below, (0, 1))
    >>> len(figure.artists)
    2
    """
    for end, other in zip(part, whole):
        line = ConnectionPatch(
            (end, 0), (other, 1), above.transData, below.transData, color=plots.GREY, lw=0.8, ls=":"
        )
        figure.add_artist(line)


def draw_names(
    ax: Axes,
    columns: Sequence[str],
    rows: Sequence[Sequence[tuple[str, str]]],
    widths: Sequence[float],
) -> None:
    """Draws a table of names, each cell marked with how its tensor becomes ours.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        columns: the heads of the columns.
        rows: for each cell its text and a symbol of `ARRANGEMENTS`, or "" for none.
        widths: of the columns, in any unit.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_names(ax, ["here", "Mistral"], [[("query", ""), ("attention.wq", "P")]], [1, 2])
    >>> [text.get_text() for text in ax.texts][:5]
    ['here', 'Mistral', 'query', 'attention.wq', 'P']
    """
    if plots.narrow():
        _list_names(ax, columns, rows)
        return
    starts = [sum(widths[:index]) for index in range(len(widths) + 1)]
    pad = 0.012 * starts[-1]
    for head, start in zip(columns, starts):
        ax.text(start + pad, -0.5, head, va="center", weight="bold")
    for row, cells in enumerate(rows):
        for (text, mark), start, end in zip(cells, starts, starts[1:]):
            _, colour, hatch = ARRANGEMENTS.get(mark, ("", "PAPER", None))
            box: Looks = dict(facecolor=getattr(plots, colour), edgecolor=plots.GREY, lw=0.5)
            ax.add_patch(Rectangle((start, row), end - start, 1, **box))
            ax.text(start + pad, row + 0.52, text, va="center", fontsize=SMALL)
            if mark:
                side = 3 * pad
                corner = (end - side, row)
                ax.add_patch(Rectangle(corner, side, 1, hatch=hatch, **box))
                at = (end - side / 2, row + 0.52)
                ax.text(*at, mark, ha="center", va="center", fontsize=SMALL, weight="bold")
    for number, (mark, (meaning, *_)) in enumerate(ARRANGEMENTS.items()):
        at = pad + number % 2 * starts[-1] / 3, len(rows) + 0.6 + number // 2 * 0.85
        ax.text(*at, f"{mark}  {meaning}", va="center", fontsize=SMALL)
    ax.set(xlim=(0, starts[-1]), ylim=(len(rows) + 2, -1))
    ax.axis("off")


def _list_names(
    ax: Axes, columns: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]]
) -> None:
    """The table as a list: under the first cell of each row a line for each of the others."""
    line = 0
    for (title, _), *cells in rows:
        ax.text(0, line + 0.5, title, va="center", fontsize=SMALL, weight="bold")
        for column, (text, mark) in zip(columns[1:], cells, strict=True):
            line += 1
            _, colour, hatch = ARRANGEMENTS.get(mark, ("", "PAPER", None))
            box: Looks = dict(facecolor=getattr(plots, colour), edgecolor=plots.GREY, lw=0.5)
            ax.add_patch(Rectangle((0.93, line), 0.07, 1, hatch=hatch, **box))
            ax.text(0.04, line + 0.5, column, va="center", fontsize=SMALL, color=plots.GREY)
            ax.text(0.36, line + 0.5, text, va="center", fontsize=SMALL)
            ax.text(0.965, line + 0.5, mark, ha="center", va="center", fontsize=SMALL)
        line += 1.3
    for mark, (meaning, *_) in ARRANGEMENTS.items():
        line += 1
        ax.text(0, line, f"{mark}  {meaning}", va="center", fontsize=SMALL)
    ax.set(xlim=(0, 1), ylim=(line + 0.6, -0.2))
    ax.axis("off")
    plots.figure_of(ax).set_figheight(0.19 * line)
