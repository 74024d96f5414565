"""The panel: texts on which statements about the shipped model are measured (used by all chapters).

One prompt shows how something works. That it holds takes many, and texts that the model never saw:

- `docstrings`: docstrings that end just before a name which was mentioned early;
- `documents`: documentation, and `prose`: another task, in which nothing is documented;
- sequences that come twice, for induction heads, which are in `mistral_lib.teaching.repeats`.

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
STARRED = re.compile(r"\*(\w+)\*")
NOTHING = -1  # fills up rows of pieces

T = TypeVar("T", bound="Rows")  # `Prompts`, `Documents` or `Repeats`


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

    def where(self: T, keep: Sequence[bool] | Bool[Array, " B"]) -> T:
        """The rows for which `keep` is true."""
        kept = np.asarray(keep, bool)
        items = tuple(item for item, wanted in zip(self.items, kept, strict=True) if wanted)
        return dataclasses.replace(jax.tree.map(lambda array: array[kept], self), items=items)

    def half(self: T, half: str) -> T:
        """The rows of the half "discover" or "confirm"."""
        check_choice("half", half, HALVES)
        rows = self.where(np.asarray(self.confirms) == (half == "confirm"))
        return dataclasses.replace(rows, title=f"{self.title}, {half}")


def rows_tree(cls: type) -> type:
    """Has compiled functions take a kind of `Rows`: title and items are no arrays."""
    names = [field.name for field in dataclasses.fields(cls)]
    arrays = [name for name in names if name not in ("title", "items")]
    jax.tree_util.register_dataclass(cls, arrays, ["title", "items"])
    cls.__no_type_check__ = True
    return cls


@rows_tree
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

    def regions(self) -> dict[str, Bool[np.ndarray, "B S"]]:
        """Where each prompt has the name, what is before, between and at the end: each once.

        Returns:
            For "before", "name", "rest of the name" (its later pieces), "after" (the token after
            it), "between" and "end" (the star before the name is due) a bool array (B, S).
        """
        places = np.arange(self.token_ids.shape[1])
        first, end = self.mentions[:, None], self.ends[:, None]
        last = first + (self.answers != NOTHING).sum(axis=1, keepdims=True)
        return {
            "before": places < first,
            "name": places == first,
            "rest of the name": (places > first) & (places < last),
            "after": places == last,
            "between": (places > last) & (places < end),
            "end": places == end,
        }

    @property
    def counterfactual(self) -> "Prompts":
        """The same prompts about the partners, token for token."""
        ids, (rows, pieces) = np.array(self.token_ids), np.nonzero(self.answers != NOTHING)
        for first in (self.mentions, self.ends + 1):
            ids[rows, first[rows] + pieces] = self.partners[rows, pieces]
        return dataclasses.replace(
            self,
            items=tuple(item.counterfactual for item in self.items),
            token_ids=ids,
            answers=self.partners,
            partners=self.answers,
        )


@rows_tree
@dataclasses.dataclass(frozen=True)
class Documents(Rows):
    """Whole texts.

    Attributes:
        bytes: int array (B,), the length of each text in bytes.
    """

    bytes: Int[Array, " B"]


@functools.cache
def record() -> dict[str, Any]:
    """The texts as they are kept."""
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
    for entry in record()["docstrings"]:
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
    (52, 26)
    """
    return own(tokenizer, record()["documents"], "documents")


def prose(tokenizer: MistralTokenizer) -> Documents:
    """Plain prose about the world, which is nothing that the model was trained on.

    >>> len(prose(MistralTokenizer.from_preset("mistral_tiny_en")))
    36
    """
    return own(tokenizer, record()["prose"], "prose")


def own(tokenizer: MistralTokenizer, texts: Sequence[str], title: str = "own texts") -> Documents:
    """Other texts than the panel's, such as a reader's.

    >>> own(MistralTokenizer.from_preset("mistral_tiny_en"), ["One text.", "Another."]).bytes
    array([9, 8])
    """
    rows = tokenizer.encode(list(texts), add_bos=True, add_eos=False)
    sizes = np.array([len(text.encode()) for text in texts])
    return Documents(title, tuple(texts), confirmed([""] * len(rows)), *padded(rows), sizes)


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
        confirmed(item.kind for item in items),
        *padded([row + name for row, name in zip(rows, answers)]),
        np.array([len(row) - 1 for row in rows]),
        padded(answers, NOTHING)[0],
        padded(partners, NOTHING)[0],
        np.array(rivals),
        np.array(mentions),
    )


def _starred(row: list[int], place: int) -> bool:
    """Whether the token before a place is the one that ends the prompt: the star."""
    return place > 0 and row[place - 1] == row[-1]


def confirmed(kinds: Iterable[str]) -> np.ndarray:
    """Which items confirm: every second one of each kind, in their order."""
    seen: Counter[str] = Counter()
    confirms = []
    for kind in kinds:
        seen[kind] += 1
        confirms.append(seen[kind] % 2 == 0)
    return np.array(confirms)


def padded(
    rows: list[list[int]], filling: int = 0
) -> tuple[Int[np.ndarray, "B S"], Bool[np.ndarray, "B S"]]:
    """Rows of ids filled up to one length, and where they are not filled up."""
    lengths = np.array([len(row) for row in rows])
    real = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(real.shape, filling, "int32")
    ids[real] = np.concatenate(rows)
    return ids, real
