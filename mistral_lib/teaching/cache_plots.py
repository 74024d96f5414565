"""Figures of a cache, made from its real arrays (used by chapter 15)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mistral_lib.teaching import plots
from mistral_lib.teaching.estimates import Estimate
from mistral_lib.teaching.next_token import token_label
from mistral_lib.teaching.plots import SMALL

STRIP = 0.3  # of a cell's height, for the numbers that are in the slot


def find_positions(film: np.ndarray, keys: np.ndarray, tolerance: float = 1e-3) -> np.ndarray:
    """The position whose key each slot holds, found by comparing numbers with numbers.

    Args:
        film: float array (frames, slots, h), one head of a cache at several times.
        keys: float array (S, h), the keys of all positions, computed without a cache.
        tolerance: how far a number may be from the key's.

    Returns:
        An int array (frames, slots); -1 where a slot holds nothing but zeros.

    Raises:
        ValueError: a slot holds something that is no position's key, or that of several.

    >>> keys = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> find_positions(np.array([[[3.0, 4.0], [0.0, 0.0]]]), keys)
    array([[ 1, -1]])
    """
    film, keys = np.asarray(film), np.asarray(keys)
    close = abs(film[:, :, None] - keys).max(axis=-1) < tolerance  # (frames, slots, S)
    empty = (film == 0).all(axis=-1)
    count = close.sum(axis=-1)
    if ((count != 1) & ~empty).any():
        frame, slot = np.argwhere((count != 1) & ~empty)[0]
        raise ValueError(
            f"Slot {slot} of frame {frame} equals the keys of {count[frame, slot]} positions, "
            "expected one. Compare with the keys of the same block and head."
        )
    return np.where(empty, -1, close.argmax(axis=-1))


def draw_film(
    ax: Axes, film: np.ndarray, held: np.ndarray, tokens: Sequence[str], *, title: str | None = None
) -> None:
    """Draws a cache as a filmstrip: slots are columns, and time runs down, a row for each token.

    A cell says which position its slot holds and, where there is room, its token; the strip below
    shows the numbers that are in the array, dark for negative and light for positive ones. The slot
    that was written last is filled; where that overwrote an older token, a frame and its position
    say so.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        film: float array (frames, slots, h); frame t is the cache after token t.
        held: int array (frames, slots), the position in each slot, -1 for none.
        tokens: the pieces, at least one for each frame.
        title: what the picture shows, as a finding.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_film(ax, np.ones((3, 2, 4)), np.array([[0, -1], [0, 1], [2, 1]]), "abc")
    >>> sorted(text.get_text() for text in ax.texts if text.get_text().startswith("was"))
    ['was 0']
    """
    film, held = np.asarray(film, float), np.asarray(held)
    frames, slots, size = film.shape
    largest = abs(film).max()
    for frame, row in enumerate(film):
        strip = np.ma.masked_array(row, np.broadcast_to(held[frame, :, None] < 0, row.shape))
        ax.imshow(
            strip.reshape(1, slots * size),
            cmap="gray",
            vmin=-largest,
            vmax=largest,
            extent=(0, slots, frame + 1, frame + 1 - STRIP),
            aspect="auto",
            zorder=1,
        )
        for slot, position in enumerate(held[frame]):
            before = held[frame - 1, slot] if frame else -1
            _draw_slot(ax, frame, slot, position, before, tokens)
    ax.set(xlim=(0, slots), ylim=(frames, 0), xlabel="slot")
    ax.set_xticks(np.arange(slots) + 0.5, [str(slot) for slot in range(slots)])
    read = [f"{frame}  {token_label(tokens[frame])}" for frame in range(frames)]
    ax.set_yticks(np.arange(frames) + 0.5, read)
    ax.xaxis.set_label_position("top")
    ax.tick_params(length=0, labeltop=True, labelbottom=False, pad=3)
    for edge in range(slots + 1):
        ax.axvline(edge, color=plots.PAPER, linewidth=4, zorder=2)
    ax.hlines(range(frames + 1), 0, slots, color=plots.PAPER, linewidth=4, zorder=2)
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title)


def _draw_slot(ax, frame, slot, position, before, tokens) -> None:
    """One cell: what the slot holds, whether that is new, and what it was written over."""
    new = position != before
    middle = frame + (1 - STRIP) / 2
    colour = plots.BLUE if new else plots.PALE
    ax.add_patch(Rectangle((slot, frame), 1, 1 - STRIP, facecolor=colour, zorder=0))
    if position < 0:
        centre = {"ha": "center", "va": "center", "size": SMALL}
        ax.text(slot + 0.5, frame + 0.5, "empty", color=plots.GREY, **centre)
        return
    looks = {"color": plots.PAPER if new else plots.INK, "va": "center", "size": SMALL, "zorder": 4}
    label = token_label(tokens[position]).removeprefix("▁")
    ax.text(slot + 0.07, middle, f"{position}", weight="bold", ha="left", **looks)
    if not plots.narrow():  # there the rows name the tokens
        ax.text(slot + 0.25, middle, label, ha="left", **looks)
    if new and before >= 0:
        was = f"({before})" if plots.narrow() else f"was {before}"
        ax.text(slot + 0.95, middle, was, ha="right", **looks)
        ring = {"fill": False, "edgecolor": plots.RED, "lw": 2, "zorder": 3}
        ax.add_patch(Rectangle((slot + 0.02, frame + 0.03), 0.96, 0.94, **ring))


def draw_places(
    ax: Axes, groups: Sequence[Estimate], *singles: Sequence[float] | np.ndarray
) -> None:
    """Draws how far logits are off by the place of a token in its chunk.

    Args:
        ax: the axes to draw on.
        groups: the mean for each group of places; all groups have the same size.
        *singles: the errors of single chunks, one for each place.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_places(ax, [Estimate(0.5, 0.4, 0.6, 26)] * 2, [0.9, 0.1, 0, 0])
    >>> tuple(map(float, ax.get_xlim()))
    (-0.5, 3.5)
    """
    size = len(singles[0]) // len(groups)
    for number, single in enumerate(singles):
        label = "single chunks" if number == 0 else None
        ax.plot(
            single, color=plots.GREY, linewidth=1, linestyle=("-", ":")[number % 2], label=label
        )
    middles = np.arange(len(groups)) * size + (size - 1) / 2
    _intervals(ax, middles, groups, "o", plots.BLUE, f"mean of {groups[0].n} documents")
    ax.set(xlabel="place in the chunk", ylabel="largest error of a logit")
    ax.set(xlim=(-0.5, len(singles[0]) - 0.5), ylim=(0, None))
    ax.legend(loc="upper right")


def draw_sizes(ax: Axes, sizes: Sequence[int], curves: Mapping[str, Sequence[Estimate]]) -> None:
    """Draws what caches of several sizes cost, one curve for each way of filling them.

    Args:
        ax: the axes to draw on.
        sizes: the numbers of slots.
        curves: what the slots hold -> what that costs at each size.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_sizes(ax, [8, 16], {"recent": [Estimate(0.5, 0.4, 0.6, 26)] * 2})
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['recent']
    """
    looks = zip(("o-", "s--"), (plots.BLUE, plots.RED), (0.97, 1.03))
    for (name, estimates), (marker, colour, shift) in zip(curves.items(), looks):
        _intervals(ax, shift * np.array(sizes), estimates, marker, colour, name)
    ax.axhline(0, color=plots.GREY, linewidth=1)
    ax.set(xscale="log", xlabel="slots", ylabel="bits a token more than with all")
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()
    ax.legend(loc="upper right")


def draw_throughput(ax: Axes, rows: Sequence[int], speeds: Mapping[str, Sequence[float]]) -> None:
    """Draws tokens a second over the rows of a batch, each curve with its name at its end.

    Args:
        ax: the axes to draw on.
        rows: the numbers of rows.
        speeds: name -> tokens a second for each of them; the first is drawn solid.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_throughput(ax, [1, 10], {"real": [300, 2000], "ideal": [300, 3000]})
    >>> [text.get_text() for text in ax.texts]
    ['real', 'ideal']
    """
    looks = zip(("-", "--"), (plots.BLUE, plots.RED), ("top", "bottom"))
    for (name, speed), (line, colour, side) in zip(speeds.items(), looks):
        ax.plot(rows, speed, line, color=colour)
        middle = len(rows) // 2
        away = 0.8 if side == "top" else 1.25
        at = "left" if side == "top" else "right"
        ax.text(rows[middle], away * speed[middle], name, color=colour, va=side, ha=at)
    ax.set(xscale="log", yscale="log", xlabel="rows", ylabel="tokens a second")
    ticks = [tick for tick in (1, 8, 32, 100, 200) if tick <= max(rows)]
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.minorticks_off()


def _intervals(ax, x, estimates, marker, colour, label) -> None:
    """Means with their intervals."""
    means = np.array([estimate.mean for estimate in estimates])
    ends = np.array([[estimate.low, estimate.high] for estimate in estimates]).T
    ax.errorbar(
        x, means, abs(ends - means), fmt=marker, color=colour, capsize=3, label=label, zorder=3
    )
