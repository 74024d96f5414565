"""The task of remembering: what is asked, how recall is counted, and what the record holds."""

import numpy as np
import pytest
import recall as training

from mistral_lib.teaching import recall


def test_a_row_holds_one_digit_and_asks_for_it():
    ids, answers, distance = recall.rows(50, seed=4)
    digits = ids < recall.DIGITS
    assert (digits.sum(axis=1) == 1).all()
    assert (distance[digits] == 0).all()
    assert (ids[digits] == answers[:, 0]).all()
    assert (answers == answers[:, :1]).all()
    assert distance.max(axis=1).min() >= recall.FURTHEST


def test_rows_depend_on_the_seed_alone():
    first, second, other = (recall.rows(5, seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.slow
def test_windows_are_those_of_the_model():
    model = recall.trained([None, 8, 8, 8], steps=60, seed=3)
    assert model.backbone.config.window(0) is None
    assert model.backbone.config.window(3) == 8
    assert recall.recall(model, count=40).shape == (recall.FURTHEST + 1,)


@pytest.mark.slow
def test_each_model_is_trained_from_each_seed():
    models = {"narrow": (2, 3), "mixed": ([2, 2, 2, None], 3)}
    record = training.train_all(models, seeds=(0, 1), steps=60)
    assert [(run["model"], run["seed"]) for run in record["runs"]] == [
        ("narrow", 0),
        ("narrow", 1),
        ("mixed", 0),
        ("mixed", 1),
    ]
    assert all(len(run["recall"]) == recall.FURTHEST + 1 for run in record["runs"])


def test_the_record_is_of_these_models():
    found = {(run["model"], run["seed"]) for run in recall.record()["runs"]}
    assert found == {(name, seed) for name in training.MODELS for seed in training.SEEDS}
    for run in recall.record()["runs"]:
        assert (run["windows"], run["furthest"]) == training.MODELS[run["model"]]
    for name in training.MODELS:
        assert recall.recorded(name).shape == (len(training.SEEDS), recall.FURTHEST + 1)


def test_nothing_is_remembered_beyond_the_reach():
    for name in ("asked at every distance", "asked within the window"):
        assert recall.recorded(name)[:, 29:].max() < 0.15  # a guess is right once in ten
