"""Figures of attention heads: scores and weights as squares and bars (used by chapters 4 to 8)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Arc, Circle, Rectangle

from mistral_lib.teaching import plots
from mistral_lib.teaching.next_token import token_label
from mistral_lib.teaching.plots import FUTURE, SMALL, Looks


def draw_grid(
    ax: Axes,
    values: np.ndarray,
    *,
    tokens: Sequence[str] | None = None,
    mask: np.ndarray | None = None,
    row: int | None = None,
    title: str | None = None,
) -> None:
    """Draws one number for each pair of tokens as a square whose area says how large it is.

    Rows are queries and columns are keys. A filled square is positive, a hollow one negative. The
    largest fills its cell.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        values: float array (S, S).
        tokens: S labels for the rows; no labels if `None`.
        mask: bool array (S, S); a cell where it is false carries the symbol of the future.
        row: number of a row to put a frame around.
        title: what the picture shows, as a finding.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_grid(ax, np.array([[2.0, 9.0], [-1.0, 1.0]]), tokens=["a", "▁b"], mask=np.tri(2) > 0)
    >>> len(ax.patches), [text.get_text() for text in ax.texts]
    (3, ['▸'])
    """
    values = np.asarray(values, float)
    size = len(values)
    shown = np.ones_like(values, bool) if mask is None else np.asarray(mask, bool)
    largest = abs(values[shown]).max()
    ax.set_facecolor(plots.PALE)
    for (query, key), value in np.ndenumerate(values):
        if not shown[query, key]:
            ax.text(key, query, FUTURE, color=plots.GREY, ha="center", va="center", fontsize=SMALL)
            continue
        side = 0.92 * np.sqrt(abs(value) / largest)
        colour = plots.BLUE if value > 0 else plots.PAPER
        corner = (key - side / 2, query - side / 2)
        ax.add_patch(Rectangle(corner, side, side, facecolor=colour, edgecolor=plots.BLUE, lw=0.8))
    if row is not None:
        frame = Rectangle(
            (-0.5, row - 0.5), size, 1, fill=False, edgecolor=plots.RED, lw=2, zorder=3
        )
        ax.add_patch(frame)
        frame.set_clip_on(False)
    ax.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal", anchor="S", xticks=[])
    ax.set_yticks(range(size), [token_label(token) for token in tokens or [""] * size])
    ax.tick_params(length=0, labelsize=SMALL, pad=2)
    ax.spines[:].set_visible(False)
    if row is not None and tokens:
        ax.get_yticklabels()[row].set(color=plots.RED, weight="bold")
    if title:
        ax.set_title(title)


def draw_bars(
    ax: Axes,
    tokens: Sequence[str],
    values: Sequence[float],
    *,
    mask: Sequence[bool] | None = None,
    write: str | None = None,
    marked: Sequence[int] = (),
    title: str | None = None,
) -> None:
    """Draws one number for each token as a bar over it, with the tokens along the bottom.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        tokens: S labels.
        values: S numbers, none of them negative.
        mask: S booleans; where it is false stands the symbol of the future, and no bar.
        write: format of the number over each bar, such as ".2f"; `None` for no number.
        marked: bars to hatch, whose tokens are written bold.
        title: what the picture shows, as a finding.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_bars(ax, ["a", "▁b"], [0.5, 1], mask=[True, False], write=".1f")
    >>> [text.get_text() for text in ax.texts]
    ['0.5', '▸']
    """
    heights = np.asarray(values, float)
    shown = np.ones(len(heights), bool) if mask is None else np.asarray(mask, bool)
    top = heights[shown].max()
    for place, height in enumerate(heights):
        if not shown[place]:
            ax.text(place, 0, FUTURE, color=plots.GREY, ha="center", va="bottom", fontsize=SMALL)
            continue
        looks: Looks = {"facecolor": plots.BLUE, "edgecolor": plots.BLUE}
        if place in marked:
            looks = {"facecolor": plots.ORANGE, "edgecolor": plots.INK, "hatch": "////"}
        ax.bar(place, height, 0.8, linewidth=0.8, **looks)
        if write:
            text = format(height, write)
            where: Looks = {"ha": "center", "va": "bottom", "rotation": 90, "fontsize": SMALL}
            ax.text(place, height + 0.06 * top, text, **where)
    ax.set(xlim=(-0.5, len(heights) - 0.5), ylim=(0, top * (1.75 if write else 1.1)), yticks=[])
    labels = [token_label(token) for token in tokens]
    if plots.narrow():
        labels = _tallest(labels, np.where(shown, heights, 0), most=24)
    ax.set_xticks(range(len(values)), labels, rotation=90)
    ax.tick_params(length=0, labelsize=SMALL, pad=2)
    ax.spines["left"].set_visible(False)
    for place in marked:
        ax.get_xticklabels()[place].set(weight="bold")
    if title:
        ax.set_title(title)


def _tallest(labels: list[str], heights: np.ndarray, most: int) -> list[str]:
    """The labels of the tallest bars, as many as there is room for beside each other; others ""."""
    apart = -(-len(labels) // most)
    kept: list[int] = []
    for place in np.argsort(-heights, kind="stable"):
        if all(abs(place - other) >= apart for other in kept):
            kept.append(int(place))
    return [label if place in kept else "" for place, label in enumerate(labels)]


def draw_table(
    ax: Axes,
    values: np.ndarray,
    *,
    write: str,
    rows: Sequence[str],
    columns: Sequence[str],
    ring: np.ndarray | None = None,
    title: str | None = None,
) -> None:
    """Draws a table of numbers from 0 to 1, each cell filled from below as high as its number.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        values: float array (rows, columns) from 0 to 1.
        write: format of the numbers, such as ".0%".
        rows: labels of the rows.
        columns: labels of the columns, along the top.
        ring: bool array of the cells to frame.
        title: what the picture shows, as a finding.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_table(ax, np.array([[0.25, 0.5]]), write=".0%", rows=["a"], columns=["x", "y"])
    >>> [text.get_text() for text in ax.texts]
    ['25%', '50%']
    """
    values = np.asarray(values, float)
    height, width = values.shape
    ax.set_facecolor(plots.PALE)
    for (row, column), value in np.ndenumerate(values):
        low = (column - 0.46, row + 0.44)
        ax.add_patch(Rectangle(low, 0.92, -0.88 * value, facecolor=plots.TINT, edgecolor="none"))
        text = format(value, write)
        ax.text(column, row, text, ha="center", va="center", fontsize=SMALL)
        if ring is not None and ring[row, column]:
            frame = Rectangle(
                (column - 0.47, row - 0.45), 0.94, 0.9, fill=False, ec=plots.RED, lw=2
            )
            ax.add_patch(frame)
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    ax.set_xticks(range(width), columns)
    ax.set_yticks(range(height), rows)
    ax.tick_params(length=0, labelsize=SMALL, pad=3, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title, pad=8)


def draw_turn(ax: Axes, query_angle: float, key_angle: float) -> None:
    """Draws a query and a key as arrows of one length, and writes the angle between them.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        query_angle: by how much the query is turned, in radians.
        key_angle: by how much the key is turned.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_turn(ax, np.pi, np.pi / 2)
    >>> [text.get_text() for text in ax.texts if text.get_text()]
    ['q', 'k', '90°']
    """
    ax.add_patch(Circle((0, 0), 1, facecolor=plots.PALE, edgecolor=plots.GREY, linewidth=0.8))
    for name, angle, colour, line in (
        ("q", query_angle, plots.BLUE, "-"),
        ("k", key_angle, plots.RED, "--"),
    ):
        x, y = np.cos(angle), np.sin(angle)
        arrow = {"arrowstyle": "-|>", "color": colour, "linestyle": line, "linewidth": 2}
        ax.annotate("", (x, y), (0, 0), arrowprops={**arrow, "shrinkA": 0, "shrinkB": 0})
        ax.text(1.22 * x, 1.22 * y, name, color=colour, weight="bold", ha="center", va="center")
    start, stop = np.degrees([key_angle, query_angle])
    ax.add_patch(Arc((0, 0), 0.7, 0.7, theta1=start, theta2=stop, color=plots.INK, linewidth=1.2))
    middle = (query_angle + key_angle) / 2
    away = -1 if abs(query_angle - key_angle) < 0.6 else 1  # a narrow angle has no room for text
    place = (0.68 * away * np.cos(middle), 0.68 * away * np.sin(middle))
    ax.text(*place, f"{stop - start:.0f}°", ha="center", va="center", fontsize=SMALL)
    ax.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def draw_wiring(ax: Axes, query_heads: int, key_heads: int, *, size: int, title: str) -> None:
    """Draws query heads wired to the key heads that they share; a box is as wide as its bytes.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        query_heads: H.
        key_heads: K, a divisor of H.
        size: bytes of one token in the cache of all key heads together.
        title: what the picture shows, as a finding.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_wiring(ax, 4, 2, size=1536, title="Two share")
    >>> ax.get_xlabel(), len(ax.lines)
    ('1,536 bytes a token', 4)
    """
    start = (query_heads - key_heads) / 2  # the boxes stand together, in the middle
    for head in range(query_heads):
        key = start + (head * key_heads) // query_heads
        ax.plot([head, key], [1, 0.14], color=plots.GREY, linewidth=1.4, zorder=1)
        ax.text(head, 1.06, "q", color=plots.BLUE, weight="bold", ha="center", va="bottom")
    for key in range(key_heads):
        place = (start + key - 0.5, -0.14)
        ax.add_patch(
            Rectangle(place, 1, 0.28, facecolor=plots.ORANGE, edgecolor=plots.INK, hatch="//")
        )
        label = {"ha": "center", "va": "center", "fontsize": SMALL}
        box = {"boxstyle": "round,pad=0.15", "facecolor": plots.PAPER, "edgecolor": "none"}
        ax.text(start + key, 0, "k v", bbox=box, **label)
    limits = {"xlim": (-0.7, query_heads - 0.3), "ylim": (-0.2, 1.3)}
    ax.set(**limits, xticks=[], yticks=[], xlabel=f"{size:,} bytes a token")
    ax.spines[:].set_visible(False)
    ax.set_title(title)
