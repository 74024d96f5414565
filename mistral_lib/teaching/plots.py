"""One look for every figure of the book (used by all chapters).

A notebook calls `style()` once; after that `plt.subplots` draws in the book's colours and sizes.
Meaning never rests on colour alone: masks carry symbols in their cells, differences carry rings.

Every figure is drawn in four styles, light and dark, for a screen and for a phone. So colours are
asked for when something is drawn, as `plots.BLUE`, and a drawing that needs another form on a phone
asks `plots.narrow()`; what else a phone needs is done in `layout.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.rcsetup import cycler
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mistral_lib.teaching import layout

# Okabe and Ito's palette, red and green a little darker so that text can have them: colour-blind
# readers can tell these apart, and so can a grey printer. On dark paper all are lighter, but SKY,
# TINT and SAND, which lie under text.
LIGHT = {
    "BLUE": "#0072B2",
    "ORANGE": "#E69F00",
    "GREEN": "#007F5C",
    "RED": "#C44E00",
    "PURPLE": "#B0508C",
    "SKY": "#56B4E9",
    "TINT": "#C6E2F5",
    "SAND": "#F6D08A",
    "INK": "#1B1B1F",
    "GREY": "#5F6470",
    "PALE": "#ECEEF2",
    "PAPER": "#FFFFFF",
}
DARK = {
    "BLUE": "#5FB4F0",
    "ORANGE": "#FFC54D",
    "GREEN": "#21B98C",
    "RED": "#F57F45",
    "PURPLE": "#E3A1CB",
    "SKY": "#2B6E9E",
    "TINT": "#1D435F",
    "SAND": "#6B4A12",
    "INK": "#E9EBEF",
    "GREY": "#A4ABB9",
    "PALE": "#2A303A",
    "PAPER": "#121212",
}
# The colours of the active style: `style` replaces them.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, TINT, SAND, INK, GREY, PALE, PAPER = LIGHT.values()

# What a cell of a mask says: seen, or the reason why not. The arrows point at where the key is.
SEEN, FUTURE, TOO_FAR, PADDED = "●", "▸", "◂", "×"
SYMBOL_KEY = (
    f"{SEEN} seen     {FUTURE} in the future     {TOO_FAR} too far back     {PADDED} padding"
)

SMALL = 9  # points: the smallest text of the book's figures
PIXELS_PER_INCH = 96
# Pixels that a page has for a figure: its column on a screen, and on a phone of 390 pixels.
WIDE_COLUMN, NARROW_COLUMN = 672, 356

Looks = dict[str, Any]  # named arguments of matplotlib's artists

_active = {"dark": False, "narrow": False}


def narrow() -> bool:
    """Whether what is drawn now is for a phone.

    >>> narrow()
    False
    """
    return _active["narrow"]


def style(*, dark: bool = False, narrow: bool = False) -> None:
    """Sets the book's figure style, and sharp PNGs where a notebook shows them.

    Text is 10 pt in a figure that is shown at its own size, on a page of the theme's colour.

    Args:
        dark: light lines on dark paper.
        narrow: for a column of `NARROW_COLUMN` pixels.

    >>> style()
    >>> PAPER, plt.rcParams["font.size"]
    ('#FFFFFF', 10.0)
    """
    _active.update(dark=dark, narrow=narrow)
    globals().update(DARK if dark else LIGHT)
    plt.rcParams.update(
        {
            "figure.dpi": PIXELS_PER_INCH,
            "figure.facecolor": PAPER,
            "savefig.facecolor": PAPER,
            "savefig.pad_inches": 0.02,
            "figure.constrained_layout.use": True,
            "figure.constrained_layout.h_pad": 0.08,
            "font.family": "DejaVu Sans",  # ships with matplotlib: the same everywhere
            "font.size": 10,
            "text.color": INK,
            "axes.facecolor": PAPER,
            "axes.labelcolor": INK,
            "axes.edgecolor": GREY,
            "axes.titlelocation": "left",
            "axes.titlesize": 10.5,
            "axes.titleweight": "bold",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": cycler(color=[BLUE, RED, GREEN, ORANGE, PURPLE, SKY]),
            "hatch.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "lines.linewidth": 2,
            "hatch.linewidth": 0.6,
            "legend.frameon": False,
            "legend.columnspacing": 0.7 if narrow else 2,
            "legend.handletextpad": 0.2 if narrow else 0.8,
        }
    )
    try:
        from IPython import get_ipython
    except ImportError:  # outside a notebook
        return
    if (shell := get_ipython()) is not None:
        plt.switch_backend(plt.get_backend())  # loads it now: it would undo the next line later
        shell.display_formatter.formatters["image/png"].for_type(Figure, picture)


@contextmanager
def styled(*, dark: bool, narrow: bool) -> Iterator[None]:
    """Draws in another style for a while.

    Args:
        dark: as in `style`.
        narrow: as in `style`.

    >>> with styled(dark=True, narrow=False):
    ...     plt.rcParams["figure.facecolor"]
    '#121212'
    """
    before = dict(_active)
    with plt.rc_context():
        try:
            style(dark=dark, narrow=narrow)
            yield
        finally:
            style(**before)


def figure_of(ax: Axes) -> Figure:
    """The figure that an axes is in, whose height a drawing may set.

    >>> figure, ax = plt.subplots()
    >>> figure_of(ax) is figure
    True
    """
    return cast(Figure, ax.figure)


def split(ax: Axes) -> tuple[Axes, Axes]:
    """Makes two axes of one, below each other, in a figure that becomes twice as high.

    >>> figure, ax = plt.subplots(figsize=(3, 2))
    >>> above, below = split(ax)
    >>> float(figure.get_figheight()), len(figure.axes)
    (4.0, 2)
    """
    figure = figure_of(ax)
    grid = figure.add_gridspec(2, 1)
    ax.set_subplotspec(grid[0])
    figure.set_figheight(2 * figure.get_figheight())
    return ax, figure.add_subplot(grid[1])


def picture(figure: Figure) -> tuple[bytes, dict[str, int]]:
    """A figure as a small, sharp PNG: two pixels for each one of the page, at most 64 colours.

    The file says in points how large its smallest text is.

    Returns:
        The bytes of the file, and the width and height at which a page should show it.

    >>> data, size = picture(plt.figure(figsize=(2, 1)))
    >>> data[:4], sorted(size)
    (b'\\x89PNG', ['height', 'width'])
    """
    drawn, small, said = BytesIO(), BytesIO(), PngInfo()
    dpi = figure.get_dpi()
    figure.set_dpi(2 * PIXELS_PER_INCH)  # measured as it is saved: letters differ a little
    layout.fit(figure, NARROW_COLUMN if narrow() else WIDE_COLUMN, stack=narrow())
    figure.savefig(drawn, dpi=2 * PIXELS_PER_INCH, bbox_inches="tight")
    figure.set_dpi(dpi)
    said.add_text("smallest text", f"{layout.smallest_text(figure):g}")
    image = Image.open(drawn).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    image.save(small, "png", optimize=True, pnginfo=said)
    return small.getvalue(), {"width": image.width // 2, "height": image.height // 2}


def mask_symbols(
    query_positions: np.ndarray,
    key_positions: np.ndarray,
    window: int | None = None,
    key_mask: np.ndarray | None = None,
) -> np.ndarray:
    """For every cell of a mask, the symbol that says whether the key is seen, or why not.

    A cell that several rules hide carries the first of: future, too far back, padding.

    Args:
        query_positions: int array (S,).
        key_positions: int array (T,).
        window: number of visible tokens, or `None`.
        key_mask: bool array (T,), true for real tokens, or `None`.

    Returns:
        An array of one-character strings, (S, T).

    >>> print(mask_symbols(np.arange(3), np.arange(3), window=2))
    [['●' '▸' '▸']
     ['●' '●' '▸']
     ['◂' '●' '●']]
    """
    distance = np.subtract.outer(np.asarray(query_positions), np.asarray(key_positions))
    symbols = np.full(distance.shape, SEEN)
    if key_mask is not None:
        symbols[:, ~np.asarray(key_mask, bool)] = PADDED
    if window is not None:
        symbols[distance >= window] = TOO_FAR
    symbols[distance < 0] = FUTURE
    return symbols


def draw_mask(
    ax: Axes,
    mask: np.ndarray,
    *,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    symbols: np.ndarray | None = None,
    ring: np.ndarray | None = None,
    title: str | None = None,
) -> None:
    """Draws a mask: one row a query, one column a key, a filled cell where the query may look.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        mask: bool array (S, T).
        rows: S labels, usually the tokens; no labels if `None`.
        columns: T labels along the top; no labels if `None`.
        symbols: array of text (S, T) for the cells; by default a dot in every filled cell.
        ring: bool array (S, T) of the cells to ring, for example where two masks differ.
        title: what the picture shows, as a finding.

    >>> figure, ax = plt.subplots()
    >>> draw_mask(ax, np.tri(3, dtype=bool), rows="abc", columns="abc", title="Causal")
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['a', 'b', 'c']
    """
    mask = np.asarray(mask, bool)
    queries, keys = mask.shape
    if symbols is None:
        symbols = np.where(mask, SEEN, " ")
    ax.set_facecolor(PALE)
    ax.pcolormesh(
        np.ma.masked_equal(mask, False),
        cmap=ListedColormap([BLUE]),
        edgecolors="none",
    )
    for (row, column), seen in np.ndenumerate(mask):
        colour = PAPER if seen else GREY
        text = str(symbols[row, column])
        ax.text(column + 0.5, row + 0.5, text, color=colour, ha="center", va="center")
    if ring is not None:
        for row, column in np.argwhere(ring):
            for width, colour in ((4.5, PAPER), (2.2, RED)):
                edge = Circle((column + 0.5, row + 0.5), 0.38, fill=False, ec=colour, lw=width)
                ax.add_patch(edge)
    ax.set(xlim=(0, keys), ylim=(queries, 0), aspect="equal", anchor="NW")
    ax.set_xticks(np.arange(keys) + 0.5, columns if columns is not None else [""] * keys)
    ax.set_yticks(np.arange(queries) + 0.5, rows if rows is not None else [""] * queries)
    ax.set_xticks(np.arange(keys + 1), minor=True)
    ax.set_yticks(np.arange(queries + 1), minor=True)
    ax.grid(which="minor", color=PAPER, linewidth=1.5)
    ax.tick_params(which="both", length=0, labeltop=True, labelbottom=False, pad=3)
    for label in ax.get_xticklabels():
        label.set_rotation(90 if len(label.get_text()) > 2 else 0)
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title, pad=8)


def symbol_key(figure: Figure) -> None:
    """Writes under a figure what the symbols in its masks mean."""
    figure.supxlabel(SYMBOL_KEY, fontsize=10)
