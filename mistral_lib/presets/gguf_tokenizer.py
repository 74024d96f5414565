"""Vocabularies in GGUF files (chapter 17, "Presets and checkpoints").

llama.cpp stores a SentencePiece vocabulary as lists of pieces, scores and kinds, and numbers the
kinds as SentencePiece does. It stores a Tekken vocabulary like GPT-2's: as tokens and the pairs
that are merged, with the name of the pattern. A file has a token for each row of the embedding:
rows without a token get invented names.

Source: llama.cpp, `conversion/base.py`, `gguf-py/gguf/vocab.py`, `src/llama-vocab.cpp`.
"""

from collections.abc import Sequence
from typing import Any

from sentencepiece import SentencePieceProcessor

from mistral_lib.added_tokens import AddedToken, parse_added_tokens
from mistral_lib.presets.fast_tokenizer import SAMPLE
from mistral_lib.presets.gguf_files import GgufFile
from mistral_lib.presets.tokenizer_files import SENTENCEPIECE, TEKKEN, TokenizerFiles
from mistral_lib.presets.tokenizer_json import is_own
from mistral_lib.tekken_vocabulary import PATTERN
from mistral_lib.vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    USER_DEFINED,
    write_model,
)

PREFIX, TEMPLATE = "tokenizer.ggml.", "tokenizer.chat_template"
UNUSED = 5  # one of the kinds
KINDS = {"llama": SENTENCEPIECE, "gpt2": TEKKEN}
PATTERN_NAME = "tekken"
FILLER_SCORE, ADDED_SCORE = -10000.0, -1000.0  # as llama.cpp's converter writes them


def read_tokenizer(file: GgufFile) -> TokenizerFiles:
    """The tokenizer of a file.

    Raises:
        FileNotFoundError: the file has none.
        ValueError: it has one of another kind, or lists that do not fit together.
    """
    kind, pattern = file.metadata.get(f"{PREFIX}model"), file.metadata.get(f"{PREFIX}pre")
    if kind is None:
        raise FileNotFoundError(f"{file.path} has no vocabulary: it lacks {PREFIX}model.")
    if kind not in KINDS or (kind == "gpt2" and pattern != PATTERN_NAME):
        raise ValueError(
            f"{file.path} has a vocabulary of the kind {kind!r:.40} with the pattern "
            f"{pattern!r:.40}, but only SentencePiece's ('llama') and Tekken's ('gpt2' with "
            f"{PATTERN_NAME!r}) are read here. Pass preprocessor=None to "
            "MistralCausalLM.from_preset and work with ids."
        )
    pieces = list(_list(file, "tokens", str))
    kinds = _list(file, "token_type", int, [NORMAL] * len(pieces))
    # What comes after the last piece of text was added.
    size = max((id + 1 for id, kind in enumerate(kinds) if kind in (NORMAL, BYTE)), default=0)
    if len(kinds) != len(pieces) or not size:
        raise ValueError(
            f"{file.path} has {len(pieces):,} tokens and {len(kinds):,} kinds of tokens, "
            f"{size:,} up to the last of text, but must have as many of each, and text among them. "
            "Get it again from its source."
        )
    # A control token of Tekken's with a name of another model was renamed in fine-tuning.
    renamed = [
        id
        for id, piece in enumerate(pieces[:size])
        if KINDS[kind] == TEKKEN and kinds[id] != NORMAL and not is_own(piece)
    ]
    added = [
        AddedToken(id, pieces[id], special=kinds[id] == CONTROL).to_json()
        for id in (*renamed, *range(size, len(pieces)))
        if kinds[id] in (CONTROL, USER_DEFINED)
    ]
    for id in renamed:
        pieces[id] = f"<SPECIAL_{id}>"
    template = file.metadata.get(TEMPLATE)
    # Instead of a template, a file may name one that llama.cpp has, such as "mistral-v7".
    is_template = isinstance(template, str) and "{" in template
    extras = {"chat_template": template if is_template else None}
    extras = {name: v for name, v in {**extras, "added_tokens": added}.items() if v}
    if KINDS[kind] == TEKKEN:
        vocabulary = {"vocabulary": {piece: id for id, piece in enumerate(pieces[:size])}}
        vocabulary |= {"merges": _list(file, "merges", str)}
    else:
        vocabulary = {"proto": _sentencepiece_model(file, pieces[:size], kinds[:size])}
    return TokenizerFiles(KINDS[kind], vocabulary, extras=extras)


