"""Figures of devices: what each holds, what goes round a ring, and when it works (chapter 20)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mistral_lib.teaching import plots
from mistral_lib.teaching.plots import SMALL

# A part is known by its hatching and its number; the colour only helps.
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "||||", "----", "++++")
Part = tuple[tuple[int, int], tuple[int, int]]  # rows and columns, from and to


def parts_of(array: Any) -> dict[Part, list[int]]:
    """The parts of a matrix, in order of their places, and the devices that hold each.

    Args:
        array: a JAX array, or anything with `shape` and a `sharding`.

    Returns:
        For each part its first and last row (the last not included) and the same for its columns,
        with the devices' numbers.

    >>> import jax.numpy as jnp
    >>> parts_of(jnp.zeros((2, 3)))
    {((0, 2), (0, 3)): [0]}
    """
    parts: dict[Part, list[int]] = {}
    for device, places in array.sharding.devices_indices_map(array.shape).items():
        ends = (place.indices(size)[:2] for place, size in zip(places, array.shape))
        parts.setdefault(tuple(ends), []).append(device.id)
    return {part: sorted(devices) for part, devices in sorted(parts.items())}


def draw_mesh(
    ax: Axes,
    ids: Sequence[Sequence[int]] | np.ndarray,
    *,
    corner: tuple[float, float],
    cell: tuple[float, float],
) -> None:
    """Draws a mesh of devices: a box for each, which looks like the part that its column holds.

    Args:
        ax: the axes to draw on, with y downwards.
        ids: integer array (batch, model) of the devices' numbers.
        corner: x and y of the upper left corner.
        cell: width and height of a box.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_mesh(ax, [[0, 1], [2, 3]], corner=(0, 0), cell=(2, 1))
    >>> [text.get_text() for text in ax.texts]
    ['0', '1', '2', '3']
    """
    (x, y), (width, height) = corner, cell
    for row, devices in enumerate(ids):
        for column, device in enumerate(devices):
            place = (x + column * width, y + row * height)
            _box(ax, place, width, height, column)
            _label(ax, place, width, height, [device])


def draw_parts(
    ax: Axes,
    parts: dict[Part, Sequence[int]],
    *,
    corner: tuple[float, float],
    name: str,
) -> None:
    """Draws a matrix to scale, cut into its parts, with the devices that hold each.

    Rows are input features and run downwards; columns are output features.

    Args:
        ax: the axes to draw on, with y downwards, where one unit is one feature.
        parts: from `parts_of`.
        corner: x and y of the upper left corner.
        name: written above.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> halves = {((0, 9), (0, 4)): [0, 2], ((0, 9), (4, 8)): [1, 3]}
    >>> draw_parts(ax, halves, corner=(0, 0), name="up")
    >>> [text.get_text() for text in ax.texts]
    ['0 2', '1 3', 'up']
    """
    x, y = corner
    for number, (((top, bottom), (left, right)), devices) in enumerate(parts.items()):
        place = (x + left, y + top)
        width, height = right - left, bottom - top
        _box(ax, place, width, height, number)
        _label(ax, place, width, height, devices)
    ax.text(x, y - 8, name, ha="left", va="bottom", fontsize=SMALL, weight="bold")


def draw_held(
    ax: Axes,
    held: np.ndarray,
    *,
    corner: tuple[float, float],
    title: str,
    complete: Sequence[int] | np.ndarray,
    sends: Sequence[int] = (),
) -> None:
    """Draws what the devices of a ring hold: a column for each device, a row for each piece.

    Args:
        ax: the axes to draw on, with y downwards, where a piece is one unit wide and high.
        held: array (devices, pieces) of numbers.
        corner: x and y of the upper left corner.
        title: written above.
        complete: the sum of each piece; a device that has it gets a filled box.
        sends: for each device the piece that it sends next, which gets a thick frame.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_held(ax, np.array([[1, 22], [10, 20]]), corner=(0, 0), title="now", complete=[11, 22])
    >>> [text.get_text() for text in ax.texts]
    ['1', '22', '10', '20', 'now']
    """
    x, y = corner
    for device, pieces in enumerate(held):
        for piece, number in enumerate(pieces):
            done = number == complete[piece]
            sent = len(sends) > 0 and sends[device] == piece
            inset = 0.06 if sent else 0
            corner_of = x + device + inset, y + piece + inset
            size = 1 - 2 * inset
            box = Rectangle(corner_of, size, size, linewidth=2.2 if sent else 0.8)
            box.set(facecolor=plots.SKY if done else plots.PAPER, zorder=2 + sent)
            box.set(edgecolor=plots.ORANGE if sent else plots.GREY)
            ax.add_patch(box)
            middle = x + device + 0.5, y + piece + 0.5
            label = ax.annotate(f"{number}", middle, ha="center", va="center", zorder=4)
            label.set(fontsize=SMALL, color=plots.INK, weight="bold" if done else "normal")
    ax.text(x, y - 0.15, title, ha="left", va="bottom", fontsize=SMALL)


def draw_schedule(ax: Axes, starts: np.ndarray, work: Sequence[float]) -> None:
    """Draws when each stage of a pipeline works on which micro-batch; the rest is the bubble.

    Args:
        ax: the axes to draw on.
        starts: array (stages, micro-batches) of the times at which each begins.
        work: how long each stage takes for one micro-batch.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_schedule(ax, np.array([[0, 1], [1, 2]]), [1, 1])
    >>> [text.get_text() for text in ax.texts]
    ['0', '1', '0', '1']
    """
    end = (np.asarray(starts)[:, -1] + np.asarray(work)).max()
    for stage, (begins, width) in enumerate(zip(starts, work)):
        bubble = Rectangle((0, stage - 0.4), end, 0.8, linewidth=0, hatch="////")
        bubble.set(facecolor=plots.PAPER, edgecolor=plots.GREY)
        ax.add_patch(bubble)
        for number, begin in enumerate(begins):
            box = Rectangle((begin, stage - 0.4), width, 0.8, linewidth=0.8)
            box.set(facecolor=plots.SKY, edgecolor=plots.INK)
            ax.add_patch(box)
            middle = begin + width / 2
            label = ax.text(middle, stage, f"{number}", ha="center", va="center")
            label.set(fontsize=SMALL, color=plots.INK)
    ax.set(xlim=(0, end), ylim=(len(starts) - 0.5, -0.5), xlabel="time", ylabel="device")
    ax.set_yticks(range(len(starts)))


def _box(ax, place, width, height, number):
    """A rectangle with the look of one part."""
    colours = (plots.PALE, plots.SKY, plots.ORANGE, plots.PAPER)
    look = {"facecolor": colours[number % len(colours)], "hatch": HATCHES[number % len(HATCHES)]}
    ax.add_patch(Rectangle(place, width, height, edgecolor=plots.GREY, linewidth=0.8, **look))


def _label(ax, place, width, height, devices):
    """The numbers of devices in the middle of a rectangle, along its longer side."""
    ax.text(
        place[0] + width / 2,
        place[1] + height / 2,
        " ".join(map(str, devices)),
        rotation=90 if len(devices) > 1 and height >= 2 * width else 0,
        ha="center",
        va="center",
        color=plots.INK,
        fontsize=SMALL,
        bbox={"boxstyle": "round,pad=0.15", "facecolor": plots.PAPER, "edgecolor": "none"},
    )
