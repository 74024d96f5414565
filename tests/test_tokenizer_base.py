"""mistral_lib/tokenizer_base.py: both kinds of tokenizers have one interface."""

import inspect
import json

import pytest
from vocabularies import SENTENCES, mistral_tokenizer, small_tekken

from mistral_lib import MistralTekkenTokenizer, MistralTokenizer
from mistral_lib.tokenizer import TOKENIZERS
from mistral_lib.tokenizer_base import Tokenizer

ADDED = {"id": 0, "content": "<|im_end|>", "special": True}


def make(kind):
    if kind == "MistralTokenizer":
        return MistralTokenizer(mistral_tokenizer("v3").proto)
    return MistralTekkenTokenizer(small_tekken().to_json())


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return make(request.param)


def test_each_class_has_its_own_name():
    assert {cls.__name__: cls for cls in TOKENIZERS.values()} == TOKENIZERS
    assert {cls.kind: cls for cls in TOKENIZERS.values()} == TOKENIZERS
    with pytest.raises(TypeError, match="abstract"):
        Tokenizer()


def test_each_has_every_public_method():
    names = [{name for name in dir(cls) if name[0] != "_"} for cls in TOKENIZERS.values()]
    assert names[0] - names[1] <= {"proto"}
    assert names[1] - names[0] <= {"vocabulary"}
    for cls in TOKENIZERS.values():
        for name in ("encode", "decode", "token_to_id", "apply_chat_template"):
            assert inspect.signature(getattr(cls, name)) == (
                inspect.signature(getattr(Tokenizer, name))
            )


def test_added_tokens_survive_every_file(tokenizer, tmp_path):
    added = {**ADDED, "id": tokenizer.vocabulary_size(), "rstrip": True}
    tokenizer.extras = {**tokenizer.extras, "added_tokens": [added], "chat_template": "{{ a }}"}
    copies = [type(tokenizer).from_config(json.loads(json.dumps(tokenizer.get_config())))]
    tokenizer.save_to_preset(tmp_path / "preset")
    tokenizer.export_to_transformers(tmp_path / "checkpoint")
    copies += [MistralTokenizer.from_preset(tmp_path / name) for name in ("preset", "checkpoint")]
    text = "Hi<|im_end|> \n there<|im_end|>"
    for copy in copies:
        assert copy.extras == tokenizer.extras
        assert copy.encode(text) == tokenizer.encode(text)
        assert copy.vocabulary_size() == added["id"] + 1
        assert copy.decode(copy.encode(text)) == tokenizer.decode(tokenizer.encode(text))
    assert tokenizer.encode(text).count(added["id"]) == 2


def test_added_tokens_wait_for_a_vocabulary(tokenizer, tmp_path):
    added = {**ADDED, "id": tokenizer.vocabulary_size()}
    tokenizer.save_assets(tmp_path)
    arguments = (
        {"split_pattern": tokenizer.split_pattern} if hasattr(tokenizer, "vocabulary") else {}
    )
    arguments |= {} if arguments else {"proto": None}
    later = type(tokenizer).from_config(
        {**arguments, "extras": {"added_tokens": [{**added, "id": 1, "content": "<s>"}, added]}}
    )
    later.load_assets(tmp_path)
    assert [token["id"] for token in later.extras["added_tokens"]] == [added["id"]]
    assert later.encode(SENTENCES) == tokenizer.encode(SENTENCES)


def test_a_hostile_id_is_left_out(tokenizer):
    tokenizer.extras = {"added_tokens": [{**ADDED, "id": 2**60}]}
    assert "added_tokens" not in tokenizer.extras


def test_extras_are_not_shared(tokenizer):
    extras = {"chat_template": "a"}
    tokenizer.extras = extras
    extras["chat_template"] = "b"
    assert tokenizer.extras["chat_template"] == "a"