def _sentencepiece_model(file: GgufFile, pieces: list[str], kinds: list[int]) -> bytes:
    """The model file from which the lists were made."""
    scores = _list(file, "scores", float, [0.0] * len(pieces))
    if len(scores) < len(pieces):
        raise ValueError(
            f"{file.path} has {len(pieces):,} tokens and {len(scores):,} scores, but must have as "
            "many of each. Get it again from its source."
        )
    unknown = file.metadata.get(f"{PREFIX}unknown_token_id", 0)
    if UNKNOWN not in kinds and unknown in range(len(kinds)):
        kinds = [*kinds[:unknown], UNKNOWN, *kinds[unknown + 1 :]]  # others mark it special
    missing = [name for name in ("<s>", "</s>") if name not in pieces]
    if missing or UNKNOWN not in kinds:
        raise ValueError(
            f"The vocabulary in {file.path} has no token {missing[0] if missing else '<unk>'!r}, "
            "which Mistral needs."
        )
    has_prefix = file.metadata.get(f"{PREFIX}add_space_prefix", True)
    return write_model(list(zip(pieces, scores, kinds)), has_prefix)


def _list(file: GgufFile, key: str, kind: type, default: Sequence[Any] = ()) -> list[Any]:
    found = file.metadata.get(PREFIX + key, default)
    if not (isinstance(found, list) and all(type(each) is kind for each in found)):
        raise ValueError(
            f"{file.path}: {PREFIX}{key} must be a list of {kind.__name__}, but is {found!r:.80}."
        )
    return found


def describe_vocabulary(tokenizer: Any, size: int | None) -> dict[str, Any]:
    """The metadata of a tokenizer.

    Args:
        tokenizer: a `MistralTokenizer` or a `MistralTekkenTokenizer`.
        size: number of rows of the embedding, each of which gets a token; `None` without a model.

    Raises:
        ValueError: a vocabulary that llama.cpp would use in another way.
    """
    describe = _describe_tekken if tokenizer.kind == TEKKEN else _describe_sentencepiece
    values = describe(tokenizer)
    pieces, kinds = values["tokens"], values["token_type"]
    scores = values.get("scores", [])
    added = {t.id: t for t in parse_added_tokens(tokenizer.extras.get("added_tokens"))}
    for id in range(len(pieces), max([size or 0, *(id + 1 for id in added)])):
        pieces.append(f"[PAD{id}]")
        kinds.append(UNUSED)
        scores.append(ADDED_SCORE if id in added else FILLER_SCORE)
    for id, token in added.items():
        pieces[id], kinds[id] = token.content, CONTROL if token.special else USER_DEFINED
    values |= {
        "bos_token_id": tokenizer.start_token_id,
        "eos_token_id": tokenizer.end_token_id,
        "unknown_token_id": tokenizer.unk_token_id,
        "add_bos_token": True,
        "add_eos_token": False,
    }
    found = {PREFIX + key: value for key, value in values.items()}
    template = tokenizer.extras.get("chat_template")
    return found | ({TEMPLATE: template} if isinstance(template, str) else {})


def _describe_tekken(tokenizer: Any) -> dict[str, Any]:
    vocabulary = tokenizer.vocabulary
    if vocabulary.pattern != PATTERN:
        raise ValueError(
            f"This vocabulary cuts words by the pattern {vocabulary.pattern!r:.80}, which is not "
            "Tekken's, and which llama.cpp does not have. Export the backbone alone."
        )
    num_controls = len(vocabulary.controls)
    return {
        "model": "gpt2",
        "pre": PATTERN_NAME,
        "tokens": list(vocabulary.spelled),
        "token_type": [CONTROL] * num_controls + [NORMAL] * len(vocabulary.tokens),
        "merges": list(vocabulary.merge_lines()),
    }


def _describe_sentencepiece(tokenizer: Any) -> dict[str, Any]:
    model = SentencePieceProcessor(model_proto=tokenizer.proto)
    ids = list(range(model.vocab_size()))
    scores = model.get_score(ids)
    return {
        "model": "llama",
        "pre": "default",
        "tokens": model.id_to_piece(ids),
        "scores": scores,
        "token_type": [_kind(model, id) for id in ids],
        "add_space_prefix": _has_prefix(model, scores),
    }


def _kind(model: SentencePieceProcessor, id: int) -> int:
    if model.is_unknown(id):
        return UNKNOWN
    if model.is_control(id):
        return CONTROL
    if model.is_unused(id):
        return UNUSED
    return BYTE if model.is_byte(id) else NORMAL


def _has_prefix(model: SentencePieceProcessor, scores: list[float]) -> bool:
    """Whether a model puts a space in front of a text, if it is of a kind that llama.cpp has."""
    plain, normalized = SAMPLE.replace(" ", SPACE), model.normalize(SAMPLE)
    is_bpe = all(score.is_integer() for score in scores)  # ranks, not logarithms
    if not (normalized in (plain, SPACE + plain) and is_bpe):
        raise ValueError(
            "This vocabulary is not like Mistral's: byte-pair encoding, and no normalization. "
            "llama.cpp would cut text in another way, so it is not exported. Export the backbone "
            "alone."
        )
    return normalized != plain
