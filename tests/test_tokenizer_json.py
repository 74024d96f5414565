"""mistral_lib/presets/tokenizer_json.py: a tokenizer.json alone gives the same ids."""

import json
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabularies import MISTRAL, SENTENCES, TEXTS, mistral_tokenizer, small_tekken, tekken

from mistral_lib import MistralTekkenTokenizer, MistralTokenizer
from mistral_lib.presets.fast_tokenizer import describe_tekken, describe_tokenizer
from mistral_lib.presets.tokenizer_json import WRONG_PATTERN, convert, read_prefix
from mistral_lib.tekken_vocabulary import PATTERN

CLASSES = {cls.kind: cls for cls in (MistralTokenizer, MistralTekkenTokenizer)}


def opened(content):
    kind, vocabulary = convert(content, "tokenizer.json")
    return CLASSES[kind](**vocabulary)


def of_tekken():
    return describe_tekken(small_tekken())


# --- After SentencePiece -------------------------------------------------------------------------


@pytest.mark.parametrize("version", MISTRAL)
def test_sentencepiece_comes_back(version):
    ours = mistral_tokenizer(version)
    again = opened(describe_tokenizer(ours.proto))
    assert type(again) is MistralTokenizer
    assert again.get_vocabulary() == ours.get_vocabulary()
    for id in range(ours.vocabulary_size()):
        assert again.is_control(id) == ours.is_control(id)
        assert again.byte_value(id) == ours.byte_value(id)
    texts = [*SENTENCES, *TEXTS.values()]
    assert again.encode(texts) == ours.encode(texts)
    assert again.decode(again.encode(texts)) == ours.decode(ours.encode(texts))


AGAIN = {
    version: opened(describe_tokenizer(mistral_tokenizer(version).proto)) for version in MISTRAL
}


@settings(max_examples=150, deadline=None)
@given(text=st.text() | st.text("aeths \n▁é😀 [/INST]"))
def test_any_text_is_cut_as_by_sentencepiece(text):
    for version, again in AGAIN.items():
        assert again.encode(text) == mistral_tokenizer(version).encode(text)


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_metaspace_puts_no_space_where_one_is(scheme):
    """As transformers 5 saves them. Without added tokens, "first" and "always" are the same."""
    content = describe_tokenizer(mistral_tokenizer("v1").proto, prefix="first")
    content["pre_tokenizer"]["prepend_scheme"] = scheme
    tokenizer = opened(content)
    prefix = read_prefix(content, alone=True)
    tokenizer.extras = {"prefix": prefix} if prefix else {}
    pieces = [[*map(tokenizer.id_to_token, tokenizer.encode(text))] for text in ("the", " the")]
    assert pieces == [["the" if scheme == "never" else "▁the"], ["▁the"]]
    assert read_prefix(content, alone=False) == (None if scheme == "never" else scheme)


def test_added_tokens_at_the_end_of_the_vocabulary_stay_added_tokens():
    content = describe_tokenizer(mistral_tokenizer("v1").proto)
    content["model"]["vocab"]["<|im_end|>"] = 32000
    content["added_tokens"].append({"id": 32000, "content": "<|im_end|>", "special": True})
    tokenizer = opened(content)
    assert tokenizer.vocabulary_size() == 32000
    tokenizer.extras = {"added_tokens": content["added_tokens"]}
    assert tokenizer.encode("<|im_end|>") == [32000]


# --- After Tekken --------------------------------------------------------------------------------


def test_tekken_comes_back():
    again = opened(describe_tekken(tekken("240911").vocabulary))
    assert type(again) is MistralTekkenTokenizer
    ours = tekken("240911").vocabulary
    assert (again.vocabulary.spelled, again.split_pattern) == (ours.spelled, ours.pattern)
    texts = [*SENTENCES, *TEXTS.values()]
    assert again.encode(texts) == tekken("240911").encode(texts)


def test_the_wrong_pattern_is_put_right():
    content = of_tekken()
    content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = WRONG_PATTERN
    with pytest.warns(UserWarning, match=r"tokenizer\.json has the pattern of another model"):
        assert opened(content).split_pattern == PATTERN
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert opened(of_tekken()).split_pattern == PATTERN
        content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "[a-z]+|[^a-z]+"
        assert opened(content).split_pattern == "[a-z]+|[^a-z]+"  # somebody's own


def test_a_control_token_with_another_name_is_reachable():
    content = of_tekken()
    content["model"]["vocab"]["<|im_start|>"] = content["model"]["vocab"].pop("[TOOL_CONTENT]")
    content["added_tokens"][19] |= {"content": "<|im_start|>"}
    tokenizer = opened(content)
    tokenizer.extras = {**tokenizer.extras, "added_tokens": content["added_tokens"]}
    assert [token["id"] for token in tokenizer.extras["added_tokens"]] == [19]
    assert tokenizer.encode("<|im_start|>the")[0] == 19
    assert tokenizer.token_to_id("[INST]") == 3
    assert 3 not in tokenizer.encode("[INST]")


