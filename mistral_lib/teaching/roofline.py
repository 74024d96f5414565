"""Rooflines from the records of the benchmarks (chapter 19, "GPU runs").

`benchmarks/` times the library and writes `benchmarks/results/*.json`. `benchmarks/table.py` puts
copies of those that the book draws beside this module, so that a reader on Colab has them too.
"""

from __future__ import annotations

import json
from importlib import resources

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from mistral_lib.teaching import plots
from mistral_lib.teaching.plots import SMALL

PREFIX = "benchmark_"  # of the copies' names: benchmark_cpu.json

# The model of the records, as `benchmarks/models.py` has it.
MODEL = {
    "vocabulary_size": 32000,
    "num_layers": 12,
    "num_query_heads": 16,
    "hidden_dim": 1024,
    "intermediate_dim": 3584,
    "num_key_value_heads": 4,
    "sliding_window": 512,
}


def records() -> dict[str, dict]:
    """The committed records by name: "cpu", "startup", and one for each GPU.

    >>> sorted(records())[0]
    'cpu'
    """
    folder = resources.files("mistral_lib.teaching") / "records"
    files = sorted((f for f in folder.iterdir() if f.name.startswith(PREFIX)), key=str)
    return {
        file.name.removeprefix(PREFIX).removesuffix(".json"): json.loads(
            file.read_text(encoding="utf-8")
        )
        for file in files
    }


def device_of(record: dict) -> str:
    """What a record was measured on.

    >>> device_of({"machine": {"cpu": "AMD EPYC", "cores": 2}}), device_of({"device": "Tesla T4"})
    ('AMD EPYC, 2 cores', 'Tesla T4')
    """
    if "device" in record:
        return record["device"]
    return f"{record['machine']['cpu']}, {record['machine']['cores']} cores"


def summary(record: dict) -> str:
    """One line about a record: the device, the day, and how fast a GPU wrote.

    >>> summary({"machine": {"cpu": "AMD EPYC", "cores": 2}, "date": "2026-11-23"})
    'AMD EPYC, 2 cores, 2026-11-23'
    """
    parts = [f"{device_of(record)}, {record['date']}"]
    for dtype, row in record.get("decoding", {}).items():
        share = f"{row['share_of_copy_bandwidth']:.0%} of the bandwidth"
        parts.append(f"{dtype} {row['tokens_per_second']:.0f} tokens/s, {share}")
    return "; ".join(parts)


def seconds_of(record: dict, workload: str) -> float:
    """Seconds of a forward pass, or of one step of decoding.

    Decoding was timed twice, over 64 and over 2 new tokens; the difference is 62 steps.

    Args:
        record: that of the CPU.
        workload: such as "prefill_1024" or "decode_80_x8".

    >>> def runs(seconds):
    ...     return {"contenders": {"mistral_lib": {"seconds": seconds}}}
    >>> record = {"workloads": {"decode_80_x1_64": runs(7.2), "decode_80_x1_2": runs(1.0)}}
    >>> round(seconds_of(record, "decode_80_x1"), 6)
    0.1
    """

    def median(name):
        return record["workloads"][name]["contenders"]["mistral_lib"]["seconds"]

    if workload.startswith("decode"):
        return (median(f"{workload}_64") - median(f"{workload}_2")) / 62
    return median(workload)


def draw_roofline(
    ax: Axes, rate: float, bandwidth: float, points: dict[str, tuple[float, float]]
) -> None:
    """Draws how fast a device can be, by the work for each byte, and how fast it was.

    Args:
        ax: the axes to draw on; its scales, labels and limits are set.
        rate: FLOPs a second, at most.
        bandwidth: bytes a second, at most.
        points: by what was run, its FLOPs for each byte and its FLOPs a second.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_roofline(ax, 1e11, 1e10, {"decode": (0.5, 4e9)})
    >>> [text.get_text() for text in ax.texts][:1]
    ['decode']
    """
    ridge = rate / bandwidth
    intensities = [intensity for intensity, _ in points.values()]
    x = np.array([0.25 * min(intensities), ridge, 6 * max(ridge, *intensities)])
    roof = np.minimum(rate, x * bandwidth)
    ax.plot(x, roof, color=plots.INK, zorder=1)
    ax.plot([ridge, ridge], [roof[0] / 2, rate], ":", color=plots.GREY, linewidth=1, zorder=0)
    for number, (name, (intensity, speed)) in enumerate(points.items()):
        ax.plot(intensity, speed, "os^Dv"[number % 5], color=plots.BLUE, markersize=7, zorder=2)
        where = {
            "xytext": (9, -4),
            "ha": "left",
            "bbox": {"fc": plots.PAPER, "ec": "none", "pad": 0.5},
        }
        if intensity > ridge:  # under a flat roof labels would meet
            where = {"xytext": (0, -10 - 14 * (number % 2)), "ha": "center"}
        ax.annotate(
            name, (intensity, speed), textcoords="offset points", va="top", fontsize=SMALL, **where
        )
    ax.set(xscale="log", yscale="log", xlim=(x[0], x[2]), ylim=(roof[0] / 2, 4 * rate))
    ax.set(xlabel="FLOPs for each byte", ylabel="FLOPs a second")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    ax.yaxis.set_major_formatter(EngFormatter(sep=""))
    low = (x[0] * ridge) ** 0.5
    ax.text(low, low * bandwidth * 1.7, "limit: bytes", fontsize=SMALL, ha="right")
    ax.text(ridge * 1.1, rate * 1.2, "limit: arithmetic", fontsize=SMALL, va="bottom")
