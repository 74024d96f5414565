"""The models of chapter 6: alike but for the key heads, and the record says what was run."""

import json
from dataclasses import asdict, replace

import grouped_heads
import numpy as np
import pytest
from text_models import small_corpus
from train_tiny import build_model

pytestmark = pytest.mark.slow

RECORD = json.loads(grouped_heads.RECORD.read_text())
SMALL = replace(
    grouped_heads.SETTINGS,
    steps=2,
    batch_size=2,
    length=32,
    vocabulary_size=320,
    num_layers=1,
    num_query_heads=2,
    num_key_value_heads=2,
    hidden_dim=8,
    intermediate_dim=8,
    warmup_steps=1,
)


@pytest.fixture(scope="module")
def text():
    return small_corpus()


def test_each_variant_is_trained_from_each_seed_and_a_seed_decides_everything(text):
    record = grouped_heads.train_variants(text, SMALL, (2, 1), (0, 1, 0))
    runs = [(run["key_value_heads"], run["seed"]) for run in record["runs"]]
    assert runs == [(2, 0), (2, 1), (2, 0), (1, 0), (1, 1), (1, 0)]
    bits = [run["held_out_bits_per_byte"] for run in record["runs"]]
    assert bits[0] == bits[2] != bits[1]  # the third run starts again like the first
    assert bits[3] == bits[5] != bits[0]
    assert [run["cache_bytes_per_token"] for run in record["runs"]] == [32] * 3 + [16] * 3
    assert "num_key_value_heads" not in record["settings"]


def test_starting_again_forgets_what_was_learned():
    model, fresh = build_model(SMALL), build_model(replace(SMALL, seed=3))
    for variable in [*model.variables, *model.optimizer.variables]:
        variable.assign(variable.value * 0 + 1)
    grouped_heads._start_again(model, fresh)
    for trained, new in zip(model.variables, fresh.variables, strict=True):
        assert np.array_equal(trained, new)
    assert int(model.optimizer.iterations) == 0


def test_the_record_is_of_these_settings():
    expected = asdict(grouped_heads.SETTINGS)
    for name, value in RECORD["settings"].items():
        assert value == expected[name], name
    runs = {(run["key_value_heads"], run["seed"]) for run in RECORD["runs"]}
    assert runs == {(k, s) for k in grouped_heads.KEY_VALUE_HEADS for s in grouped_heads.SEEDS}
    assert all(1 < run["held_out_bits_per_byte"] < 4 for run in RECORD["runs"])


def test_differences_are_taken_seed_by_seed():
    runs = RECORD["runs"]
    found = grouped_heads.differences(runs, 1, 8)
    bits = {(r["key_value_heads"], r["seed"]): r["held_out_bits_per_byte"] for r in runs}
    assert np.allclose(found, [bits[1, s] - bits[8, s] for s in grouped_heads.SEEDS])
    assert not grouped_heads.differences(runs, 8, 8).any()
