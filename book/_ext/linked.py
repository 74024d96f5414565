"""Turns the book's own links into internal ones, and captions under pictures into figures.

In the notebooks a link has an absolute address and, in a comment, a key; here the key alone counts
(`tools/targets.py`). So the built book never leaves itself, and an unknown key is a warning, which
stops the build.
"""

import sys
from pathlib import Path

from docutils import nodes
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import links
import targets

logger = logging.getLogger(__name__)


def load(app):
    """Reads the book's targets once a build."""
    app.targets = targets.load()


def outdated(app, env, added, changed, removed):
    """Names every page if a target has changed: a link says what its target is called."""
    before, env.targets = getattr(env, "targets", None), app.targets
    return set() if before == app.targets else env.found_docs - removed


def read_keys(app, doctree):
    """Takes the comments with keys out of a page, and leaves the keys at the links and captions."""
    for comment in list(doctree.findall(nodes.raw)):
        match = links.MARK.fullmatch(comment.astext())
        if not match:
            continue
        key, paragraph = match[1], comment.parent
        before = paragraph[paragraph.index(comment) - 1]
        if isinstance(before, nodes.reference):
            before["key"] = key
        else:
            paragraph["caption_of"] = key.removeprefix("fig:")
        paragraph.remove(comment)
        if key not in app.targets:
            logger.warning("%r is nothing in the book", key, location=paragraph)
    for paragraph in doctree.findall(nodes.paragraph):
        term = targets.TERM.match(paragraph.rawsource) if "glossary" in doctree["source"] else None
        if term:
            paragraph["ids"].append(f"term-{targets.slug(term[1])}")


def resolve(app, doctree, name):
    """Points the links with keys into the book, and makes figures."""
    cited = set()
    for link in list(doctree.findall(nodes.reference)):
        target = app.targets.get(link.get("key"))
        if target is None:
            continue
        page = target.page.rpartition(".")[0]
        anchor = f"#{target.anchor}" if target.anchor else ""
        link["refuri"] = app.builder.get_relative_uri(name, page) + anchor
        link["internal"] = True
        kind, _, key = link["key"].partition(":")
        link["classes"] = [kind]
        if target.preview:
            link["reftitle"] = target.preview
            link["classes"].append("has-preview")
        if kind == "cite" and key not in cited:
            cited.add(key)
            link["ids"].append(f"cite-{targets.slug(key)}")
    for caption in list(doctree.findall(nodes.paragraph)):
        if "caption_of" in caption:
            make_figure(caption)


def make_figure(caption):
    """Moves a caption into one figure with the last picture before it."""
    cell = caption.parent[caption.parent.index(caption) - 1]
    pictures = list(cell.findall(nodes.image))
    if not pictures:
        logger.warning("a caption must follow a picture", location=caption)
        return
    picture = pictures[-1]
    figure = nodes.figure(ids=[f"fig-{caption['caption_of']}"])
    picture.replace_self(figure)
    caption.parent.remove(caption)
    figure += [picture, nodes.caption("", "", *caption.children)]


def setup(app):
    """Registers the extension with Sphinx."""
    app.connect("builder-inited", load)
    app.connect("env-get-outdated", outdated)
    app.connect("doctree-read", read_keys)
    app.connect("doctree-resolved", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
