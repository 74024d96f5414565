"""The sentences of chapter 2: the record is what Mistral's vocabulary makes of them."""

import importlib.util
import json

import pytest

from mistral_lib import MistralTokenizer
from mistral_lib.teaching import languages


def test_record_is_what_the_vocabulary_makes():
    made = languages.cut(languages.mistral_vocabulary())
    assert languages.recorded_pieces() == made, "run python -m mistral_lib.teaching.languages"
    assert list(made) == list(languages.SENTENCES)


def test_pieces_spell_the_sentences():
    for language, pieces in languages.recorded_pieces().items():
        whole = b"".join(
            bytes([int(p[3:5], 16)]) if p.startswith("<0x") else p.encode() for p in pieces
        )
        assert whole.decode().replace("▁", " ") == " " + languages.SENTENCES[language]


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
    monkeypatch.setattr(languages, "RECORD", tmp_path / "languages.json")
    languages.main()
    written = json.loads((tmp_path / "languages.json").read_text(encoding="utf-8"))
    assert written["Greek"][:3] == ["▁", "Τ", "ο"]
