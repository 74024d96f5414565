"""mistral_lib/presets/gguf_tokenizer.py: llama.cpp's ids of any text."""

import dataclasses
import json

import pytest
from reference.make_gguf import ADDED, FOLDER, TEMPLATE, texts
from sentencepiece import SentencePieceProcessor
from vocabularies import MISTRAL, small_tekken, trained_model

from mistral_lib import MistralTekkenTokenizer, MistralTokenizer
from mistral_lib.presets.gguf_files import GgufFile, read_gguf
from mistral_lib.presets.gguf_tokenizer import describe_vocabulary, read_tokenizer
from mistral_lib.tokenizer import TOKENIZERS

FILE = read_gguf(FOLDER / "text.gguf")
PREFIX = "tokenizer.ggml."
IDENTITY = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}


def changed(remove=(), **values):
    """The file with other values in its metadata."""
    metadata = FILE.metadata | {PREFIX + key: value for key, value in values.items()}
    metadata = {key: value for key, value in metadata.items() if key not in remove}
    return GgufFile(FILE.path, metadata, {}, {})


def described(tokenizer, size=None):
    """A file with a tokenizer's metadata."""
    return GgufFile(FILE.path, describe_vocabulary(tokenizer, size), {}, {})


def tokenizer_of(file):
    found = read_tokenizer(file)
    tokenizer = TOKENIZERS[found.kind](**found.vocabulary)
    tokenizer.extras = {**tokenizer.extras, **found.extras}
    return tokenizer


# --- Reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["text", "tekken"])
def test_ids_of_llama_cpp(name):
    expected = json.loads((FOLDER / "tokens.json").read_text())[name]
    tokenizer = tokenizer_of(read_gguf(FOLDER / f"{name}.gguf"))
    assert len(expected) == len(texts()) > 300
    assert tokenizer.encode(texts()) == expected
    assert len({id for row in expected for id in row}) > 150


def test_the_model_from_which_it_was_made():
    """Piece by piece; tokens that were added are none of it, nor names of rows without one."""
    original = SentencePieceProcessor(model_proto=trained_model(**IDENTITY))
    tokenizer, size = tokenizer_of(FILE), original.vocab_size()
    assert tokenizer.get_vocabulary()[:size] == original.id_to_piece(list(range(size)))
    assert FILE.metadata[f"{PREFIX}tokens"][size:] == [*ADDED.values(), "[PAD302]", "[PAD303]"]
    assert tokenizer.get_vocabulary()[size:] == [*ADDED.values()]
    assert tokenizer.extras["added_tokens"] == [
        {"id": id, "content": token, "special": True} for id, token in ADDED.items()
    ]
    assert tokenizer.encode("a<|im_start|>b").count(300) == 1
    assert tokenizer.decode([300, 301]) == ""
    again = SentencePieceProcessor(model_proto=tokenizer.proto)
    for id in range(3, size):
        assert again.get_score(id) == original.get_score(id)
        assert again.is_byte(id) == original.is_byte(id)


def test_unk_is_a_control_token_to_llama_cpp():
    assert FILE.metadata[f"{PREFIX}token_type"][0] == 3
    tokenizer = tokenizer_of(FILE)
    assert tokenizer.unk_token_id == 0
    assert tokenizer.id_to_token(0) == "<unk>"


def test_tekken_of_llama_cpp():
    """Tokens, control tokens and pattern; the template is only the name of one."""
    file, vocabulary = read_gguf(FOLDER / "tekken.gguf"), small_tekken()
    tokenizer = tokenizer_of(file)
    assert isinstance(tokenizer, MistralTekkenTokenizer)
    found = tokenizer.vocabulary
    assert (found.tokens, found.controls) == (vocabulary.tokens, vocabulary.controls)
    assert (found.pattern, found.merges) == (vocabulary.pattern, vocabulary.merges)
    assert file.metadata["tokenizer.chat_template"] == "mistral-v7-tekken"
    assert tokenizer.extras == {"version": "v7"}


@pytest.mark.parametrize("has_prefix", [True, False])
def test_prefix(has_prefix):
    tokenizer = tokenizer_of(changed(add_space_prefix=has_prefix))
    assert tokenizer.id_to_token(tokenizer.encode("the")[0]).startswith("▁") == has_prefix


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"remove": [f"{PREFIX}model"]}, FileNotFoundError, "has no vocabulary"),
        ({"model": "bert"}, ValueError, "of the kind 'bert'.*preprocessor=None"),
        ({"model": "gpt2"}, ValueError, "with the pattern 'default'.*preprocessor=None"),
        ({"scores": [0.0]}, ValueError, "300 tokens and 1 scores"),
        ({"token_type": [1]}, ValueError, "304 tokens and 1 kinds"),
        ({"tokens": 7}, ValueError, "tokens must be a list of str, but is 7"),
        ({"token_type": ["a"] * 304}, ValueError, "token_type must be a list of int"),
        ({"tokens": [], "scores": [], "token_type": []}, ValueError, "0 tokens and 0 kinds"),
        ({"tokens": ["a"] * 304}, ValueError, "has no token '<s>', which"),
        ({"tokens": ["<s>", "</s>"] * 152}, ValueError, "already defined"),
    ],
)
def test_what_is_wrong(changes, error, message):
    with pytest.raises(error, match=message):
        tokenizer_of(changed(**changes))


