"""A vocabulary in the form that transformers reads (chapter 17, "Presets and checkpoints").

Since version 5, transformers takes a Mistral's tokenizer from `tokenizer.json` alone; from a
SentencePiece model it would make one that leaves out the space in front of a text. The file says
what SentencePiece does: put a space in front, write spaces as `▁`, join the pair whose piece has
the best score until no pair is a piece, and spell what is left in bytes.

Two differences remain. The name of a control token inside a text becomes that token in
transformers, and what follows a token in a text is taken for the beginning of a text, with a space
in front.
"""

from collections.abc import Sequence
from typing import Any

from sentencepiece import SentencePieceProcessor

from mistral_lib.added_tokens import AddedToken
from mistral_lib.tekken_vocabulary import TekkenVocabulary
from mistral_lib.vocabulary import SPACE

# What no vocabulary of Mistral's changes: spaces, lines, and characters with a simpler form.
SAMPLE = "  ﬁ ①Ａe\u0301\t\n  a "


def describe_tokenizer(
    proto: bytes, added: Sequence[AddedToken] = (), prefix: str | None = None
) -> dict[str, Any]:
    """The content of tokenizer.json for a SentencePiece model.

    Args:
        proto: a model as it is stored: byte-pair encoding with bytes for unknown characters, which
            leaves text as it is.
        added: tokens beyond the model's.
        prefix: where a space is put in front: one of `tokenizer_files.PREFIXES`, or `None`.

    Raises:
        ValueError: the model is of another kind.
    """
    model = SentencePieceProcessor(model_proto=proto)
    pieces = model.id_to_piece(list(range(model.vocab_size())))
    has_prefix = _has_prefix(model)
    controls = [id for id in range(len(pieces)) if model.is_control(id) or model.is_unknown(id)]
    words, merges = _merges(model, pieces)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            *(vars(AddedToken(id, pieces[id], special=True)) for id in controls),
            *(vars(AddedToken(id, pieces[id])) for id in words),
            *(vars(token) for token in added),
        ],
        "normalizer": None if prefix else _normalizer(has_prefix),
        "pre_tokenizer": _metaspace(prefix) if prefix else None,
        "post_processor": _post_processor(pieces[model.bos_id()], model.bos_id()),
        "decoder": _decoder(has_prefix),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": pieces[model.unk_id()],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece: id for id, piece in enumerate(pieces)},
            "merges": merges,
        },
    }


def _has_prefix(model: SentencePieceProcessor) -> bool:
    """Whether a space is put in front of a text, by a model of the kind that can be described."""
    plain, normalized = SAMPLE.replace(" ", SPACE), model.normalize(SAMPLE)
    ids = range(model.vocab_size())
    has_bytes = sum(map(model.is_byte, ids)) == 256
    is_bpe = all(model.get_score(id).is_integer() for id in ids)  # a rank, no logarithm
    if not (normalized in (plain, SPACE + plain) and has_bytes and is_bpe):
        raise ValueError(
            "This vocabulary is not like Mistral's: byte-pair encoding with bytes for unknown "
            "characters, and no normalization. transformers would cut text in another way, so it "
            "is not exported. Export the backbone alone."
        )
    return normalized != plain


def _normalizer(has_prefix: bool) -> dict[str, Any]:
    prepend = [{"type": "Prepend", "prepend": SPACE}] if has_prefix else []
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    return {"type": "Sequence", "normalizers": [*prepend, replace]}


def _metaspace(prefix: str) -> dict[str, Any]:
    scheme = prefix.removesuffix("_alone")
    return {
        "type": "Metaspace",
        "replacement": SPACE,
        "prepend_scheme": scheme,
        "split": False,
    }


def _decoder(has_prefix: bool) -> dict[str, Any]:
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if has_prefix else []
    replace = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    decoders = [replace, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]
    return {"type": "Sequence", "decoders": decoders}


def _post_processor(start: str, id: int) -> dict[str, Any]:
    """The start token in front of a text, or of the first of two."""
    single = [
        {"SpecialToken": {"id": start, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {start: {"id": start, "ids": [id], "tokens": [start]}},
    }


def _merges(model: SentencePieceProcessor, pieces: list[str]) -> tuple[list[int], list[str]]:
    """The pieces that no pair makes, and every pair of pieces that makes one, best piece first."""
    ids = {
        piece: id
        for id, piece in enumerate(pieces)
        if not (model.is_byte(id) or model.is_control(id) or model.is_unknown(id))
    }
    words, merges = [], []
    for piece in sorted(ids, key=lambda piece: -model.get_score(ids[piece])):
        splits = [(piece[:middle], piece[middle:]) for middle in range(1, len(piece))]
        pairs = [pair for pair in splits if pair[0] in ids and pair[1] in ids]
        if splits and not pairs:
            words.append(ids[piece])  # a symbol that was given to the trainer
        merges += [" ".join(pair) for pair in pairs]
    return words, merges


def describe_tekken(
    vocabulary: TekkenVocabulary, added: Sequence[AddedToken] = ()
) -> dict[str, Any]:
    """The content of tokenizer.json for a Tekken vocabulary.

    Args:
        vocabulary: the tokens.
        added: tokens beyond them, or in place of control tokens.
    """
    controls = {
        id: AddedToken(id, name, special=True) for id, name in enumerate(vocabulary.controls)
    }
    tokens = controls | {token.id: token for token in added}
    names = {token.id: token.content for token in added}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    split = {
        "type": "Split",
        "pattern": {"Regex": vocabulary.pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    cuts = [split, {**byte_level, "use_regex": False}]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [vars(tokens[id]) for id in sorted(tokens)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": cuts},
        "post_processor": _post_processor("<s>", vocabulary.ids["<s>"]),
        "decoder": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {names.get(id, name): id for id, name in enumerate(vocabulary.spelled)},
            "merges": [line.split(" ") for line in vocabulary.merge_lines()],
        },
    }
