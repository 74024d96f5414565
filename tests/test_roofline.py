"""mistral_lib/teaching/roofline.py: the records are those of the benchmarks, the roof a roof."""

import json
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest

import house
from mistral_lib.config import MistralConfig
from mistral_lib.teaching import roofline
from mistral_lib.teaching.step_time import decoding_step

ROW = {"tokens_per_second": 81.6, "share_of_copy_bandwidth": 0.723, "weight_bytes": 1}
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
    gpu = {"device": "Tesla T4", "date": "2027-01-02", "decoding": {"int8": ROW, "int4": ROW}}
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


def test_what_a_card_can_write_is_the_equation():
    """The T4 computes in float16, and a card with a slower memory writes more slowly."""
    mistral_7b = MistralConfig(32000, 32, 32, 4096, 14336, 8, sliding_window=4096)
    t4, l4 = roofline.CARDS["T4"], roofline.CARDS["L4"]
    assert (t4.half, l4.half) == ("float16", "bfloat16")
    step = decoding_step(mistral_7b, 1, 512, "float16")
    told = roofline.most_tokens(mistral_7b, t4, "16 bits")
    assert told == pytest.approx(1 / step.seconds(t4.rate, t4.bandwidth))
    assert roofline.most_tokens(mistral_7b, l4, "16 bits") < told


@pytest.mark.parametrize("record", roofline.records().values())
def test_every_record_of_a_gpu_is_in_the_table(record):
    if "decoding" not in record:  # not a GPU's
        return
    cards = [roofline.measured_on(name, {"one": record}) for name in roofline.CARDS]
    assert sum(said != "-" for said in cards) <= 1


@pytest.mark.parametrize(
    ("device", "card"),
    [
        ("Tesla T4", "T4"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA L40S", None),
    ],
)
def test_a_record_is_in_the_line_of_its_card(device, card):
    record = {"device": device, "date": "2027-01-02", "decoding": {"int8": ROW, "int4": ROW}}
    said = {name: roofline.measured_on(name, {"gpu": record}) for name in roofline.CARDS}
    filled = {name: text for name, text in said.items() if text != "-"}
    assert filled == ({card: "int8 82, int4 82 (2027-01-02)"} if card else {})


def test_runs_are_timed_in_turns_and_warmed_up():
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in "ab"}
    assert set(roofline.alternately(runs, times=3)) == {"a", "b"}
    assert calls == list("abababab")


def test_the_slope_is_a_band_where_the_bandwidth_changed():
    figure, ax = plt.subplots()
    roofline.draw_roofline(ax, 1e11, 1e10, {"left": (0.5, 1e9)}, slowest=5e9)
    assert len(ax.collections) == 1
    roofline.draw_gpu(ax)
    plt.close(figure)
