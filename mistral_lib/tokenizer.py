"""Text to token ids and back (chapter 2, "Tokens").

A SentencePiece model cuts text into pieces of its vocabulary. A character that the vocabulary lacks
falls back to its UTF-8 bytes, each of which has a piece of its own, such as `<0xE2>`. Spaces are
part of the pieces, written as `▁`.
"""

import base64
import functools
import os
from pathlib import Path

import keras
import sentencepiece

from mistral_lib.added_tokens import AddedToken
from mistral_lib.checks import as_path
from mistral_lib.presets.atomic import replaced_file
from mistral_lib.presets.loading import load_tokenizer
from mistral_lib.presets.preset import Preset
from mistral_lib.tekken import MistralTekkenTokenizer
from mistral_lib.tokenizer_base import Tokenizer
from mistral_lib.vocabulary import SPACE, parse_model, read_vocabulary, without_prefix
from mistral_lib.vocabulary_ids import check_id

VOCABULARY_FILE = "vocabulary.spm"


@keras.saving.register_keras_serializable(package="mistral_lib")
class MistralTokenizer(Tokenizer):
    """Mistral's tokenizer: a SentencePiece model with `<s>`, `</s>` and padding id 0.

    Encoding treats all text alike: `"<s>"` or `"[INST]"` inside a text becomes the ordinary pieces
    that spell it, never the control token of that name. Decoding writes nothing for control tokens
    nor for id 0, which pads rows and is `<unk>` in Mistral's vocabularies, and one U+FFFD for every
    byte piece that is part of no valid UTF-8 character. Every other id decodes as SentencePiece
    does. Tokens that a checkpoint added to the vocabulary, such as `<|im_start|>`, are found in a
    text.

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

    kind = "MistralTokenizer"
    vocabulary_argument = "proto"

    def __init__(
        self,
        proto: str | os.PathLike | bytes | None,
        add_bos: bool = False,
        add_eos: bool = False,
    ):
        super().__init__(add_bos, add_eos)
        self.proto = None
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
        self._has_vocabulary = True
        for name in ("_without_prefix", "_a_word"):  # those of the vocabulary before
            vars(self).pop(name, None)
        self.extras = self.extras

    @property
    def _model(self) -> sentencepiece.SentencePieceProcessor:
        if self._processor is None:
            raise ValueError(
                "MistralTokenizer has no vocabulary yet: construct it with a proto, or call "
                f"load_assets(folder) on a folder that holds {VOCABULARY_FILE}."
            )
        return self._processor

    @property
    def unk_token_id(self) -> int:
        """The id of `<unk>`; with byte fallback, no text is ever encoded to it."""
        return self._model.unk_id()

    def _base_size(self) -> int:
        return self._model.vocab_size()

    def _piece(self, id: int) -> str:
        return self._model.id_to_piece(id)

    def _piece_id(self, piece: str) -> int:
        return self._model.piece_to_id(piece)

    def _is_control(self, id: int) -> bool:
        return self._model.is_control(id)

    def byte_value(self, id: int) -> int | None:
        """The byte, 0 to 255, that an id stands for; `None` for an id that is no byte piece."""
        id = check_id(id, self.vocabulary_size())
        in_model = id < self._base_size() and id not in self._added.by_id
        return int(self._piece(id)[3:5], 16) if in_model and self._model.is_byte(id) else None

    def unfinished_bytes(self, id: int) -> bytes | None:
        """The byte of a byte piece; `None` for any other, which writes whole characters."""
        value = self.byte_value(id)
        return None if value is None else bytes([value])

    def _encode_texts(self, texts: list[str]) -> list[list[int]]:
        if self.extras.get("prefix", "").endswith("alone"):
            return [self._encode_part(text, at_start=True) for text in texts]
        return self._model.encode(texts)

    def _encode_part(self, text: str, at_start: bool) -> list[int]:
        """Decides whether a space is put in front: see `presets.tokenizer_files.PREFIXES`."""
        prefix = self.extras.get("prefix", "")
        wanted = prefix.startswith("always") or (prefix.startswith("first") and at_start)
        # Without either, `_normalize` has done it.
        with_prefix = wanted and not text.startswith((" ", SPACE))
        return (self._model if with_prefix else self._without_prefix).encode(text)

    def _normalize(self, text: str) -> str:
        return text if "prefix" in self.extras else self._model.normalize(text)

    def _write_added(self, token: AddedToken, at_start: bool) -> str:
        text = self._normalize(token.content) if token.normalized else token.content
        text = text.replace(SPACE, " ")
        return text.removeprefix(" ") if at_start else text

    @functools.cached_property
    def _without_prefix(self) -> sentencepiece.SentencePieceProcessor:
        """The same model without the space that it puts in front of a text."""
        return without_prefix(self._model.serialized_model_proto())

    def _decode_run(self, ids: list[int], at_start: bool) -> str:
        if at_start:
            return self._model.decode(ids)
        # After other text, the space in front of the first piece counts.
        word = self._a_word
        return self._model.decode([word, *ids])[len(self._model.decode([word])) :]

    @functools.cached_property
    def _a_word(self) -> int:
        """Any id that writes whole characters; the search begins at the end, where most are."""
        ids = reversed(range(self._base_size()))
        return next(id for id in ids if self._model.decode([id]) not in ("", "\ufffd"))

    def get_config(self) -> dict:
        """The constructor's arguments for JSON: `proto` in base64, `add_bos`, `add_eos`."""
        proto = None if self.proto is None else base64.b64encode(self.proto).decode("ascii")
        extras = {"extras": self.extras} if self.extras else {}
        return {"proto": proto, "add_bos": self.add_bos, "add_eos": self.add_eos, **extras}

    def save_assets(self, folder: str | os.PathLike) -> None:
        """Writes the vocabulary to `vocabulary.spm` in a folder, which is made if it is missing."""
        proto = self._model.serialized_model_proto()
        with replaced_file(as_path(folder) / VOCABULARY_FILE) as new:
            new.write_bytes(proto)

    def load_assets(self, folder: str | os.PathLike) -> None:
        """Takes the vocabulary from `vocabulary.spm` in a folder, in place of the present one."""
        self._set_proto(as_path(folder) / VOCABULARY_FILE)

    @classmethod
    def from_preset(cls, preset: str | Path) -> Tokenizer:
        """The tokenizer of a preset: a name, address or folder, as for `MistralBackbone`.

        Returns:
            A `MistralTokenizer`; a `MistralTekkenTokenizer` where the preset has a Tekken
            vocabulary.
        """
        return load_tokenizer({**TOKENIZERS, "MistralTokenizer": cls}, Preset.open(preset))


# The class for each kind of vocabulary, by KerasHub's name of it.
TOKENIZERS = {
    "MistralTokenizer": MistralTokenizer,
    "MistralTekkenTokenizer": MistralTekkenTokenizer,
}
