"""Vocabularies for the text tests: Mistral's own, from mistral-common, and small trained ones."""

import functools
import importlib.util
import io
from pathlib import Path

import sentencepiece

from mistral_lib.tekken import MistralTekkenTokenizer
from mistral_lib.tekken_vocabulary import CONTROLS, PATTERN, TekkenVocabulary
from mistral_lib.tokenizer import MistralTokenizer

DATA = Path(importlib.util.find_spec("mistral_common").submodule_search_locations[0]) / "data"
MISTRAL = {
    "v1": DATA / "tokenizer.model.v1",
    "v2": DATA / "mistral_instruct_tokenizer_240216.model.v2",
    "v3": DATA / "mistral_instruct_tokenizer_240323.model.v3",
    "v7": DATA / "mistral_instruct_tokenizer_241114.model.v7",
}

TEKKEN = {date: DATA / f"tekken_{date}.json" for date in ("240718", "240911")}

SENTENCES = [
    "The window slides over the tokens, and the tokens slide out of the window.",
    "A query sees a key that is not in its future and fewer than four tokens back.",
]

TEXTS = {
    "empty": "",
    "latin": "Où est l'Île-de-France? Für 3,50 €, naïve façade.",
    "greek": "Το παράθυρο γλιστρά· ἐν ἀρχῇ ἦν ὁ λόγος.",
    "cyrillic": "Окно скользит по словам. Ґанок, ѣ.",
    "chinese": "滑动窗口注意力,𠮷野家。",
    "japanese": "窓はトークンの上を滑る。ｶﾅ、ガ゙。",
    "arabic": "النافذة تنزلق فوق الكلمات، ﷺ.",
    "hindi": "खिड़की शब्दों पर फिसलती है।",
    "hebrew": "הַחַלּוֹן מַחְלִיק.",
    "emoji": "👩‍👩‍👧‍👦 👍🏽 🏴󠁧󠁢󠁳󠁣󠁴󠁿 ❤️",
    "combining": "e\u0301 e\u0301\u0323 Z͑ͫ̓ạ̈",
    "controls": "a\x00b\x07\x1b[0m\x7f\u200b\ufeff\u202e\r\n\t",
    "spaces": "  two in front, two   inside, two behind  ",
    "newlines": "\n\ndef f(x):\n\n    return x\n",
    "byte names": "<0x0A> <unk> <s>",
    "noncharacters": "\uffff \U0010ffff \ufffd",
}


@functools.cache
def mistral_tokenizer(version: str) -> MistralTokenizer:
    return MistralTokenizer(MISTRAL[version])


@functools.cache
def trained_model(**options) -> bytes:
    """A SentencePiece model of 300 pieces, which takes milliseconds; options as the trainer's."""
    settings = {"vocab_size": 300, "model_type": "bpe", "byte_fallback": True, **options}
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=model, minloglevel=2, **settings
    )
    return model.getvalue()


@functools.cache
def tekken(date: str) -> MistralTekkenTokenizer:
    return MistralTekkenTokenizer(TEKKEN[date])


@functools.cache
def small_tekken(version: str = "v7", more_controls: tuple[str, ...] = ()) -> TekkenVocabulary:
    """A Tekken vocabulary of 300 ids: the control tokens, bytes, and merges of frequent pairs."""
    controls = (*CONTROLS, *more_controls)
    tokens = [bytes([value]) for value in range(256)]
    words = [word.encode() for word in (" the", "window", " query", "é日", "  ", "keys", "ing")]
    made = {word[:length]: None for word in words for length in range(2, len(word) + 1)}
    tokens += [*made][: 300 - len(controls) - 256]
    return TekkenVocabulary(controls, tuple(tokens), PATTERN, version)
