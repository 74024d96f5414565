"""Figures of rotary positions: pairs as the hands of clocks (used by chapter 5)."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Circle

from mistral_lib.teaching import plots


def draw_pairs(
    ax: Axes, frequencies: np.ndarray, farthest: int, *, title: str | None = None
) -> None:
    """Draws how far each pair has turned at each distance, filled where it points ahead again.

    A row is a pair and a column a distance. The fuller a cell, the larger the cosine of the angle
    by which the pair has turned. A mark in each row shows where the pair has gone round once.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        frequencies: float array (P,), radians a token, one for each pair.
        farthest: the largest distance.
        title: what the picture shows, as a finding.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_pairs(ax, np.array([1.0, 0.1, 0.01]), 100)
    >>> ax.images[0].get_array().shape, len(ax.lines)
    ((3, 101), 4)
    """
    cosines = np.cos(np.outer(frequencies, np.arange(farthest + 1)))
    shades = LinearSegmentedColormap.from_list("cosine", [plots.PAPER, plots.BLUE])
    ax.imshow(cosines, cmap=shades, vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    for pair, round_trip in enumerate(2 * np.pi / np.asarray(frequencies)):
        if round_trip <= farthest:
            for color, width in ((plots.PAPER, 6), (plots.INK, 2.5)):
                ax.plot([round_trip] * 2, [pair - 0.4, pair + 0.4], color=color, lw=width)
    ax.set(xlabel="distance in tokens", ylabel="pair")
    ax.set_yticks(range(0, len(cosines), 3 if len(cosines) > 8 else 1))
    ax.tick_params(length=0, pad=3)
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title)


def draw_points(ax: Axes, points: np.ndarray, *, title: str | None = None) -> None:
    """Draws one pair of features of many vectors as points, with the origin as a cross.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        points: float array (n, 2).
        title: what is shown.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_points(ax, np.eye(2), title="pair 0")
    >>> len(ax.collections), len(ax.patches)
    (1, 1)
    """
    size = 1.15 * np.hypot(*np.transpose(points)).max()
    ring = Circle((0, 0), size / 1.08, facecolor=plots.PALE, edgecolor=plots.GREY, linewidth=0.8)
    ax.add_patch(ring)
    ax.plot(0, 0, "+", color=plots.INK, markersize=9)
    looks: plots.Looks = {"facecolors": "none", "edgecolors": plots.BLUE, "linewidths": 0.9}
    ax.scatter(points[:, 0], points[:, 1], s=16, zorder=2, **looks)
    ax.set(xlim=(-size, size), ylim=(-size, size), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title)
