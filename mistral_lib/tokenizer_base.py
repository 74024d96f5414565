"""What every tokenizer here can do (chapter 2, "Tokens").

A vocabulary may be SentencePiece's (`tokenizer`) or Tekken's (`tekken`). Batches, special tokens,
added tokens, chat templates and files are handled in the same way for both.
"""

import base64
import functools
import itertools
import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, overload

import numpy as np

from mistral_lib.added_tokens import AddedToken, AddedTokens
from mistral_lib.chat import encode_conversation
from mistral_lib.checks import check_boolean
from mistral_lib.inputs import as_rows, as_texts, check_text, without_arrays
from mistral_lib.pipelines import InPipelines
from mistral_lib.presets.exporting import export_tokenizer
from mistral_lib.presets.saving import save_tokenizer
from mistral_lib.vocabulary_ids import Vocabulary, check_id


class Tokenizer(InPipelines, Vocabulary):
    """Turns text into ids and back, with a vocabulary that a subclass holds.

    Args:
        add_bos: whether `encode` puts `<s>` in front, unless the call says otherwise.
        add_eos: whether `encode` appends `</s>`, unless the call says otherwise.

    Raises:
        TypeError: an argument of another type.
    """

    vocabulary_argument: ClassVar[str]  # of the constructor; `get_config` has it in base64

    def __init__(self, add_bos: bool = False, add_eos: bool = False):
        super().__init__()
        self.add_bos = check_boolean("add_bos", add_bos)
        self.add_eos = check_boolean("add_eos", add_eos)

    @abstractmethod
    def _encode_texts(self, texts: list[str]) -> list[list[int]]:
        """The ids of texts, which are not searched for added tokens."""

    @abstractmethod
    def _encode_part(self, text: str, at_start: bool) -> list[int]:
        """The ids of the text between two added tokens, after `_normalize`."""

    def _normalize(self, text: str) -> str:
        """A text in the form in which `normalized` added tokens are searched for in it."""
        return text

    def _write_added(self, token: AddedToken, at_start: bool) -> str:
        """The text of a token that was added, with the spaces that belong to it."""
        return token.content

    @abstractmethod
    def _decode_run(self, ids: list[int], at_start: bool) -> str:
        """The text of ids without added tokens, at the start of a text or later."""

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
            TypeError: something other than text.
            ValueError: a lone surrogate or invalid UTF-8, which Unicode text cannot hold.
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
        """The ids of a text that may contain added tokens."""
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
            TypeError: ids that are not integers.
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

    def encode_plain(self, text: str) -> list[int]:
        """The ids of a text that is not searched for added tokens: all of it is plain text."""
        (ids,) = self._encode_texts([check_text("the text", text)])
        return ids

    def encode_rendered(self, text: str) -> list[int]:
        """The ids of a text in which every token is recognized, control tokens too.

        This is for texts that a chat template has written. It is not safe for a user's text, in
        which anybody could write control tokens.
        """
        return self._encode_around(check_text("the text", text), self._all_tokens)

    @functools.cached_property
    def _all_tokens(self) -> AddedTokens:
        """The control tokens of the vocabulary, and the tokens that were added."""
        known = self._added.by_id
        controls = [
            AddedToken(id, self._piece(id), special=True)
            for id in range(self._base_size())
            if id not in known and (self._is_control(id) or id == self.unk_token_id)
        ]
        return AddedTokens([*controls, *self._added.tokens])

    def model_settings(self) -> dict[str, Any]:
        """What a chat template says about the model itself, such as how long it is to think."""
        return {}

    def apply_chat_template(
        self,
        conversation: Sequence[dict[str, Any]],
        version: str | None = None,
        *,
        tools: Sequence[dict[str, Any]] | None = None,
    ) -> list[int]:
        """The prompt that makes an instruct model reply to a conversation.

        Args:
            conversation: messages `{"role": ..., "content": ...}` of the roles "system", "user",
                "assistant" and "tool", the last of which is the user's or a tool's. A content is a
                text or a list of `{"type": "text", "text": ...}`; from version 13 on, a reply may
                also hold `{"type": "thinking", "thinking": ...}`. As in OpenAI's clients, a reply
                may have `tool_calls`, and a tool's message has the `tool_call_id` of one of them.
            version: "v1", "v2", "v3", "v7", "v11", "v13" or "v15", a template of Mistral's. `None`
                means the template that comes with the checkpoint, if it is not one of Mistral's,
                and otherwise the vocabulary's own: v1 for Mistral 7B 0.1 and 0.2, v3 for 0.3.
            tools: definitions `{"type": "function", "function": {"name": ..., "description": ...,
                "parameters": ...}}` of the tools that the model may call.

        Returns:
            Token ids, from `<s>` to `[/INST]`, equal to mistral-common's. No content becomes a
            control token. In v1 `[INST]` itself is text, so a content can imitate it there. A
            checkpoint's own template gives transformers' ids, without this guarantee.

        Raises:
            TypeError: a conversation, message, content or tool of another type.
            ValueError: no message, an unknown key or role, roles in the wrong order, an empty
                reply, something that the version cannot write, a version whose control tokens the
                vocabulary lacks, or a checkpoint's template that fails.

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
        return encode_conversation(conversation, self, version, tools)

    # --- Files -----------------------------------------------------------------------------------

    @abstractmethod
    def save_assets(self, folder: str | os.PathLike) -> None:
        """Writes the vocabulary into a folder, which is made if it is missing."""

    @abstractmethod
    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments for JSON."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A tokenizer from `get_config()`. Its vocabulary is base64, never read as a path."""
        config, name = dict(config), cls.vocabulary_argument
        extras = dict(config.pop("extras", {}))
        if isinstance(config.get(name), str):
            try:
                config[name] = base64.b64decode(config[name], validate=True)
            except ValueError as error:
                raise ValueError(
                    f"{cls.kind}.from_config: {name} is not valid base64 ({error}). It must be the "
                    f"{name} of get_config(), or null where load_assets follows."
                ) from error
        tokenizer = cls(**config)
        tokenizer.extras = {**tokenizer.extras, **extras}
        return tokenizer

    def save_to_preset(self, preset_dir: str | Path) -> None:
        """Saves tokenizer.json and the vocabulary into a preset's folder."""
        save_tokenizer(self, preset_dir)

    def export_to_transformers(self, folder: str | Path) -> None:
        """Writes the vocabulary so that transformers' `AutoTokenizer` opens the folder."""
        export_tokenizer(self, folder)
