"""Figures of low-rank products (used by chapter 14)."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mistral_lib.teaching import plots
from mistral_lib.teaching.plots import Looks

GAP = 44  # between two matrices, in rows of a matrix


def draw_product(ax: Axes, tokens: int, inputs: int, outputs: int, rank: int) -> None:
    """Draws `x @ W` over `x @ A @ B`, one number as wide and as high everywhere.

    The frozen kernel is hatched; the factors are filled.

    Args:
        ax: the axes to draw on.
        tokens: rows of x.
        inputs: columns of x, rows of W.
        outputs: columns of W.
        rank: columns of A, rows of B.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_product(ax, 10, 192, 512, 8)
    >>> [patch.get_width() for patch in ax.patches]
    [192, 512, 192, 8, 512]
    """
    frozen: Looks = {"facecolor": plots.PALE, "edgecolor": plots.GREY, "hatch": "////"}
    trained: Looks = {"facecolor": plots.ORANGE, "edgecolor": plots.ORANGE}
    read: Looks = {"facecolor": plots.BLUE, "edgecolor": plots.BLUE}
    kernel_left, below = inputs + GAP, -inputs - 2 * GAP
    boxes = [
        (0, 0, inputs, tokens, read),
        (kernel_left, 0, outputs, inputs, frozen),
        (0, below, inputs, tokens, read),
        (inputs + GAP, below, rank, inputs, trained),
        (inputs + rank + 2 * GAP, below, outputs, rank, trained),
    ]
    for left, top, width, height, look in boxes:
        ax.add_patch(Rectangle((left, top - height), width, height, **look))
    texts = [
        (0, -tokens - 8, _lines(f"x: {inputs}/numbers/a token"), "left", "top"),
        (
            kernel_left + outputs / 2,
            -inputs / 2,
            _lines(f" W: {inputs} × {outputs}/= {inputs * outputs:,}, frozen "),
            "center",
            "center",
        ),
        (0, below - tokens - 8, _lines("the same/x"), "left", "top"),
        (inputs + GAP + rank + 8, below - inputs, f"A: {inputs} × {rank}", "left", "bottom"),
        (
            inputs + rank + 2 * GAP + outputs / 2,
            below - rank - 8,
            _lines(
                f"B: {rank} × {outputs}.   A and B/together: {rank * (inputs + outputs):,}, trained"
            ),
            "center",
            "top",
        ),
    ]
    for x, y, text, across, along in texts:
        box = (
            {"facecolor": plots.PAPER, "edgecolor": "none", "pad": 2} if "frozen" in text else None
        )
        ax.text(x, y, text, ha=across, va=along, color=plots.INK, bbox=box)
    for x, y in ((inputs, -tokens / 2), (inputs, below - tokens / 2)):
        ax.text(x + GAP / 2, y, "·", ha="center", va="center", size=16, weight="bold")
    ax.text(
        inputs + rank + 1.5 * GAP,
        below - rank / 2,
        "·",
        ha="center",
        va="center",
        size=16,
        weight="bold",
    )
    ax.text(-GAP / 2, below + GAP, "+", ha="center", va="center", size=14, weight="bold")
    right = inputs + rank + outputs + 2 * GAP
    ax.set(xlim=(-GAP, right + 2), ylim=(below - inputs - 4, 6), aspect="equal")
    ax.set_axis_off()


def _lines(text: str) -> str:
    """A text that may break at each slash, and does on a phone."""
    return text.replace("/", "\n" if plots.narrow() else " ")
