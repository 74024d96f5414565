"""What the book's explorers need: the shipped model's files, and their scripts on their pages.

The files are those of transformers, in bfloat16, beside `book/_static/model/mistral.js`, which
reads them. They are made once, and again when the preset is newer; nothing of them is committed.
"""

import hashlib
import json
import re
import tempfile
from pathlib import Path

FILES = ("config.json", "tokenizer.model", "model.safetensors")
EXPLORER = re.compile(r'class="(?:explorer )?(\w+)-explorer"')


def attach_scripts(app, pagename, templatename, context, doctree):
    """Adds to a page what its explorers share, and the script of each."""
    names = sorted({*EXPLORER.findall(context.get("body", ""))})
    for name in ["common", *names] if names else []:
        app.add_js_file(f"explorer/{name}.js")


def ship_model(app, exception):
    """Writes the model's files next to the built pages, unless the build failed."""
    if exception is None:
        write_model(Path(app.outdir, "_static", "model"))


def write_model(folder):
    """Writes the model's files and an index with their sizes, unless they are there.

    The index comes last: where it is, the files are whole. Its version changes with any of them.
    """
    from mistral_lib.presets.registry import source_of

    index = folder / "index.json"
    preset = Path(source_of("mistral_tiny_en"))
    newest = max(file.stat().st_mtime for file in preset.rglob("*") if file.is_file())
    if index.exists() and index.stat().st_mtime > newest:
        return
    from mistral_lib import MistralCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    model = MistralCausalLM.from_preset("mistral_tiny_en", dtype="bfloat16")
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        made = Path(made)
        model.export_to_transformers(made / "model")
        contents = {name: (made / "model" / name).read_bytes() for name in FILES}
        version = hashlib.sha256(b"".join(contents.values())).hexdigest()[:16]
        sizes = {name: len(data) for name, data in contents.items()}
        entry = json.dumps({"version": version, "files": sizes})
        (made / "model" / "index.json").write_text(entry)
        for name in (*FILES, "index.json"):  # at once, since tests build side by side
            (made / "model" / name).replace(folder / name)


def setup(app):
    """Registers the extension with Sphinx."""
    app.connect("html-page-context", attach_scripts, priority=400)  # before scripts are dropped
    app.connect("build-finished", ship_model)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
