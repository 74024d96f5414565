"""What small runs say about each part of the model (used by chapters 9, 10, 11 and 13).

`training/ablations.py` trains small models that differ in one thing from a baseline, each at
several learning rates and from several seeds. The runs of one seed read the same batches and begin
with the same weights, so differences are taken seed by seed. The records come with the library;
this reads them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mistral_lib.arrays import Array, Float

RECORDS = Path(__file__).parent / "records" / "ablations"
BASELINE = "baseline"
# Of Student's t with n - 1 degrees of freedom: 95 % lie between -t and t.
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}

Run = dict[str, Any]


class Interval(NamedTuple):
    """A mean over n seeds and its 95 % interval.

    Attributes:
        mean: of the seeds; infinite if a run came to no number.
        low: where the interval begins.
        high: where it ends.
        n: number of seeds.
    """

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Outcome:
    """What is known about one variant at its best learning rate.

    Attributes:
        variant: its name in the record.
        learning_rate: the best of those that were tried, see `best_rate`.
        runs: the runs at that rate, by seed.
        bits: held-out bits per byte at the end.
        difference: by how many bits per byte it is worse than the baseline at the baseline's best
            rate, seed by seed. The interval says how other seeds would do on the same text.
        documents_error: standard error of the mean difference over held-out documents: how other
            text would do.
    """

    variant: str
    learning_rate: float
    runs: list[Run]
    bits: Interval
    difference: Interval
    documents_error: float


def t_interval(values: Sequence[float]) -> Interval:
    """The mean of 2 to 10 values and its 95 % interval by Student's t.

    Raises:
        ValueError: there are fewer values, or more.

    >>> t_interval([1.0, 2.0, 3.0])
    Interval(mean=2.0, low=-0.4843, high=4.4843, n=3)
    """
    count = len(values)
    if count not in T_95:
        raise ValueError(f"values must be 2 to 10 numbers, but there are {count}.")
    if not np.isfinite(values).all():
        return Interval(np.inf, np.inf, np.inf, count)
    mean = float(np.mean(values))
    half = float(T_95[count] * np.std(values, ddof=1) / np.sqrt(count))
    return Interval(round(mean, 4), round(mean - half, 4), round(mean + half, 4), count)


def recorded(folder: Path = RECORDS) -> list[str]:
    """The questions that have a record."""
    return sorted(path.stem for path in folder.glob("*.json") if path.stem != BASELINE)


def read_runs(question: str, folder: Path = RECORDS) -> dict[str, list[Run]]:
    """The runs of each variant of a question, the baseline's first.

    Args:
        question: such as "norm"; `recorded` lists them.
        folder: of the records.

    Returns:
        Lists of runs as `training/README.md` describes them, by the name of the variant.

    Raises:
        ValueError: there is no record of that question.
    """
    if question != BASELINE and question not in recorded(folder):
        known = ", ".join(recorded(folder)) or "none"
        raise ValueError(f"question must be one that has a record ({known}), but is {question!r}.")
    found: dict[str, list[Run]] = {}
    for name in dict.fromkeys((BASELINE, question)):
        for run in json.loads((folder / f"{name}.json").read_text())["runs"]:
            found.setdefault(run["variant"], []).append(run)
    return found


def by_rate(runs: list[Run]) -> dict[float, list[Run]]:
    """The runs of a variant at each learning rate, lowest rate and seed first."""
    rates = sorted({run["learning_rate"] for run in runs})
    ordered = sorted(runs, key=lambda run: run["seed"])
    return {rate: [run for run in ordered if run["learning_rate"] == rate] for rate in rates}


def best_rate(runs: list[Run]) -> float:
    """The learning rate with the lowest mean bits per byte, over the seeds that all rates have.

    A rate at which a run came to no number is worse than any other.

    >>> runs = [
    ...     {"learning_rate": rate, "seed": seed, "held_out_bits_per_byte": bits}
    ...     for rate, seed, bits in [(0.1, 0, 2.0), (0.3, 0, 1.9), (0.3, 1, 2.5)]
    ... ]
    >>> best_rate(runs)
    0.3
    """
    rates = by_rate(runs)
    shared = set.intersection(*({run["seed"] for run in each} for each in rates.values()))
    means = {
        rate: np.mean([_bits(run) for run in each if run["seed"] in shared])
        for rate, each in rates.items()
    }
    return min(means, key=means.__getitem__)


def outcomes(question: str, folder: Path = RECORDS) -> dict[str, Outcome]:
    """What is known about each variant of a question, each at its best rate, the baseline first.

    Args:
        question: such as "norm".
        folder: of the records.

    Returns:
        An `Outcome` for each variant; the baseline's difference is zero.
    """
    runs = read_runs(question, folder)
    best = {name: by_rate(each)[best_rate(each)] for name, each in runs.items()}
    text = json.loads((folder / f"{BASELINE}.json").read_text())["text"]
    return {
        name: _outcome(name, each, best[BASELINE], np.array(text["held_out_group_bytes"]))
        for name, each in best.items()
    }


def mean_curve(runs: list[Run], name: str) -> Float[Array, " points"]:
    """The mean over runs of one line of their curves.

    Args:
        runs: of one variant and rate.
        name: "step", "held_out" or "training" (bits per byte), "gradient_norm" or
            "largest_gradient_norm".
    """
    return np.mean([run["curve"][name] for run in runs], axis=0)


def last_tenth(run: Run) -> float:
    """By which share of its bits per byte a run still improved in the last tenth of its steps.

    A run counts as flat below 0.005.

    >>> last_tenth({"curve": {"step": [80, 90, 100], "held_out": [2.2, 2.02, 2.0]}})
    0.01
    """
    steps, bits = run["curve"]["step"], run["curve"]["held_out"]
    before = float(np.interp(0.9 * steps[-1], steps, bits))
    return round(before / bits[-1] - 1, 5)


def _bits(run: Run) -> float:
    bits = run["held_out_bits_per_byte"]
    return np.inf if bits is None else bits


def _outcome(name: str, runs: list[Run], baseline: list[Run], group_bytes: np.ndarray) -> Outcome:
    others = {run["seed"]: run for run in baseline}
    pairs = [(run, others[run["seed"]]) for run in runs if run["seed"] in others]
    differences = [_bits(run) - _bits(other) for run, other in pairs]
    error = np.inf
    if np.isfinite(differences).all():
        groups = [np.subtract(r["held_out_groups"], o["held_out_groups"]) for r, o in pairs]
        share = group_bytes / group_bytes.sum()
        noise = share * (np.mean(groups, axis=0) - np.mean(differences))
        error = float(np.sqrt(np.sum(noise**2) * len(noise) / (len(noise) - 1)))
    return Outcome(
        name,
        runs[0]["learning_rate"],
        runs,
        t_interval([_bits(run) for run in runs]),
        t_interval(differences),
        round(error, 4),
    )
