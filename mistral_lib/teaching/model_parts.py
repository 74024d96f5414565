"""The parts of the model, and what each chapter does with them (used by all chapters)."""

from __future__ import annotations

from dataclasses import dataclass, field

# What the tally counts, in the order of the chapters that write them.
TALLY = (
    "loop",
    "vocabulary",
    "embedding",
    "attention",
    "positions",
    "mask",
    "norm",
    "network",
    "block",
)
# Each part with the words for it in a sentence.
PARTS = {
    "loop": "the loop",
    "vocabulary": "the vocabulary",
    "embedding": "the embedding, front and back",
    "projections": "the projections of attention",
    "attention": "attention",
    "positions": "the rotary positions",
    "heads": "the grouped heads",
    "cache": "the KV cache",
    "mask": "the mask",
    "norm": "the norms",
    "network": "the feed-forward network",
    "block": "the block",
    "sampling": "sampling",
}
_WEIGHTS = frozenset({"embedding", "projections", "norm", "network"})
_KERNELS = frozenset({"projections", "network"})


@dataclass(frozen=True)
class Chapter:
    """What a chapter is about, and what its readers write in it.

    Args:
        lit: names from `PARTS`.
        written: names from `PARTS`.
    """

    lit: frozenset[str]
    written: frozenset[str] = field(default=frozenset())


def _about(*parts: str, written: bool = True) -> Chapter:
    """A chapter about some parts, which its readers write unless said otherwise."""
    return Chapter(frozenset(parts), frozenset(parts) if written else frozenset())


CHAPTERS = {
    1: _about("loop"),
    2: _about("vocabulary"),
    3: _about("embedding"),
    4: _about("projections", "attention"),
    5: _about("positions"),
    6: _about("heads"),
    7: _about("mask"),
    8: _about("attention", "mask", written=False),
    9: _about("norm"),
    10: _about("network"),
    11: _about("block"),
    12: Chapter(frozenset(PARTS) - {"sampling", "cache"}),
    13: Chapter(_WEIGHTS),
    14: Chapter(_KERNELS),
    15: _about("cache"),
    16: _about("sampling"),
    17: Chapter(_WEIGHTS),
    18: Chapter(_KERNELS),
    19: Chapter(_KERNELS | {"cache"}),
    20: Chapter(_KERNELS),
}


def mine(chapter: int) -> frozenset[str]:
    """The parts that readers have written by the end of a chapter.

    Args:
        chapter: its number; 0 is the introduction.

    >>> sorted(mine(3))
    ['embedding', 'loop', 'vocabulary']
    """
    done = (part for number, part in CHAPTERS.items() if number <= chapter)
    return frozenset().union(*(part.written for part in done))


def tally(chapter: int) -> int:
    """How many of the parts in `TALLY` are the readers' own by the end of a chapter.

    Args:
        chapter: its number.

    >>> tally(7), len(TALLY)
    (6, 9)
    """
    return len(mine(chapter) & set(TALLY))


def alt_text(chapter: int) -> str:
    """What the picture of the model shows in a chapter, in words.

    Args:
        chapter: its number; 0 is the introduction.

    >>> alt_text(2).partition(". Lit")[2]
    ': the vocabulary. Marked as written by the reader: the loop, the vocabulary.'
    """
    text = (
        "The decoder from below. A tokenizer makes token ids, the embedding makes vectors of them, "
        "and these go up as one line, the residual stream, through L equal blocks. In each block "
        "attention reads a normalised copy of the stream and adds to it: query, key and value "
        "projections, rotary positions, a cache of keys and values, the mask, an output "
        "projection. Then the feed-forward network does the same. A last norm and the embedding's "
        "other table make logits, one is chosen by sampling, and its token is appended"
    )
    if chapter:
        text += f". Lit: {_listed(CHAPTERS[chapter].lit)}"
    if mine(chapter):
        text += f". Marked as written by the reader: {_listed(mine(chapter))}"
    return f"{text}."


def _listed(parts: frozenset[str]) -> str:
    """Parts in the order of `PARTS`, as words."""
    return ", ".join(words for part, words in PARTS.items() if part in parts)
