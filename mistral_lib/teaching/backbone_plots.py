"""Figures of a whole model: its map, and what its blocks would say (used by chapter 12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from mistral_lib.teaching import plots
from mistral_lib.teaching.next_token import MONOSPACE, token_label
from mistral_lib.teaching.plots import SMALL, Looks

# The rows of `model_map` from below: what stands on the stream, and what beside it reads and adds.
_ROWS = ("vocabulary", "embedding", "norm", "attention", "norm", "network", "norm", "logits")
_STREAM, _BESIDE, _CENTRE, _COUNTS = 2.2, 5.4, 2.2, 9.9
_WIDTH, _HEIGHT = 2.9, 0.62


def model_map(
    ax: Axes,
    counts: Mapping[str, int],
    blocks: int,
    chapters: Mapping[str, str],
    *,
    title: str | None = None,
) -> None:
    """Draws a backbone and the loop around it: each part with its chapter and its parameters.

    The residual stream is the thick line. What stands beside it reads a copy, and adds to it.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        counts: parameters of one `embedding`, `norm`, `attention` and `network`, and of `logits`.
        blocks: how many blocks the model has.
        chapters: for each of the nine parts (`vocabulary`, `embedding`, `norm`, `attention`,
            `network`, `logits`, `loop`, `block`) what to write behind its name.
        title: what the picture shows, as a finding.

    >>> import matplotlib.pyplot as plt
    >>> counts = {"embedding": 80, "norm": 8, "attention": 192, "network": 288, "logits": 80}
    >>> figure, ax = plt.subplots()
    >>> model_map(ax, counts, 2, dict.fromkeys([*counts, "vocabulary", "loop", "block"], ""))
    >>> [text.get_text() for text in ax.texts if "block" in text.get_text()]
    ['2 × block']
    """
    ax.plot([_STREAM] * 2, [0, 8], color=plots.BLUE, linewidth=5, zorder=1, solid_capstyle="butt")
    frame = (0.35, 1.52), 7.4, 3.96
    ax.add_patch(
        Rectangle(*frame, facecolor=plots.PALE, edgecolor=plots.GREY, linestyle="--", zorder=0)
    )
    label = f"{blocks} × block{chapters['block']}"
    ax.text(0.5, 5.36, label, va="top", size=SMALL, color=plots.INK)
    for row, name in enumerate((*_ROWS, "loop")):
        inside = 2 <= row <= 5
        text = {"loop": "choose, append"}.get(name, name) + chapters[name]
        _box(ax, _BESIDE if inside else _CENTRE, row, text, filled=name != "norm")
        if name in counts:
            times = f"{blocks} × " if inside else ""
            look = {"ha": "right", "va": "center", "size": SMALL}
            ax.text(_COUNTS, row, f"{times}{counts[name]:,}", **look)
    for row in (2, 4):
        _arrow(ax, (_STREAM, row), (_BESIDE - _WIDTH / 2, row))
        _arrow(ax, (_BESIDE, row + _HEIGHT / 2), (_BESIDE, row + 1 - _HEIGHT / 2))
        _arrow(ax, (_BESIDE - _WIDTH / 2, row + 1), (_STREAM + 0.16, row + 1))
        ax.plot(_STREAM, row + 1, "o", ms=13, mfc=plots.PAPER, mec=plots.BLUE, mew=1.6, zorder=3)
        ax.text(_STREAM, row + 0.99, "+", ha="center", va="center", zorder=4, color=plots.INK)
    shapes = {0.5: "(S,)", 2.5: "(S, D)", 6.5: "(S, D)", 7.5: "(S, V)"}
    for height, shape in shapes.items():
        ax.text(_STREAM + 0.2, height, shape, va="center", size=SMALL, color=plots.GREY)
    back = {"arrowstyle": "-|>", "mutation_scale": 12, "color": plots.ORANGE, "linewidth": 1.6}
    ax.add_patch(
        FancyArrowPatch(
            (_CENTRE - _WIDTH / 2, 8),
            (_CENTRE - _WIDTH / 2, 0),
            connectionstyle="bar,fraction=0.1,angle=-90",
            **back,
        )
    )
    ax.text(_COUNTS, 8, "parameters", ha="right", va="center", size=SMALL, color=plots.GREY)
    ax.set(xlim=(-0.5, 10), ylim=(-0.5, 8.5), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title)


def _box(ax: Axes, x: float, y: float, text: str, *, filled: bool) -> None:
    corner = (x - _WIDTH / 2 + 0.1, y - _HEIGHT / 2 + 0.1)
    size = _WIDTH - 0.2, _HEIGHT - 0.2
    colours: Looks = {"facecolor": plots.BLUE if filled else plots.PAPER, "edgecolor": plots.BLUE}
    ax.add_patch(FancyBboxPatch(corner, *size, boxstyle="round,pad=0.1", zorder=2, **colours))
    colour = plots.PAPER if filled else plots.INK
    ax.text(x, y, text, ha="center", va="center", size=SMALL, color=colour, zorder=3)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    look: Looks = {"arrowstyle": "-|>", "mutation_scale": 10, "color": plots.INK, "linewidth": 1.1}
    ax.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, zorder=1.5, **look))


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
