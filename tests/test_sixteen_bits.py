"""The runs of chapter 13 in 16 bits: what is varied is dtype and masters alone."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import sixteen_bits
from text_models import small_corpus

from mistral_lib.master_weights import MasterWeights

pytestmark = pytest.mark.slow

RECORD = json.loads(sixteen_bits.RECORD.read_text())
SMALL = replace(
    sixteen_bits.Settings(),
    steps=2,
    batch_size=2,
    length=32,
    vocabulary_size=320,
    num_layers=1,
    num_query_heads=2,
    num_key_value_heads=1,
    hidden_dim=8,
    intermediate_dim=8,
)


@pytest.fixture(scope="module")
def text():
    return small_corpus()


def test_a_seed_decides_everything(text):
    record = sixteen_bits.train_all(text, SMALL, (("float32", False, 0.999),), (0, 1, 0))
    bits = [run["held_out_bits_per_byte"] for run in record["runs"]]
    assert bits[0] == bits[2] != bits[1]
    assert all(run["moved"] > 0.5 for run in record["runs"])


def test_without_masters_keras_trains_the_weights_themselves():
    first = None
    for dtype, masters, beta_2 in sixteen_bits.WAYS:
        model = sixteen_bits.build_model(SMALL, dtype, masters, beta_2, 0)
        assert isinstance(model.optimizer, MasterWeights) == masters
        optimizer = model.optimizer.optimizer if masters else model.optimizer
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        assert inner.beta_2 == beta_2
        assert {variable.dtype for variable in model.backbone.variables} == {dtype}
        weights = [np.array(v.value, "float32") for v in model.backbone.variables]
        first = first or weights
        for one, other in zip(weights, first, strict=True):
            np.testing.assert_allclose(one, other, rtol=2**-8, atol=1e-6)


def test_a_loss_that_is_no_number_is_none(text):
    wild = replace(SMALL, learning_rate=1e30)
    record = sixteen_bits.train_all(text, wild, (("float16", False, 0.999),), (0,))
    assert [run["held_out_bits_per_byte"] for run in record["runs"]] == [None]


def test_the_record_is_of_these_settings():
    assert RECORD["settings"] == asdict(sixteen_bits.Settings())
    found = [(run["dtype"], run["masters"], run["beta_2"], run["seed"]) for run in RECORD["runs"]]
    assert found == [(*way, seed) for way in sixteen_bits.WAYS for seed in sixteen_bits.SEEDS]
