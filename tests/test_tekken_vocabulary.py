"""mistral_lib/tekken_vocabulary.py: tekken.json is read as mistral-common reads it."""

import base64
import dataclasses
import itertools
import json

import pytest
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from vocabularies import TEKKEN, small_tekken, tekken

from mistral_lib import MistralTekkenTokenizer
from mistral_lib.tekken_vocabulary import (
    CONTROLS,
    PATTERN,
    TekkenVocabulary,
    from_merges,
    parse_tekken,
    spell,
    unspell,
)


def content(version="v7", **changes):
    found = json.loads(small_tekken(version).to_json())
    for name, value in changes.items():
        place = found["config"] if name in found["config"] else found
        place[name] = value
    return found


def parse(found):
    return parse_tekken(json.dumps(found).encode(), "tekken.json")


def test_names_and_pattern_are_mistral_commons():
    assert list(CONTROLS) == [t["token_str"] for t in Tekkenizer.DEPRECATED_SPECIAL_TOKENS]
    for file in TEKKEN.values():
        assert json.loads(file.read_text())["config"]["pattern"] == PATTERN


def test_the_default_size_cuts_the_tokens():
    for date, file in TEKKEN.items():
        whole = json.loads(file.read_text())
        vocabulary = tekken(date).vocabulary
        assert len(whole["vocab"]) == 150_000 > len(vocabulary.tokens) == 131_072 - 1_000
        assert vocabulary.controls[20:22] == ("<SPECIAL_20>", "<SPECIAL_21>")
        assert vocabulary.controls[-1] == "<SPECIAL_999>"


@pytest.mark.parametrize("version", ["v3", "v7", "v11", "v13"])
def test_every_version_is_read_as_mistral_common_reads_it(tmp_path, version):
    more = ("[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]")
    found = json.loads(small_tekken(version, more).to_json())
    found["config"] |= {"default_num_special_tokens": 40, "default_vocab_size": 300}
    if version in ("v3", "v7"):
        del found["special_tokens"]
    (tmp_path / "tekken.json").write_text(json.dumps(found))
    ours, peer = (
        parse_tekken((tmp_path / "tekken.json").read_bytes(), "tekken.json"),
        Tekkenizer.from_file(tmp_path / "tekken.json"),
    )
    names = [peer.id_to_piece(id) for id in range(40)]
    assert list(ours.controls) == names
    assert names[-1] == "<SPECIAL_39>"
    assert len(ours.spelled) == peer.n_words == 300
    assert ours.version == peer.version.value == version


def test_what_is_written_mistral_common_reads(tmp_path):
    vocabulary = small_tekken("v11", ("[ARGS]", "[CALL_ID]"))
    (tmp_path / "tekken.json").write_bytes(vocabulary.to_json())
    assert parse_tekken((tmp_path / "tekken.json").read_bytes(), "tekken.json") == vocabulary
    peer = Tekkenizer.from_file(tmp_path / "tekken.json")
    assert [peer.id_to_piece(id) for id in range(22)] == list(vocabulary.controls)
    assert peer.version.value == "v11"


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({}, "it has no object 'config'"),
        ({"config": {}, "vocab": {}}, "it has no list 'vocab'"),
        ({"config": {}, "vocab": []}, "'version' is missing"),
        (content(version="v99"), "its version is 'v99', and known are v2, v3"),
        (content(default_vocab_size=900), "of 900 ids 20 are control tokens, but there are 279"),
        (content(default_vocab_size=100), "of 100 ids 20"),
        (content(default_num_special_tokens=3), "it lists 20 special_tokens, but says .* has 3"),
        (content(default_num_special_tokens="3"), "not supported between"),
        (content(version="v11", special_tokens=None), "version v11 must list its special_tokens"),
        (content(special_tokens=content()["special_tokens"][::-1]), "not in the order of their"),
        (content(special_tokens=content()["special_tokens"][:2]), "no control token '</s>'"),
        (content(vocab=content()["vocab"][::-1]), "token 0 has the rank 278"),
        (content(pattern=3), "its pattern is 3"),
    ],
)
def test_damaged_files(found, message):
    if message.startswith("no control"):
        found["config"] |= {"default_num_special_tokens": 2, "default_vocab_size": 281}
        message = "it has " + message
    with pytest.raises(ValueError, match=rf"^tekken\.json is no Tekken vocabulary: .*{message}"):
        parse(found)


