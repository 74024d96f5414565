"""Folds the code of cells that begin with `# @title ...` under that title; outputs stay in view."""

import re
from html import escape

from docutils import nodes

TITLE = re.compile(r"\A# @title (.*)\n*")


class fold(nodes.comment):
    """Something that opens under a label; as a comment it is not searched."""


def visit(self, node):
    """Begins the HTML of a fold."""
    self.body.append(f'<details class="fold"><summary>{escape(node["label"])}</summary>\n')


def depart(self, node):
    """Ends it."""
    self.body.append("</details>\n")


def fold_titled(app, doctree):
    """Puts the code of each cell with a title into a fold, without the title's line."""
    for source in list(doctree.findall(nodes.container)):
        if source.get("nb_element") != "cell_code_source":
            continue
        (code,) = source.findall(nodes.literal_block)
        match = TITLE.match(code.rawsource)
        if match:
            code.rawsource = code.rawsource[match.end() :]
            code[:] = [nodes.Text(code.rawsource)]
            if app.env.docname == app.config.root_doc:  # the front page shows results alone
                source.parent.remove(source)
                continue
            opened = fold(label=match[1])
            source.replace_self(opened)
            opened += source


def setup(app):
    """Registers the extension with Sphinx."""
    app.add_node(fold, html=(visit, depart))
    app.connect("doctree-read", fold_titled)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
