"""Units: answers that are right in another one than is asked for (used by all chapters)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from mistral_lib.teaching.exercises.answers import Unreadable, named, numbers

COUNTS = {"": 1.0, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
PREFIXES = {
    **{prefix: 1000.0**n for n, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}i": 1024.0**n for n, prefix in enumerate("KMGT", 1)},
}
FAMILIES: tuple[Mapping[str, float], ...] = (
    {
        "bytes": 1,
        "bits": 1 / 8,
        **{f"{prefix}B": size for prefix, size in PREFIXES.items()},
        **{f"{prefix}bit": size / 8 for prefix, size in PREFIXES.items()},
    },
    {"microseconds": 1e-6, "ms": 1e-3, "seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400},
    {"per cent": 1, "percent": 1, "%": 1, "parts of one": 100},
)
QUANTITY = re.compile(r"\s*([-+−]?[\d.,_]+(?:e[-+]?\d+)?(?:\s*/\s*\d+)?)\s*([a-zA-Zµ%].*?)?\s*")


def read(answer: object, unit: str) -> np.ndarray:
    """An answer as numbers, where a text may name a unit of its own.

    Args:
        answer: what a reader gave.
        unit: the unit in which the result shall be.

    Raises:
        Unreadable: there are no numbers in it, or its unit measures something else.

    >>> read("128 KiB", "MiB"), read("134 million", "pairs"), read([1, 2], "ms")
    (array(0.125), array(1.34e+08), array([1, 2]))
    """
    quantity = QUANTITY.fullmatch(answer) if isinstance(answer, str) else None
    if quantity is None or not quantity[2]:
        return numbers(answer)
    own, family = _scale(unit)
    sizes = {spelling.casefold(): size for spelling, size in family.items()}
    if family not in FAMILIES:
        sizes |= {word: size for word, size in COUNTS.items() if word}
    if quantity[2].casefold() not in sizes:
        raise Unreadable(named(answer))
    return np.asarray(numbers(quantity[1]) * (sizes[quantity[2].casefold()] / family[own]))


def other_unit(answer: np.ndarray, solution: np.ndarray, unit: str, factor: float) -> str | None:
    """The unit in which an answer would be right within a factor, if there is one.

    >>> other_unit(np.array(131072), np.array(128), "KiB", 1.1)
    'bytes'
    >>> other_unit(np.array(0.06), np.array(58.7), "million weights", 1.1)
    'billion weights'
    """
    own, family = _scale(unit)
    off = {  # by how much, on a logarithmic scale
        name: abs(np.log(np.maximum(answer * size / (solution * family[own]), 1e-30))).max()
        for name, size in family.items()
        if size != family[own]
    }
    nearest = min(off, key=off.__getitem__, default="")
    return nearest if nearest and off[nearest] <= np.log(factor) else None


def _scale(unit: str) -> tuple[str, Mapping[str, float]]:
    """A unit, and those that measure the same, each with its size."""
    if not unit:
        return unit, {unit: 1.0}
    for family in FAMILIES:
        if unit in family:
            return unit, family
    first, _, rest = unit.partition(" ")
    what = rest if first in COUNTS else unit
    return unit, {f"{count} {what}".strip(): size for count, size in COUNTS.items()}
