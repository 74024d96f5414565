"""What the search finds: every word of the glossary leads to the section that explains it.

`search_scorer.js` puts chapters before the API reference.
"""

import sys
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import links
import targets


class IndexWords(SphinxTransform):
    """Adds the words that the glossary sends to this page to the index, each at its section."""

    default_priority = 800  # the index is read at 850

    def apply(self):
        """Runs over one page."""
        places = {}
        for comment in self.document.findall(nodes.raw):
            match = links.MARK.fullmatch(comment.astext())
            if match and match[1].startswith("term:"):
                places.setdefault(match[1].removeprefix("term:"), section_of(comment))
        for words in targets.words_of(self.env.docname):
            place = next((places[word] for word in words if word in places), "")
            entries = [("single", word, place, "main", None) for word in words]
            self.document.insert(0, addnodes.index(entries=entries))


def section_of(node):
    """The anchor of the section that a node is in; empty for the page as a whole."""
    while not isinstance(node, nodes.section):
        node = node.parent
    return "" if isinstance(node.parent, nodes.document) else node["ids"][0]


def setup(app):
    """Registers the extension with Sphinx."""
    app.add_transform(IndexWords)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
