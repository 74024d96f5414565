"""Keeps the built book whole without a network, and light: no live code, formulas from own files.

The package sphinx-mathjax-offline brings all of MathJax, 24 MB. A page needs five scripts, 0.8 MB,
and a few fonts: those are copied. Its module's name has hyphens, so it is looked up by name.
"""

import importlib.util
import re
import shutil
from pathlib import Path

from fontTools.subset import Subsetter
from fontTools.ttLib import TTFont

PARTS = ["input/tex", "output/chtml", "a11y/assistive-mml"]  # what is asked for, in MathJax's words
SCRIPTS = ["startup", "core", *PARTS, "output/chtml/fonts/tex"]
ICONS = "scripts/fontawesome.js"
ICON = re.compile(r"fa-[a-z]+(?:-[a-z]+)*")
CODE = re.compile(r'([^{}]*)\{content:"\\([0-9a-f]+)"\}')
FONTS = "output/chtml/fonts/woff-v2"


def copy_mathjax(app, exception):
    """Copies the scripts and the fonts next to the built pages, unless the build failed."""
    if exception is not None:
        return
    package = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent
    source, target = package / "static" / "mathjax", Path(app.outdir) / "_static" / "mathjax"
    shutil.copytree(source / FONTS, target / FONTS, dirs_exist_ok=True)
    for script in SCRIPTS:
        (target / script).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / f"{script}.js", target / f"{script}.js")


def drop_icons(app, exception):
    """Keeps of the theme's 2,000 icons, 1.9 MB in all, those that pages show."""
    if exception is not None:
        return
    static = Path(app.outdir, "_static")
    (static / ICONS).write_text("")  # it would draw the icons that the fonts have, too
    files = [*Path(app.outdir).rglob("*.html"), *static.rglob("*.js")]
    shown = {name for file in files for name in ICON.findall(file.read_text())}
    sheet = static / "styles/pydata-sphinx-theme.css"
    codes = []

    def kept(rule):
        names = {*ICON.findall(rule[1])}
        if names and not names & shown:
            return ""
        codes.append(int(rule[2], 16))
        return rule[0]

    sheet.write_text(CODE.sub(kept, sheet.read_text()))
    for file in (static / "vendor/fontawesome/webfonts").glob("*.woff2"):
        font, subsetter = TTFont(file.with_suffix(".ttf")), Subsetter()
        subsetter.populate(unicodes=codes)
        subsetter.subset(font)
        font.save(file)  # browsers look at what is inside, not at the name


def drop_thebe(app, pagename, templatename, context, doctree):
    """Drops the scripts that would run code through a public server.

    Jupyter Book adds them to every page, whether or not the book uses them, and twice: the second
    declares the first's constants again, which is an error in the console.
    """
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in f"{script.filename} {script.attributes.get('body', '')}".lower()
    ]


def setup(app):
    """Registers the extension with Sphinx."""
    # The menu and the accessibility explorer would be fetched when first used: both stay off.
    # Formulas have the size of their line: MathJax would match the heights of small letters, which
    # makes digits and capitals a quarter too large.
    app.config.mathjax3_config = {
        "options": {"enableMenu": False},
        "loader": {"load": PARTS},
        "chtml": {"matchFontHeight": False, "scale": 1.08},
    }
    app.config.mathjax_path = "mathjax/startup.js"
    app.connect("html-page-context", drop_thebe)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", drop_icons)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
