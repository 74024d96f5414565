"""The runs of chapter 14: each starts from the shipped weights; the record says what was run."""

import json
from dataclasses import replace

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


def sweep(text, runs, known=None, keep=lambda record: None):
    found = lora_ranks.Sweep(text, SHORT, known, keep)
    made = [found.run(settings) for settings in runs]
    return found.record, made


def test_a_run_starts_from_the_shipped_weights_and_its_seed_decides_it(text):
    everything = replace(SHORT, rank=0, learning_rate=1e-3)
    record, (first, full) = sweep(text, (SHORT, everything))
    _, (again,) = sweep(text, (SHORT,))
    assert first == again
    assert first["trained"] == 6 * (192 + 192)
    assert full["trained"] == 3_148_224
    assert sum(full["answer"]) < sum(record["before"]["answer"])
    assert (record["examples"], record["settings"]["length"]) == (4, 24)
    assert len(first["answer"]) == len(record["bytes"]["answer"]) == 2
    assert len(first["documents"]) == 26
    assert len(first["begins"]) == 2  # written answers are judged for the chapter's own settings
    assert "begins" not in full


def test_what_full_training_changed_is_kept_by_directions(text):
    _, (full,) = sweep(text, (replace(SHORT, rank=0, learning_rate=1e-3),))
    assert full["spectrum"].keys() == set(lora_ranks.ALL)
    for shares in full["spectrum"].values():
        assert shares == sorted(shares)
        assert 0 < shares[0] <= shares[-1] <= 1
    whole = full["truncated"]["128"]
    assert np.allclose(whole, full["answer"], atol=1)
    assert not np.allclose(full["truncated"]["0"], full["answer"], atol=0.1)


def test_the_change_of_a_lora_is_its_product():
    base = lora_ranks.prepare(replace(SHORT, rank=0))
    model = lora_ranks.prepare(replace(SHORT, rank=2, scale=3.0))
    [layer, *_] = lora_ranks.lora.projections(model.backbone).values()
    layer.lora_kernel_b.assign(layer.lora_kernel_b.value + 1)
    change = lora_ranks.changes_of(model, base)["transformer_layer_0/self_attention/query"]
    a = np.asarray(layer.lora_kernel_a.value)
    assert np.allclose(change, 3 * a.sum(axis=1, keepdims=True), atol=1e-5)


def test_half_of_a_change_is_taken_away_and_given_back():
    base = lora_ranks.prepare(replace(SHORT, rank=0))
    for settings in (replace(SHORT, rank=0), replace(SHORT, rank=2, targets=("gate",))):
        model = lora_ranks.prepare(settings)
        for variable in model.trainable_variables:
            variable.assign(variable.value + 1)
        whole = lora_ranks.changes_of(model, base)
        with lora_ranks.halved(model, base):
            half = lora_ranks.changes_of(model, base)
        again = lora_ranks.changes_of(model, base)
        for path, change in whole.items():
            assert np.allclose(half[path], change / 2, atol=1e-5)
            assert np.array_equal(again[path], change)


def test_runs_of_the_same_text_and_settings_are_not_made_again(text, monkeypatch):
    kept = []
    first, _ = sweep(text, (SHORT,), keep=lambda record: kept.append(lora_ranks.written(record)))
    known = json.loads(kept[-1])
    other = corpus.Corpus(text.training[::-1], text.held_out, 0, 0.0)
    made = []
    prepare = lora_ranks.prepare
    monkeypatch.setattr(lora_ranks, "prepare", lambda run: made.append(run.seed) or prepare(run))
    again, _ = sweep(text, (replace(SHORT, seed=1), SHORT), known)
    assert made == [1]
    assert again["runs"][0] == first["runs"][0]
    sweep(other, (SHORT,), json.loads(kept[-1]))
    assert made == [1, 0]


def test_a_seed_draws_and_orders_the_examples(text):
    examples = telegrams.find_examples(text.training)
    preprocessor = lora_ranks.prepare(SHORT).preprocessor
    rows = [
        lora_ranks.training_rows(examples, replace(SHORT, steps=2, seed=seed), preprocessor)[0][1]
        for seed in (0, 0, 1)
    ]
    assert np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2])
    assert sorted(map(tuple, rows[0])) == sorted(map(tuple, rows[2]))


def test_what_a_run_does_not_read_chooses_its_rate(text):
    examples = telegrams.find_examples(text.training)
    preprocessor = lora_ranks.prepare(SHORT).preprocessor
    (_, y, _), left = lora_ranks.training_rows(examples, SHORT, preprocessor)
    assert (len(y), len(left)) == (2, 2)


def test_masks(text):
    examples = telegrams.find_examples(text.training)
    preprocessor = lora_ranks.prepare(SHORT).preprocessor
    right, late, all_labels = (
        lora_ranks.training_rows(examples, replace(SHORT, mask=mask), preprocessor)[0][2]
        for mask in ("answers", "late", "all")
    )
    assert (right.sum(axis=1) - late.sum(axis=1)).tolist() == [1, 1]
    assert not (late & ~right).any()
    assert all_labels.all()


def test_too_few_examples_are_refused(text):
    examples = telegrams.find_examples(text.training)
    preprocessor = lora_ranks.prepare(SHORT).preprocessor
    with pytest.raises(ValueError, match="3 steps of 2 need 6 examples; there are 4"):
        lora_ranks.training_rows(examples, replace(SHORT, steps=3), preprocessor)


def made_up(unread):
    """Runs of the first seed: their rates and what the examples cost that they did not read."""
    varied = lora_ranks.varied(lora_ranks.Settings())
    return [
        varied | {"learning_rate": lora_ranks.RATES[place], "unread": cost}
        for place, cost in unread.items()
    ]


def test_rates_are_tried_until_the_best_is_between_two_others():
    start = lora_ranks.Settings(learning_rate=lora_ranks.RATES[4])
    tried = {}
    while (settings := lora_ranks.next_rate(start, made_up(tried))) is not None:
        place = lora_ranks.RATES.index(settings.learning_rate)
        tried[place] = abs(place - 6)
    assert list(tried) == [4, 5, 6, 7]
    assert lora_ranks.best_rate(start, made_up(tried)) == lora_ranks.RATES[6]
    runs = made_up(tried)
    assert (run := lora_ranks.next_run(start, runs)) is not None
    assert (run.seed, run.learning_rate) == (1, lora_ranks.RATES[6])
    runs += [{**runs[2], "seed": seed} for seed in (1, 2)]
    assert lora_ranks.next_run(start, runs) is None


def test_the_record_lacks_nothing():
    runs = RECORD["runs"]
    for variants, also in zip(lora_ranks.GROUPS, lora_ranks.ALSO, strict=True):
        assert [lora_ranks.next_run(variant, runs) for variant in variants] == [None] * len(
            variants
        )
        assert [lora_ranks.next_seed(settings, runs) for settings in also] == [None] * len(also)
    before = sum(RECORD["before"]["answer"])
    assert all(sum(run["answer"]) < before for run in runs)
    keys = [json.dumps(lora_ranks.varied(run)) for run in runs]
    assert len(set(keys)) == len(keys)