# --- What is refused -----------------------------------------------------------------------------


def changed(content, **changes):
    for path, value in changes.items():
        *parents, name = path.split("__")
        place = content
        for parent in parents:
            place = place[int(parent) if parent.isdecimal() else parent]
        place[name] = value
    return json.loads(json.dumps(content))


SP = describe_tokenizer(mistral_tokenizer("v1").proto)
SPLIT = "pre_tokenizer__pretokenizers__0"
BYTES = "pre_tokenizer__pretokenizers__1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "a tokenizer of the kind None"),
        ({"model": {"type": "Unigram", "vocab": []}}, "a tokenizer of the kind Unigram"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}}}, "without merges"),
        ({"model": {"type": "BPE", "vocab": {"a": "0"}, "merges": []}}, "ids that are no integers"),
        (changed(of_tekken(), model__end_of_word_suffix="</w>"), "end_of_word_suffix = '</w>'"),
        (changed(of_tekken(), model__dropout=0.1), "dropout = 0.1"),
        (changed(of_tekken(), pre_tokenizer={"type": "Whitespace"}), r"what \['Whitespace'\] cut"),
        (changed(of_tekken(), **{f"{SPLIT}__behavior": "Removed"}), "Split has behavior = Removed"),
        (changed(of_tekken(), **{f"{SPLIT}__invert": True}), "Split has invert = True"),
        (changed(of_tekken(), **{f"{SPLIT}__pattern": {"String": " "}}), "'String': ' '"),
        (
            changed(of_tekken(), **{f"{BYTES}__add_prefix_space": True}),
            "ByteLevel has add_prefix_space = True",
        ),
        (changed(of_tekken(), **{f"{BYTES}__use_regex": True}), "ByteLevel has use_regex = True"),
    ],
)
def test_other_kinds_are_refused_with_advice(content, message):
    with pytest.raises(ValueError, match=rf"^tokenizer\.json is .*{message}.*Put the original"):
        convert(content, "tokenizer.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalizer": {"type": "NFKC"}}, r"\['NFKC'\] normalize"),
        ({"normalizer": None}, r"\[\] normalize"),
        ({"model__vocab__zz": 40000}, "ids have gaps"),
        ({"model__unk_token": "<none>"}, "without an unknown token"),
        ({"model__byte_fallback": False}, "byte-pair encoding on what"),
    ],
)
def test_other_sentencepieces_are_refused_with_advice(changes, message):
    with pytest.raises(ValueError, match=rf"^tokenizer\.json is .*{message}.*Put the original"):
        convert(changed(json.loads(json.dumps(SP)), **changes), "tokenizer.json")


# --- Live ----------------------------------------------------------------------------------------


@pytest.mark.peer
@pytest.mark.parametrize("name", ["v1", "v3", "tekken"])
def test_what_transformers_saves(tmp_path, name):
    """Loaded by transformers, and saved again in its own way, without the original's file."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    ours = tekken("240911") if name == "tekken" else mistral_tokenizer(name)
    ours.export_to_transformers(tmp_path / "a")
    (tmp_path / "a" / "config.json").write_text('{"model_type": "mistral"}')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "a", mistral_format=False)
    theirs.add_tokens(["<|im_start|>"])
    theirs.save_pretrained(tmp_path / "b")
    again = MistralTokenizer.from_preset(tmp_path / "b")
    assert not (tmp_path / "b" / "tokenizer.model").exists()
    assert again.token_to_id("<|im_start|>") == ours.vocabulary_size()
    for text in [*SENTENCES, *TEXTS.values(), "<|im_start|>user\n a <|im_start|>"]:
        if "<s>" not in text:
            assert theirs(text)["input_ids"] == again.encode(text, add_bos=True), text


@pytest.mark.peer
def test_tekken_as_transformers_converts_it(tmp_path):
    """With every pair of tokens among the merges, not only the one that is used."""
    tokenizer = pytest.importorskip("transformers.integrations.mistral.tokenizer")
    (tmp_path / "tekken.json").write_bytes(tekken("240911").vocabulary.to_json())
    converted = tokenizer.MistralConverter(str(tmp_path / "tekken.json")).converted()
    again = opened(json.loads(converted.to_str()))
    assert again.vocabulary.spelled == tekken("240911").vocabulary.spelled
    for text in [*SENTENCES, *TEXTS.values()]:
        if "<s>" not in text:
            assert again.encode(text) == converted.encode(text).ids
