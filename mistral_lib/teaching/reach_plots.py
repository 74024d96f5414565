"""Figures of reach, and of the tiles that a band is cut into (used by chapter 8)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle

from mistral_lib.teaching import plots
from mistral_lib.teaching.plots import SMALL


def draw_reach(ax: Axes, window: int, layers: int, last: int) -> None:
    """Marks on an axis of distances how far each number of layers reaches, and where none does.

    Args:
        ax: axes whose horizontal axis is the distance in tokens.
        window: tokens that a token sees, its own included.
        layers: number of layers.
        last: the greatest distance of the axis, beyond the reach of all layers.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_reach(ax, window=4, layers=3, last=12)
    >>> [line.get_xdata()[0] for line in ax.lines], [text.get_text() for text in ax.texts]
    ([3, 6, 9], ['one layer: 3', 'all 3: 9', 'no path'])
    """
    step, reach = window - 1, layers * (window - 1)
    for layer in range(1, layers + 1):
        outer = layer in (1, layers)
        looks = {"linestyle": "--" if outer else ":", "linewidth": 1}
        ax.axvline(layer * step, color=plots.GREY, zorder=0, **looks)
    ax.axvspan(
        reach + 0.5, last, facecolor=plots.PALE, edgecolor=plots.GREY, hatch="////", linewidth=0
    )
    top = {"transform": ax.get_xaxis_transform(), "va": "bottom", "fontsize": SMALL}
    ax.text(step, 1.01, f"one layer: {step}", ha="center", **top)
    ax.text(reach, 1.01, f"all {layers}: {reach}", ha="center", **top)
    middle = {"transform": ax.get_xaxis_transform(), "ha": "center", "va": "center"}
    box = {"boxstyle": "round,pad=0.2", "facecolor": plots.PAPER, "edgecolor": "none"}
    ax.text((reach + last) / 2, 0.5, "no path", rotation=90, bbox=box, fontsize=SMALL, **middle)
    ax.set_xlim(0, last)


def draw_tiles(
    ax: Axes,
    mask: np.ndarray,
    tiles: Iterable[tuple[int, int, int, int]],
    *,
    title: str | None = None,
) -> None:
    """Draws the square of all scores, with the tiles that are computed hatched.

    Filled cells are seen. Cells that are hatched without being filled are computed and hidden; the
    blank ones are never computed.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        mask: bool array (S, S), true where a query (row) sees a key (column).
        tiles: the first query, the query behind the last, the first key and the key behind the
            last, of each tile.
        title: what the picture shows, as a finding.

    Raises:
        ValueError: a cell that is seen lies in no tile, or a cell lies in two.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_tiles(ax, np.eye(4, dtype=bool), [(0, 2, 0, 2), (2, 4, 2, 4)])
    >>> len(ax.patches)
    2
    """
    mask, tiles = np.asarray(mask, bool), list(tiles)
    computed = np.zeros(mask.shape, int)
    for first, last, first_key, last_key in tiles:
        computed[first:last, first_key:last_key] += 1
    if (computed > 1).any() or (mask & (computed == 0)).any():
        raise ValueError("The tiles have to hold each cell that is seen, and no cell twice.")
    ax.pcolormesh(np.ma.masked_equal(mask, False), cmap=ListedColormap([plots.BLUE]), alpha=0.55)
    for first, last, first_key, last_key in tiles:
        corner, size = (first_key, first), (last_key - first_key, last - first)
        looks = {"facecolor": "none", "edgecolor": plots.RED, "hatch": "////", "linewidth": 1.4}
        ax.add_patch(Rectangle(corner, *size, **looks))
    queries, keys = mask.shape
    ax.set(xlim=(0, keys), ylim=(queries, 0), aspect="equal", xticks=[0, keys], yticks=[0, queries])
    ax.set(xlabel="keys", ylabel="queries")
    ax.tick_params(length=0, labelsize=SMALL)
    for spine in ax.spines.values():
        spine.set_visible(True)
    if title:
        ax.set_title(title)
