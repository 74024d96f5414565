"""Samplers over a range of settings, from a record (used by chapter 16, "Sampling").

`training/samplers.py` let the shipped model continue the panel under many settings and counted, for
each prompt, the quality and the variety of what was drawn.
"""

from __future__ import annotations

import functools
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mistral_lib.arrays import Bool, Float
from mistral_lib.checks import check_choice
from mistral_lib.teaching.panel import HALVES

RECORD = Path(__file__).parent / "records" / "samplers.json"
SAMPLERS = ("temperature", "top_k", "top_p", "min_p")
KINDS = ("docstrings", "documents")

Found = tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]


@functools.cache
def record() -> dict[str, Any]:
    """What the script wrote.

    >>> record()["texts"]
    8
    """
    return json.loads(RECORD.read_text(encoding="utf-8"))


def settings(sampler: str, temperature: float | None = None) -> list[dict[str, float]]:
    """The settings of a sampler that were tried.

    Args:
        sampler: "temperature", "top_k", "top_p" or "min_p".
        temperature: of the settings; `None` stands for those without one, which is 1.

    >>> settings("top_k")[:2], settings("min_p", temperature=1.5)[:1]
    ([{'top_k': 2}, {'top_k': 3}], [{'min_p': 0.8, 'temperature': 1.5}])
    """
    names = {sampler} if temperature is None else {sampler, "temperature"}
    tried = [row["setting"] for row in record()["settings"]]
    return [one for one in tried if one.keys() == names]


def measured(kind: str, half: str, setting: dict[str, float]) -> Found:
    """Quality and variety of what was drawn under a setting, for each prompt of a half.

    Args:
        kind: "docstrings" or "documents".
        half: "discover" or "confirm".
        setting: one of `settings`.
    """
    check_choice("kind", kind, KINDS)
    [row] = [row for row in record()["settings"] if row["setting"] == setting]
    which = _half(kind, half)
    return np.array(row[kind]["quality"])[which], np.array(row[kind]["variety"])[which]


def people() -> Float[np.ndarray, " n"]:
    """The quality of what a person wrote, in the documents that confirm."""
    return np.array(record()["people"])[_half("documents", "confirm")]


def at_variety(kind: str, sampler: str, variety: float, temperature: float | None = None) -> Found:
    """A sampler where its texts have a given variety: quality and variety on the half "confirm".

    On the half "discover" the two neighbouring settings are chosen between which the variety lies,
    and the shares in which they have to be mixed. A program could do the same: to draw each text
    under one of the two settings, by lot.

    Args:
        kind: "docstrings" or "documents".
        sampler: as for `settings`.
        variety: the wanted mean.
        temperature: as for `settings`.

    Raises:
        ValueError: no two settings lie around this variety.
    """
    tried = settings(sampler, temperature)
    found = [measured(kind, "discover", one)[1].mean() for one in tried]
    order = np.argsort(found)
    for first, second in pairwise(order):
        low, high = found[first], found[second]
        if low <= variety < high:
            share = (variety - low) / (high - low)
            pairs = (measured(kind, "confirm", tried[i]) for i in (first, second))
            (quality, one), (other_quality, other) = pairs
            mixed = (1 - share) * quality + share * other_quality
            return mixed, (1 - share) * one + share * other
    raise ValueError(
        f"variety is {variety}, but {sampler} has from {min(found):.2f} to {max(found):.2f}."
    )


def _half(kind: str, half: str) -> Bool[np.ndarray, " texts"]:
    check_choice("half", half, HALVES)
    return np.array(record()["confirms"][kind]) == (half == "confirm")
