"""Vocabularies in GGUF files (chapter 17, "Presets and checkpoints").

llama.cpp keeps a SentencePiece vocabulary as lists of pieces, scores and kinds, whose numbers are
those of SentencePiece. From them the model file is made again, which is a message in protobuf:
pieces, how they were trained, and what is done to a text before it is cut.

Source: llama.cpp, `conversion/base.py`, `_create_vocab_sentencepiece`; `src/llama-vocab.cpp`;
sentencepiece, `src/sentencepiece_model.proto`.
"""

import struct
from collections.abc import Sequence
from typing import Any

from sentencepiece import SentencePieceProcessor

from mistral_lib.presets.fast_tokenizer import SAMPLE, SPACE
from mistral_lib.presets.gguf_files import GgufFile

PREFIX = "tokenizer.ggml."
SENTENCEPIECE = "llama"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
BYTE_PAIRS = 2  # of sentencepiece_model.proto: the kind of model
# Fields of a ModelProto, of its pieces, of its TrainerSpec and of its NormalizerSpec.
PIECES, TRAINER, NORMALIZER = 1, 2, 3
PIECE, SCORE, KIND = 1, 2, 3
MODEL_TYPE, BYTE_FALLBACK, UNK_ID, BOS_ID, EOS_ID, PAD_ID = 3, 35, 40, 41, 42, 43
NAME, ADD_PREFIX, REMOVE_SPACES, ESCAPE_SPACES = 1, 3, 4, 5
FILLER_SCORE, ADDED_SCORE = -10000.0, -1000.0  # as llama.cpp's converter writes them


def read_vocabulary(file: GgufFile) -> bytes:
    """The SentencePiece model of a file.

    Raises:
        FileNotFoundError: the file has no vocabulary.
        ValueError: it has one of another kind, or lists that do not belong together.
    """
    kind = file.metadata.get(f"{PREFIX}model")
    if kind is None:
        raise FileNotFoundError(f"{file.path} has no vocabulary: it lacks {PREFIX}model.")
    if kind != SENTENCEPIECE:
        raise ValueError(
            f"{file.path} has a vocabulary of the kind {kind!r:.40}, but only SentencePiece's "
            f"({SENTENCEPIECE!r}) is read here. Pass preprocessor=None to "
            "MistralCausalLM.from_preset and work with ids."
        )
    pieces, scores, kinds = _lists(file)
    size = _base_size(kinds)
    pieces, scores, kinds = pieces[:size], scores[:size], kinds[:size]
    unknown = file.metadata.get(f"{PREFIX}unknown_token_id", 0)
    if UNKNOWN not in kinds and unknown in range(len(kinds)):
        kinds = [*kinds[:unknown], UNKNOWN, *kinds[unknown + 1 :]]  # a special token, to others
    return write_model(
        list(zip(pieces, scores, kinds)),
        unknown=kinds.index(UNKNOWN) if UNKNOWN in kinds else unknown,
        start=file.metadata.get(f"{PREFIX}bos_token_id", 1),
        end=file.metadata.get(f"{PREFIX}eos_token_id", 2),
        has_prefix=file.metadata.get(f"{PREFIX}add_space_prefix", True),
    )


def read_added_tokens(file: GgufFile) -> dict[str, int]:
    """The tokens behind the last piece of text, which were added to the vocabulary, and their ids.

    Names of rows that have no token are left out.
    """
    pieces, _, kinds = _lists(file)
    ids = range(_base_size(kinds), len(pieces))
    return {pieces[id]: id for id in ids if kinds[id] in (CONTROL, USER_DEFINED)}


def _lists(file: GgufFile) -> tuple[list[str], list[float], list[int]]:
    """Pieces, scores and kinds, of which there must be as many."""
    pieces = _list(file, "tokens", str)
    scores = _list(file, "scores", float, [0.0] * len(pieces))
    kinds = _list(file, "token_type", int, [NORMAL] * len(pieces))
    if not len(pieces) == len(scores) == len(kinds) > 0:
        raise ValueError(
            f"{file.path} has {len(pieces):,} tokens, {len(scores):,} scores and {len(kinds):,} "
            "kinds of tokens, but must have as many of each. Get it again from its source."
        )
    return pieces, scores, kinds


def _base_size(kinds: list[int]) -> int:
    """The number of tokens up to the last piece of text."""
    return max((id + 1 for id, kind in enumerate(kinds) if kind in (NORMAL, BYTE)), default=0)


