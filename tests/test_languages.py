"""The sentences of chapter 2: the record is what Mistral's vocabularies make of them."""

import importlib.util
import json

import pytest

from mistral_lib import MistralTokenizer
from mistral_lib.teaching import kinds_of_text, languages


def test_record_is_what_the_vocabulary_makes():
    made = languages.cut(languages.mistral_vocabulary())
    assert languages.recorded_pieces() == made, "run python -m mistral_lib.teaching.languages"
    assert list(made) == list(languages.SENTENCES) == list(languages.TRANSLATIONS)
    made = languages.cut_translations(languages.mistral_vocabulary())
    assert languages.recorded_translations() == made
    made = languages.tekken_counts(kinds_of_text.tekken_vocabulary())
    assert languages.recorded_tekken_counts() == made


def spelled(pieces):
    parts = (bytes([int(p[3:5], 16)]) if p.startswith("<0x") else p.encode() for p in pieces)
    return b"".join(parts).decode().replace("▁", " ")


def test_pieces_spell_the_sentences():
    for language, pieces in languages.recorded_pieces().items():
        assert spelled(pieces) == " " + languages.SENTENCES[language]
    for language, rows in languages.recorded_translations().items():
        assert [spelled(pieces)[1:] for pieces in rows] == [*languages.TRANSLATIONS[language]]


def test_every_language_has_twelve_different_texts():
    assert {len(set(texts)) for texts in languages.TRANSLATIONS.values()} == {12}


def test_the_record_of_the_english_texts_is_the_one_of_the_kinds():
    counts = kinds_of_text.recorded_counts()
    pieces = languages.recorded_translations()["English"]
    assert [len(row) for row in pieces] == counts["sentencepiece"]["English"]
    assert languages.recorded_tekken_counts()["Hindi"] == counts["tekken"]["Hindi"]


def test_a_tokenizer_that_adds_tokens_changes_nothing():
    tokenizer = MistralTokenizer(languages.mistral_vocabulary().proto, add_bos=True, add_eos=True)
    assert languages.cut(tokenizer) == languages.recorded_pieces()


def test_without_mistral_common_there_is_only_the_record(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert languages.mistral_vocabulary() is None
    assert languages.recorded_pieces()["English"][0] == "▁The"
    with pytest.raises(SystemExit, match="Install mistral-common"):
        languages.main()


def test_the_record_can_be_written(monkeypatch, tmp_path):
    recorded = languages.RECORD.read_text(encoding="utf-8")
    monkeypatch.setattr(languages, "RECORD", tmp_path / "languages.json")
    languages.main()
    written = json.loads((tmp_path / "languages.json").read_text(encoding="utf-8"))
    assert written["sentences"]["Greek"][:3] == ["▁", "Τ", "ο"]
    assert (tmp_path / "languages.json").read_text(encoding="utf-8") == recorded
