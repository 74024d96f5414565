"""A tokenizer.json as one of our vocabularies (chapter 17, "Presets and checkpoints").

Such a file describes every step: how text is normalized and cut into words, which pairs are merged,
and what is put in front. Mistral's are of two kinds. Those made from SentencePiece write spaces as
`▁` and fall back to bytes; those made from Tekken cut text with a pattern and merge bytes.
"""

import re
import warnings
from typing import Any

from mistral_lib.added_tokens import AddedToken, parse_added_tokens
from mistral_lib.tekken_vocabulary import CONTROLS, PATTERN
from mistral_lib.vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    write_model,
)

# Llama's, which the first conversions of Tekken used by mistake: transformers #42299.
WRONG_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ADVICE = (
    "Put the original model's tokenizer.model or tekken.json beside it, or pass preprocessor=None "
    "to MistralCausalLM.from_preset."
)


def convert(content: dict[str, Any], file: str) -> tuple[str, dict[str, Any]]:
    """The class of a tokenizer, by KerasHub's name, and the arguments that are its vocabulary.

    Args:
        content: the content of a tokenizer.json.
        file: where it is, for errors.

    Raises:
        ValueError: a tokenizer of another kind.

    >>> convert({"model": {"type": "WordPiece"}}, "tokenizer.json")
    Traceback (most recent call last):
    ValueError: tokenizer.json is a tokenizer of the kind WordPiece, but only byte-pair ...
    """
    model = content.get("model")
    model = model if isinstance(model, dict) else {}
    vocab, merges = model.get("vocab"), model.get("merges")
    if model.get("type", "BPE") != "BPE" or not isinstance(vocab, dict):
        raise _refusal(file, f"a tokenizer of the kind {model.get('type')!s:.40}")
    if not (isinstance(merges, list) and all(type(id) is int for id in vocab.values())):
        raise _refusal(file, "a tokenizer without merges, or with ids that are no integers")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise _refusal(file, f"a tokenizer with {name} = {model[name]!r:.40}")
    added = parse_added_tokens(content.get("added_tokens"))
    steps = _steps(content.get("pre_tokenizer"), "pretokenizers")
    kinds = [step.get("type") for step in steps]
    if model.get("byte_fallback") and kinds in ([], ["Metaspace"]):
        return "MistralTokenizer", {"proto": _to_proto(content, vocab, merges, added, file)}
    if kinds == ["Split", "ByteLevel"]:
        pattern = _read_pattern(steps, file)
        own = {token.content: token.id for token in added if is_own(token.content)}
        others = {token.content for token in added} - own.keys()
        # A control token with another model's name gets its own name back: see `Tokenizer`.
        vocab = {f"<SPECIAL_{id}>" if t in others else t: id for t, id in vocab.items()} | own
        return "MistralTekkenTokenizer", {
            "vocabulary": vocab,
            "merges": merges,
            "split_pattern": pattern,
        }
    raise _refusal(file, f"byte-pair encoding on what {kinds} cut")


def read_prefix(content: dict[str, Any], alone: bool) -> str | None:
    """Where a space is put in front of a text: `tokenizer_files.PREFIXES`, or `None`.

    Args:
        content: the content of a tokenizer.json made from SentencePiece.
        alone: whether there is no SentencePiece model, which would take precedence.
    """
    for step in _steps(content.get("pre_tokenizer"), "pretokenizers"):
        if step.get("type") == "Metaspace":
            scheme = step.get("prepend_scheme", "always")
            if scheme in ("first", "always"):
                return f"{scheme}_alone" if alone else scheme
    return None


def _steps(part: Any, name: str) -> list[dict[str, Any]]:
    """The steps of which a part of a tokenizer consists."""
    if not isinstance(part, dict):
        return []
    steps = part.get(name, []) if part.get("type") == "Sequence" else [part]
    return [step for step in steps if isinstance(step, dict)]


def _refusal(file: str, found: str) -> ValueError:
    return ValueError(
        f"{file} is {found}, but only byte-pair encoding in the manner of SentencePiece or Tekken, "
        f"Mistral's two kinds, is read here. {ADVICE}"
    )


def _read_pattern(steps: list[dict[str, Any]], file: str) -> str:
    """The pattern that cuts words; the one that is known to be wrong is replaced."""
    split, to_bytes = steps
    settings = (
        (split, "behavior", "Isolated"),
        (split, "invert", False),
        (to_bytes, "add_prefix_space", False),
        (to_bytes, "use_regex", False),
    )
    for step, name, wanted in settings:
        if step.get(name) != wanted:
            raise _refusal(file, f"a tokenizer whose {step['type']} has {name} = {step.get(name)}")
    pattern = split.get("pattern")
    pattern = pattern.get("Regex") if isinstance(pattern, dict) else None
    if not isinstance(pattern, str):
        raise _refusal(file, f"a tokenizer that cuts at {split.get('pattern')!r:.80}")
    if pattern == WRONG_PATTERN:
        warnings.warn(
            f"{file} has the pattern of another model, with which early conversions of Tekken "
            "were made; Mistral's own is used in its place.",
            stacklevel=2,
        )
        pattern = PATTERN
    return pattern


def _to_proto(
    content: dict[str, Any],
    vocab: dict[str, int],
    merges: list[Any],
    added: tuple[AddedToken, ...],
    file: str,
) -> bytes:
    """A SentencePiece model: the sooner a piece is merged, the higher its score."""
    normalizers = _steps(content.get("normalizer"), "normalizers")
    cuts = _steps(content.get("pre_tokenizer"), "pretokenizers")
    kinds = [step.get("type") for step in normalizers]
    if kinds not in ([], ["Replace"], ["Prepend", "Replace"]) or (not kinds and not cuts):
        raise _refusal(file, f"byte-pair encoding on what {kinds} normalize")
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in merges]
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(pairs):
        ranks.setdefault("".join(pair), rank)
    pieces = sorted(vocab, key=vocab.__getitem__)
    if [vocab[piece] for piece in pieces] != list(range(len(pieces))):
        raise _refusal(file, "a tokenizer whose ids have gaps")
    tokens = {token.id: token for token in added}
    while len(pieces) - 1 in tokens and not is_own(pieces[-1]):
        pieces.pop()  # it stays an added token
    inside = {id: token for id, token in tokens.items() if id < len(pieces)}
    unknown = content["model"].get("unk_token") or "<unk>"
    kinds_of = {
        piece: UNKNOWN if piece == unknown else _kind(piece, inside.get(id))
        for id, piece in enumerate(pieces)
    }
    if unknown not in vocab:
        raise _refusal(file, "a tokenizer without an unknown token")
    scored = [
        (piece, -float(ranks.get(piece, len(ranks) + vocab[piece])), kinds_of[piece])
        for piece in pieces
    ]
    prefix = any(
        step.get("type") == "Prepend" or step.get("prepend_scheme", "never") != "never"
        for step in (*normalizers, *cuts)
    )
    return write_model(scored, prefix)


def is_own(name: str) -> bool:
    """Whether a control token's name is Mistral's."""
    return name in CONTROLS or re.fullmatch(r"<SPECIAL_\d+>|\[/?[A-Z_]+(_\d+)?\]", name) is not None


def _kind(piece: str, token: AddedToken | None) -> int:
    is_byte = len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
    if token is None:
        return BYTE if is_byte else NORMAL
    return CONTROL if token.special else USER_DEFINED
