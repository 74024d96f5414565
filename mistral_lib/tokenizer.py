"""Text to token ids and back (chapter 2, "Tokens").

A SentencePiece model cuts text into pieces of its vocabulary. A character that the vocabulary lacks
falls back to its UTF-8 bytes, each of which has a piece of its own, such as `<0xE2>`. Spaces are
part of the pieces, written as `▁`.
"""

import base64
import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import keras
import numpy as np
import sentencepiece

from mistral_lib.chat import encode_conversation
from mistral_lib.checks import as_path, check_boolean
from mistral_lib.inputs import as_rows, as_texts, without_arrays
from mistral_lib.pipelines import decode_in_graph, encode_in_graph, in_graph
from mistral_lib.presets.atomic import replaced_file
from mistral_lib.presets.exporting import export_tokenizer
from mistral_lib.presets.loading import load_tokenizer
from mistral_lib.presets.preset import Preset
from mistral_lib.presets.saving import save_tokenizer
from mistral_lib.vocabulary import parse_model, read_vocabulary

VOCABULARY_FILE = "vocabulary.spm"


@keras.saving.register_keras_serializable(package="mistral_lib")
class MistralTokenizer:
    """Mistral's tokenizer: a SentencePiece model with `<s>`, `</s>` and padding id 0.

    Encoding treats all text alike: `"<s>"` or `"[INST]"` inside a text becomes the ordinary pieces
    that spell it, never the control token of that name. Decoding writes nothing for control tokens
    nor for id 0, which pads rows and is `<unk>` in Mistral's vocabularies, and one U+FFFD for every
    byte piece that is part of no valid UTF-8 character. Every other id decodes as SentencePiece
    does.

    Args:
        proto: path of a SentencePiece model (`tokenizer.model`, `vocabulary.spm`), or its bytes.
            `None` leaves the vocabulary to `load_assets`.
        add_bos: whether `encode` puts `<s>` in front, unless the call says otherwise.
        add_eos: whether `encode` appends `</s>`, unless the call says otherwise.

    Raises:
        FileNotFoundError: no file at `proto`.
        TypeError: an argument of another type.
        ValueError: not a SentencePiece model, or one without `<s>` and `</s>`.

    Source: Kudo and Richardson, "SentencePiece", 2018; the interface is KerasHub's.

    >>> import io, sentencepiece
    >>> model = io.BytesIO()
    >>> sentencepiece.SentencePieceTrainer.train(
    ...     sentence_iterator=iter(["the window slides"]),
    ...     model_writer=model,
    ...     minloglevel=2,
    ...     vocab_size=275,
    ...     model_type="bpe",
    ...     byte_fallback=True,
    ... )
    >>> tokenizer = MistralTokenizer(model.getvalue())
    >>> [tokenizer.id_to_token(i) for i in tokenizer.encode("the ☃", add_bos=True)]
    ['<s>', '▁', 't', 'he', '▁', '<0xE2>', '<0x98>', '<0x83>']
    >>> tokenizer.decode(tokenizer.encode("the ☃", add_bos=True))
    'the ☃'
    """

    start_token = "<s>"
    end_token = "</s>"
    pad_token_id = 0

    def __init__(
        self,
        proto: str | os.PathLike | bytes | None,
        add_bos: bool = False,
        add_eos: bool = False,
    ):
        self.add_bos = check_boolean("add_bos", add_bos)
        self.add_eos = check_boolean("add_eos", add_eos)
        self.proto = None
        # Of a checkpoint, for an export: see `read_extras` of `presets.formats.Format`.
        self.extras: dict[str, Any] = {}
        self._processor = None
        if proto is not None:
            self._set_proto(proto)

    def _set_proto(self, proto):
        if isinstance(proto, bytes):
            source = "the bytes given as proto"
        elif isinstance(proto, str | os.PathLike):
            source = os.fspath(proto)
            proto = read_vocabulary(as_path(proto))
        else:
            raise TypeError(
                "MistralTokenizer: proto must be the path of a SentencePiece model or its bytes, "
                f"got {type(proto).__name__}."
            )
        self._processor = parse_model(proto, source)
        self.proto = proto

    @property
    def _model(self) -> sentencepiece.SentencePieceProcessor:
        if self._processor is None:
            raise ValueError(
                "MistralTokenizer has no vocabulary yet: construct it with a proto, or call "
                f"load_assets(folder) on a folder that holds {VOCABULARY_FILE}."
            )
        return self._processor

    @property
    def start_token_id(self) -> int:
        """The id of `<s>`, which begins every text."""
        return self._model.piece_to_id(self.start_token)

    @property
    def end_token_id(self) -> int:
        """The id of `</s>`, which ends every text."""
        return self._model.piece_to_id(self.end_token)

    @property
    def unk_token_id(self) -> int:
        """The id of `<unk>`; with byte fallback, no text is ever encoded to it."""
        return self._model.unk_id()

    def vocabulary_size(self) -> int:
        """The number of ids; valid ids are 0 to one less."""
        return self._model.vocab_size()

    def get_vocabulary(self) -> list[str]:
        """All pieces, in the order of their ids."""
        return self._model.id_to_piece(list(range(self.vocabulary_size())))

    def id_to_token(self, id: int) -> str:
        """The piece of an id. Raises ValueError for an id outside the vocabulary."""
        return self._model.id_to_piece(_check_id(id, self.vocabulary_size()))

    def token_to_id(self, token: str) -> int:
        """The id of a piece; `unk_token_id` for a string that is no piece."""
        if not isinstance(token, str):
            raise TypeError(f"token_to_id: token must be a str, got {type(token).__name__}.")
        return self._model.piece_to_id(token)

    def is_control(self, id: int) -> bool:
        """Whether an id is a control token: no text encodes to it and it decodes to nothing."""
        return self._model.is_control(_check_id(id, self.vocabulary_size()))

    def byte_value(self, id: int) -> int | None:
        """The byte, 0 to 255, that an id stands for; `None` for an id that is no byte piece."""
        piece = self.id_to_token(id)
        return int(piece[3:5], 16) if self._model.is_byte(operator.index(id)) else None

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
                the str that they spell.
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
        rows = [start + row + end for row in self._model.encode(texts)]
        return rows if batched else rows[0]

    def tokenize(self, text: Any, add_bos: bool | None = None, add_eos: bool | None = None) -> Any:
        """As `encode`; and the function to give to `map` of a `tf.data.Dataset` or `grain`.

        In a graph of TensorFlow the ids are an int32 tensor, those of a batch a ragged one.
        """
        if in_graph(text):
            return encode_in_graph(lambda text: self.encode(text, add_bos, add_eos), text)
        return self.encode(text, add_bos, add_eos)

    __call__ = tokenize

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
            row = [_check_id(id, size, position) for position, id in enumerate(row)]
            texts.append(self._model.decode([id for id in row if id != self.pad_token_id]))
        return texts if batched else texts[0]

    def detokenize(self, ids: Any) -> Any:
        """As `decode`; and the function to give to `map` of a `tf.data.Dataset` or `grain`."""
        if in_graph(ids):
            return decode_in_graph(self.decode, ids)
        return self.decode(ids.to_list() if hasattr(ids, "flat_values") else ids)  # if ragged

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

    def get_config(self) -> dict:
        """The constructor's arguments for JSON: `proto` in base64, `add_bos`, `add_eos`."""
        proto = None if self.proto is None else base64.b64encode(self.proto).decode("ascii")
        extras = {"extras": self.extras} if self.extras else {}
        return {"proto": proto, "add_bos": self.add_bos, "add_eos": self.add_eos, **extras}

    @classmethod
    def from_config(cls, config: dict) -> "MistralTokenizer":
        """A tokenizer from `get_config()`. Its `proto` is base64, never read as a path."""
        config = dict(config)
        extras = dict(config.pop("extras", {}))
        if isinstance(config.get("proto"), str):
            try:
                config["proto"] = base64.b64decode(config["proto"], validate=True)
            except ValueError as error:
                raise ValueError(
                    f"MistralTokenizer.from_config: proto is not valid base64 ({error}). It must "
                    "be the proto of get_config(), or null where load_assets follows."
                ) from error
        tokenizer = cls(**config)
        tokenizer.extras = extras
        return tokenizer

    def save_assets(self, folder: str | os.PathLike) -> None:
        """Writes the vocabulary to `vocabulary.spm` in a folder, which is made if it is missing."""
        proto = self._model.serialized_model_proto()
        with replaced_file(as_path(folder) / VOCABULARY_FILE) as new:
            new.write_bytes(proto)

    def load_assets(self, folder: str | os.PathLike) -> None:
        """Takes the vocabulary from `vocabulary.spm` in a folder, in place of the present one."""
        self._set_proto(as_path(folder) / VOCABULARY_FILE)

    @classmethod
    def from_preset(cls, preset: str | Path) -> "MistralTokenizer":
        """The tokenizer of a preset: a name, address or folder, as for `MistralBackbone`."""
        return load_tokenizer(cls, Preset.open(preset))

    def save_to_preset(self, preset_dir: str | Path) -> None:
        """Saves tokenizer.json and the vocabulary into a preset's folder."""
        save_tokenizer(self, preset_dir)

    def export_to_transformers(self, folder: str | Path) -> None:
        """Writes the vocabulary so that transformers' `AutoTokenizer` opens the folder."""
        export_tokenizer(self, folder)


def _check_id(id, size: int, position: int | None = None) -> int:
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
