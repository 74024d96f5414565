"""The bits of floating-point numbers, drawn (used by the on-ramp)."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mistral_lib.teaching import plots
from mistral_lib.teaching.plots import SMALL, Looks

# Bits of sign, exponent and fraction. The leading 1 of the fraction is not stored.
FORMATS = {"float32": (1, 8, 23), "bfloat16": (1, 8, 7), "float16": (1, 5, 10)}


def bits_of(value: float, kind: str) -> tuple[str, str, str]:
    """The bits of a number in a format: sign, exponent and fraction.

    Args:
        value: a number; it is rounded to the format.
        kind: one of `FORMATS`.

    Returns:
        Three texts of 0 and 1.

    >>> bits_of(-1.5, "bfloat16")
    ('1', '01111111', '1000000')
    """
    dtype = np.dtype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind)
    number = np.array(value).astype(dtype).view(f"uint{8 * dtype.itemsize}")
    text = f"{int(number):0{8 * dtype.itemsize}b}"
    _, exponent, _ = FORMATS[kind]
    return text[:1], text[1 : 1 + exponent], text[1 + exponent :]


def draw_bits(
    ax: Axes, value: float, kinds: Sequence[str] = tuple(FORMATS), *, title: str | None = None
) -> None:
    """Draws one number in several formats, a row each, a cell a bit.

    The sign is plain, the exponent filled, the fraction hatched. Behind each row stands the number
    that the format keeps.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        value: the number.
        kinds: names from `FORMATS`, the first on top.
        title: what the picture shows, as a finding.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_bits(ax, 257, ["bfloat16"])
    >>> len(ax.patches), ax.texts[-1].get_text()
    (16, '256')
    """
    looks: tuple[Looks, ...] = (
        {"facecolor": plots.PAPER, "edgecolor": plots.INK},
        {"facecolor": plots.BLUE, "edgecolor": plots.PAPER},
        {"facecolor": plots.PALE, "edgecolor": plots.GREY, "hatch": "////"},
    )
    longest = max(sum(FORMATS[kind]) for kind in kinds)
    across = min(longest, 16) if plots.narrow() else longest
    row, rows = 0, []
    for kind in kinds:
        place = 0
        rows.append(row)
        for field, look in zip(bits_of(value, kind), looks, strict=True):
            for bit in field:
                row, place = (row + 1, 0) if place == across else (row, place)
                ax.add_patch(Rectangle((place, row - 0.3), 0.94, 0.6, linewidth=0.8, **look))
                box = (
                    None
                    if look is looks[1]
                    else {"fc": look["facecolor"], "ec": "none", "pad": 0.6}
                )
                colour = plots.PAPER if look is looks[1] else plots.INK
                where: Looks = {"ha": "center", "va": "center", "size": SMALL}
                ax.text(place + 0.47, row, bit, color=colour, bbox=box, **where)
                place += 1
        dtype = np.dtype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind)
        kept = np.format_float_positional(np.float64(np.array(value).astype(dtype)), trim="-")
        ax.text(place + 0.5, row, kept, va="center", size=SMALL)
        row += 1
    ax.set(xlim=(-0.1, across + 4), ylim=(row - 0.4, -0.6), xticks=[])
    ax.set_yticks(rows, kinds)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title)
