"""The measurement of chapter 5: the scaling alone is varied, and the record is its result."""

import json

import long_texts
import numpy as np
import pytest

from mistral_lib import MistralCausalLM
from mistral_lib.rope_scaling import read_rope_scaling

pytestmark = pytest.mark.slow

RECORD = json.loads(long_texts.RECORD.read_text())
TEXT = "Return a copy of the text with a prefix. The text is not changed, and the prefix is.\n" * 9


@pytest.fixture(scope="module")
def model():
    return MistralCausalLM.from_preset("mistral_tiny_en")


def test_a_short_measurement(model):
    """Within a short text every way but the scaled ones costs the same; bytes are all counted."""
    ids = long_texts.long_documents(model, [TEXT, "short", TEXT[7:]], 160)
    assert ids.shape == (2, 160)
    ways = {name: long_texts.WAYS[name] for name in ("window", "no scaling", "YaRN")}
    found = long_texts.measure(model, ids, 100, ways)
    costs = np.asarray(model.score(ids, scoring_mode="loss"))[:, :-1] / np.log(2)
    texts = [model.preprocessor.tokenizer.decode(row[:100]) for row in ids]
    expected = costs[:, :99].sum(axis=1) / [len(text.encode()) for text in texts]
    within = {name: np.array(each["within_bits_per_byte"]) for name, each in found.items()}
    np.testing.assert_allclose(within["window"], expected, atol=1e-3)
    np.testing.assert_allclose(within["no scaling"], within["window"], atol=1e-3)
    assert (within["YaRN"] > within["window"]).all()
    assert len(found["YaRN"]["bits_per_token"]) == 5


def test_the_record_is_of_this_script():
    assert (RECORD["length"], RECORD["known"]) == (long_texts.LENGTH, long_texts.KNOWN)
    assert list(RECORD["ways"]) == list(long_texts.WAYS)
    for found in RECORD["ways"].values():
        assert len(found["within_bits_per_byte"]) == RECORD["documents"]
        assert len(found["beyond_bits_per_byte"]) == RECORD["documents"]
        assert len(found["bits_per_token"]) == RECORD["length"] // long_texts.BUCKET
    for changes in long_texts.WAYS.values():
        read_rope_scaling(changes.get("rope_scaling"))
