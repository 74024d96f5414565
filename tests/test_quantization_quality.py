"""What quantization costs the shipped model: the committed table, and the script that makes it."""

import json
import sys
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import quantization_quality

RESULT = json.loads(quantization_quality.RESULTS.read_text())
ROWS = RESULT["rows"]


def test_the_committed_table():
    assert ROWS.keys() == quantization_quality.CONTENDERS.keys()
    bits = {name: row["bits_per_byte"] for name, row in ROWS.items()}
    # 8 bits cost next to nothing, activations in 8 bits more than the weights, 4 bits 1 %.
    assert bits["int8"] - bits["float32"] < 0.0005
    assert bits["int8"] < bits["int8 and activations"] < bits["int4/32"] < bits["int4/128"]
    assert bits["int4/128"] < 1.02 * bits["float32"]
    sizes = {name: row["weight_bytes"] for name, row in ROWS.items()}
    assert 3.8 < sizes["float32"] / sizes["int8"] < 4
    assert 6.5 < sizes["float32"] / sizes["int4/128"] < 8


@pytest.mark.slow
def test_the_script(monkeypatch, tmp_path):
    corpus = SimpleNamespace(held_out=[SimpleNamespace(text="Return the number of elements.")])
    monkeypatch.setattr(quantization_quality, "build_corpus", lambda packages: corpus)
    name = "int8 and activations"
    chosen = {name: quantization_quality.CONTENDERS[name]}
    monkeypatch.setattr(quantization_quality, "CONTENDERS", chosen)
    quantization_quality.main(["--out", str(tmp_path / "out.json")])
    result = json.loads((tmp_path / "out.json").read_text())
    assert (result["documents"], result["bytes"]) == (1, 30)
    assert result["rows"][name]["weight_bytes"] == ROWS[name]["weight_bytes"]
    assert 0.5 < result["rows"][name]["bits_per_byte"] < 3
    assert np.allclose(result["panel"][name], RESULT["panel"][name], rtol=0.01)


def test_the_panel_of_the_committed_table():
    """The same documents in every row, and on all of them together the order of the table."""
    rows = RESULT["panel"]
    assert rows.keys() == quantization_quality.CONTENDERS.keys()
    assert {len(row) for row in rows.values()} == {26}
    total = {name: sum(row) for name, row in rows.items()}
    assert abs(total["int8"] / total["float32"] - 1) < 0.001
    assert total["float32"] < total["int4/32"] < total["int4/128"] < 1.02 * total["float32"]


def test_the_book_shows_the_committed_table():
    """Its copy travels with the library, so that the chapter runs where only that is installed."""
    copy = resources.files("mistral_lib.teaching") / "records" / "quantization_quality.json"
    assert json.loads(copy.read_text()) == RESULT
