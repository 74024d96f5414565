"""mistral_lib/presets/tokenizer_files.py: which tokenizer a preset has, told by its files."""

import json

import pytest
from vocabularies import mistral_tokenizer, small_tekken

from mistral_lib import MistralTekkenTokenizer, MistralTokenizer
from mistral_lib.presets.fast_tokenizer import describe_tokenizer
from mistral_lib.presets.sources import LocalFolder
from mistral_lib.presets.tokenizer_files import PREFIXES, checked_extras, find_tokenizer

END = {"id": 32000, "content": "<|im_end|>", "special": True}


def written(folder, **files):
    names = {
        "model": "tokenizer.model",
        "tekken": "tekken.json",
        "fast": "tokenizer.json",
        "config": "tokenizer_config.json",
        "added": "added_tokens.json",
    }
    for name, content in files.items():
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / names[name]).write_bytes(data)
    return find_tokenizer(LocalFolder(folder))


def test_sentencepieces_file_comes_first(tmp_path):
    proto = mistral_tokenizer("v1").proto
    found = written(tmp_path, model=proto, tekken=small_tekken().to_json(), fast={"model": {}})
    assert (found.kind, found.vocabulary) == (
        "MistralTokenizer",
        {"proto": tmp_path / "tokenizer.model"},
    )
    (tmp_path / "tokenizer.model").unlink()
    found = find_tokenizer(LocalFolder(tmp_path))
    assert (found.kind, found.vocabulary) == (
        "MistralTekkenTokenizer",
        {"vocabulary": tmp_path / "tekken.json"},
    )
    (tmp_path / "tekken.json").unlink()
    with pytest.raises(ValueError, match=r"tokenizer\.json is a tokenizer of the kind"):
        find_tokenizer(LocalFolder(tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither tokenizer\.model nor .*tekken\.json"):
        find_tokenizer(LocalFolder(tmp_path))


def test_a_tekken_beside_nothing_else_is_a_checkpoints(tmp_path):
    (tmp_path / "tekken.json").write_bytes(small_tekken().to_json())
    assert type(MistralTokenizer.from_preset(tmp_path)) is MistralTekkenTokenizer


def test_a_tokenizer_json_beside_nothing_else_is_a_checkpoints(tmp_path):
    proto = mistral_tokenizer("v1").proto
    written(tmp_path, fast=describe_tokenizer(proto))
    assert MistralTokenizer.from_preset(tmp_path).encode("the") == (
        mistral_tokenizer("v1").encode("the")
    )


def test_the_file_that_knows_most_has_the_last_word(tmp_path):
    proto = mistral_tokenizer("v1").proto
    found = written(tmp_path, model=proto, added={"<|im_end|>": 32000, "<|a|>": 32001})
    assert [token["id"] for token in found.extras["added_tokens"]] == [32000, 32001]
    decoder = {"32000": {"content": "<|im_end|>", "lstrip": True}, "x": {}, "32002": 3}
    found = written(tmp_path, config={"added_tokens_decoder": decoder})
    assert found.extras["added_tokens"][0] == {"id": 32000, "content": "<|im_end|>", "lstrip": True}
    found = written(tmp_path, fast={"added_tokens": [END]})
    assert found.extras["added_tokens"][0] == END
    assert len(found.extras["added_tokens"]) == 2


@pytest.mark.parametrize(
    ("legacy", "pre_tokenizer", "prefix"),
    [
        (None, False, None),
        (True, False, None),
        (False, False, "first"),
        (True, {"type": "Metaspace", "prepend_scheme": "first"}, "first"),
        (False, {"type": "Metaspace"}, "always"),
        (False, None, None),  # the normalizer of tokenizer.json prepends everywhere
    ],
)
def test_where_a_space_is_put_in_front(tmp_path, legacy, pre_tokenizer, prefix):
    files = {"config": {} if legacy is None else {"legacy": legacy}}
    if pre_tokenizer is not False:
        files["fast"] = {"pre_tokenizer": pre_tokenizer}
    found = written(tmp_path, model=mistral_tokenizer("v1").proto, **files)
    assert found.extras.get("prefix") == prefix
    assert prefix is None or prefix in PREFIXES


@pytest.mark.parametrize(
    ("template", "kept"),
    [
        ("{{ x }}", "{{ x }}"),
        ([{"name": "default", "template": "a", "x": 1}, 3], [{"name": "default", "template": "a"}]),
        ({"default": "a"}, None),
        (3, None),
    ],
)
def test_chat_templates(tmp_path, template, kept):
    proto = mistral_tokenizer("v1").proto
    found = written(tmp_path, model=proto, config={"chat_template": template})
    assert found.extras.get("chat_template") == kept
    (tmp_path / "chat_template.jinja").write_text("é", encoding="utf-8")
    assert find_tokenizer(LocalFolder(tmp_path)).extras["chat_template"] == "é"


def test_what_somebody_else_wrote_is_left_out():
    assert checked_extras(None) == checked_extras([]) == {}
    good = {"prefix": "always", "version": "v13", "chat_template": "a", "added_tokens": [END]}
    assert checked_extras(good) == good
    bad = {"prefix": "x", "version": "v0", "chat_template": 3, "added_tokens": 3, "other": 1}
    assert checked_extras(bad) == {}
    assert checked_extras({"prefix": [], "version": {}}) == {}
