"""The ids of a vocabulary and what they stand for (chapter 2, "Tokens").

A vocabulary may be SentencePiece's (`tokenizer`) or Tekken's (`tekken`); a checkpoint may add
tokens to either, with ids that follow the vocabulary's own.
"""

import operator
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from mistral_lib.added_tokens import AddedToken, AddedTokens, parse_added_tokens


class Vocabulary(ABC):
    """The ids and tokens of a vocabulary that a subclass holds, with added tokens."""

    kind: ClassVar[str]  # its name in KerasHub
    start_token = "<s>"
    end_token = "</s>"
    pad_token_id = 0

    def __init__(self):
        self._has_vocabulary = False
        self.extras = {}

    @property
    def extras(self) -> dict[str, Any]:
        """What a checkpoint says besides its vocabulary: see `presets.tokenizer_files`."""
        return self._extras

    @extras.setter
    def extras(self, extras: dict[str, Any]) -> None:
        tokens = parse_added_tokens(extras.get("added_tokens"))
        if self._has_vocabulary:
            tokens = tuple(token for token in tokens if self._is_new(token))
        self._added = AddedTokens(tokens)
        added = {"added_tokens": [token.to_json() for token in tokens]} if tokens else {}
        others = {name: value for name, value in extras.items() if name != "added_tokens"}
        self._extras = {**others, **added}
        vars(self).pop("_all_tokens", None)

    def _is_new(self, token: AddedToken) -> bool:
        """Whether an id is beyond the vocabulary, or is that of a control token with a new name."""
        id, size = token.id, self._base_size()
        return id >= size or (self._is_control(id) and self._piece(id) != token.content)

    # --- What a vocabulary answers ---------------------------------------------------------------

    @property
    @abstractmethod
    def unk_token_id(self) -> int:
        """The id of `<unk>`; with byte fallback, no text is ever encoded to it."""

    @abstractmethod
    def _base_size(self) -> int:
        """The number of ids without the tokens that were added."""

    @abstractmethod
    def _piece(self, id: int) -> str:
        """The piece of an id."""

    @abstractmethod
    def _piece_id(self, piece: str) -> int:
        """The id of a piece; `unk_token_id` for any other string."""

    @abstractmethod
    def _is_control(self, id: int) -> bool:
        """Whether no text encodes to an id and it decodes to nothing."""

    @abstractmethod
    def byte_value(self, id: int) -> int | None:
        """The byte, 0 to 255, that an id stands for; `None` for an id that is not a byte piece."""

    @abstractmethod
    def unfinished_bytes(self, id: int) -> bytes | None:
        """The bytes of an id, if they may be part of a character; otherwise `None`."""

    # --- Ids and tokens --------------------------------------------------------------------------

    @property
    def start_token_id(self) -> int:
        """The id of `<s>`, which begins every text."""
        return self._piece_id(self.start_token)

    @property
    def end_token_id(self) -> int:
        """The id of `</s>`, which ends every text."""
        return self._piece_id(self.end_token)

    def vocabulary_size(self) -> int:
        """The number of ids; valid ids are 0 to one less."""
        return max([self._base_size(), *(id + 1 for id in self._added.by_id)])

    def get_vocabulary(self) -> list[str]:
        """All tokens, in the order of their ids."""
        return [self.id_to_token(id) for id in range(self.vocabulary_size())]

    def id_to_token(self, id: int) -> str:
        """The token of an id. Raises ValueError for an id outside the vocabulary."""
        id = check_id(id, self.vocabulary_size())
        if id in self._added.by_id:
            return self._added.by_id[id].content
        return self._piece(id) if id < self._base_size() else f"<unused_{id}>"

    def token_to_id(self, token: str) -> int:
        """The id of a token; `unk_token_id` for a string that is not a token."""
        if not isinstance(token, str):
            raise TypeError(f"token_to_id: token must be a str, got {type(token).__name__}.")
        return self._added.ids.get(token, self._piece_id(token))

    def is_control(self, id: int) -> bool:
        """Whether an id is a control token, which decodes to nothing.

        No text encodes to one of the vocabulary itself, but text may encode to an added one.
        """
        id = check_id(id, self.vocabulary_size())
        if id in self._added.by_id:
            return self._added.by_id[id].special
        return id >= self._base_size() or self._is_control(id)


def check_id(id: Any, size: int, position: int | None = None) -> int:
    """A Python int from 0 to `size` - 1; `position` is its place in a row, for an error."""
    where = "" if position is None else f" at position {position}"
    try:
        if isinstance(id, bool):
            raise TypeError
        index = operator.index(id)
    except TypeError:
        raise TypeError(f"Token ids must be integers, got {id!r:.80}{where}.") from None
    if not 0 <= index < size:
        raise ValueError(
            f"Token id {index}{where} is outside the vocabulary of {size} ids (0 to {size - 1})."
        )
    return index
