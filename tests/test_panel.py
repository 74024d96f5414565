"""The panel: balanced halves, names where they belong, sequences that really come twice."""

import json
import re
from collections import Counter
from itertools import combinations

import jax
import numpy as np
import pytest

from mistral_lib.teaching import panel, repeats
from mistral_lib.tokenizer import MistralTokenizer

TOKENIZER = MistralTokenizer.from_preset("mistral_tiny_en")
PROMPTS = panel.docstrings(TOKENIZER)
SETS = {
    "docstrings": PROMPTS,
    "documents": panel.documents(TOKENIZER),
    "prose": panel.prose(TOKENIZER),
    "sentences": repeats.sentences(TOKENIZER),
    "random repeats": repeats.random_repeats(TOKENIZER),
}


def pieces(ids) -> list[str]:
    return [TOKENIZER.id_to_token(int(i)) for i in ids]


@pytest.mark.parametrize("name", SETS)
def test_two_halves_of_one_size_make_the_whole(name):
    rows = SETS[name]
    halves = {half: rows.half(half) for half in panel.HALVES}
    assert {len(half) for half in halves.values()} == {len(rows) // 2}
    assert [half.title for half in halves.values()] == [f"{name}, discover", f"{name}, confirm"]
    assert Counter(rows.items) == Counter(halves["discover"].items + halves["confirm"].items)


def test_there_are_enough():
    assert [len(rows) for rows in SETS.values()] == [72, 52, 36, 24, 64]


@pytest.mark.parametrize("half", panel.HALVES)
def test_kinds_are_balanced(half):
    kinds = Counter(item.kind for item in PROMPTS.half(half).items)
    assert kinds == {"one piece": 12, "letter first": 12, "longer first": 12}


def test_kinds_are_those_of_the_tokenizer():
    for item, answer in zip(PROMPTS.items, PROMPTS.answers):
        name = pieces(answer[answer != panel.NOTHING])
        assert "".join(name) == item.name
        expected = "one piece" if len(name) == 1 else "letter first"
        assert item.kind == (expected if len(name[0]) == 1 or len(name) == 1 else "longer first")


def test_common_names_are_words_of_the_vocabulary():
    vocabulary = {TOKENIZER.id_to_token(i) for i in range(TOKENIZER.vocabulary_size())}
    common = [item.common for item in PROMPTS.items]
    assert common == [f"▁{item.name}" in vocabulary for item in PROMPTS.items]
    assert 24 < sum(common) < 48


def test_prompts_end_before_the_name_and_go_on_with_it():
    for row, item in enumerate(PROMPTS.items):
        ids = PROMPTS.token_ids[row][PROMPTS.padding_mask[row]]
        end = PROMPTS.ends[row] + 1
        assert TOKENIZER.decode(ids[1:end].tolist()) == item.text
        assert pieces(ids[end - 1 : end]) == ["▁*"]
        assert "".join(pieces(ids[end:])) == item.name
        mention = PROMPTS.mentions[row]
        assert ids[mention : mention + len(ids) - end].tolist() == ids[end:].tolist()
        assert item.text.count(f"*{item.name}*") == 1


def test_prompts_differ_in_length_and_distance():
    distances = PROMPTS.ends - PROMPTS.mentions
    assert distances.min() < 30
    assert 85 < distances.max() < 127  # the window
    assert np.ptp(PROMPTS.ends) > 60
    assert 20 < sum(bool(item.others) for item in PROMPTS.items) < 40


def test_rivals_are_other_parameters():
    for rival, item in zip(PROMPTS.rivals, PROMPTS.items):
        assert (rival == panel.NOTHING) == (not item.others)
        if item.others:
            assert item.others[0].startswith(TOKENIZER.id_to_token(int(rival)))


def test_counterfactuals_are_about_the_partners():
    other = PROMPTS.counterfactual
    for row, (item, before) in enumerate(zip(other.items, PROMPTS.items)):
        assert (item.name, item.partner) == (before.partner, before.name)
        written = TOKENIZER.encode(f"{item.text}{item.name}*", add_bos=True, add_eos=False)
        assert other.token_ids[row][other.padding_mask[row]].tolist() == written[:-1]
    assert np.array_equal(other.answers, PROMPTS.partners)
    assert np.array_equal(other.counterfactual.token_ids, PROMPTS.token_ids)
    differing = other.token_ids != PROMPTS.token_ids
    named = PROMPTS.regions()["name"] | PROMPTS.regions()["rest of the name"]
    places = np.arange(differing.shape[1])
    assert not (differing & ~named & (places <= PROMPTS.ends[:, None])).any()
    assert (differing & PROMPTS.regions()["name"]).any(axis=1).all()  # first pieces differ


def test_regions_cover_each_prompt_once():
    regions = PROMPTS.regions()
    places = np.arange(PROMPTS.token_ids.shape[1])
    covered = sum(region.astype(int) for region in regions.values())
    assert np.array_equal(covered, places <= PROMPTS.ends[:, None])
    for row, item in enumerate(PROMPTS.items):
        named = regions["name"][row] | regions["rest of the name"][row]
        assert "".join(pieces(PROMPTS.token_ids[row, named])) == item.name
        assert pieces(PROMPTS.token_ids[row, regions["after"][row]])[0].startswith("*")
        assert pieces(PROMPTS.token_ids[row, regions["end"][row]]) == ["▁*"]


def test_no_two_texts_share_eight_words_in_a_row():
    record = json.loads(panel.RECORD.read_text())
    texts = [entry["text"] for entry in record["docstrings"]]
    texts += record["documents"] + record["prose"] + record["sentences"]
    runs = []
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        runs.append({tuple(words[i : i + 8]) for i in range(len(words) - 7)})
    assert not any(one & other for one, other in combinations(runs, 2))


def test_what_was_compared_with_the_training_text_is_recorded():
    compared = json.loads(panel.RECORD.read_text())["compared"]
    assert compared["shared_runs_of_words"] == 0
    assert compared["words"] == 8
    assert compared["training_documents"] > 30_000
    assert re.fullmatch(r"[0-9a-f]{64}", compared["training_fingerprint"])


@pytest.mark.parametrize("name", ["documents", "prose"])
def test_documents_are_whole_and_short_enough_for_one_batch(name):
    rows = SETS[name]
    for ids, real, text, size in zip(rows.token_ids, rows.padding_mask, rows.items, rows.bytes):
        assert TOKENIZER.decode(ids[real][1:].tolist()) == text
        assert len(text.encode()) == size
        assert 60 < real.sum() < 256
    assert rows.token_ids.shape[1] > (128 if name == "documents" else 60)


def test_some_rows():
    some = PROMPTS.where([item.kind == "one piece" for item in PROMPTS.items])
    assert len(some) == len(some.token_ids) == len(some.answers) == 24
    assert {item.kind for item in some.items} == {"one piece"}
    assert [item.name for item in some.half("confirm").items] == [
        item.name for item in PROMPTS.half("confirm").items if item.kind == "one piece"
    ]


def test_an_unknown_half_is_refused():
    with pytest.raises(ValueError, match="half must be one of 'discover', 'confirm'"):
        PROMPTS.half("other")


def test_compiled_functions_take_rows():
    lengths = jax.jit(lambda rows: rows.padding_mask.sum(axis=1))(PROMPTS)
    assert np.array_equal(lengths, PROMPTS.padding_mask.sum(axis=1))


def test_own_texts_are_rows_like_the_panels():
    own = panel.own(TOKENIZER, ["One text.", "Another text, which is longer."])
    assert pieces(own.token_ids[0])[0] == "<s>"
    assert own.padding_mask.sum(axis=1).tolist() == [
        len(TOKENIZER.encode(text, add_bos=True)) for text in own.items
    ]
    assert own.bytes.tolist() == [9, 30]
