"""Puts each exercise into a box: from its name to the end of its solution."""

import sys
from html import escape
from pathlib import Path

from docutils import nodes
from folded import fold

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import solutions
import targets

SOLUTION = solutions.TITLE.removeprefix("# @title ")


class exercise(nodes.Element):
    """An exercise: what is asked, the cell for the answer, hints and solution."""


def visit(self, node):
    """Begins the HTML of a box."""
    label = escape(f"Exercise {node['name']}")
    self.body.append(
        self.starttag(node, "div", CLASS="exercise-box", ROLE="group", **{"ARIA-LABEL": label})
    )


def depart(self, node):
    """Ends it."""
    self.body.append("</div>\n")


def make_boxes(app, doctree):
    """Moves the parts of each exercise into one box, which has the exercise's anchor."""
    for paragraph in list(doctree.findall(nodes.paragraph)):
        match = targets.EXERCISE.match(paragraph.rawsource)
        if not match:
            continue
        parent = paragraph.parent
        first = parent.index(paragraph)
        parts = parent[first : last_part(parent, first) + 1]
        box = exercise(name=match[1], ids=[f"exercise-{targets.slug(match[1])}"])
        parent[first : first + len(parts)] = [box]
        box += parts


def last_part(parent, first):
    """The index of an exercise's last part: a fold, or the cell that runs the solution after it."""
    opened, last = 0, first
    for index in range(first, len(parent)):
        html = parent[index].astext() if isinstance(parent[index], nodes.raw) else ""
        if last > first and not opened and not html.startswith("<details"):
            break
        opened += html.count("<details") - html.count("</details>")
        if "</details>" in html and not opened:
            last = index
    runs = parent[last + 1].findall(fold) if last + 1 < len(parent) else []
    return last + any(opened["label"] == SOLUTION for opened in runs)


def setup(app):
    """Registers the extension with Sphinx."""
    app.add_node(exercise, html=(visit, depart))
    app.connect("doctree-read", make_boxes, priority=600)  # after folds and links
    return {"parallel_read_safe": True, "parallel_write_safe": True}
