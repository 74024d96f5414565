"""mistral_lib/presets/fast_tokenizer.py: tokenizer.json cuts text as SentencePiece does."""

import itertools
import json

import pytest
from vocabularies import SENTENCES, TEXTS, mistral_tokenizer, trained_model

from mistral_lib import MistralTokenizer
from mistral_lib.presets.fast_tokenizer import describe_tokenizer

PLAIN = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
# In transformers the names of control tokens in a text are those tokens.
ORDINARY = [*SENTENCES, *(text for name, text in TEXTS.items() if name != "byte names")]


def tokenizers():
    yield "v1", mistral_tokenizer("v1")
    yield "v3", mistral_tokenizer("v3")
    yield "shipped", MistralTokenizer.from_preset("mistral_tiny_en")
    yield "trained", MistralTokenizer(trained_model(**PLAIN))


TOKENIZERS = dict(tokenizers())


def encode(content: dict, text: str) -> list[int]:
    """What the file says, done step by step."""
    for step in content["normalizer"]["normalizers"]:
        if step["type"] == "Prepend":
            text = step["prepend"] + text if text else text
        else:
            text = text.replace(step["pattern"]["String"], step["content"])
    vocabulary = content["model"]["vocab"]
    ranks = {tuple(pair.split(" ")): rank for rank, pair in enumerate(content["model"]["merges"])}
    symbols = list(text)
    while True:
        pairs = [(ranks.get(pair), i) for i, pair in enumerate(itertools.pairwise(symbols))]
        known = [(rank, i) for rank, i in pairs if rank is not None]
        if not known:
            break
        _, i = min(known)
        symbols[i : i + 2] = ["".join(symbols[i : i + 2])]
    ids = []
    for symbol in symbols:
        if symbol in vocabulary:
            ids.append(vocabulary[symbol])
        else:
            ids += [vocabulary[f"<0x{byte:02X}>"] for byte in symbol.encode()]
    return ids


@pytest.mark.slow
@pytest.mark.parametrize("name", TOKENIZERS)
def test_ids_are_those_of_sentencepiece(name):
    content = describe_tokenizer(TOKENIZERS[name].proto)
    assert json.loads(json.dumps(content)) == content
    for text in ORDINARY:
        assert encode(content, text) == TOKENIZERS[name].encode(text), text


def test_every_merge_makes_a_piece():
    content = describe_tokenizer(TOKENIZERS["v1"].proto)
    assert len(content["model"]["merges"]) == 58_980  # as many as in the file of Mistral 7B
    vocabulary = content["model"]["vocab"]
    assert all(pair.replace(" ", "") in vocabulary for pair in content["model"]["merges"])
    assert content["post_processor"]["special_tokens"]["<s>"]["ids"] == [1]


def test_tokens_that_are_not_text():
    content = describe_tokenizer(TOKENIZERS["v3"].proto)
    special = {token["content"]: token for token in content["added_tokens"] if token["special"]}
    assert special["[INST]"]["id"] == 3
    assert {"<unk>", "<s>", "</s>", "[TOOL_CALLS]"} <= special.keys()
    proto = trained_model(**PLAIN, user_defined_symbols="<|im_end|>")
    content = describe_tokenizer(proto)
    words = [token["content"] for token in content["added_tokens"] if not token["special"]]
    assert words == ["<|im_end|>"]


@pytest.mark.parametrize(
    "options",
    [
        {},  # NFKC, and spaces are taken away
        {"normalization_rule_name": "identity"},
        {**PLAIN, "byte_fallback": False, "vocab_size": 40},
        {**PLAIN, "model_type": "unigram", "vocab_size": 290},
    ],
)
def test_other_kinds_are_refused(options):
    with pytest.raises(ValueError, match="This vocabulary is not like Mistral's"):
        describe_tokenizer(trained_model(**options))


@pytest.mark.peer
@pytest.mark.parametrize("name", TOKENIZERS)
def test_transformers_reads_it(tmp_path, name):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    ours = TOKENIZERS[name]
    ours.export_to_transformers(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "mistral"}')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (1, 2)
    for text in ORDINARY:
        ids = ours.encode(text, add_bos=True)
        assert theirs(text)["input_ids"] == ids, text
        assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids), text
