"""Shows of every figure the version that fits: light or dark, for a screen or for a phone.

The light one for a screen is in the notebook; `tools/figures.py` makes the others. Browsers choose
by the width of the screen and by the reader's setting; `figures.js` follows the page's own switch.
"""

import posixpath
import sys
from html import escape
from pathlib import Path
from urllib.parse import quote

from docutils import nodes
from PIL import Image
from sphinx.util.osutil import relative_uri

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import figures
import redraw

# Below this, the page's column is narrower than a figure for a screen.
NARROW, DARK = "(max-width: 740px)", "(prefers-color-scheme: dark)"


class versions(nodes.Element):
    """A picture of which there are several versions, under its figure's key."""


def visit(self, node):
    """Writes the picture; a browser loads one version, when that comes near the screen."""
    (image,) = node.findall(nodes.image)  # Sphinx puts a link around it, which is left out
    page = self.builder.get_target_uri(self.builder.current_docname)
    self.body.append("<picture>\n")
    for ending in ("dark-narrow", "narrow", "dark"):  # browsers take the first that fits
        file = figures.FOLDER / f"{node['key']}-{ending}.png"
        picture = Image.open(file)
        address = relative_uri(page, f"_static/figures/{quote(file.name)}")
        width = NARROW if "narrow" in ending else ""
        media = " and ".join(filter(None, [width, DARK if "dark" in ending else ""]))
        dark = f' data-dark="{width or "all"}"' if "dark" in ending else ""
        self.body.append(
            f'<source media="{media}"{dark} srcset="{address}?v={picture.info[redraw.MADE_FROM]}" '
            f'width="{picture.width // 2}" height="{picture.height // 2}">\n'
        )
    size = Image.open(Path(self.builder.srcdir, image["uri"])).size
    source = posixpath.join(self.builder.imgpath, quote(self.builder.images[image["uri"]]))
    self.body.append(
        f'<img src="{source}" alt="{escape(image["alt"])}" width="{size[0] // 2}" '
        f'height="{size[1] // 2}" loading="lazy" decoding="async">\n</picture>\n'
    )
    raise nodes.SkipNode


def offer_versions(app, doctree, name):
    """Wraps the picture of each figure that has versions."""
    for figure in doctree.findall(nodes.figure):
        (key,) = figure["ids"][:1] or [""]
        key = key.removeprefix("fig-")
        if all(file.exists() for file in figures.files(key)):
            (image,) = figure.findall(nodes.image)
            wrapper = versions(key=key)
            figure[figure.index(image)] = wrapper
            wrapper += image


def setup(app):
    """Registers the extension with Sphinx."""
    app.add_node(versions, html=(visit, None))
    app.connect("doctree-resolved", offer_versions, priority=600)  # when there are figures
    return {"parallel_read_safe": True, "parallel_write_safe": True}
