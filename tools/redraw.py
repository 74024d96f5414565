"""Draws a notebook's figure again in the book's other styles; runs inside the notebook's kernel.

`figures.py` sends the source of a cell here, right after the kernel has run it. The cell runs again
on a copy of the kernel's names, so nothing that it assigns is kept and nothing that it shows is
seen. If it changes something inside an object, that would be kept, and is found out: drawn once
more as it was, the figure is another one.
"""

import hashlib
from io import BytesIO
from pathlib import Path
from unittest.mock import patch

import matplotlib.pyplot as plt
from IPython.utils.capture import capture_output
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mistral_lib.teaching import plots

# What a file's name ends with, and the style that it is drawn in.
STYLES = {
    "dark": {"dark": True, "narrow": False},
    "narrow": {"dark": False, "narrow": True},
    "dark-narrow": {"dark": True, "narrow": True},
}
MADE_FROM, SMALLEST = "made from", "smallest text"


def draw(source: str, names: dict, *, dark: bool = False, narrow: bool = False) -> list[bytes]:
    """Runs the code of a figure in one style.

    Args:
        source: the cell's code.
        names: what the kernel knows; the cell gets a copy.
        dark: as in `plots.style`.
        narrow: as in `plots.style`.

    Returns:
        The pictures that the cell draws, as PNG.
    """
    with plots.styled(dark=dark, narrow=narrow), capture_output(), patch.object(plt, "show"):
        plt.close("all")
        exec(compile(source, "<code of a figure>", "exec"), dict(names))
        drawn = [plots.picture(plt.figure(number))[0] for number in plt.get_fignums()]
        plt.close("all")
    return drawn


def digest(picture: bytes) -> str:
    """A name for a picture."""
    return hashlib.sha256(picture).hexdigest()[:16]


def versions(names: dict, source: str, folder: str, key: str, made_from: str) -> str:
    """Writes a figure's other versions into a folder.

    Args:
        names: what the kernel knows.
        source: the cell's code.
        folder: where the files go.
        key: what their names begin with.
        made_from: written into each file.

    Returns:
        The digest of the figure drawn once more as it is in the notebook. If that is not the digest
        of the notebook's own picture, the cell cannot be repeated.
    """
    for ending, style in STYLES.items():
        picture = draw(source, names, **style)[-1]
        Path(folder, f"{key}-{ending}.png").write_bytes(_signed(picture, made_from))
    return digest(draw(source, names)[-1])


def _signed(picture: bytes, made_from: str) -> bytes:
    """A picture whose file says what it was made from."""
    image, said, file = Image.open(BytesIO(picture)), PngInfo(), BytesIO()
    said.add_text(SMALLEST, image.info[SMALLEST])
    said.add_text(MADE_FROM, made_from)
    image.save(file, "png", optimize=True, pnginfo=said)
    return file.getvalue()
