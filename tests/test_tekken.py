"""mistral_lib/tekken.py equals mistral-common on Mistral's own files, byte for byte."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from small_presets import small_backbone
from vocabularies import DATA, SENTENCES, TEKKEN, TEXTS, small_tekken, tekken

from mistral_lib import (
    MistralCausalLM,
    MistralCausalLMPreprocessor,
    MistralTekkenTokenizer,
    MistralTokenizer,
)
from mistral_lib.presets.tokenizer_json import WRONG_PATTERN
from mistral_lib.tekken_vocabulary import spell

FILES = list(TEKKEN)
PEERS = {date: Tekkenizer.from_file(path) for date, path in TEKKEN.items()}
# What the pattern treats in ways of its own.
PARTS = (
    *(
        "the",
        " the",
        "'s",
        "'There",
        "x'LLaMA",
        "don't",
        "eBay",
        "NaOH",
        "McDonald",
        "12345",
        " 7",
        "٣",
        "½",
    ),
    *("\n", "\r\n", "\n\n  ", "\t", "   ", " ", "\u3000", "\u00a0", "日本語", "漢字", "ख", "م"),
    *("😀", "👩‍👩‍👧", "é", "e\u0301", "ǅ", "İ", "_", "/\n", "...", "http://x.y/z", "\x00"),
    *("<s>", "</s>", "[INST]", "<SPECIAL_20>", "<|im_start|>"),
)
TEXT = st.lists(st.sampled_from(PARTS) | st.text(max_size=4), max_size=8).map("".join)


@pytest.fixture(params=FILES)
def date(request):
    return request.param


@pytest.fixture(scope="module")
def small():
    return MistralTekkenTokenizer(small_tekken().to_json())


# --- Equal to mistral-common --------------------------------------------------------------------


@pytest.mark.parametrize("date", FILES)
@settings(max_examples=400, deadline=None)
@given(text=TEXT)
@example(text="'S 's’s")
@example(text="x" * 700)
def test_any_text_equals_mistral_common(date, text):
    ids = tekken(date).encode(text)
    assert ids == PEERS[date].encode(text, bos=False, eos=False)
    assert tekken(date).decode(ids) == PEERS[date].decode(ids) == text


@pytest.mark.parametrize("name", TEXTS)
def test_scripts_equal_mistral_common(date, name):
    ids = tekken(date).encode(TEXTS[name], add_bos=True, add_eos=True)
    assert ids == PEERS[date].encode(TEXTS[name], bos=True, eos=True)


@pytest.mark.parametrize("date", FILES)
@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 131071) | st.integers(0, 1300), max_size=12))
def test_any_ids_decode_as_in_mistral_common(date, ids):
    assert tekken(date).decode(ids) == PEERS[date].decode(ids)


def test_every_id_round_trips(date):
    ours, peer = tekken(date), PEERS[date]
    tokens = ours.get_vocabulary()
    assert ours.vocabulary_size() == peer.n_words == len(tokens) == len(set(tokens)) == 131072
    assert [ours.token_to_id(token) for token in tokens] == list(range(131072))
    for id in range(131072):
        assert ours.is_control(id) == peer.is_special(id)
        if ours.is_control(id):
            assert tokens[id] == peer.id_to_piece(id)
            assert ours.unfinished_bytes(id) is None
        else:
            assert ours.unfinished_bytes(id) == peer.id_to_byte_piece(id)
            assert (ours.byte_value(id) is not None) == peer.is_byte(id)


def test_special_ids(date):
    ours, peer = tekken(date), PEERS[date]
    assert (ours.start_token_id, ours.end_token_id) == (peer.bos_id, peer.eos_id) == (1, 2)
    assert (ours.unk_token_id, ours.pad_token_id) == (peer.unk_id, 0)
    assert ours.token_to_id("<pad>") == peer.pad_id
    assert ours.token_to_id("no such token") == ours.unk_token_id
    assert ours.extras == {"version": peer.version.value}
    assert ours.byte_value(1065) == ord("A")


def test_the_wrong_pattern_is_noticed():
    """Hugging Face's first conversions cut words as Llama does: transformers #42299."""
    vocabulary = dataclasses.replace(tekken("240911").vocabulary, pattern=WRONG_PATTERN)
    mutant = MistralTekkenTokenizer(vocabulary.to_json())
    peer = PEERS["240911"]
    differ = [part for part in PARTS if mutant.encode(part) != peer.encode(part, False, False)]
    assert differ == ["'There", "x'LLaMA"]  # few, so that it went unnoticed for months
    tokens = [ours.id_to_token(id) for ours in (tekken("240911"), mutant) for id in ours("'There")]
    assert tokens == ["'", "There", "'", "T", "here"]


# --- Text and ids --------------------------------------------------------------------------------


