"""A text as boxes, and how a word is merged (used by chapter 2)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from mistral_lib.teaching import plots
from mistral_lib.teaching.next_token import MONOSPACE, token_label
from mistral_lib.teaching.plots import SMALL, Looks

_ROOM = 4  # characters: the narrowest box, so that an id fits under it
_GAP = 0.9  # characters between two boxes
_NAMES = 7  # characters that the names of the rows take, on the left
_INCH = 0.0875  # inches of one character


def text_boxes(
    ax: Axes,
    pieces: Sequence[str],
    ids: Sequence[int],
    sizes: Sequence[int],
    *,
    title: str | None = None,
) -> None:
    """Draws a text as a row of boxes, one for each token, with its id and its bytes under it.

    Args:
        ax: the only axes of its figure, whose size is set here; its ticks and limits are replaced.
        pieces: the tokens.
        ids: as many numbers.
        sizes: how many bytes of the text each token is.
        title: what the picture shows, as a finding.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> text_boxes(ax, ["a", "▁dog"], [9, 120], [1, 4])
    >>> [text.get_text() for text in ax.texts]
    ['id', 'bytes', 'a', '9', '1', '▁dog', '120', '4']
    """
    columns = 30 if plots.narrow() else 66
    lines: list[list[int]] = [[]]
    end = 0.0
    for place, piece in enumerate(pieces):
        width = max(len(piece), _ROOM) + _GAP
        if lines[-1] and end + width > columns:
            lines.append([])
            end = 0.0
        lines[-1].append(place)
        end += width
    for number, line in enumerate(lines):
        top, x = 4.0 * number, 0.0
        for row, name in ((1.15, "id"), (2.0, "bytes")):
            ax.text(-_GAP, top + row, name, ha="right", va="center", size=SMALL, color=plots.GREY)
        for place in line:
            label = token_label(pieces[place])
            width = max(len(label), _ROOM)
            _box(ax, x, top, width, label, filled=bool(place % 2))
            for row, value in ((1.15, ids[place]), (2.0, sizes[place])):
                where: Looks = {"ha": "center", "va": "center", "size": SMALL}
                ax.text(x + width / 2, top + row, f"{value}", **where)
            x += width + _GAP
    height = 4 * len(lines) - 1
    ax.set(xlim=(-_NAMES, columns), ylim=(height - 0.3, -0.9), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    plots.figure_of(ax).set_size_inches(_INCH * (columns + _NAMES), 0.35 + 0.24 * height)
    if title:
        ax.set_title(title)


def _box(ax: Axes, x: float, y: float, width: float, label: str, *, filled: bool) -> None:
    """One token; neighbours differ, so that the eye can tell them apart."""
    fill = plots.TINT if filled else plots.PALE
    style = "round,pad=0,rounding_size=0.35"
    corner = (x - 0.3, y - 0.55)
    looks: Looks = {"facecolor": fill, "edgecolor": plots.GREY, "lw": 0.8}
    ax.add_patch(FancyBboxPatch(corner, width + 0.6, 1.1, boxstyle=style, **looks))
    ax.text(x + width / 2, y, label, ha="center", va="center", **MONOSPACE)


def merge_steps(
    ax: Axes,
    text: str,
    history: Sequence[tuple[int, str, int]],
    ranks: dict[str, int],
    *,
    title: str | None = None,
) -> None:
    """Draws how a word is merged, a row for each step, from its letters to the tokens left over.

    Where two neighbours make a piece, the rank of that piece is written on the line between them.
    The lowest one is framed: it is merged, and the row below has the piece.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        text: the word.
        history: the merges in order: the index of the left one of the two tokens that were merged,
            the piece that they made, and its rank.
        ranks: of all pieces.
        title: what the picture shows, as a finding.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> merge_steps(ax, "abc", [(1, "bc", 7)], {"ab": 9, "bc": 7})
    >>> [text.get_text() for text in ax.texts]
    ['a', 'b', 'c', '9', '7', 'a', 'bc']
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['letters', 'bc']
    """
    row, names = list(text), ["letters", *(piece for _, piece, _ in history)]
    for step in range(len(history) + 1):
        last = step == len(history)
        starts = [sum(map(len, row[:place])) for place in range(len(row))]
        for start, piece in zip(starts, row):
            _cell(ax, start, step, piece, left_over=last)
        for place, (left, right) in enumerate(pairwise(row)):
            if (rank := ranks.get(left + right)) is not None:
                chosen = not last and place == history[step][0]
                _rank(ax, starts[place + 1], step, rank, chosen=chosen)
        if not last:
            index, piece, _ = history[step]
            row[index : index + 2] = [piece]
    count = len(history)
    ax.set(xlim=(-0.1, len(text) + 0.1), ylim=(count + 0.5, -0.5), xticks=[])
    ax.set_yticks(range(count + 1), names, **MONOSPACE)
    ax.set_ylabel("last merge")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title)


def _cell(ax: Axes, start: float, step: int, piece: str, *, left_over: bool) -> None:
    """A token over the letters that it is made of; those that are left at the end are filled."""
    face, edge = (plots.BLUE, plots.BLUE) if left_over else (plots.PALE, plots.GREY)
    style = "round,pad=0,rounding_size=0.12"
    corner = (start + 0.06, step - 0.27)
    looks: Looks = {"facecolor": face, "edgecolor": edge, "lw": 1, "mutation_aspect": 0.8}
    ax.add_patch(FancyBboxPatch(corner, len(piece) - 0.12, 0.54, boxstyle=style, **looks))
    written: Looks = {"color": plots.PAPER, "weight": "bold"} if left_over else {"color": plots.INK}
    where: Looks = {"ha": "center", "va": "center", **MONOSPACE, "size": 12}
    ax.text(start + len(piece) / 2, step, token_label(piece), **written, **where)


def _rank(ax: Axes, x: float, step: int, rank: int, *, chosen: bool) -> None:
    """The rank of the piece that two neighbours make, on their border; framed if it is the one."""
    frame: Looks = {"fc": plots.SAND, "ec": plots.INK, "lw": 1.4} if chosen else {"fc": plots.PAPER}
    box: Looks = {"boxstyle": "round,pad=0.2", **({"ec": plots.GREY, "ls": "--"} | frame)}
    if chosen:
        box["ls"] = "-"
    weight = "bold" if chosen else "normal"
    where: Looks = {"ha": "center", "va": "center", "size": SMALL, "zorder": 3}
    ax.text(x, step + 0.4, f"{rank:,}", weight=weight, bbox=box, **where)