# --- Writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MISTRAL)
def test_vocabularies_of_mistral(name):
    """There and back: the same pieces, and the same ids of texts."""
    tokenizer = MistralTokenizer(MISTRAL[name])
    again = tokenizer_of(described(tokenizer))
    assert again.get_vocabulary() == tokenizer.get_vocabulary()
    assert again.encode(texts()) == tokenizer.encode(texts())
    ids = range(1000)
    assert [*map(again.is_control, ids)] == [*map(tokenizer.is_control, ids)]


def test_what_llama_cpp_wrote_comes_out_again():
    tokenizer = MistralTokenizer(trained_model(**IDENTITY))
    added = [{"id": id, "content": token, "special": True} for id, token in ADDED.items()]
    tokenizer.extras = {"chat_template": TEMPLATE, "added_tokens": added}
    values = describe_vocabulary(tokenizer, 304)
    theirs = {key: value for key, value in FILE.metadata.items() if key[:10] == "tokenizer."}
    assert theirs.keys() <= values.keys()
    for key in theirs.keys() - {f"{PREFIX}scores", f"{PREFIX}token_type"}:
        assert values[key] == theirs[key], key
    assert values[f"{PREFIX}token_type"][:3] == [2, 3, 3]
    assert values[f"{PREFIX}token_type"][3:] == theirs[f"{PREFIX}token_type"][3:]
    # There, what stands in tokenizer_config.json gets a score of its own, <s> too.
    assert values[f"{PREFIX}scores"][3:] == theirs[f"{PREFIX}scores"][3:]


def test_tekken_as_llama_cpp_wrote_it():
    theirs = read_gguf(FOLDER / "tekken.gguf").metadata
    values = describe_vocabulary(MistralTekkenTokenizer(small_tekken().to_json()), None)
    for key in ("model", "pre", "tokens", "token_type", "bos_token_id", "eos_token_id"):
        assert values[PREFIX + key] == theirs[PREFIX + key], key
    # There a token may have several pairs; the one that comes to be is among them.
    assert {*values[f"{PREFIX}merges"]} <= {*theirs[f"{PREFIX}merges"]}


def test_tekken_there_and_back():
    """With tokens behind the vocabulary, and in place of a control token."""
    controls = ("<SPECIAL_20>", "<SPECIAL_21>")
    tokenizer = MistralTekkenTokenizer(small_tekken("v7", controls).to_json())
    size = tokenizer.vocabulary_size()
    added = [{"id": 21, "content": "<|im_start|>", "special": True}, {"id": size, "content": "a b"}]
    tokenizer.extras = {**tokenizer.extras, "added_tokens": added, "chat_template": TEMPLATE}
    again = tokenizer_of(described(tokenizer, size + 9))
    assert again.extras == tokenizer.extras
    assert again.get_vocabulary() == tokenizer.get_vocabulary()
    assert again.encode(texts()) == tokenizer.encode(texts())
    assert again.encode("<|im_start|>a b") == [21, size]


def test_a_pattern_that_llama_cpp_does_not_have():
    vocabulary = dataclasses.replace(small_tekken(), pattern=r"\S+|\s+")
    with pytest.raises(ValueError, match=r"cuts words by the pattern .* llama\.cpp does not have"):
        describe_vocabulary(MistralTekkenTokenizer(vocabulary.to_json()), None)


def test_without_a_prefix():
    proto = trained_model(**IDENTITY, add_dummy_prefix=False)
    values = describe_vocabulary(MistralTokenizer(proto), None)
    assert values[f"{PREFIX}add_space_prefix"] is False


@pytest.mark.parametrize("options", [{}, {**IDENTITY, "model_type": "unigram", "vocab_size": 290}])
def test_vocabularies_that_llama_cpp_would_use_in_another_way(options):
    tokenizer = MistralTokenizer(trained_model(**options))
    with pytest.raises(ValueError, match=r"is not like Mistral's.*Export the backbone alone"):
        describe_vocabulary(tokenizer, None)
