"""What every tokenizer here can do (chapter 2, "Tokens").

A vocabulary may be SentencePiece's (`tokenizer`) or Tekken's (`tekken`). The batches, the special
tokens, the tokens that were added, chat templates and files are the same for both.
"""

import itertools
import operator
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, overload

import numpy as np

from mistral_lib.added_tokens import AddedToken, AddedTokens, parse_added_tokens
from mistral_lib.chat import encode_conversation
from mistral_lib.checks import check_boolean
from mistral_lib.inputs import as_rows, as_texts, without_arrays
from mistral_lib.pipelines import InPipelines
from mistral_lib.presets.exporting import export_tokenizer
from mistral_lib.presets.saving import save_tokenizer


class Tokenizer(InPipelines, ABC):
    """Text to ids and back, on a vocabulary that a subclass holds.

    Args:
        add_bos: whether `encode` puts `<s>` in front, unless the call says otherwise.
        add_eos: whether `encode` appends `</s>`, unless the call says otherwise.

    Raises:
        TypeError: an argument of another type.
    """

    kind: ClassVar[str]  # its name in KerasHub
    start_token = "<s>"
    end_token = "</s>"
    pad_token_id = 0

    def __init__(self, add_bos: bool = False, add_eos: bool = False):
        self.add_bos = check_boolean("add_bos", add_bos)
        self.add_eos = check_boolean("add_eos", add_eos)
        self._has_vocabulary = False
        self.extras = {}

    @property
    def extras(self) -> dict[str, Any]:
        """What a checkpoint says beside its vocabulary: see `presets.tokenizer_files`."""
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

    def _is_new(self, token: AddedToken) -> bool:
        """Whether an id is beyond the vocabulary, or is a control token that got another name."""
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
    def _encode_texts(self, texts: list[str]) -> list[list[int]]:
        """The ids of texts in which no added token is looked for."""

    @abstractmethod
    def _encode_part(self, text: str, at_start: bool) -> list[int]:
        """The ids of what lies between two added tokens, after `_normalize`."""

    def _normalize(self, text: str) -> str:
        """A text between added tokens as those of them have it that are looked for in it."""
        return text

    def _write_added(self, token: AddedToken, at_start: bool) -> str:
        """The text of a token that was added, with the spaces that belong to it."""
        return token.content

    @abstractmethod
    def _decode_run(self, ids: list[int], at_start: bool) -> str:
        """The text of ids among which no token was added, at the start of a text or later."""

    @abstractmethod
    def byte_value(self, id: int) -> int | None:
        """The byte, 0 to 255, that an id stands for; `None` for an id that is no byte piece."""

    @abstractmethod
    def unfinished_bytes(self, id: int) -> bytes | None:
        """What an id writes, where that may be a part of a character; `None` otherwise."""

    @abstractmethod
    def save_assets(self, folder: str | os.PathLike) -> None:
        """Writes the vocabulary into a folder, which is made if it is missing."""

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
        """The id of a token; `unk_token_id` for a string that is no token."""
        if not isinstance(token, str):
            raise TypeError(f"token_to_id: token must be a str, got {type(token).__name__}.")
        return self._added.ids.get(token, self._piece_id(token))

    def is_control(self, id: int) -> bool:
        """Whether an id is a control token, which decodes to nothing.

        No text encodes to one of the vocabulary itself, but to one that was added: see `encode`.
        """
        id = check_id(id, self.vocabulary_size())
        if id in self._added.by_id:
            return self._added.by_id[id].special
        return id >= self._base_size() or self._is_control(id)

    # --- Text ------------------------------------------------------------------------------------

    @overload
    def encode(
        self, text: str, add_bos: bool | None = None, add_eos: bool | None = None
    ) -> list[int]: ...
    @overload
    def encode(
        self,
        text: list[str] | tuple[str, ...] | np.ndarray,
        add_bos: bool | None = None,
        add_eos: bool | None = None,
    ) -> list[list[int]]: ...
    def encode(
        self,
        text: str | Sequence[str] | np.ndarray,
        add_bos: bool | None = None,
        add_eos: bool | None = None,
    ) -> list[int] | list[list[int]]:
        """Token ids of a text, or of each text of a batch.

        Args:
            text: a str; or a list, tuple or one-dimensional array of them. UTF-8 bytes stand for
                the str that they spell. A token that was added to the vocabulary is found in it;
                the vocabulary's own control tokens are not.
            add_bos: whether to put `<s>` in front; `None` takes the constructor's choice.
            add_eos: whether to append `</s>`; `None` takes the constructor's choice.

        Returns:
            A list of ids for one text, a list of such lists for a batch.

        Raises:
            TypeError: something else than text.
            ValueError: a lone surrogate or invalid UTF-8, which no Unicode text holds.
        """
        texts, batched = as_texts(text)
        add_bos = self.add_bos if add_bos is None else add_bos
        add_eos = self.add_eos if add_eos is None else add_eos
        start = [self.start_token_id] if add_bos else []
        end = [self.end_token_id] if add_eos else []
        if self._added:
            rows = [self._encode_around(text, self._added) for text in texts]
        else:
            rows = self._encode_texts(texts)
        rows = [start + row + end for row in rows]
        return rows if batched else rows[0]

    def _encode_around(self, text: str, added: AddedTokens) -> list[int]:
        """The ids of a text in which tokens are found that were added."""
        ids = []
        for part in added.split(text, self._normalize):
            ids += [part] if isinstance(part, int) else self._encode_part(part, at_start=not ids)
        return ids

    @overload
    def decode(self, ids: int | Sequence[int]) -> str: ...
    @overload
    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]: ...
    @overload
    def decode(self, ids: Any) -> str | list[str]: ...
    def decode(self, ids: Any) -> str | list[str]:
        """The text of token ids, or of each row of a batch.

        Args:
            ids: integers: a list, tuple, NumPy or JAX array (S,), or one id; or a list of rows or
                an array (B, S).

        Returns:
            A str for one row, a list of str for a batch.

        Raises:
            TypeError: ids that are no integers.
            ValueError: an id outside the vocabulary, or more than two dimensions.
        """
        ids = without_arrays(ids)
        rows, batched = as_rows([ids] if isinstance(ids, int) else ids)
        size = self.vocabulary_size()
        texts = []
        for row in rows:
            row = [check_id(id, size, position) for position, id in enumerate(row)]
            texts.append(self._decode([id for id in row if id != self.pad_token_id]))
        return texts if batched else texts[0]

    def _decode(self, ids: list[int]) -> str:
        base, added = self._base_size(), self._added.by_id
        text, at_start = "", True
        is_plain = [id < base and id not in added for id in ids]
        for plain, run in itertools.groupby(zip(ids, is_plain), lambda pair: pair[1]):
            ids = [id for id, _ in run]
            if plain:
                text += self._decode_run(ids, at_start)
                written = not all(map(self._is_control, ids))
            else:
                tokens = [added[id] for id in ids if id in added and not added[id].special]
                for token in tokens:
                    text += self._write_added(token, at_start)
                    at_start = False
                written = bool(tokens)
            at_start = at_start and not written
        return text

    def apply_chat_template(
        self, conversation: Sequence[dict[str, Any]], version: str | None = None
    ) -> list[int]:
        """The prompt by which an instruct model replies to a conversation.

        Args:
            conversation: messages `{"role": ..., "content": ...}`, with a text or a list of
                `{"type": "text", "text": ...}` as the content: at most one of the role
                "system", in front; then "user" and "assistant" in turns, the user first and last.
            version: "v1", "v2", "v3" or "v7", the template; `None` is the newest whose control
                tokens the vocabulary has, which is right for every vocabulary of Mistral's: v1 for
                Mistral 7B 0.1 and 0.2, v3 for 0.3.

        Returns:
            Token ids, from `<s>` to `[/INST]`, equal to mistral-common's. No content becomes a
            control token. In v1 `[INST]` itself is text, so that a content can imitate it there.

        Raises:
            TypeError: a conversation, message or content of another type.
            ValueError: no message, a key or role that is unknown, roles in another order, an empty
                reply, or a version for which the vocabulary lacks control tokens.

        >>> from mistral_lib import MistralTokenizer
        >>> tokenizer = MistralTokenizer.from_preset("mistral_tiny_en")
        >>> conversation = [
        ...     {"role": "system", "content": "Be brief."},
        ...     {"role": "user", "content": "What is a key?"},
        ... ]
        >>> print(tokenizer.decode(tokenizer.apply_chat_template(conversation)))
        [INST] Be brief.
        <BLANKLINE>
        What is a key? [/INST]
        """
        return encode_conversation(conversation, self, version)

    # --- Files -----------------------------------------------------------------------------------

    @abstractmethod
    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments for JSON."""

    def save_to_preset(self, preset_dir: str | Path) -> None:
        """Saves tokenizer.json and the vocabulary into a preset's folder."""
        save_tokenizer(self, preset_dir)

    def export_to_transformers(self, folder: str | Path) -> None:
        """Writes the vocabulary so that transformers' `AutoTokenizer` opens the folder."""
        export_tokenizer(self, folder)


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
