"""mistral_lib/teaching/roofline.py: the records are those of the benchmarks, the roof a roof."""

import json
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest

import house
from mistral_lib.teaching import roofline

BENCHMARKS = house.ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import models  # noqa: E402
import table  # noqa: E402


def test_the_model_is_the_one_that_is_timed():
    assert models.SIZES["full"] == roofline.MODEL


def test_the_copies_are_those_of_the_benchmarks():
    results = {path.stem: json.loads(path.read_text()) for path in table.drawn()}
    assert roofline.records() == results, "run `python benchmarks/table.py`"


def test_a_step_of_decoding_is_what_the_table_says():
    cpu = roofline.records()["cpu"]
    for name in ("decode_80_x1", "decode_80_x8"):
        step = table.steps(cpu, f"{name}_64", "mistral_lib") / 62
        assert roofline.seconds_of(cpu, name) == pytest.approx(step)
    assert roofline.seconds_of(cpu, "prefill_1024") == table.steps(
        cpu, "prefill_1024", "mistral_lib"
    )


def test_a_record_of_a_gpu_is_one_line():
    row = {"tokens_per_second": 81.6, "share_of_copy_bandwidth": 0.723, "weight_bytes": 1}
    gpu = {"device": "Tesla T4", "date": "2027-01-02", "decoding": {"int8": row, "int4": row}}
    assert roofline.summary(gpu) == (
        "Tesla T4, 2027-01-02; int8 82 tokens/s, 72% of the bandwidth; "
        "int4 82 tokens/s, 72% of the bandwidth"
    )


def test_the_roof_rises_to_the_corner_and_is_flat_from_there():
    figure, ax = plt.subplots()
    points = {"left": (0.5, 1e9), "right": (500.0, 9e10)}
    roofline.draw_roofline(ax, 1e11, 1e10, points)
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(y, np.minimum(1e11, 1e10 * x))
    assert x[0] < 0.5
    assert x[1] == 10
    assert x[2] > 500
    marks = [line.get_data() for line in ax.lines[2:]]
    assert [(a[0], b[0]) for a, b in marks] == list(points.values())
    assert min(text.get_fontsize() for text in ax.texts) == roofline.SMALL
    assert len({line.get_marker() for line in ax.lines[2:]}) == 2
    plt.close(figure)
