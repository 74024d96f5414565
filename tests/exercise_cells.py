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


def given_in(notebook, code):
    """What a solution may use of its chapter: the imports, and the functions that it mentions."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    body = ast.parse(re.sub(r"^[%!].*$", "", "\n".join(sources), flags=re.M)).body
    functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    names, wanted = _names(ast.parse(code)), {}
    while new := (names & functions.keys()) - wanted.keys():
        wanted |= {name: functions[name] for name in new}
        names |= {name for node in wanted.values() for name in _names(node)}
    imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n".join(map(ast.unparse, [*imports, *wanted.values()]))


def _names(tree):
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
