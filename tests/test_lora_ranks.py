"""The runs of chapter 14: each starts from the shipped weights; the record says what was run."""

import json
from dataclasses import asdict, replace

import lora_ranks
import numpy as np
import pytest

from mistral_lib.teaching import corpus, telegrams

pytestmark = pytest.mark.slow

RECORD = json.loads(lora_ranks.RECORD.read_text())
SHORT = lora_ranks.Settings(rank=1, targets=("query",), steps=1, batch_size=2, length=24)


@pytest.fixture(scope="module")
def text():
    documents = [
        corpus.Document("stdlib", f"a.py:{i}", f"Sort list {i}.\n\nIt is the list {'a' * (i + 1)}.")
        for i in range(6)
    ]
    return corpus.Corpus(documents[:4], documents[4:], 0, 0.0)


def test_a_run_starts_from_the_shipped_weights_and_its_seed_decides_it(text):
    everything = replace(SHORT, rank=0, learning_rate=1e-3)
    record = lora_ranks.sweep(text, (SHORT, everything, SHORT))
    first, full, again = record["runs"]
    assert first == again
    assert first["trained"] == 6 * (192 + 192)
    assert full["trained"] == 3_148_224
    assert full["answer"] < record["before"]["answer"]
    assert (record["examples"], record["held_out_examples"]) == (4, 2)
    assert record["settings"] == {"steps": 1, "batch_size": 2, "length": 24}


def test_runs_of_the_same_text_and_settings_are_not_made_again(text, monkeypatch):
    first = lora_ranks.sweep(text, (SHORT,))
    other = corpus.Corpus(text.training[::-1], text.held_out, 0, 0.0)
    made = []
    prepare = lora_ranks.prepare
    monkeypatch.setattr(lora_ranks, "prepare", lambda run: made.append(run.seed) or prepare(run))
    known = json.loads(json.dumps(first))
    again = lora_ranks.sweep(text, (replace(SHORT, seed=1), SHORT), known)
    assert made == [1]
    assert again["runs"][1] == known["runs"][0]
    lora_ranks.sweep(other, (SHORT,), known)
    assert made == [1, 0]


def test_a_seed_draws_and_orders_the_examples(text):
    examples = telegrams.find_examples(text.training)
    preprocessor = lora_ranks.prepare(SHORT).preprocessor
    rows = [
        lora_ranks.training_rows(examples, replace(SHORT, steps=2, seed=seed), preprocessor)[1]
        for seed in (0, 0, 1)
    ]
    assert np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2])
    assert sorted(map(tuple, rows[0])) == sorted(map(tuple, rows[2]))


def test_too_few_examples_are_refused(text):
    examples = telegrams.find_examples(text.training)
    preprocessor = lora_ranks.prepare(SHORT).preprocessor
    with pytest.raises(ValueError, match="3 steps of 2 need 6 examples; there are 4"):
        lora_ranks.training_rows(examples, replace(SHORT, steps=3), preprocessor)


def test_the_record_is_of_these_runs():
    wanted = [json.loads(json.dumps(asdict(run))) for run in lora_ranks.RUNS]
    for run, settings in zip(RECORD["runs"], wanted, strict=True):
        assert {**RECORD["settings"], **run}.items() >= settings.items()
        assert run["answer"] < RECORD["before"]["answer"]
