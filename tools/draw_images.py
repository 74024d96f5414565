"""Draws the logo, the favicon, the README's picture and a card for links, from the library's masks.

Run it as `.venv/bin/python tools/draw_images.py`; a test compares the committed files with it.
"""

from html import escape
from pathlib import Path

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from mistral_lib.masks import can_see
from mistral_lib.teaching.plots import BLUE, FUTURE, GREY, INK, PALE, PAPER, SEEN, TOO_FAR

STATIC = Path(__file__).resolve().parent.parent / "book" / "_static"
WORDS = "the window moves on and forgets what it has seen".split()
WINDOW = 4
CELL, LEFT, TOP = 36, 84, 132


def mask(size: int, window: int) -> np.ndarray:
    """Which key (column) each query (row) may see, (size, size) bool."""
    positions = np.arange(size)
    return can_see(positions[:, None], positions[None, :], window)


def svg(width: int, height: int, title: str, shapes: list[str]) -> str:
    """An SVG document; `title` is what a screen reader says."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f"<title>{escape(title)}</title>",
            *shapes,
            "</svg>\n",
        ]
    )


def square(x: float, y: float, size: float, fill: str, radius: float = 3) -> str:
    """A rounded square."""
    return f'<rect x="{x}" y="{y}" width="{size}" height="{size}" rx="{radius}" fill="{fill}"/>'


def text(x: float, y: float, words: str, size: int, fill: str = INK, extra: str = "") -> str:
    """A line of text that starts at (x, y) unless `extra` says otherwise."""
    font = f'font-family="DejaVu Sans, Verdana, sans-serif" font-size="{size}"'
    return f'<text x="{x}" y="{y}" {font} fill="{fill}" {extra}>{escape(words)}</text>'


def logo(size: int = 5, window: int = 3) -> str:
    """The mask of a short sequence, without words."""
    seen = mask(size, window)
    shapes = [
        square(4 + 24 * column, 4 + 24 * row, 20, BLUE if seen[row, column] else "#B4BAC4", 4)
        for row in range(size)
        for column in range(size)
    ]
    side = 24 * size + 4
    return svg(side, side, f"A sliding window of {window} over {size} tokens", shapes)


def cell(row: int, column: int, seen: bool) -> list[str]:
    """One cell of the picture, with the symbol that the book's masks use."""
    symbol = SEEN if seen else FUTURE if column > row else TOO_FAR
    x, y = LEFT + CELL * column, TOP + CELL * row
    return [
        square(x + 1, y + 1, CELL - 2, BLUE if seen else PALE),
        text(x + CELL / 2, y + 23, symbol, 12, PAPER if seen else GREY, 'text-anchor="middle"'),
    ]


def picture() -> str:
    """A mask with a word on each row and column."""
    seen = mask(len(WORDS), WINDOW)
    counts = seen.sum(axis=1)
    assert counts.max() == WINDOW
    side = CELL * len(WORDS)
    width, height = LEFT + side + 120, TOP + side + 24
    title = f"A window of {WINDOW}: each word sees itself and at most {WINDOW - 1} before it"
    shapes = [
        f'<rect width="{width}" height="{height}" rx="10" fill="{PAPER}"/>',
        text(20, 36, title, 15, extra='font-weight="bold"'),
        text(20, 60, f"{SEEN} seen · {FUTURE} in the future · {TOO_FAR} too far back", 13, GREY),
    ]
    for index, word in enumerate(WORDS):
        middle = index * CELL + CELL / 2
        shapes.append(text(LEFT - 10, TOP + middle + 5, word, 14, extra='text-anchor="end"'))
        x, y = LEFT + middle + 5, TOP - 8
        shapes.append(text(x, y, word, 14, extra=f'transform="rotate(-60 {x} {y})"'))
        sees = f"sees {counts[index]}"
        shapes.append(text(LEFT + side + 14, TOP + middle + 5, sees, 13, GREY))
        for column in range(len(WORDS)):
            shapes += cell(index, column, bool(seen[index, column]))
    return svg(width, height, title, shapes)


def card() -> Image.Image:
    """What other sites show beside a link to the book, 1200 by 630 pixels."""
    image = Image.new("RGB", (1200, 630), PAPER)
    draw, size = ImageDraw.Draw(image), 42
    for (row, column), seen in np.ndenumerate(mask(12, WINDOW)):
        x, y = 636 + size * column, 63 + size * row
        draw.rounded_rectangle((x, y, x + size - 5, y + size - 5), 6, BLUE if seen else PALE)
    words = [("Building Mistral", 64, INK), ("A decoder language model,", 36, GREY)]
    words += [("part by part, in Python", 36, GREY)]
    for (line, points, colour), y in zip(words, (220, 330, 380), strict=True):
        font = ImageFont.truetype(findfont("DejaVu Sans"), points)
        draw.text((60, y), line, colour, font)
    return image


def images() -> dict[str, str]:
    """Every image: file name to contents."""
    return {"logo.svg": logo(), "favicon.svg": logo(3, 2), "window.svg": picture()}


if __name__ == "__main__":
    for name, contents in images().items():
        (STATIC / name).write_text(contents)
    card().save(STATIC / "card.png", optimize=True)
