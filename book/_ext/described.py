"""What search engines and other sites are told about a page, and the page for broken addresses."""

import re
from pathlib import Path
from textwrap import shorten
from xml.sax.saxutils import escape

from docutils import nodes

LINKS = ("Open in Colab", "API reference")  # that stand before the text
VIEWPORT = re.compile(r'<meta name="viewport".*?/>')  # the theme has one, too
MARK = re.compile(r"<!-- .*? -->")


def describe(app, pagename, templatename, context, doctree):
    """Gives the template the beginning of the page's text, and where the book is published."""
    context["site"] = app.config.html_baseurl.rstrip("/")
    context["metatags"] = VIEWPORT.sub("", context.get("metatags", ""))
    if doctree:
        paragraphs = [MARK.sub("", p.astext()) for p in doctree.findall(nodes.paragraph)]
        text = " ".join(p for p in paragraphs[:5] if not p.startswith(LINKS))
        context["description"] = shorten(text, 200, placeholder=" …")


def write_sitemap(app, exception):
    """Lists all pages for search engines, if the book is published somewhere."""
    site = app.config.html_baseurl.rstrip("/")
    if exception is None and site:
        pages = [f"{site}/{name}.html" for name in sorted(app.env.found_docs)]
        lines = [f"<url><loc>{escape(page)}</loc></url>" for page in pages]
        head = '<?xml version="1.0" encoding="utf-8"?>'
        space = '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
        text = "\n".join([head, space, *lines, "</urlset>\n"])
        Path(app.outdir, "sitemap.xml").write_text(text)


def setup(app):
    """Registers the extension with Sphinx."""
    app.config.html_additional_pages = {"404": "404.html"}
    app.connect("html-page-context", describe)
    app.connect("build-finished", write_sitemap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
