"""The merge tree of a word (used by chapter 2)."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from mistral_lib.teaching import plots
from mistral_lib.teaching.next_token import MONOSPACE, token_label

_HALF = 0.2  # from the middle of a box to where its lines begin


def merge_tree(
    ax: Axes,
    text: str,
    history: Sequence[tuple[int, str, int]],
    *,
    lost: Sequence[tuple[int, int, str]] = (),
    title: str | None = None,
) -> None:
    """Draws how a word's characters were merged: characters below, a box for every merge above.

    The tokens that are left at the end are filled and bold; every merge carries its rank.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        text: the word.
        history: the merges in order: the index of the left one of the two tokens that were merged,
            the piece that they made, and its rank.
        lost: merges that were possible and came too late, dashed: the number of the merge that was
            made instead, counted from 1; the index of the left token at that moment; and what to
            write.
        title: what the picture shows, as a finding.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> merge_tree(ax, "abc", [(1, "bc", 7)], lost=[(1, 0, "ab 9")])
    >>> [text.get_text() for text in ax.texts]
    ['ab 9', 'a', 'b', 'c', 'bc', 'rank 7']
    """
    missed = {(step, index): words for step, index, words in lost}
    row = [(float(place), 0.0, character) for place, character in enumerate(text)]
    nodes = list(row)
    labels = []
    for step, (index, piece, rank) in enumerate(history, 1):
        for (when, left), words in missed.items():
            if when == step:
                words = words.replace(", ", ",\n") if plots.narrow() else words
                parent = _parent(row, left, step)
                _branches(ax, parent, row[left : left + 2], dashed=True)
                box = {"boxstyle": "round,pad=0.3", "fc": plots.PAPER, "ec": plots.GREY, "ls": "--"}
                ax.text(
                    *parent, words, ha="center", va="center", color=plots.GREY, bbox=box, zorder=3
                )
        x, y = _parent(row, index, step)
        _branches(ax, (x, y), row[index : index + 2])
        row[index : index + 2] = [(x, y, piece)]
        nodes.append((x, y, piece))
        labels.append((x, y, piece, rank))
    for node in nodes:
        _box(ax, *node, left_over=node in row)
    for x, y, piece, rank in labels:
        beside = 6.5 * len(piece) / 2 + 9  # points: half of the box
        ax.annotate(
            f"rank {rank:,}", (x, y), (beside, 0), textcoords="offset points", va="center", size=9
        )
    ax.set(xlim=(-0.6, len(text) - 0.1), ylim=(-0.5, len(history) + 0.5), xticks=[])
    ax.set_yticks(range(len(history) + 1), ["letters", *map(str, range(1, len(history) + 1))])
    ax.set_ylabel("merge")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title)


def _parent(row, index: int, step: int) -> tuple[float, float]:
    """Where the merge of two neighbours stands: between them, at the height of its step."""
    return (row[index][0] + row[index + 1][0]) / 2, float(step)


def _branches(ax: Axes, parent, children, dashed: bool = False) -> None:
    """Lines from a merge down to the two tokens that it joins."""
    looks = {"color": plots.GREY if dashed else plots.INK, "lw": 1.2, "ls": "--" if dashed else "-"}
    for x, y, _ in children:
        ax.plot([parent[0], x], [parent[1] - _HALF, y + _HALF], zorder=1, **looks)


def _box(ax: Axes, x: float, y: float, piece: str, left_over: bool) -> None:
    """A token in its box; those that are left at the end are filled."""
    fill = (
        {"fc": plots.BLUE, "ec": plots.BLUE} if left_over else {"fc": plots.PALE, "ec": plots.GREY}
    )
    looks = {"color": plots.PAPER, "weight": "bold"} if left_over else {"color": plots.INK}
    place = {"ha": "center", "va": "center", "zorder": 3, **MONOSPACE}
    ax.text(x, y, token_label(piece), bbox={"boxstyle": "round,pad=0.3", **fill}, **looks, **place)
