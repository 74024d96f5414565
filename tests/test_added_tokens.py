"""mistral_lib/added_tokens.py: added tokens are found where Hugging Face's tokenizers find them."""

import json
import random
from pathlib import Path

import pytest
from reference.make_tokenizers import added_tokens, tokenizer_json
from vocabularies import mistral_tokenizer, tekken

from mistral_lib import MistralTekkenTokenizer, MistralTokenizer
from mistral_lib.added_tokens import AddedToken, AddedTokens, parse_added_tokens

GOLDEN = json.loads((Path(__file__).parent / "reference/added_tokens.json").read_text("utf-8"))


@pytest.mark.parametrize("case", GOLDEN)
def test_ids_and_texts_equal_those_of_tokenizers(case):
    tokenizer = MistralTokenizer(mistral_tokenizer("v1").proto)
    prefix = {} if case["scheme"] is None else {"prefix": case["scheme"]}
    tokenizer.extras = {"added_tokens": case["tokens"], **prefix}
    for text, ids, decoded in case["results"]:
        if any(id >= 32000 for id in ids):  # a text without them is as SentencePiece has it
            assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode(ids) == decoded, text


def test_the_golden_file_reaches_every_flag():
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    for flag in flags:
        plain = [
            {**case, "tokens": [{**token, flag: not token[flag]} for token in case["tokens"]]}
            for case in GOLDEN
        ]
        with pytest.raises(AssertionError):
            [*map(test_ids_and_texts_equal_those_of_tokenizers, plain)]


@pytest.fixture
def chat():
    """As OpenHermes and dolphin have it."""
    tokenizer = MistralTokenizer(mistral_tokenizer("v1").proto)
    tokenizer.extras = {
        "added_tokens": [
            {"id": 32000, "content": "<|im_end|>", "special": True},
            {"id": 32001, "content": "<|im_start|>"},
        ]
    }
    return tokenizer


def test_an_added_token_is_one_id(chat):
    assert chat.vocabulary_size() == 32002
    assert chat.get_vocabulary()[32000:] == ["<|im_end|>", "<|im_start|>"]
    for id, token in ((32000, "<|im_end|>"), (32001, "<|im_start|>")):
        assert (chat.token_to_id(token), chat.id_to_token(id)) == (id, token)
        assert chat.encode(token) == [id]
        assert (chat.byte_value(id), chat.unfinished_bytes(id)) == (None, None)
    assert (chat.is_control(32000), chat.is_control(32001)) == (True, False)
    assert chat.decode([32001, *chat.encode("user"), 32000]) == "<|im_start|> user"
    with pytest.raises(ValueError, match=r"vocabulary of 32002 ids"):
        chat.decode([32002])


def test_the_vocabularys_own_control_tokens_stay_out_of_reach(chat):
    listed = [{"id": 1, "content": "<s>", "special": True}]
    chat.extras = {"added_tokens": [*listed, *chat.extras["added_tokens"]]}
    assert [token["id"] for token in chat.extras["added_tokens"]] == [32000, 32001]
    assert 1 not in chat.encode("<s><|im_start|></s>")
    assert chat.encode("<|im_start|>", add_bos=True) == [1, 32001]


def test_a_control_token_may_have_got_another_name():
    """As in fine-tuned Nemos, which take the place of <SPECIAL_20>."""
    tokenizer = MistralTekkenTokenizer(tekken("240911").vocabulary.to_json())
    renamed = {"id": 20, "content": "<|im_start|>", "special": True}
    tokenizer.extras = {**tokenizer.extras, "added_tokens": [renamed]}
    assert tokenizer.vocabulary_size() == 131072
    assert tokenizer.encode("<|im_start|>user") == [20, *tokenizer.encode("user")]
    assert (tokenizer.id_to_token(20), tokenizer.token_to_id("<|im_start|>")) == (
        "<|im_start|>",
        20,
    )
    assert tokenizer.decode([20, *tokenizer.encode("é")]) == "é"
    text = {"id": 1100, "content": "<|im_start|>"}  # the token of a text is not renamed
    tokenizer.extras = {"added_tokens": [text]}
    assert "added_tokens" not in tokenizer.extras


def test_ids_that_are_left_out_write_nothing():
    tokenizer = MistralTokenizer(mistral_tokenizer("v1").proto)
    tokenizer.extras = {"added_tokens": [{"id": 32003, "content": "<|x|>"}]}
    assert tokenizer.vocabulary_size() == 32004
    assert tokenizer.id_to_token(32001) == "<unused_32001>"
    assert tokenizer.is_control(32001)
    assert tokenizer.decode([32003, 32001]) == "<|x|>"


def test_the_longest_token_is_found():
    added = AddedTokens([AddedToken(7, "<|a|>"), AddedToken(8, "<|a|>b")])
    assert list(added.split("x<|a|>b<|a|>")) == ["x", 8, 7]
    assert list(AddedTokens().split("x")) == ["x"]
    assert list(added.split("")) == []


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (None, []),
        ("<|a|>", []),
        ([1, None, {"id": 3}, {"content": "a"}, {"id": "3", "content": "a"}], []),
        ([{"id": True, "content": "a"}, {"id": -1, "content": "a"}, {"id": 3, "content": ""}], []),
        ([{"id": 2**40, "content": "a"}], []),
        ({"a": 9, "b": "8"}, [9]),
        ([{"id": 9, "content": "a", "lstrip": 1}, {"id": 8, "content": "b"}], [8, 9]),
    ],
)
def test_what_is_no_token_is_left_out(content, ids):
    tokens = parse_added_tokens(content)
    assert [token.id for token in tokens] == ids
    assert not any(token.lstrip for token in tokens)


@pytest.mark.peer
@pytest.mark.parametrize("scheme", [None, "first", "always"])
@pytest.mark.parametrize("legacy", [True, False])
def test_transformers_reads_it_so(tmp_path, scheme, legacy):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    tokens = added_tokens(random.Random(7))
    described = {str(token["id"]): {**token, "id": None} for token in tokens}
    for token in described.values():
        del token["id"]
    (tmp_path / "tokenizer.model").write_bytes(mistral_tokenizer("v1").proto)
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_json(tokens, scheme)))
    (tmp_path / "config.json").write_text('{"model_type": "mistral"}')
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "bos_token": "<s>"}
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({**config, "eos_token": "</s>", "added_tokens_decoder": described})
    )
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = MistralTokenizer.from_preset(tmp_path)
    ours.export_to_transformers(tmp_path / "again")
    (tmp_path / "again" / "config.json").write_text('{"model_type": "mistral"}')
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    for case in GOLDEN:
        for text, _, _ in case["results"]:
            ids = ours.encode(text, add_bos=True)
            assert theirs(text)["input_ids"] == ids, text
            assert again(text)["input_ids"] == ids, text