def test_text_never_becomes_a_control_token(date):
    ours = tekken(date)
    for id in range(30):
        ids = ours.encode(ours.id_to_token(id))
        assert min(ids) >= 1000
        assert ours.decode(ids) == ours.id_to_token(id)


@pytest.mark.parametrize("text", ["a\ud800b", "\udcff", ["fine", "\ud83d"]])
def test_surrogates_are_refused(small, text):
    with pytest.raises(ValueError, match="has the lone surrogate"):
        small.encode(text)


def test_batches_bytes_and_padding(small):
    assert small.encode(["the", b"the"]) == [small.encode("the")] * 2
    rows = small.encode(["the window", "", "é☃"], add_bos=True)
    assert small.decode([[*row, 0, 0] for row in rows]) == ["the window", "", "é☃"]
    assert small.decode(np.array(rows[0])) == "the window"
    with pytest.raises(ValueError, match=r"Token id 299 .*vocabulary of 299 ids"):
        small.decode([299])


def test_bytes_that_are_no_text_decode_to_replacement_characters(small):
    first = small.token_to_id(spell(b"\0"))
    ids = [first + byte for byte in b"a\xff\xe2\x98b\xe2\x98\x83"]
    assert small.decode(ids) == "a\ufffd\ufffdb☃"
    assert small.decode([first + 0xE2, small.end_token_id, first + 0x98]) == "\ufffd\ufffd"


def test_more_spaces_than_the_pattern_can_cut(small):
    assert len(small.encode(" " * 800_000)) == 400_000
    with pytest.raises(ValueError, match="900,000 or more spaces in a row"):
        small.encode("a" + " " * 900_000)


# --- Construction, configuration, files ----------------------------------------------------------


def test_kerashub_arguments(small, tmp_path):
    vocabulary = small.vocabulary
    again = MistralTekkenTokenizer(vocabulary.ids, vocabulary.merge_lines(), vocabulary.pattern)
    assert again.get_config() == small.get_config()
    small.save_assets(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"vocabulary.json", "merges.txt"}
    files = (tmp_path / "vocabulary.json", str(tmp_path / "merges.txt"))
    from_files = MistralTekkenTokenizer(*files, split_pattern=vocabulary.pattern)
    empty = MistralTekkenTokenizer.from_config({"split_pattern": vocabulary.pattern})
    empty.load_assets(tmp_path)
    for each in (from_files, empty):
        assert each.vocabulary == vocabulary
        assert each.encode(SENTENCES) == small.encode(SENTENCES)


def test_config_round_trip():
    tokenizer = MistralTekkenTokenizer(small_tekken("v3").to_json(), add_bos=True)
    tokenizer.extras = {**tokenizer.extras, "added_tokens": [{"id": 299, "content": "<|im_end|>"}]}
    stored = json.loads(json.dumps(keras.saving.serialize_keras_object(tokenizer)))
    assert stored["registered_name"] == "mistral_lib>MistralTekkenTokenizer"
    again = keras.saving.deserialize_keras_object(stored)
    assert again.get_config() == tokenizer.get_config()
    assert again.encode("the<|im_end|>") == tokenizer.encode("the<|im_end|>")
    assert (again.add_bos, again.extras["version"]) == (True, "v3")


def test_bad_arguments(tmp_path, small):
    with pytest.raises(FileNotFoundError, match=r"no file .*tekken\.json. Expected Mistral's"):
        MistralTekkenTokenizer(tmp_path / "tekken.json")
    with pytest.raises(TypeError, match=r"vocabulary must be the path .*but is int"):
        MistralTekkenTokenizer(5)
    with pytest.raises(ValueError, match="merges must be given"):
        MistralTekkenTokenizer({"a": 0})
    with pytest.raises(ValueError, match=r"split_pattern is .*no regular expression"):
        MistralTekkenTokenizer(small.vocabulary.ids, small.vocabulary.merge_lines(), "(")
    with pytest.raises(ValueError, match=r"vocabulary is no Tekken vocabulary: its merges are not"):
        MistralTekkenTokenizer(small.vocabulary.ids, small.vocabulary.merge_lines()[::-1])
    with pytest.raises(ValueError, match="vocabulary is not valid base64"):
        MistralTekkenTokenizer.from_config({"vocabulary": "tekken.json"})
    with pytest.raises(ValueError, match=r"tokenizer\.model\.v1 is not valid JSON"):
        MistralTekkenTokenizer(DATA / "tokenizer.model.v1")


def test_without_a_vocabulary(tmp_path):
    tokenizer = MistralTekkenTokenizer()
    for use in (
        lambda: tokenizer.encode("a"),
        lambda: tokenizer.decode([1]),
        lambda: tokenizer.start_token_id,
        lambda: tokenizer.save_assets(tmp_path),
    ):
        with pytest.raises(ValueError, match=r"no vocabulary yet.*load_assets"):
            use()
    assert tokenizer.get_config()["vocabulary"] is None


