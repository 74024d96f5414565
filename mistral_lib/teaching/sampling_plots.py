"""Figures of choosing: the same tokens under several settings, and a tree (used by chapter 16)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mistral_lib.teaching import plots
from mistral_lib.teaching.estimates import Estimate
from mistral_lib.teaching.next_token import MONOSPACE, token_label
from mistral_lib.teaching.plots import SMALL, Looks


def draw_choices(
    ax: Axes,
    tokens: Sequence[str],
    probabilities: Sequence[float],
    before: Sequence[float],
    *,
    title: str | None = None,
) -> None:
    """Draws the chances of some tokens as bars, and as an outline what they were before.

    A token that was left out has the outline alone, and a cross.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        tokens: the pieces, in the order in which they are to stand.
        probabilities: as many numbers from 0 to 1.
        before: as many numbers, the model's own.
        title: what the picture shows, as a finding.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_choices(ax, ["▁the", "▁a"], [1, 0], [0.75, 0.25])
    >>> [text.get_text() for text in ax.texts]
    ['100%', '×']
    """
    places = range(len(tokens))
    ax.barh(places, probabilities, height=0.7, color=plots.BLUE)
    ax.barh(places, before, height=0.7, fill=False, edgecolor=plots.INK, linewidth=0.9)
    for place, (now, then) in enumerate(zip(probabilities, before, strict=True)):
        label = "×" if now == 0 else f"{now:.0%}" if now >= 0.005 else "<1%"
        ax.text(max(now, then) + 0.03, place, label, va="center", size=SMALL)
    look: Looks = {**MONOSPACE, "size": SMALL}
    ax.set_yticks(places, [token_label(token) for token in tokens], **look)
    ax.set(xlim=(0, 1.25), ylim=(len(tokens) - 0.5, -0.5), xticks=[])
    ax.tick_params(length=0)
    ax.spines["bottom"].set_visible(False)
    if title:
        ax.set_title(title, fontsize=SMALL + 1)


def draw_tree(
    ax: Axes,
    paths: Mapping[tuple[str, ...], float],
    kept: Sequence[tuple[str, ...]],
    *,
    best: tuple[str, ...],
    greedy: tuple[str, ...],
    title: str | None = None,
) -> None:
    """Draws a beam search as a tree that grows to the right.

    A box is a path, with its last token and the probability of the whole of it. The search's best
    path is filled, the greedy one has a thick dashed line, and what was not kept is grey.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        paths: the probability of each path, by its tokens; the beginnings of a path are paths, too.
        kept: the paths that were beams.
        best: the path to fill.
        greedy: the path that takes the likeliest token each time.
        title: what the picture shows, as a finding.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> paths = {("a",): 0.6, ("b",): 0.4, ("a", "c"): 0.2, ("b", "d"): 0.3}
    >>> draw_tree(ax, paths, list(paths), best=("b", "d"), greedy=("a", "c"))
    >>> [text.get_text() for text in ax.texts]
    ['a 60.0%', 'b 40.0%', 'c 20.0%', 'd 30.0%']
    """
    heights, roots = _heights(paths), {path[:1] for path in paths}
    if plots.narrow():  # an outline: a line for each path, further in the longer it is
        rows = enumerate(_outline(paths, heights))
        heights = {(): 0.0} | {path: float(row) for row, path in rows}
        plots.figure_of(ax).set_figheight(0.5 + 0.3 * len(paths))
    for path, probability in paths.items():
        place, text = (len(path), heights[path]), f"{token_label(path[-1])} {_percent(probability)}"
        on_best, on_greedy = path == best[: len(path)], path == greedy[: len(path)]
        if len(path) > 1 or len(roots) > 1:
            parent = path[:-1]
            start = (len(parent), heights[parent])
            colour = plots.BLUE if on_best else plots.RED if on_greedy else plots.GREY
            looks = {"color": colour, "linewidth": 3 if on_best or on_greedy else 0.8}
            dashed = "--" if on_greedy and not on_best else "-"
            ax.plot(*zip(start, place), dashed, zorder=1, **looks)
        ink = plots.PAPER if on_best else plots.INK if path in kept else plots.GREY
        face = plots.BLUE if on_best else plots.PAPER if path in kept else plots.PALE
        edge = plots.RED if on_greedy and not on_best else plots.BLUE if on_best else plots.GREY
        box = {"boxstyle": "round,pad=0.25", "facecolor": face, "edgecolor": edge}
        ax.text(*place, text, color=ink, size=SMALL, ha="center", va="center", bbox=box, zorder=2)
    depth = max(map(len, paths))
    ax.set(
        xlim=(-0.1 if len(roots) > 1 else 0.5, depth + 0.5),
        ylim=(max(heights.values()) + 0.6, -0.6),
    )
    ax.set_axis_off()
    if title:
        ax.set_title(title)


def draw_rounds(
    ax: Axes,
    rounds: Sequence[tuple[Sequence[str], int, str]],
    *,
    title: str | None = None,
) -> None:
    """Draws speculative decoding: a row is a round, with the draft's tokens and the model's own.

    Accepted tokens are filled. The first refused one is ringed in red, and those behind it, which
    nobody looked at, are pale. The model's own token stands in the last column.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        rounds: for each round the k proposed tokens, how many were accepted, and the model's own.
        title: what the picture shows, as a finding.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_rounds(ax, [(["▁a", "b"], 1, "c")])
    >>> [text.get_text() for text in ax.texts]
    ['▁a', 'b', 'c']
    """
    columns = len(rounds[0][0]) + 1
    for row, (proposed, accepted, own) in enumerate(rounds):
        for column, token in enumerate([*proposed, own]):
            looks: Looks = {"facecolor": plots.PALE, "edgecolor": plots.PAPER}
            colour = plots.GREY
            if column < accepted:
                looks, colour = {"facecolor": plots.BLUE, "edgecolor": plots.PAPER}, plots.PAPER
            elif column == columns - 1:
                looks, colour = (
                    {"facecolor": plots.PAPER, "edgecolor": plots.BLUE, "lw": 2},
                    plots.INK,
                )
            elif column == accepted:
                looks, colour = (
                    {"facecolor": plots.PAPER, "edgecolor": plots.RED, "lw": 2, "ls": "--"},
                    plots.INK,
                )
            ax.add_patch(Rectangle((column + 0.03, row + 0.08), 0.94, 0.84, **looks))
            middle = (column + 0.5, row + 0.5)
            ax.text(*middle, token_label(token), color=colour, ha="center", va="center", size=SMALL)
    ax.set(xlim=(0, columns), ylim=(len(rounds), 0))
    heads = [*(f"draft {i}" for i in range(1, columns)), "the model"]
    ax.set_xticks(np.arange(columns) + 0.5, heads)
    ax.set_yticks(np.arange(len(rounds)) + 0.5, [f"round {i + 1}" for i in range(len(rounds))])
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title)


def draw_trade(
    ax: Axes,
    curves: Mapping[str, Sequence[tuple[Estimate, Estimate]]],
    *,
    level: float | None = None,
    legend: bool = True,
    title: str | None = None,
) -> None:
    """Draws quality over variety, a line for each sampler and a point for each of its settings.

    Args:
        ax: the axes to draw on; its limits and labels are replaced.
        curves: sampler -> for each setting its quality and its variety, with intervals.
        level: a quality to compare with, as a dotted line.
        legend: whether the lines are named.
        title: what the picture shows, as a finding.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> points = [(Estimate(0.4, 0.3, 0.5, 36), Estimate(0.6, 0.5, 0.7, 36))]
    >>> draw_trade(ax, {"top_k": points})
    >>> [line.get_label() for line in ax.get_legend().get_lines()]
    ['top-k']
    """
    colours = plots.INK, plots.GREEN, plots.RED, plots.BLUE, plots.ORANGE
    for (name, points), marker, colour in zip(curves.items(), "osv^D", colours):
        x = [variety.mean for _, variety in points]
        for (quality, variety), place in zip(points, x):
            across, up = [(e.low, e.high) for e in (variety, quality)]
            looks = {"color": colour, "linewidth": 0.7, "alpha": 0.5}
            ax.plot(across, [quality.mean] * 2, **looks)
            ax.plot([place] * 2, up, **looks)
        y = [quality.mean for quality, _ in points]
        label = name.removesuffix("_p") + "-p" if name.endswith("_p") else name.replace("_", "-")
        ax.plot(x, y, marker=marker, color=colour, markersize=5, linewidth=1.2, label=label)
    if level is not None:
        ax.axhline(level, linestyle=":", color=plots.GREY, linewidth=1.2)
        ax.text(0.3, level, "a person", color=plots.GREY, size=SMALL, va="bottom")
    ax.set_xscale("function", functions=(_nines, lambda nines: 1 - 10.0**-nines))
    ticks = [0.5, 0.9, 0.97, 0.99, 0.997]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set(xlim=(0.25, 0.999), xlabel="variety", ylabel="quality")
    if legend:
        ax.legend(loc="lower left", fontsize=SMALL, frameon=False, handlelength=1.6)
    if title:
        ax.set_title(title)


def _nines(variety):
    """How near to 1, counted in nines, up to three: it draws apart what is close to 1."""
    return -np.log10(np.clip(1 - np.asarray(variety, float), 1e-3, None))


def draw_speed(
    ax: Axes, rows: Sequence[int], curves: Mapping[str, Sequence[float]], *, title: str
) -> None:
    """Draws how many times as fast speculation makes a batch, over its rows.

    Args:
        ax: the axes to draw on.
        rows: the numbers of rows.
        curves: name -> times as fast, for each of them; the name is written at its start.
        title: what the picture shows, as a finding.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_speed(ax, [1, 10], {"9 of 10": [3.0, 2.0]}, title="Faster")
    >>> [text.get_text() for text in ax.texts]
    ['9 of 10', 'no gain']
    """
    looks = zip(("-", "--", "-."), (plots.BLUE, plots.GREEN, plots.ORANGE))
    for (name, speed), (line, colour) in zip(curves.items(), looks):
        ax.plot(rows, speed, line, color=colour)
        ax.text(rows[0], speed[0] + 0.06, name, color=colour, va="bottom", size=SMALL)
    ax.axhline(1, linestyle=":", color=plots.GREY, linewidth=1.2)
    ax.text(rows[0], 0.95, "no gain", color=plots.GREY, size=SMALL, va="top")
    ax.set(xscale="log", xlabel="rows in the batch", ylabel="times as fast")
    ticks = [tick for tick in (1, 4, 16, 64, 256) if tick <= max(rows)]
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    ax.set_ylim(0, 1.12 * max(max(speed) for speed in curves.values()))
    ax.set_title(title)


def _percent(probability: float) -> str:
    """Three digits at most: 59.6%, 3.2%, 0.041%."""
    per_cent = 100 * probability
    places = 1 if per_cent >= 1 else int(np.ceil(-np.log10(max(per_cent, 1e-12)))) + 1
    return f"{per_cent:.{places}f}%"


def _outline(paths, heights: Mapping[tuple[str, ...], float]) -> list[tuple[str, ...]]:
    """The paths, each followed by those that continue it, in the order of their heights."""

    def after(path):
        following = [p for p in paths if len(p) == len(path) + 1 and p[: len(path)] == path]
        for child in sorted(following, key=lambda child: heights[child]):
            yield child
            yield from after(child)

    return list(after(()))


def _heights(paths: Mapping[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    """Where each path stands, so that no two lines cross: ends below each other, best first."""
    heights, free = {}, iter(range(len(paths) + 1))

    def place(path):
        children = [p for p in paths if len(p) == len(path) + 1 and p[: len(path)] == path]
        children.sort(key=lambda child: -paths[child])
        for child in children:
            place(child)
        inner = [heights[child] for child in children]
        heights[path] = sum(inner) / len(inner) if inner else float(next(free))

    place(())
    return heights
