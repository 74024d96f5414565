"""The panel: texts on which statements about the shipped model are measured (used by all chapters).

One prompt shows how something works. That it holds takes many, and texts that the model never saw:

- `docstrings`: docstrings that end just before a name which was mentioned early;
- `documents`: documentation, and `prose`: another task, in which nothing is documented;
- `random_repeats` and `sentences`: sequences that come twice, for induction heads.

All texts were written for this book before anything was measured on them. None shares eight words
in a row with the training text, as far as that can be built again: `training/panel_overlap.py`
compares the two and notes in the record with what it did. Every second item of each kind belongs to
the half "discover", in which one looks for a head or a block. The others belong to the half
"confirm", which alone is quoted.
"""

import dataclasses
import functools
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from mistral_lib.arrays import Array, Bool, Int
from mistral_lib.checks import check_choice
from mistral_lib.tokenizer import MistralTokenizer

RECORD = Path(__file__).parent / "records" / "panel.json"
HALVES = ("discover", "confirm")
LENGTHS = (8, 16, 32, 48)  # tokens of a random sequence before it comes again
STARRED = re.compile(r"\*(\w+)\*")
NOTHING = -1  # fills up rows of pieces

Kind = TypeVar("Kind", bound="Rows")  # of rows: `Prompts`, `Documents` or `Repeats`


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A docstring that ends just before a name.

    Attributes:
        text: the docstring, its last character the star before the name.
        name: the name that belongs there, a parameter that was mentioned early.
        partner: another name of as many pieces. The same prompt about it is the counterfactual.
        kind: "one piece", "letter first" (several pieces, of which the first has one letter) or
            "longer first" (several pieces, of which the first is longer).
        common: whether the name is one piece of the vocabulary where it stands after a space.
    """

    text: str
    name: str
    partner: str
    kind: str
    common: bool

    @property
    def others(self) -> tuple[str, ...]:
        """The other parameters that the docstring mentions."""
        return tuple(name for name in STARRED.findall(self.text) if name != self.name)

    @property
    def counterfactual(self) -> "Prompt":
        """The same docstring about the partner, token for token, whose partner is the name."""
        text = self.text.replace(f"*{self.name}*", f"*{self.partner}*")
        return dataclasses.replace(self, text=text, name=self.partner, partner=self.name)


@dataclasses.dataclass(frozen=True)
class Rows:
    """Texts as arrays, which compiled functions take.

    Attributes:
        title: what the rows are, such as "docstrings, confirm".
        items: what each row was made of.
        confirms: bool array (B,), true for the half "confirm".
        token_ids: int array (B, S), padded with zeros on the right.
        padding_mask: bool array (B, S), true for tokens.
    """

    title: str
    items: tuple
    confirms: Bool[Array, " B"]
    token_ids: Int[Array, "B S"]
    padding_mask: Bool[Array, "B S"]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def inputs(self) -> dict[str, Array]:
        """What a model is called with."""
        return {"token_ids": self.token_ids, "padding_mask": self.padding_mask}

    def where(self: Kind, keep: Sequence[bool] | Bool[Array, " B"]) -> Kind:
        """The rows for which `keep` is true."""
        kept = np.asarray(keep, bool)
        items = tuple(item for item, wanted in zip(self.items, kept, strict=True) if wanted)
        return dataclasses.replace(jax.tree.map(lambda array: array[kept], self), items=items)

    def half(self: Kind, half: str) -> Kind:
        """The rows of the half "discover" or "confirm"."""
        check_choice("half", half, HALVES)
        rows = self.where(np.asarray(self.confirms) == (half == "confirm"))
        return dataclasses.replace(rows, title=f"{self.title}, {half}")


def _tree(cls: type) -> type:
    """Has compiled functions take a kind of `Rows`: title and items are no arrays."""
    names = [field.name for field in dataclasses.fields(cls)]
    arrays = [name for name in names if name not in ("title", "items")]
    jax.tree_util.register_dataclass(cls, arrays, ["title", "items"])
    cls.__no_type_check__ = True
    return cls


@_tree
@dataclasses.dataclass(frozen=True)
class Prompts(Rows):
    """Docstring prompts; each row goes on with the name, so that all its pieces can be judged.

    Attributes:
        ends: int array (B,), the position of the star before the name: its row of the logits is
            the one from which the name's first piece is chosen.
        answers: int array (B, P), the pieces of the name; -1 fills up.
        partners: int array (B, P), the pieces of the partner.
        rivals: int array (B,), the first piece of another parameter in the text; -1 without one.
        mentions: int array (B,), the position of the first piece where the name comes first.
    """

    ends: Int[Array, " B"]
    answers: Int[Array, "B P"]
    partners: Int[Array, "B P"]
    rivals: Int[Array, " B"]
    mentions: Int[Array, " B"]

    def counterfactual(self, tokenizer: MistralTokenizer) -> "Prompts":
        """The same prompts about the partners, token for token."""
        made = _prompts(tokenizer, self.title, [item.counterfactual for item in self.items])
        return dataclasses.replace(made, confirms=self.confirms)


@_tree
@dataclasses.dataclass(frozen=True)
class Documents(Rows):
    """Whole texts.

    Attributes:
        bytes: int array (B,), the length of each text in bytes.
    """

    bytes: Int[Array, " B"]


@_tree
@dataclasses.dataclass(frozen=True)
class Repeats(Rows):
    """`<s>`, a sequence of tokens, and the same sequence again.

    Attributes:
        periods: int array (B,), the number of tokens of the sequence.
    """

    periods: Int[Array, " B"]


@functools.cache
def _record() -> dict[str, Any]:
    return json.loads(RECORD.read_text(encoding="utf-8"))


def docstrings(tokenizer: MistralTokenizer) -> Prompts:
    """The docstring prompts.

    Args:
        tokenizer: of the model that is to read them; it says of which kind each name is.

    Returns:
        All of them; `.half("confirm")` gives the half to quote.

    >>> tokenizer = MistralTokenizer.from_preset("mistral_tiny_en")
    >>> prompts = docstrings(tokenizer).half("confirm")
    >>> prompts.title, len(prompts), prompts.items[0].name
    ('docstrings, confirm', 36, 'value')
    """
    items = []
    for entry in _record()["docstrings"]:
        pieces = _pieces(tokenizer, entry["text"], entry["name"])
        kind = "one piece" if len(pieces) == 1 else "longer first"
        if len(pieces) > 1 and len(tokenizer.id_to_token(pieces[0])) == 1:
            kind = "letter first"
        common = len(tokenizer.encode(f" {entry['name']}", add_bos=False, add_eos=False)) == 1
        items.append(Prompt(**entry, kind=kind, common=common))
    return _prompts(tokenizer, "docstrings", items)


def documents(tokenizer: MistralTokenizer) -> Documents:
    """The documents: texts of 60 to 240 tokens in the manner of documentation.

    >>> tokenizer = MistralTokenizer.from_preset("mistral_tiny_en")
    >>> len(documents(tokenizer)), len(documents(tokenizer).half("confirm"))
    (40, 20)
    """
    return _documents(tokenizer, "documents")


def prose(tokenizer: MistralTokenizer) -> Documents:
    """Plain prose about the world, which is nothing that the model was trained on.

    >>> len(prose(MistralTokenizer.from_preset("mistral_tiny_en")))
    36
    """
    return _documents(tokenizer, "prose")


def sentences(tokenizer: MistralTokenizer) -> Repeats:
    """Sentences, each of which comes twice, on two lines.

    >>> tokenizer = MistralTokenizer.from_preset("mistral_tiny_en")
    >>> print(tokenizer.decode(sentences(tokenizer).token_ids[0, 1:]))
    The old baker sold warm bread to the ship's crew.
    The old baker sold warm bread to the ship's crew.
    """
    texts = _record()["sentences"]
    rows = tokenizer.encode([f"{text}\n" for text in texts], add_bos=False, add_eos=False)
    return _repeats(tokenizer, "sentences", texts, rows)


def random_repeats(tokenizer: MistralTokenizer, number: int = 16, seed: int = 0) -> Repeats:
    """Sequences of random tokens, each of which comes twice.

    Args:
        tokenizer: the tokens are its printable pieces; none comes twice within a sequence.
        number: sequences of each length in `LENGTHS`.
        seed: another one draws other sequences.

    >>> repeats = random_repeats(MistralTokenizer.from_preset("mistral_tiny_en"))
    >>> repeats.token_ids.shape, repeats.periods[::16].tolist()
    ((64, 97), [8, 16, 32, 48])
    """
    pieces = [tokenizer.id_to_token(id) for id in range(tokenizer.vocabulary_size())]
    ascii = [piece.replace("▁", " ") for piece in pieces]
    drawn_from = np.flatnonzero([p.isascii() and p.isprintable() and p[0] != "<" for p in ascii])
    bits = np.random.PCG64(seed)  # whose numbers are the same in every version of NumPy
    rows = [
        drawn_from[np.argsort(bits.random_raw(len(drawn_from)))[:length]].tolist()
        for length in LENGTHS
        for _ in range(number)
    ]
    return _repeats(tokenizer, "random repeats", [tuple(row) for row in rows], rows)


def _pieces(tokenizer, text: str, name: str) -> list[int]:
    """The pieces of a name at the end of a docstring, before another star."""
    before, after = tokenizer.encode([text, f"{text}{name}*"], add_bos=False, add_eos=False)
    return after[len(before) : -1]


def _prompts(tokenizer, title: str, items: Sequence[Prompt]) -> Prompts:
    rows = tokenizer.encode([item.text for item in items], add_bos=True, add_eos=False)
    answers = [_pieces(tokenizer, item.text, item.name) for item in items]
    partners = [_pieces(tokenizer, item.text, item.partner) for item in items]
    rivals = [
        _pieces(tokenizer, item.text, item.others[0])[0] if item.others else NOTHING
        for item in items
    ]
    mentions = [
        next(i for i in range(len(row)) if row[i : i + len(name)] == name and _starred(row, i))
        for row, name in zip(rows, answers)
    ]
    return Prompts(
        title,
        tuple(items),
        _confirms(item.kind for item in items),
        *_padded([row + name for row, name in zip(rows, answers)]),
        np.array([len(row) - 1 for row in rows]),
        _padded(answers, NOTHING)[0],
        _padded(partners, NOTHING)[0],
        np.array(rivals),
        np.array(mentions),
    )


def _starred(row: list[int], place: int) -> bool:
    """Whether the token before a place is the one that ends the prompt: the star."""
    return place > 0 and row[place - 1] == row[-1]


def _documents(tokenizer, title: str) -> Documents:
    texts = _record()[title]
    rows = tokenizer.encode(texts, add_bos=True, add_eos=False)
    sizes = np.array([len(text.encode()) for text in texts])
    return Documents(title, tuple(texts), _confirms([""] * len(rows)), *_padded(rows), sizes)


def _repeats(tokenizer, title: str, items: Sequence, rows: list[list[int]]) -> Repeats:
    periods = np.array([len(row) for row in rows])
    padded = _padded([[tokenizer.start_token_id, *row, *row] for row in rows])
    return Repeats(title, tuple(items), _confirms([""] * len(rows)), *padded, periods)


def _confirms(kinds: Iterable[str]) -> np.ndarray:
    """Which items confirm: every second one of each kind, in their order."""
    seen: Counter[str] = Counter()
    confirms = []
    for kind in kinds:
        seen[kind] += 1
        confirms.append(seen[kind] % 2 == 0)
    return np.array(confirms)


def _padded(rows: list[list[int]], filling: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ids filled up to one length, and where they are not filled up."""
    lengths = np.array([len(row) for row in rows])
    real = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(real.shape, filling, "int32")
    ids[real] = np.concatenate(rows)
    return ids, real
