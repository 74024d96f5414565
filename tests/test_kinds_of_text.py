"""The texts of chapter 2: the record is what Mistral's vocabularies make of them."""

import dataclasses
import importlib.util
import re

import pytest
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from vocabularies import TEKKEN

from mistral_lib.presets.tokenizer_json import WRONG_PATTERN
from mistral_lib.teaching import kinds_of_text
from mistral_lib.teaching.kinds_of_text import RECORD, SMALL, TEXTS
from mistral_lib.tekken import MistralTekkenTokenizer


def test_record_is_what_the_vocabularies_make():
    made = kinds_of_text.cut_all()
    assert kinds_of_text.recorded_counts() == made, (
        "run python -m mistral_lib.teaching.kinds_of_text"
    )
    assert list(made) == ["sentencepiece", "tekken", "small", "wrong", "differ"]


def test_counts_equal_mistral_common():
    peer = Tekkenizer.from_file(TEKKEN["240911"])
    counts = kinds_of_text.recorded_counts()["tekken"]
    assert counts == {
        kind: [len(peer.encode(text, bos=False, eos=False)) for text in texts]
        for kind, texts in TEXTS.items()
    }


def test_a_smaller_vocabulary_never_has_fewer_tokens():
    counts = kinds_of_text.recorded_counts()
    pairs = [pair for kind in TEXTS for pair in zip(counts["small"][kind], counts["tekken"][kind])]
    assert all(small >= whole for small, whole in pairs)
    assert any(small > whole for small, whole in pairs)
    assert SMALL == 32_000


def test_tekken_has_no_token_of_two_digits():
    """The chapter's reason why words of three digits change nothing."""
    tokens = kinds_of_text.tekken_vocabulary().tokens
    assert b"7" in tokens
    assert [token for token in tokens if re.search(rb"\d\d", token)] == []


def test_the_wrong_pattern_changes_a_quoted_word_of_tekken():
    """The chapter's example of harm in English, with the ids of Mistral's own vocabulary."""
    vocabulary = kinds_of_text.tekken_vocabulary()
    wrong = dataclasses.replace(vocabulary, pattern=WRONG_PATTERN)
    text = "Choose how it is done.\n\n'step' is the default."
    rows = []
    for made in (vocabulary, wrong):
        tokenizer = MistralTekkenTokenizer(made.to_json())
        rows.append([tokenizer.id_to_token(id) for id in tokenizer.encode(text)])
    assert rows[0][6:9] == ["'", "step", "'"]
    assert rows[1][6:9] == ["'s", "tep", "'"]


def test_every_kind_has_twelve_different_texts():
    assert {len(set(texts)) for texts in TEXTS.values()} == {12}
    rows = [row for kinds in kinds_of_text.recorded_counts().values() for row in kinds.items()]
    assert {kind for kind, _ in rows} == set(TEXTS)
    assert {len(counts) for _, counts in rows} == {12}


def test_without_mistral_common_there_is_only_the_record(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert kinds_of_text.tekken_vocabulary() is None
    assert kinds_of_text.cut_all() is None
    with pytest.raises(SystemExit, match="Install mistral-common"):
        kinds_of_text.main()


def test_the_record_can_be_written(monkeypatch, tmp_path):
    monkeypatch.setattr(kinds_of_text, "RECORD", tmp_path / "record.json")
    kinds_of_text.main()
    assert (tmp_path / "record.json").read_text(encoding="utf-8") == RECORD.read_text(
        encoding="utf-8"
    )
