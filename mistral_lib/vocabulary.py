"""Reading, checking and writing SentencePiece models (chapter 2, "Tokens")."""

import struct
from collections.abc import Sequence
from pathlib import Path

import sentencepiece

SPACE = "▁"  # how pieces write a space

LARGEST_VOCABULARY = 100 * 2**20  # bytes; Mistral's own have 0.6 MB
EXPECTED = "Expected a SentencePiece model, such as tokenizer.model or vocabulary.spm."
# Numbers of fields in sentencepiece_model.proto (a piece is 1), and the kinds of pieces.
TRAINER_FIELD, NORMALIZER_FIELD, ADD_PREFIX_FIELD = 2, 3, 3
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def read_vocabulary(path: Path, expected: str = EXPECTED) -> bytes:
    """The bytes of a vocabulary file, after a look at its kind and size.

    Args:
        path: where the vocabulary is.
        expected: a sentence about what should be there, for an error.

    Returns:
        The whole file.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: no file that can be read there.
        ValueError: a file above 100 MB, which is not read at all.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder. {expected}")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. {expected}")
    size = path.stat().st_size
    if size > LARGEST_VOCABULARY:
        raise ValueError(
            f"{path} has {size:,} bytes, and vocabularies above {LARGEST_VOCABULARY:,} are not "
            f"read. Is it a file of weights? {expected}"
        )
    return path.read_bytes()


def parse_model(proto: bytes, source: str) -> sentencepiece.SentencePieceProcessor:
    """A SentencePiece processor that has all that Mistral needs.

    Args:
        proto: a SentencePiece model as it is stored.
        source: where it came from, for the error.

    Returns:
        The processor. Every piece is valid UTF-8, `<s>` and `</s>` are control tokens, and id 0
        is no piece of text.

    Raises:
        ValueError: another kind of file, a damaged one, or a model that lacks one of these.

    >>> parse_model(b"<!DOCTYPE html>", "tokenizer.model")
    Traceback (most recent call last):
    ValueError: tokenizer.model (15 bytes) is an HTML page: a download saved a sign-in or error...
    """
    try:
        model = sentencepiece.SentencePieceProcessor(model_proto=proto)
        if not proto:
            raise ValueError("The file is empty.")
        model.id_to_piece(list(range(model.vocab_size())))  # a damaged piece may be no UTF-8
        if not {TRAINER_FIELD, NORMALIZER_FIELD} <= _protobuf_fields(proto):
            # SentencePiece would go on with a default normalizer, which merges spaces.
            raise ValueError("The file ends before its normalizer.")
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{source} ({len(proto):,} bytes) is {_kind_of_file(proto)} {EXPECTED} The reader "
            f"stopped with: {error}"
        ) from error
    for token in ("<s>", "</s>"):
        if not model.is_control(model.piece_to_id(token)):
            raise ValueError(
                f"The SentencePiece model in {source} has no control token {token!r}, which "
                "Mistral needs. Train it with bos_id and eos_id, or take Mistral's tokenizer.model."
            )
    if not (model.is_unknown(0) or model.is_control(0)):
        raise ValueError(
            f"Id 0 pads rows, but is the piece {model.id_to_piece(0)!r} of text in {source}. Train "
            "the model with unk_id=0 or pad_id=0."
        )
    return model


def _protobuf_fields(proto: bytes) -> set[int]:
    """The numbers of the fields at the top of a protobuf message that is known to be sound.

    Source: https://protobuf.dev/programming-guides/encoding
    """
    fields, position = set(), 0
    while position < len(proto):
        key, position = _varint(proto, position)
        if key & 7 != 2:  # all fields of a SentencePiece model have a length and as many bytes
            raise ValueError(f"Field {key >> 3} has wire type {key & 7}, expected 2.")
        length, position = _varint(proto, position)
        fields.add(key >> 3)
        position += length
    return fields


def _varint(proto: bytes, position: int) -> tuple[int, int]:
    """A protobuf integer, seven bits a byte from the lowest, and the position after it."""
    value = shift = 0
    while True:
        byte = proto[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position


def _kind_of_file(data: bytes) -> str:
    """What a file that is no SentencePiece model seems to be, and what to do about it."""
    head = data[:4096].lstrip()
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the file: run `git lfs pull` or download the file itself."
    if head.startswith(b"<"):
        return "an HTML page: a download saved a sign-in or error page in its place."
    if head.startswith(b"{") and (b'"default_vocab_size"' in head or b'"token_bytes"' in head):
        return "a Tekken vocabulary: MistralTekkenTokenizer reads it."
    if head.startswith(b"{"):
        return "a JSON file; tokenizer.model often lies beside a tokenizer.json."
    return "damaged or cut short."


def without_prefix(proto: bytes) -> sentencepiece.SentencePieceProcessor:
    """A processor that puts no space in front of a text, and is otherwise the same.

    If a message occurs in a file again, it is merged into the first.
    """
    spec = _field(NORMALIZER_FIELD, _field(ADD_PREFIX_FIELD, False))
    return sentencepiece.SentencePieceProcessor(model_proto=proto + spec)


def write_model(pieces: Sequence[tuple[str, float, int]], add_prefix: bool) -> bytes:
    """A SentencePiece model of byte-pair encoding that leaves text as it is.

    Args:
        pieces: text, score and kind (one of the constants here) of each, in the order of the ids.
        add_prefix: whether a space is put in front of a text.

    Returns:
        The model as it is stored.

    Source: sentencepiece 0.2.2, `sentencepiece_model.proto`.

    >>> kinds = [UNKNOWN, CONTROL, CONTROL, NORMAL, NORMAL, NORMAL]
    >>> texts = ["<unk>", "<s>", "</s>", "ab", "a", "b"]
    >>> proto = write_model([(text, 0.0, kind) for text, kind in zip(texts, kinds)], False)
    >>> parse_model(proto, "this").encode("abba")
    [3, 5, 4]
    """
    ids = {text: id for id, (text, _, _) in enumerate(pieces)}
    unknown = next(id for id, (_, _, kind) in enumerate(pieces) if kind == UNKNOWN)
    has_bytes = any(kind == BYTE for _, _, kind in pieces)
    trainer = {3: 2, 4: len(pieces), 35: has_bytes}  # the type is BPE
    trainer |= {40: unknown, 41: ids["<s>"], 42: ids["</s>"], 43: -1}
    normalizer = {1: b"identity", ADD_PREFIX_FIELD: add_prefix, 4: False, 5: True}
    message = b"".join(
        _field(1, _field(1, text.encode()) + _field(2, score) + _field(3, kind))
        for text, score, kind in pieces
    )
    for number, fields in ((TRAINER_FIELD, trainer), (NORMALIZER_FIELD, normalizer)):
        message += _field(number, b"".join(_field(*field) for field in fields.items()))
    return message


def _field(number: int, value: bytes | float | int) -> bytes:
    """A field of a protobuf message: bytes, a float or an integer."""
    if isinstance(value, bytes):
        return _as_varint(number << 3 | 2) + _as_varint(len(value)) + value
    if isinstance(value, float):
        return _as_varint(number << 3 | 5) + struct.pack("<f", value)
    return _as_varint(number << 3) + _as_varint(value % 2**64)


def _as_varint(value: int) -> bytes:
    data = b""
    while value > 127:
        data += bytes([value & 127 | 128])
        value >>= 7
    return data + bytes([value])
