"""What trainings with LoRA, and of every weight, learned and forgot (used by chapter 14).

`training/lora_ranks.py` taught the shipped model to write telegrams, each time with another rank,
choice of projections, scale or mask, at several learning rates and from several seeds. It kept what
every held-out text costs afterwards. The runs of one seed read the same examples in the same order,
so differences are taken seed by seed. The record comes with the library; this reads it.

>>> run = at_best_rate(chosen(rank=8))[0]
>>> round(bits_per_byte(run, "documents") - bits_per_byte(before(), "documents"), 1)  # forgotten
0.3
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mistral_lib.arrays import Float
from mistral_lib.teaching.estimates import Estimate, over_seeds, ratio

RECORD = Path(__file__).parent / "records" / "lora_ranks.json"
ALL = ("query", "key", "value", "attention_output", "gate", "up", "down")
FEW = ("query", "value")

Run = dict[str, Any]


@functools.cache
def results() -> dict[str, Any]:
    """The record as it is kept; `training/README.md` describes it."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def before() -> Run:
    """What the texts cost the shipped model, in the form of a run."""
    return results()["before"]


def chosen(
    rank: int, targets: Sequence[str] = ALL, scale: float = 1.0, mask: str = "answers"
) -> list[Run]:
    """The runs with these settings, at all learning rates.

    Args:
        rank: of the LoRA; 0 trains every weight instead.
        targets: the names of the projections with a LoRA.
        scale: alpha / rank, by which the update is multiplied.
        mask: which labels count: those of the "answers", the same without the first of each
            ("late"), or "all".

    Raises:
        ValueError: there are none.
    """
    wanted = {"rank": rank, "targets": list(targets), "mask": mask}
    found = [
        run
        for run in results()["runs"]
        if run.items() >= wanted.items() and abs(run["scale"] - scale) < 1e-4
    ]
    if not found:
        raise ValueError(f"The record has no run with {wanted} and the scale {scale:g}.")
    return sorted(found, key=lambda run: (run["learning_rate"], run["seed"]))


def best_rate(runs: Sequence[Run]) -> float:
    """The learning rate at which the first seed did best on examples that it did not read.

    These are not the held-out texts, which are quoted.
    """
    firsts = [run for run in runs if run["seed"] == 0]
    return min(firsts, key=lambda run: run["unread"])["learning_rate"]


def at_rate(runs: Sequence[Run], learning_rate: float) -> list[Run]:
    """The runs at a learning rate, one for each seed."""
    return [run for run in runs if run["learning_rate"] == learning_rate]


def at_best_rate(runs: Sequence[Run]) -> list[Run]:
    """The runs at the best of their learning rates, one for each seed."""
    return at_rate(runs, best_rate(runs))


def halved(runs: Sequence[Run]) -> list[Run]:
    """What the texts cost if half of every change is taken away after the training."""
    return [run["half"] | {"seed": run["seed"]} for run in runs]


def bits_per_byte(run: Run, kind: str) -> float:
    """What the held-out texts cost after a run.

    Args:
        run: of the record, or `before()`.
        kind: "answer", the answers as telegrams; "plain", the same answers as they were written;
            "documents", those of the panel's half "confirm".
    """
    return sum(run[kind]) / sum(results()["bytes"][kind])


def each(runs: Sequence[Run], others: Sequence[Run] | Run, kind: str) -> Float[np.ndarray, " n"]:
    """By how many bits per byte texts cost more after each of `runs` than after its partner.

    Args:
        runs: one for each seed.
        others: runs of the same seeds, or one run, such as `before()`.
        kind: of texts, as for `bits_per_byte`.

    Raises:
        ValueError: the runs are not of the same seeds.
    """
    pairs = _paired(runs, others)
    return np.array([bits_per_byte(a, kind) - bits_per_byte(b, kind) for a, b in pairs])


def over_runs(runs: Sequence[Run], others: Sequence[Run] | Run, kind: str) -> Estimate:
    """The mean of `each`, and how other seeds would have changed it."""
    return over_seeds(each(runs, others, kind))


def over_texts(runs: Sequence[Run], others: Sequence[Run] | Run, kind: str) -> Estimate:
    """The same mean, and how other texts would have changed it."""
    pairs = _paired(runs, others)
    differences = np.mean([np.subtract(a[kind], b[kind]) for a, b in pairs], axis=0)
    return ratio(differences, np.array(results()["bytes"][kind]))


def learned(runs: Sequence[Run]) -> Estimate:
    """By how many bits per byte telegrams cost less than before, over the seeds."""
    return over_seeds(-each(runs, before(), "answer"))


def forgotten(runs: Sequence[Run]) -> Estimate:
    """By how many bits per byte the panel's documents cost more than before, over the seeds.

    Plain answers would be the wrong measure: after a question they *should* cost more, since the
    model was taught to answer otherwise.
    """
    return over_runs(runs, before(), "documents")


def _paired(runs: Sequence[Run], others: Sequence[Run] | Run) -> list[tuple[Run, Run]]:
    if isinstance(others, dict):
        return [(run, others) for run in runs]
    seeds, other_seeds = ([run["seed"] for run in some] for some in (runs, others))
    if seeds != other_seeds:
        raise ValueError(
            f"Runs can be compared if they are of the same seeds, but these are of {seeds} and "
            f"{other_seeds}."
        )
    return list(zip(runs, others))