def _list(file: GgufFile, key: str, kind: type, default: Sequence[Any] = ()) -> list[Any]:
    found = file.metadata.get(PREFIX + key, default)
    if not (isinstance(found, list) and all(type(each) is kind for each in found)):
        raise ValueError(
            f"{file.path}: {PREFIX}{key} must be a list of {kind.__name__}, but is {found!r:.80}."
        )
    return found


def write_model(
    pieces: Sequence[tuple[str, float, int]], unknown: int, start: int, end: int, has_prefix: bool
) -> bytes:
    """A SentencePiece model for byte-pair encoding, as `tokenizer.model` has it.

    Args:
        pieces: each with its score and its kind, a number of SentencePiece's.
        unknown: the id of `<unk>`.
        start: the id of `<s>`.
        end: the id of `</s>`.
        has_prefix: whether a space is put in front of a text.

    >>> pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("a", -1.0, 1)]
    >>> proto = write_model(pieces, unknown=0, start=1, end=2, has_prefix=False)
    >>> SentencePieceProcessor(model_proto=proto).encode("aa")
    [3, 3]
    """
    model = bytearray()
    for piece, score, kind in pieces:
        model += _message(PIECES, _text(PIECE, piece) + _float(SCORE, score) + _number(KIND, kind))
    trainer = _number(MODEL_TYPE, BYTE_PAIRS) + _number(BYTE_FALLBACK, 1)
    trainer += _number(UNK_ID, unknown) + _number(BOS_ID, start) + _number(EOS_ID, end)
    normalizer = _text(NAME, "identity") + _number(ADD_PREFIX, int(has_prefix))
    normalizer += _number(REMOVE_SPACES, 0) + _number(ESCAPE_SPACES, 1)
    trainer += _number(PAD_ID, -1)
    return bytes(model) + _message(TRAINER, trainer) + _message(NORMALIZER, normalizer)


def _varint(value: int) -> bytes:
    """A protobuf integer: seven bits a byte, from the lowest; a negative one has 64 bits."""
    value, found = value % 2**64, bytearray()
    while value >= 128:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())


def describe_vocabulary(tokenizer: Any, size: int | None) -> dict[str, Any]:
    """The metadata of a tokenizer.

    Args:
        tokenizer: a `MistralTokenizer`.
        size: number of rows of the embedding, each of which gets a token; `None` without a model.

    Raises:
        ValueError: a vocabulary that llama.cpp would use in another way.
    """
    model = SentencePieceProcessor(model_proto=tokenizer.proto)
    ids = list(range(model.vocab_size()))
    pieces, scores = model.id_to_piece(ids), model.get_score(ids)
    kinds = [_kind(model, id) for id in ids]
    added = {id: token for token, id in tokenizer.extras.get("added_tokens", {}).items()}
    for id in range(len(ids), max([size or 0, *(id + 1 for id in added)])):
        pieces.append(added.get(id, f"[PAD{id}]"))
        scores.append(ADDED_SCORE if id in added else FILLER_SCORE)
        kinds.append(USER_DEFINED if id in added else UNUSED)
    values = {
        "model": SENTENCEPIECE,
        "pre": "default",
        "tokens": pieces,
        "scores": scores,
        "token_type": kinds,
        "bos_token_id": tokenizer.start_token_id,
        "eos_token_id": tokenizer.end_token_id,
        "unknown_token_id": tokenizer.unk_token_id,
        "add_bos_token": True,
        "add_eos_token": False,
        "add_space_prefix": _has_prefix(model, scores[: len(ids)]),
    }
    found = {PREFIX + key: value for key, value in values.items()}
    template = tokenizer.extras.get("chat_template")
    return found | ({"tokenizer.chat_template": template} if template else {})


def _kind(model: SentencePieceProcessor, id: int) -> int:
    if model.is_unknown(id):
        return UNKNOWN
    if model.is_control(id):
        return CONTROL
    if model.is_unused(id):
        return UNUSED
    return BYTE if model.is_byte(id) else NORMAL


def _has_prefix(model: SentencePieceProcessor, scores: list[float]) -> bool:
    """Whether a space is put in front of a text, by a model of the kind that llama.cpp has."""
    plain, normalized = SAMPLE.replace(" ", SPACE), model.normalize(SAMPLE)
    is_bpe = all(score.is_integer() for score in scores)  # ranks, no logarithms
    if not (normalized in (plain, SPACE + plain) and is_bpe):
        raise ValueError(
            "This vocabulary is not like Mistral's: byte-pair encoding, and no normalization. "
            "llama.cpp would cut text in another way, so it is not exported. Export the backbone "
            "alone."
        )
    return normalized != plain