# --- With a model --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(small):
    backbone = small_backbone(vocabulary_size=300)
    return MistralCausalLM(backbone, MistralCausalLMPreprocessor(small, 12))


def test_training_and_generation(model):
    x, y, weight = model.preprocessor(["the window", "keys"])
    assert x["token_ids"][0, 0] == 1
    assert y[0, 3] == 2 or 2 in y[0]
    assert weight.shape == (2, 12)
    text = model.generate("the window", max_new_tokens=8, temperature=1.0, seed=1)
    assert text.startswith("the window")
    pieces = model.stream("the window", max_new_tokens=8, temperature=1.0, seed=1)
    assert "".join(pieces) == text


def test_a_stop_string_across_tokens(model):
    text = model.generate("the", max_new_tokens=12, temperature=1.0, seed=3, strip_prompt=True)
    stop = text[3:5]
    cut = model.generate(
        "the", max_new_tokens=12, temperature=1.0, seed=3, strip_prompt=True, stop_strings=stop
    )
    assert cut == text[: text.index(stop)]


def test_a_draft_of_another_vocabulary_is_refused(model):
    other = MistralTekkenTokenizer(small_tekken().to_json())
    other.extras = {"added_tokens": [{"id": 299, "content": "<|im_end|>"}]}
    draft = MistralCausalLM(model.backbone, MistralCausalLMPreprocessor(other, 12))
    with pytest.raises(ValueError, match=r"token 299 is '<\|im_end\|>' in the draft and None in"):
        model.generate("the", max_new_tokens=2, draft_model=draft)
    same = MistralTekkenTokenizer(small_tekken().to_json())
    draft = MistralCausalLM(model.backbone, MistralCausalLMPreprocessor(same, 12))
    assert model.generate("the", max_new_tokens=4, draft_model=draft) == (
        model.generate("the", max_new_tokens=4)
    )


@pytest.mark.parametrize("method", ["save_to_preset", "export_to_transformers"])
def test_a_preset_opens_with_the_right_class(model, tmp_path, method):
    getattr(model, method)(tmp_path)
    for opened in (
        MistralCausalLM.from_preset(tmp_path).preprocessor.tokenizer,
        MistralCausalLMPreprocessor.from_preset(tmp_path).tokenizer,
        MistralTokenizer.from_preset(tmp_path),
        MistralTekkenTokenizer.from_preset(tmp_path),
    ):
        assert type(opened) is MistralTekkenTokenizer
        assert opened.get_config() == model.preprocessor.tokenizer.get_config()
    with pytest.raises(ValueError, match=r"has the vocabulary of a MistralTokenizer, not of a"):
        MistralTekkenTokenizer.from_preset("mistral_tiny_en")


@pytest.mark.parametrize("add", [True, False])
def test_flags_survive_a_preset(tmp_path, add):
    tokenizer = MistralTekkenTokenizer(small_tekken().to_json(), add_bos=add, add_eos=not add)
    tokenizer.save_to_preset(tmp_path)
    again = MistralTokenizer.from_preset(tmp_path)
    assert (again.add_bos, again.add_eos) == (add, not add)
    # KerasHub's class would not take them.
    config = json.loads((tmp_path / "tokenizer.json").read_text())["config"]
    assert not {"add_bos", "add_eos"} & config.keys()


# --- Live ----------------------------------------------------------------------------------------


@pytest.mark.peer
def test_keras_hub_opens_it_and_the_reverse(model, tmp_path):
    models = pytest.importorskip("keras_hub.models", reason="KerasHub is not installed")
    big = MistralCausalLM(
        small_backbone(vocabulary_size=131072, num_layers=1),
        MistralCausalLMPreprocessor(tekken("240911"), 12),
    )
    big.save_to_preset(tmp_path / "ours")
    theirs = models.MistralTekkenTokenizer.from_preset(str(tmp_path / "ours"))
    texts = [*SENTENCES, *TEXTS.values(), "don't NaOH 12345"]
    texts = [text for text in texts if text and "<s>" not in text]  # one id in KerasHub
    for text in texts:
        assert list(theirs(text)) == tekken("240911").encode(text)
    theirs = models.MistralCausalLM.from_preset(str(tmp_path / "ours"), preprocessor=None)
    models.MistralCausalLM(
        backbone=theirs.backbone,
        preprocessor=models.MistralCausalLMPreprocessor(
            models.MistralTekkenTokenizer.from_preset(str(tmp_path / "ours")), sequence_length=12
        ),
    ).save_to_preset(str(tmp_path / "theirs"))
    again = MistralCausalLM.from_preset(tmp_path / "theirs").preprocessor.tokenizer
    assert type(again) is MistralTekkenTokenizer
    assert again.encode(texts) == tekken("240911").encode(texts)
