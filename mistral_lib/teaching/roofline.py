"""Rooflines from the records of the benchmarks (chapter 19, "GPU runs").

`benchmarks/` times the library and writes `benchmarks/results/*.json`. `benchmarks/table.py` puts
copies of those that the book draws beside this module, so that a reader on Colab has them too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from statistics import median
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter

from mistral_lib.config import MistralConfig
from mistral_lib.teaching import plots
from mistral_lib.teaching.plots import SMALL
from mistral_lib.teaching.step_time import decoding_step

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


@dataclass(frozen=True)
class Card:
    """A GPU as its maker describes it.

    Args:
        gigabytes: of its memory.
        bandwidth: bytes that it reads from there in a second, at most.
        rate: FLOPs a second in products of 16-bit numbers, at most, without sparsity.
        has_bfloat16: whether it computes in bfloat16.
    """

    gigabytes: int
    bandwidth: float
    rate: float
    has_bfloat16: bool = True

    @property
    def half(self) -> str:
        """The dtype of 16 bits in which it computes."""
        return "bfloat16" if self.has_bfloat16 else "float16"


# T4: NVIDIA's data sheet. L4: "Inference Engineering". A100, H100, H200: "How to Scale Your Model".
CARDS = {
    "T4": Card(16, 320e9, 65e12, has_bfloat16=False),
    "L4": Card(24, 300e9, 121e12),
    "A100": Card(80, 2.0e12, 3.1e14),
    "H100": Card(80, 3.35e12, 9.9e14),
    "H200": Card(141, 4.8e12, 9.9e14),
}
WIDTHS = {"16 bits": "{half}", "int8": "int8_from_float32", "int4": "int4/128_from_{half}"}


def most_tokens(config: MistralConfig, card: Card, width: str, context: int = 512) -> float:
    """The most tokens a second that a card can write in one text, by the step-time equation.

    Args:
        config: the architecture.
        card: one of `CARDS`.
        width: of the weights, one of `WIDTHS`.
        context: tokens that the text has.

    >>> mistral_7b = MistralConfig(32000, 32, 32, 4096, 14336, 8, sliding_window=4096)
    >>> round(most_tokens(mistral_7b, CARDS["T4"], "16 bits"))
    22
    """
    dtype = WIDTHS[width].format(half=card.half)
    if card.has_bfloat16:
        dtype = dtype.replace("from_float32", "from_bfloat16")
    step = decoding_step(config, 1, context, dtype)
    return 1 / step.seconds(card.rate, card.bandwidth)


def measured_on(name: str, known: Mapping[str, dict]) -> str:
    """What the records say about a card: its tokens a second, or a dash where there is none.

    >>> row = {"tokens_per_second": 81.6}
    >>> gpu = {"device": "Tesla T4", "date": "2027-01-02", "decoding": {"int4": row}}
    >>> measured_on("T4", {"gpu-tesla-t4": gpu}), measured_on("L4", {"gpu-tesla-t4": gpu})
    ('int4 82 (2027-01-02)', '-')
    """
    for record in known.values():
        if name in record.get("device", "").replace("-", " ").split() and "decoding" in record:
            rows = record["decoding"].items()
            speeds = ", ".join(f"{dtype} {row['tokens_per_second']:.0f}" for dtype, row in rows)
            return f"{speeds} ({record['date']})"
    return "-"


def alternately(runs: Mapping[Any, Callable[[], object]], times: int = 7) -> dict[Any, float]:
    """The median seconds of several runs, measured in turns so that a slow minute hits all of them.

    Each run is called once before, which compiles it, and each result is waited for.

    Args:
        runs: functions without arguments, by a name or a number.
        times: how often each of them is timed.

    >>> found = alternately({"short": lambda: time.sleep(0.001), "long": lambda: time.sleep(0.02)})
    >>> found["short"] < found["long"]
    True
    """
    for run in runs.values():
        jax.block_until_ready(run())
    seconds: dict[Any, list[float]] = {name: [] for name in runs}
    for _ in range(times):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - start)
    return {name: median(each) for name, each in seconds.items()}


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

    def taken(name):
        return record["workloads"][name]["contenders"]["mistral_lib"]["seconds"]

    if workload.startswith("decode"):
        return (taken(f"{workload}_64") - taken(f"{workload}_2")) / 62
    return taken(workload)


def draw_gpu(ax: Axes) -> None:
    """Draws the memories of an H100 as boxes, the nearest to the arithmetic on top.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> draw_gpu(ax)
    >>> [text.get_text().split("\\n")[0] for text in ax.texts][::2]
    ['tensor cores', '132 × 256 KB', 'L2: 50 MB', 'HBM: 80 GB']
    """
    boxes = (
        ("tensor cores", "990 TFLOP a second", plots.SAND, 0.46),
        ("132 × 256 KB", "shared memory, and as many registers", plots.TINT, 0.8),
        ("L2: 50 MB", "about 5.5 TB a second", plots.TINT, 0.9),
        ("HBM: 80 GB", "3.35 TB a second", plots.TINT, 1.0),
    )
    for level, (name, said, colour, width) in enumerate(boxes):
        bottom = len(boxes) - level
        corner = -width / 2, bottom
        ax.add_patch(Rectangle(corner, width, 0.72, facecolor=colour, edgecolor=plots.GREY))
        ax.text(0, bottom + 0.5, name, weight="bold", ha="center", va="center")
        ax.text(0, bottom + 0.2, said, fontsize=SMALL, ha="center", va="center")
    ax.set(xlim=(-0.52, 0.52), ylim=(0.9, 4.8))
    ax.axis("off")


def draw_roofline(
    ax: Axes,
    rate: float,
    bandwidth: float,
    points: dict[str, tuple[float, float]],
    slowest: float | None = None,
) -> None:
    """Draws how fast a device can be, by the work for each byte, and how fast it was.

    Args:
        ax: the axes to draw on; its scales, labels and limits are set.
        rate: FLOPs a second, at most.
        bandwidth: bytes a second, at most.
        points: by what was run, its FLOPs for each byte and its FLOPs a second.
        slowest: bytes a second in the worst minute, where the bandwidth was not always the same.

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
    if slowest:
        x_all = np.geomspace(x[0], x[2], 200)
        band = [np.minimum(rate, x_all * speed) for speed in (slowest, bandwidth)]
        ax.fill_between(x_all, *band, color=plots.TINT, linewidth=0, zorder=0)
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
    ax.set(xlabel="arithmetic intensity: FLOPs for each byte", ylabel="FLOPs a second")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    ax.yaxis.set_major_formatter(EngFormatter(sep=""))
    low = (x[0] * ridge) ** 0.5
    said = "limit:\nbytes" if plots.narrow() else "limit: bytes"
    ax.text(low, low * bandwidth * 1.7, said, fontsize=SMALL, ha="right")
    ax.text(ridge * 1.1, rate * 1.2, "limit: arithmetic", fontsize=SMALL, va="bottom")
