"""The exercises as they stand in the chapters' cells."""

import ast
import json
import re


def exercises_in(notebook):
    """For each exercise: name, header, the texts of its details, and the expression checked."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    texts = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    for index, (kind, text) in enumerate(texts):
        call = re.search(r'^check\("([\w.]+)", (.+)\)$', text, re.M) if kind == "code" else None
        if not call:
            continue
        name, expression = call.groups()
        before = next(t for k, t in reversed(texts[:index]) if k == "markdown")
        after = next(t for k, t in texts[index + 1 :] if k == "markdown")
        header = re.search(rf"^\*\*Exercise `{re.escape(name)}`\*\* · (.+)$", before, re.M)
        details = dict(re.findall(r"<summary>(.+?)</summary>\s*(.*?)\s*</details>", after, re.S))
        yield name, header and header[1], details, expression


def imports_of(notebook):
    """The import statements of a notebook, as one text."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    code = re.sub(r"^[%!].*$", "", code, flags=re.M)
    nodes = [n for n in ast.parse(code).body if isinstance(n, ast.Import | ast.ImportFrom)]
    return "\n".join(map(ast.unparse, nodes))
