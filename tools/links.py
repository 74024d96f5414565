"""Links by key: authors write `[](fig:leak)`, and the text and address are filled in.

An empty text is filled in, `[Figure 7.2](https://...)<!-- =fig:leak -->`, and follows what it
names; a text of the author's own is kept, `[the leak](https://...)<!-- fig:leak -->`. The caption
of a figure is the first paragraph of the Markdown after the cell that draws it, and begins with the
key in bold: `**fig:leak.** What to see.` The keys are those of `targets.py`.
"""

import re
from collections.abc import Iterator

from targets import KINDS, Target

_KEY = rf"(?:{'|'.join(KINDS)}):[^()<>\n]+(?:\n[^()<>\n]+)?"
_TEXT = r"\[((?:\\.|[^\[\]\\])*)\]"
BARE = re.compile(rf"{_TEXT}\(({_KEY})\)")
FILLED = re.compile(rf"{_TEXT}\((https://[^)\s]+)\)<!-- (=?)({_KEY}) -->")
BARE_CAPTION = re.compile(r"\A\*\*(fig:[\w-]+)\.\*\*")
FILLED_CAPTION = re.compile(r"\A\*\*(Figure \d+\.\d+)\.\*\*<!-- =(fig:[\w-]+) -->")
MARK = re.compile(rf"<!-- =?({_KEY}) -->")


def short(text: str) -> str:
    """A text with its links as an author writes them.

    >>> short("See [Figure 7.2](https://a.org/7#fig-leak)<!-- =fig:leak -->.")
    'See [](fig:leak).'
    """
    text = FILLED.sub(lambda m: f"[{'' if m[3] else m[1]}]({m[4]})", text)
    return FILLED_CAPTION.sub(r"**\2.**", text)


def fill(text: str, targets: dict[str, Target]) -> str:
    """A text with the address of each link, and with the text of those that have none.

    A key that means nothing is left as it is; `problems` names it.

    >>> figure = Target("Figure 7.2", "book/api.md", "fig-leak")
    >>> fill("**fig:leak.** As [](fig:leak).", {"fig:leak": figure}).partition("(")[0]
    '**Figure 7.2.**<!-- =fig:leak --> As [Figure 7.2]'
    """

    def link(match: re.Match) -> str:
        own, key = match[1], " ".join(match[2].split())
        if key not in targets:
            return match[0]
        target = targets[key]
        return f"[{own or target.text}]({target.address})<!-- {'' if own else '='}{key} -->"

    def caption(match: re.Match) -> str:
        if match[1] not in targets:
            return match[0]
        return f"**{targets[match[1]].text}.**<!-- ={match[1]} -->"

    return BARE.sub(link, BARE_CAPTION.sub(caption, short(text)))


def problems(text: str, targets: dict[str, Target]) -> Iterator[str]:
    """What is wrong with the links of a text."""
    for _, key in BARE.findall(short(text)):
        if " ".join(key.split()) not in targets:
            yield f"links to {key!r}, which is nothing in the book. Correct the key."
    if fill(text, targets) != text:
        yield "has a link or caption that is not filled in as it should be. Run `make notebooks`."
    if len(MARK.findall(text)) > len(FILLED.findall(text)) + len(FILLED_CAPTION.findall(text)):
        yield "has a key in a comment, but no link before it. Write the link as [](kind:key)."
