"""Keeps the built book whole without a network: formulas from its own files, no live code.

The package sphinx-mathjax-offline brings all of MathJax, 24 MB. A page needs one script and its
fonts, 1.7 MB: those are copied. Its module's name has hyphens, so it is looked up by name.
"""

import importlib.util
import shutil
from pathlib import Path

SCRIPT = "tex-chtml.js"
FONTS = "output/chtml/fonts/woff-v2"


def copy_mathjax(app, exception):
    """Copies the script and the fonts next to the built pages, unless the build failed."""
    if exception is not None:
        return
    package = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent
    source, target = package / "static" / "mathjax", Path(app.outdir) / "_static" / "mathjax"
    shutil.copytree(source / FONTS, target / FONTS, dirs_exist_ok=True)
    shutil.copy(source / SCRIPT, target / SCRIPT)


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
    app.config.mathjax3_config = {"options": {"enableMenu": False}}
    app.config.mathjax_path = f"mathjax/{SCRIPT}"
    app.connect("html-page-context", drop_thebe)
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
