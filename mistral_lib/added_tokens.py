"""Tokens that were added to a vocabulary (chapter 2, "Tokens").

Fine-tuning on another chat format adds tokens such as `<|im_start|>`. Each is one id, and no merge
makes it: a text is first searched for these tokens, and the text between them is encoded as usual.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class AddedToken:
    """A token that was added; the attributes are named as in Hugging Face's files.

    Attributes:
        id: its id.
        content: its text.
        single_word: whether it is found only where no letter or digit is next to it.
        lstrip, rstrip: whether white space before it or after it belongs to it.
        normalized: whether it is searched for after spaces are written as in the vocabulary.
        special: whether decoding leaves it out.
    """

    id: int
    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    special: bool = False

    def to_json(self) -> dict[str, Any]:
        """The token for a JSON file, without the flags that are false."""
        values = vars(self).items()
        return {name: value for name, value in values if value or name == "id"}


LARGEST_ID = 2**20  # vocabularies are smaller; a larger id would need a huge list of tokens
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def parse_added_tokens(content: Any) -> tuple[AddedToken, ...]:
    """Added tokens from the content of a JSON file; entries that are not tokens are left out.

    Args:
        content: a list of objects with `id`, `content` and flags; or an object that maps texts to
            ids, as in added_tokens.json.

    >>> parse_added_tokens({"<|im_end|>": 32000})[0].id
    32000
    """
    if isinstance(content, dict):
        content = [{"id": id, "content": text} for text, id in content.items()]
    found: dict[int, AddedToken] = {}
    for entry in content if isinstance(content, list) else ():
        if not isinstance(entry, dict):
            continue
        id, text = entry.get("id"), entry.get("content")
        if type(id) is int and 0 <= id < LARGEST_ID and isinstance(text, str) and text:
            flags = {name: True for name in FLAGS if entry.get(name) is True}
            found[id] = AddedToken(id, text, **flags)
    return tuple(found[id] for id in sorted(found))


class AddedTokens:
    """Added tokens, and a search for them in a text.

    Args:
        tokens: the tokens, no two with the same text.

    Source: `added_vocabulary.rs` of Hugging Face's tokenizers 0.23.

    >>> added = AddedTokens([AddedToken(7, "<|im_end|>", rstrip=True)])
    >>> list(added.split("Hi<|im_end|> \\nYou"))
    ['Hi', 7, 'You']
    """

    def __init__(self, tokens: Iterable[AddedToken] = ()):
        self.tokens = tuple(tokens)
        self.by_id = {token.id: token for token in self.tokens}
        self.ids = {token.content: token.id for token in self.tokens}

    def __bool__(self):
        return bool(self.tokens)

    def split(self, text: str, normalize: Callable[[str], str] = str) -> Iterator[str | int]:
        """The ids of the added tokens in a text, and the texts between them, normalized.

        Args:
            text: where to look.
            normalize: normalizes a text for the vocabulary. It is applied to the text between the
                tokens that are found first, and to the tokens that are searched for afterwards.
        """
        for part in _cut(text, self._pattern(False, str)):
            if isinstance(part, int):
                yield part
            else:
                yield from _cut(normalize(part), self._pattern(True, normalize))

    def _pattern(
        self, normalized: bool, normalize: Callable[[str], str]
    ) -> tuple[re.Pattern[str], dict[str, AddedToken]]:
        """A pattern for the tokens of one kind, longest first, and the tokens by their texts."""
        found = {
            normalize(token.content): token
            for token in self.tokens
            if token.normalized == normalized
        }
        longest_first = sorted(found, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)"), found


def _cut(text: str, search: tuple[re.Pattern[str], dict[str, AddedToken]]) -> Iterator[str | int]:
    """The parts of a text: ids of tokens, and the texts between them that are not empty."""
    pattern, tokens = search
    end = 0
    for match in pattern.finditer(text):
        token, (start, stop) = tokens[match[0]], match.span()
        if token.single_word and re.search(r"\w", text[:start][-1:] + text[stop : stop + 1]):
            continue
        if token.lstrip:
            start = max(end, len(text[:start].rstrip()))
        if token.rstrip:
            stop = len(text) - len(text[stop:].lstrip())
        if end < start:
            yield text[end:start]
        yield token.id
        end = stop
    if end < len(text):
        yield text[end:]
