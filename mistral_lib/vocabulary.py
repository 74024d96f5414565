"""Reading a SentencePiece model, and what is wrong with it (chapter 2, "Tokens")."""

from pathlib import Path

import sentencepiece

LARGEST_VOCABULARY = 100 * 2**20  # bytes; Mistral's own have 0.6 MB
EXPECTED = "Expected a SentencePiece model, such as tokenizer.model or vocabulary.spm."
TRAINER_FIELD, NORMALIZER_FIELD = 2, 3  # numbers in sentencepiece_model.proto; 1 is a piece


def read_vocabulary(path: Path) -> bytes:
    """The bytes of a vocabulary file, after a look at its kind and size.

    Args:
        path: where the SentencePiece model is.

    Returns:
        The whole file.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: no file that can be read there.
        ValueError: a file above 100 MB, which is not read at all.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder. {EXPECTED}")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. {EXPECTED}")
    size = path.stat().st_size
    if size > LARGEST_VOCABULARY:
        raise ValueError(
            f"{path} has {size:,} bytes, and vocabularies above {LARGEST_VOCABULARY:,} are not "
            f"read. Is it a file of weights? {EXPECTED}"
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
        return "a Tekken vocabulary, which mistral_lib does not support."
    if head.startswith(b"{"):
        return "a JSON file; tokenizer.model often lies beside a tokenizer.json."
    return "damaged or cut short."