@pytest.mark.parametrize(
    ("rank", "data", "message"),
    [
        (5, b"\x06", "do not begin with the 256 bytes"),
        (270, b"", "empty, or there twice"),
        (270, b"a", "empty, or there twice"),
        (270, None, "base64|binary|ascii|padding"),
    ],
)
def test_damaged_tokens(rank, data, message):
    found = content()
    text = "*" if data is None else base64.b64encode(data).decode()
    found["vocab"][rank]["token_bytes"] = text
    with pytest.raises(ValueError, match=message):
        parse(found)


# --- Merges --------------------------------------------------------------------------------------


def test_merges_make_the_tokens_in_their_order():
    vocabulary = tekken("240911").vocabulary
    made = [left + right for left, right in vocabulary.merges]
    assert made == [token for token in vocabulary.tokens if len(token) > 1]
    ranks = vocabulary.ranks
    for left, right in vocabulary.merges:
        assert max(ranks[left], ranks[right]) < ranks[left + right]
    # From the 256 bytes on, as they were found.
    assert [spell(left) + "+" + spell(right) for left, right in vocabulary.merges[:3]] == [
        *("Ġ+Ġ", "Ġ+t", "e+r")
    ]


def test_merges_alone_cut_words_in_the_same_way():
    """By loops, with the merges alone and by pairs, as in GPT-2."""
    vocabulary = small_tekken()
    order = {pair: place for place, pair in enumerate(vocabulary.merges)}
    for word in (" the", " query", "windowing", "é日", "thee", "kkeys", "    "):
        data = word.encode()
        parts = [data[i : i + 1] for i in range(len(data))]
        while found := [
            (order[pair], i) for i, pair in enumerate(itertools.pairwise(parts)) if pair in order
        ]:
            _, i = min(found)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        ids = [len(CONTROLS) + vocabulary.ranks[part] for part in parts]
        assert ids == MistralTekkenTokenizer(vocabulary.to_json()).encode(word)


def test_from_merges_and_back():
    vocabulary = small_tekken("v13", ("[ARGS]", "[THINK]"))
    for merges in (
        vocabulary.merge_lines(),
        [line.split(" ") for line in vocabulary.merge_lines()],
    ):
        assert from_merges(vocabulary.ids, merges, PATTERN) == vocabulary


@pytest.mark.parametrize(
    ("more", "version"), [((), "v7"), (("[ARGS]",), "v11"), (("[ARGS]", "[THINK]"), "v13")]
)
def test_control_tokens_tell_the_version(more, version):
    vocabulary = small_tekken("v7", more)
    found = from_merges(vocabulary.ids, vocabulary.merge_lines(), PATTERN)
    assert found.version == version
    older = TekkenVocabulary(CONTROLS[:17], vocabulary.tokens, PATTERN, "v3")
    assert from_merges(older.ids, older.merge_lines(), PATTERN) == older


def test_wrong_merges():
    vocabulary = small_tekken()
    lines, ids = vocabulary.merge_lines(), vocabulary.ids
    with pytest.raises(ValueError, match="either the tokens or the merges lack"):
        from_merges(ids, lines[:-1], PATTERN)
    with pytest.raises(ValueError, match="its merges are not in the order"):
        from_merges(ids, [lines[1], lines[0], *lines[2:]], PATTERN)
    with pytest.raises(ValueError, match="its ids are not 0 to 298"):
        from_merges({**ids, "<s>": 500}, lines, PATTERN)
    with pytest.raises(ValueError, match="the character '▁', which stands for no byte"):
        from_merges({**ids, "▁a": 299}, lines, PATTERN)


def test_a_token_that_no_merge_makes():
    vocabulary = dataclasses.replace(small_tekken(), tokens=(*small_tekken().tokens[:256], b"abc"))
    with pytest.raises(ValueError, match=r"b'abc' \(rank 256\) is no pair"):
        _ = vocabulary.merges


def test_the_alphabet_is_gpt2s():
    assert spell(bytes([*range(33), *range(127, 161), 173])) == "".join(map(chr, range(256, 324)))
    every = bytes(range(256))
    assert unspell(spell(every)) == every
    assert len(set(spell(every))) == 256
    assert spell(b" hi\n") == "ĠhiĊ"
