"""One picture of the whole model, with a shape on every arrow (used by all chapters)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from mistral_lib.teaching import plots
from mistral_lib.teaching.model_parts import CHAPTERS, mine
from mistral_lib.teaching.plots import SMALL, Looks


class Box(NamedTuple):
    """A box of the picture: the part that it belongs to, its middle, its width, its words."""

    part: str
    x: float
    y: float
    width: float
    words: str


STREAM = 1.7  # where the residual stream goes up
_HEIGHT = 0.62  # of a box
BOXES = {
    "tokenizer": Box("vocabulary", STREAM, 0, 3.1, "tokenizer"),
    "embedding": Box("embedding", STREAM, 1, 3.1, "embedding"),
    "attention norm": Box("norm", 6.2, 2.45, 2.8, "RMSNorm"),
    "query": Box("projections", 4.3, 3.55, 1.8, "query"),
    "key": Box("projections", 6.4, 3.55, 1.8, "key"),
    "value": Box("projections", 8.5, 3.55, 1.8, "value"),
    "heads": Box("heads", 6.4, 4.5, 6.0, "grouped heads, H = K · G"),
    "positions": Box("positions", 5.2, 5.6, 4.0, "rotary positions"),
    "cache": Box("cache", 8.5, 5.6, 2.0, "KV cache"),
    "mask": Box("mask", 4.3, 6.75, 1.9, "mask"),
    "attention": Box("attention", 7.55, 6.75, 3.9, "attention"),
    "output": Box("projections", 6.4, 7.75, 2.5, "output"),
    "network norm": Box("norm", 5.15, 9.0, 2.7, "RMSNorm"),
    "network": Box("network", 8.3, 9.0, 2.4, "SwiGLU"),
    "final norm": Box("norm", STREAM, 11.3, 3.1, "RMSNorm"),
    "logits": Box("embedding", STREAM, 12.3, 3.1, "logits"),
    "sampling": Box("sampling", STREAM, 13.3, 3.1, "sampling"),
}
_SUMS = (7.75, 9.75)  # heights at which something is added to the stream
_FRAME = (0.2, 1.85, 9.7, 8.45)  # left, bottom, width and height of the block


def draw_chapter(
    chapter: int, notes: Mapping[str, str] | None = None, *, title: str | None = None
) -> Figure:
    """Draws the model as a chapter sees it.

    Args:
        chapter: its number; 0 is the introduction.
        notes: as in `draw_model`.
        title: what the picture shows, as a finding.

    Returns:
        The figure.

    >>> figure = draw_chapter(2)
    >>> [text.get_text() for text in figure.axes[0].texts if "tokenizer" in text.get_text()]
    ['✓ tokenizer']
    """
    lit = CHAPTERS[chapter].lit if chapter else ()
    figure = draw_model(lit, mine(chapter), notes)
    if title:
        figure.axes[0].set_title(title)
    return figure


def draw_model(
    lit: Collection[str] = (),
    mine: Collection[str] = (),
    notes: Mapping[str, str] | None = None,
) -> Figure:
    """Draws the decoder from below: token ids, embedding, blocks, logits, and the loop.

    The thick line is the residual stream. What stands beside it reads a copy, and adds to it. A
    part that is lit is filled and bold; a part of the reader's own has a tick.

    Args:
        lit: names of parts (`model_parts.PARTS`).
        mine: names of parts.
        notes: what to write under the words of a box, by its name in `BOXES`.

    Returns:
        The figure.

    Raises:
        ValueError: a name is neither a part nor a box.

    >>> figure = draw_model(lit={"mask"}, mine={"mask", "loop"}, notes={"mask": "none yet"})
    >>> [text.get_text() for text in figure.axes[0].texts if "mask" in text.get_text()]
    ['✓ mask\\nnone yet']
    """
    notes = notes or {}
    known = {box.part for box in BOXES.values()} | {"block", "loop"}
    wrong = sorted({*lit, *mine} - known) + sorted(notes.keys() - BOXES.keys())
    if wrong:
        raise ValueError(f"Parts must be among {sorted(known)}, but there is {wrong[0]!r}.")
    figure, ax = plt.subplots(figsize=(3.7, 7.9) if plots.narrow() else (6.6, 7))
    _draw_block(ax, "block" in lit, "block" in mine)
    ax.plot([STREAM] * 2, [1, 11.3], color=plots.BLUE, lw=5, zorder=1, solid_capstyle="butt")
    _draw_arrows(ax)
    for name, box in BOXES.items():
        words = f"✓ {box.words}" if box.part in mine else box.words
        words += f"\n{notes[name]}" if name in notes else ""
        _draw_box(ax, box._replace(words=words), lit=box.part in lit)
    for height in _SUMS:
        bold = "block" in lit
        face = plots.BLUE if bold else plots.PAPER
        ax.plot(STREAM, height, "o", ms=15, mfc=face, mec=plots.BLUE, mew=1.6, zorder=3)
        ink = plots.PAPER if bold else plots.INK
        ax.text(STREAM, height, "+", ha="center", va="center", color=ink, weight="bold", zorder=4)
    _draw_loop(ax, "loop" in lit, "loop" in mine)
    _write_shapes(ax)
    if lit or mine:
        ax.text(0.2, -0.55, _key(lit, mine), va="top", size=SMALL, color=plots.INK)
    ax.set(xlim=(-1.1, 10.05), ylim=(-1.0, 13.7), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return figure


def _key(lit: Collection[str], mine: Collection[str]) -> str:
    """What the marks mean."""
    marks = ["filled: this chapter"] if lit else []
    return "     ".join([*marks, "✓ yours by its end"] if mine else marks)


def _draw_box(ax: Axes, box: Box, *, lit: bool) -> None:
    corner = (box.x - box.width / 2 + 0.1, box.y - _HEIGHT / 2 + 0.1)
    looks: Looks = {"facecolor": plots.BLUE if lit else plots.PAPER, "edgecolor": plots.BLUE}
    size = box.width - 0.2, _HEIGHT - 0.2
    ax.add_patch(FancyBboxPatch(corner, *size, boxstyle="round,pad=0.1", zorder=2, **looks))
    weight, colour = ("bold", plots.PAPER) if lit else ("normal", plots.INK)
    middle: Looks = {"ha": "center", "va": "center", "size": SMALL, "zorder": 3}
    ax.text(box.x, box.y, box.words, color=colour, weight=weight, **middle)


def _draw_block(ax: Axes, lit: bool, own: bool) -> None:
    """The frame around what is repeated L times."""
    left, bottom, width, height = _FRAME
    looks: Looks = {"facecolor": plots.PALE, "edgecolor": plots.BLUE if lit else plots.GREY}
    looks |= {"linestyle": "-" if lit else "--", "linewidth": 2.5 if lit else 1}
    ax.add_patch(Rectangle((left, bottom), width, height, zorder=0, **looks))
    words = f"{'✓ ' if own else ''}block, L times"
    text: Looks = {"size": SMALL, "weight": "bold" if lit else "normal", "ha": "right", "va": "top"}
    ax.text(left + width - 0.15, bottom + height - 0.1, words, color=plots.INK, **text)


def _arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], short: float = 0
) -> None:
    """An arrow that ends some points short."""
    looks: Looks = {"arrowstyle": "-|>", "mutation_scale": 9, "color": plots.INK, "lw": 1.1}
    ax.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=short, zorder=1.5, **looks))


def _up(ax: Axes, lower: str, upper: str, x: float | None = None) -> None:
    """An arrow from the top of one box to the bottom of another."""
    place = BOXES[lower].x if x is None else x
    half = _HEIGHT / 2
    _arrow(ax, (place, BOXES[lower].y + half), (place, BOXES[upper].y - half))


def _draw_arrows(ax: Axes) -> None:
    """All arrows but the loop."""
    half = _HEIGHT / 2
    _up(ax, "tokenizer", "embedding")
    _up(ax, "final norm", "logits")
    _up(ax, "logits", "sampling")
    norm = BOXES["attention norm"]
    _arrow(ax, (STREAM, norm.y), (norm.x - norm.width / 2, norm.y))
    for name in ("query", "key", "value"):
        box = BOXES[name]
        _arrow(ax, (norm.x + (box.x - norm.x) / 4, norm.y + half), (box.x, box.y - half))
        _up(ax, name, "heads")
        _up(ax, "heads", "cache" if name == "value" else "positions", box.x)
    positions, cache, attention = BOXES["positions"], BOXES["cache"], BOXES["attention"]
    _arrow(ax, (positions.x + positions.width / 2, cache.y), (cache.x - cache.width / 2, cache.y))
    _up(ax, "positions", "attention", 5.9)
    _up(ax, "cache", "attention")
    mask, output = BOXES["mask"], BOXES["output"]
    _arrow(ax, (mask.x + mask.width / 2, mask.y), (attention.x - attention.width / 2, mask.y))
    _up(ax, "attention", "output", 6.7)
    _arrow(ax, (output.x - output.width / 2, output.y), (STREAM, _SUMS[0]), short=9)
    norm, network = BOXES["network norm"], BOXES["network"]
    _arrow(ax, (STREAM, norm.y), (norm.x - norm.width / 2, norm.y))
    _arrow(ax, (norm.x + norm.width / 2, norm.y), (network.x - network.width / 2, norm.y))
    ax.plot([network.x] * 2, [network.y + half, _SUMS[1]], color=plots.INK, lw=1.1, zorder=1.5)
    _arrow(ax, (network.x, _SUMS[1]), (STREAM, _SUMS[1]), short=9)


def _draw_loop(ax: Axes, lit: bool, own: bool) -> None:
    """From the choice back to the text, to which its token is appended."""
    x, bottom, top = -0.55, BOXES["tokenizer"].y, BOXES["sampling"].y
    edge = STREAM - BOXES["sampling"].width / 2
    width = 3 if lit else 1.6
    ax.plot([edge, x, x], [top, top, bottom], color=plots.ORANGE, lw=width, zorder=1)
    looks: Looks = {"arrowstyle": "-|>", "mutation_scale": 12, "color": plots.ORANGE, "lw": width}
    end = (edge, bottom)
    ax.add_patch(FancyArrowPatch((x, bottom), end, shrinkA=0, shrinkB=0, zorder=1, **looks))
    words = f"{'✓ ' if own else ''}the loop: append the token"
    box = {"boxstyle": "round,pad=0.25", "ec": plots.ORANGE, "fc": plots.PAPER}
    ink = plots.INK
    if lit:
        box, ink = box | {"fc": plots.BLUE, "ec": plots.BLUE}, plots.PAPER
    text: Looks = {"rotation": 90, "ha": "center", "va": "center", "size": SMALL, "zorder": 3}
    ax.text(x, 6.4, words, color=ink, weight="bold" if lit else "normal", bbox=box, **text)


def _write_shapes(ax: Axes) -> None:
    """The shape of what each arrow carries."""
    heads = "(B, S,\nK, G, h)" if plots.narrow() else "(B, S, K, G, h)"
    one = "(B, S,\nK, h)" if plots.narrow() else "(B, S, K, h)"
    kept = "(B, T,\nK, h)" if plots.narrow() else "(B, T, K, h)"
    queries, others = ("H·h", "K·h") if plots.narrow() else ("(B, S, H·h)", "(B, S, K·h)")
    shapes = [
        (STREAM + 0.12, 0.5, "(B, S)"),
        (STREAM + 0.2, 1.6, "(B, S, D)"),
        (STREAM + 0.2, 10.68, "(B, S, D)"),
        (STREAM + 0.12, 11.8, "(B, S, D)"),
        (STREAM + 0.12, 12.8, "(B, S, V)"),
        (3.0, 2.68, "(B, S, D)"),
        (7.75, 2.55, "(B, S, D)"),
        (4.4, 4.03, queries),
        (6.5, 4.03, others),
        (8.6, 4.03, others),
        (4.4, 5.05, heads),
        (6.5, 5.05, one),
        (8.6, 5.05, one),
        (4.2, 6.18, heads),
        (8.6, 6.18, kept),
        (3.5, 7.25, "(B, S, T)"),
        (6.8, 7.25, "(B, S, H·h)"),
        (2.6, 8.0, "(B, S, D)"),
        (2.05, 9.22, "(B, S, D)"),
        (5.9, 9.5, "(B, S, D)"),
        (3.0, 9.97, "(B, S, D)"),
    ]
    for x, y, words in shapes:
        ax.text(x, y, words, va="center", size=SMALL, color=plots.GREY, linespacing=1)
