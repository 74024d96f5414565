"""Figures of a whole model: what its blocks would say (used by chapter 12)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mistral_lib.teaching import plots
from mistral_lib.teaching.next_token import MONOSPACE, token_label
from mistral_lib.teaching.plots import SMALL, Looks


def lens_grid(
    ax: Axes,
    right: Sequence[str],
    rows: Sequence[str],
    likeliest: Sequence[Sequence[str]],
    chances: np.ndarray,
    *,
    title: str | None = None,
) -> None:
    """Draws what a model would say at each station: one row a station, one column a position.

    A cell holds the likeliest token, and below it the probability of the right one; the fuller its
    bar, the likelier. Where the likeliest token is the right one it is bold, in a frame.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        right: for each column the token that came.
        rows: names of the stations, the first below.
        likeliest: for each row the likeliest token of each column.
        chances: probabilities of the right tokens (rows, columns).
        title: what the picture shows, as a finding.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> lens_grid(ax, ["a", "b"], ["start", "end"], ["xx", "ax"], np.array([[0.1, 0], [0.9, 0.2]]))
    >>> [text.get_text() for text in ax.texts if text.get_weight() == "bold"]
    ['a']
    """
    chances = np.asarray(chances)
    if plots.narrow() and len(right) > 5:  # the second half below the first
        half = -(-len(right) // 2)
        above, below = plots.split(ax)
        firsts, lasts = [row[:half] for row in likeliest], [row[half:] for row in likeliest]
        lens_grid(above, right[:half], rows, firsts, chances[:, :half], title=title)
        lens_grid(below, right[half:], rows, lasts, chances[:, half:])
        return
    for row, column in product(*map(range, chances.shape)):
        token, chance = likeliest[row][column], float(chances[row, column])
        hit = token == right[column]
        cell: Looks = {"edgecolor": plots.PAPER, "linewidth": 2}
        ax.add_patch(Rectangle((column, row), 1, 1, facecolor=plots.PALE, **cell))
        bar: Looks = {"facecolor": plots.ORANGE, "edgecolor": plots.INK, "linewidth": 0.5}
        ax.add_patch(Rectangle((column + 0.08, row + 0.1), 0.84 * chance, 0.12, **bar))
        if hit:
            frame: Looks = {"fill": False, "edgecolor": plots.BLUE, "linewidth": 1.6}
            ax.add_patch(Rectangle((column + 0.04, row + 0.05), 0.92, 0.9, **frame))
        middle: Looks = {"ha": "center", "va": "center"}
        look: Looks = {**MONOSPACE, "size": SMALL, "weight": "bold" if hit else "normal"}
        colour = plots.BLUE if hit else plots.INK
        ax.text(column + 0.5, row + 0.72, token_label(token), color=colour, **middle, **look)
        ax.text(column + 0.5, row + 0.41, f"{chance:.0%}", color=plots.INK, size=SMALL, **middle)
    size = chances.shape
    ax.set(xlim=(0, size[1]), ylim=(0, size[0]))
    ax.set_xticks(np.arange(size[1]) + 0.5, [token_label(t) for t in right], **MONOSPACE)
    ax.set_yticks(np.arange(size[0]) + 0.5, rows, size=SMALL)
    ax.tick_params(length=0, labeltop=True, labelbottom=False, pad=3)
    for label in ax.get_xticklabels():
        label.set(size=SMALL, weight="bold")
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title, pad=8)
