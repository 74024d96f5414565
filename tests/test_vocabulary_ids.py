"""mistral_lib/vocabulary_ids.py: ids and tokens of a vocabulary, and of what was added to it."""

import numpy as np
import pytest
from vocabularies import small_tekken

from mistral_lib import MistralTekkenTokenizer
from mistral_lib.vocabulary_ids import Vocabulary, check_id


@pytest.fixture
def tokenizer():
    tokenizer = MistralTekkenTokenizer(small_tekken().to_json())
    tokenizer.extras = {"added_tokens": [{"id": 300, "content": "<|a|>"}], "chat_template": "x"}
    return tokenizer


def test_it_has_to_be_filled():
    with pytest.raises(TypeError, match="abstract"):
        Vocabulary()


def test_tokens_by_ids_and_back(tokenizer):
    tokens = tokenizer.get_vocabulary()
    assert len(tokens) == tokenizer.vocabulary_size() == 301
    assert tokens[:3] == ["<unk>", "<s>", "</s>"]
    assert tokens[-2:] == ["<unused_299>", "<|a|>"]
    known = [id for id in range(301) if id != 299]
    assert [tokenizer.token_to_id(tokens[id]) for id in known] == known
    assert [tokenizer.is_control(id) for id in (0, 19, 20, 299, 300)] == [
        *(True, True, False, True, False)
    ]


def test_extras_are_cut_to_what_is_new(tokenizer):
    assert tokenizer.extras["added_tokens"] == [{"id": 300, "content": "<|a|>"}]
    tokenizer.extras = {**tokenizer.extras, "added_tokens": [{"id": 30, "content": "<|a|>"}]}
    assert tokenizer.extras == {"chat_template": "x"}
    assert tokenizer.vocabulary_size() == 299


@pytest.mark.parametrize("id", [3, np.int32(3), np.uint8(3)])
def test_ids(id):
    assert check_id(id, 4) == 3
    with pytest.raises(ValueError, match=r"Token id 3 at position 7 is outside .* of 3 ids"):
        check_id(id, 3, 7)


@pytest.mark.parametrize("id", [True, 3.0, "3", None])
def test_what_is_no_id(id):
    with pytest.raises(TypeError, match="Token ids must be integers"):
        check_id(id, 4)
