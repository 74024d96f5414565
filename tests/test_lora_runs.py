"""mistral_lib/teaching/lora_runs.py: runs by their settings, best rates, paired differences."""

import json

import numpy as np
import pytest

from mistral_lib.teaching import lora_runs

SIZES = {"answer": [10, 30], "documents": [10, 10]}


def run(seed=0, rate=0.1, unread=1.0, rank=8, scale=1.0, mask="answers", answer=(10.0, 30.0)):
    return {
        "rank": rank,
        "scale": scale,
        "targets": list(lora_runs.ALL),
        "learning_rate": rate,
        "seed": seed,
        "mask": mask,
        "unread": unread,
        "answer": list(answer),
        "documents": [20.0, 30.0],
    }


@pytest.fixture
def record(monkeypatch):
    found = {
        "bytes": SIZES,
        "before": {"answer": [40.0, 60.0], "documents": [20.0, 20.0]},
        "runs": [
            run(seed=1, rate=0.2, unread=0.1, answer=(10.0, 34.0)),
            run(seed=0, rate=0.2, unread=0.9),
            run(seed=0, rate=0.1, unread=1.0, answer=(0.0, 0.0)),
            run(rank=64, scale=0.353553),
            run(mask="late"),
        ],
    }
    monkeypatch.setattr(lora_runs, "results", lambda: found)
    return found


def test_runs_are_chosen_by_their_settings(record):
    chosen = lora_runs.chosen(rank=8)
    assert [(each["learning_rate"], each["seed"]) for each in chosen] == [
        (0.1, 0),
        (0.2, 0),
        (0.2, 1),
    ]
    assert lora_runs.chosen(rank=64, scale=(8 / 64) ** 0.5) == [record["runs"][3]]
    assert lora_runs.chosen(rank=8, mask="late") == [record["runs"][4]]


def test_there_is_no_run_with_other_settings(record):
    with pytest.raises(ValueError, match=r"no run with .*'rank': 3.* and the scale 1"):
        lora_runs.chosen(rank=3)


def test_the_first_seed_chooses_the_rate_by_what_it_did_not_read(record):
    chosen = lora_runs.chosen(rank=8)
    assert lora_runs.best_rate(chosen) == 0.2  # not the one whose held-out answers cost nothing
    assert [each["seed"] for each in lora_runs.at_best_rate(chosen)] == [0, 1]


def test_bits_are_divided_by_all_bytes(record):
    assert lora_runs.bits_per_byte(lora_runs.before(), "answer") == 100 / 40


def test_differences_are_taken_seed_by_seed(record):
    runs = lora_runs.at_best_rate(lora_runs.chosen(rank=8))
    assert lora_runs.each(runs, lora_runs.before(), "answer") == pytest.approx([-1.5, -1.4])
    assert lora_runs.each(runs, runs[::1], "answer") == pytest.approx([0, 0])
    assert lora_runs.learned(runs).mean == pytest.approx(1.45)
    assert lora_runs.forgotten(runs).mean == pytest.approx(0.5)
    found = lora_runs.over_runs(runs, lora_runs.before(), "answer")
    assert (found.n, found.unit) == (2, "seeds")
    with pytest.raises(ValueError, match=r"are of \[0, 1\] and \[1, 0\]"):
        lora_runs.each(runs, runs[::-1], "answer")


def test_half_of_a_change_keeps_the_seeds(record):
    whole = [run(seed=seed) | {"half": {"answer": [20.0, 40.0]}} for seed in (0, 1)]
    half = lora_runs.halved(whole)
    assert lora_runs.each(half, whole, "answer") == pytest.approx([0.5, 0.5])


def test_over_texts_draws_texts_again(record):
    record["bytes"] = {"answer": [10] * 12}
    record["before"] = {"answer": [20.0] * 12}
    runs = [run(seed=seed, answer=np.arange(12.0)) for seed in (0, 1)]
    found = lora_runs.over_texts(runs, lora_runs.before(), "answer")
    assert found.mean == pytest.approx((5.5 - 20) / 10)
    assert found.low < found.mean < found.high
    assert (found.n, found.unit) == (12, "texts")


def test_the_record_is_that_of_the_library():
    assert lora_runs.results() == json.loads(lora_runs.RECORD.read_text())
    kept = lora_runs.results()
    for each in (kept["before"], *kept["runs"]):
        for kind, sizes in kept["bytes"].items():
            assert len(each[kind]) == len(sizes)
