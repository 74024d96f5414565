"""A number with its interval, and how it is printed (used by all chapters).

A mean over the panel would have been another one on other texts, and the interval says by how much.
The texts, never their tokens, are drawn again from those that there are, ten thousand times. The
interval holds the middle 95 % of the means, corrected where the means lie unevenly around the real
one (bias-corrected and accelerated).

Source: Efron, "Better Bootstrap Confidence Intervals", 1987.

>>> chances = np.linspace(0.1, 0.9, 24)
>>> print(mean(chances))
0.50 (0.41 to 0.60, n = 24)
>>> print(f"{paired(chances, chances / 2):.0%}")
25% (20% to 30%, n = 24)
"""

import dataclasses
import functools
import re
import statistics

import numpy as np

from mistral_lib.arrays import Array, Shaped

SHARE = 0.95
SAMPLES = 10_000
FEWEST = 8  # items: from fewer, drawing again says little about what else could have been drawn
JITTER = 1e-4  # by which a measured number may differ between machines
# Of Student's distribution, for the mean of 2, 3, ... independent runs: Student, 1908.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A measured number, and how far off it may be.

    Attributes:
        mean: the number.
        low: where its interval of 95 % begins.
        high: where it ends.
        n: how many items, or runs, it was measured on.
        unit: what was counted: "texts", which `n` alone stands for when printed, or "seeds".

    `format(estimate, ".2f")` and `f"{estimate:.0%}"` write all three numbers in the given form.
    """

    mean: float
    low: float
    high: float
    n: int
    unit: str = "texts"

    def __format__(self, spec: str) -> str:
        mean, low, high = self.written(spec)
        number = f"n = {self.n}" if self.unit == "texts" else f"{self.n} {self.unit}"
        return f"{mean} ({low} to {high}, {number})"

    def __str__(self) -> str:
        return format(self)

    def written(self, spec: str = "") -> list[str]:
        """Mean, low and high in a form such as ".2f", which is the default."""
        return [written(x, spec or ".2f") for x in (self.mean, self.low, self.high)]


def mean(values: Shaped[Array, " n"]) -> Estimate:
    """The mean over items, such as texts.

    Args:
        values: one number for each item; at least 8.

    Raises:
        ValueError: there are fewer, or a number is not finite.
    """
    values = _checked(values)
    return _estimate(values, np.ones(len(values)))


def paired(before: Shaped[Array, " n"], after: Shaped[Array, " n"]) -> Estimate:
    """The mean of the differences `before - after` of the same items."""
    return mean(_checked(before) - _checked(after))


def ratio(numerators: Shaped[Array, " n"], denominators: Shaped[Array, " n"]) -> Estimate:
    """A ratio of two sums over items, such as bits per byte over documents.

    Whole items are drawn again, each with its numerator and its denominator. The difference of two
    such ratios is the ratio of the differences: `ratio(bits_after - bits_before, bytes)`.

    >>> print(ratio(np.array([10.0, 30] * 6), np.array([10, 20] * 6)))
    1.33 (1.20 to 1.43, n = 12)
    """
    return _estimate(_checked(numerators), _checked(denominators))


def over_seeds(values: Shaped[Array, " n"]) -> Estimate:
    """The mean over runs that differ by their seed alone, two to ten of them.

    With so few, the interval is Student's, which is wide: it takes the runs for draws from a normal
    distribution. For the difference of two models give the differences, seed by seed.

    Raises:
        ValueError: there are too few runs or too many, or a number is not finite.

    >>> print(over_seeds(np.array([2.18, 2.21, 2.19])))
    2.19 (2.16 to 2.23, 3 seeds)
    """
    values = _checked(values, fewest=2)
    if len(values) > len(STUDENT) + 1:
        raise ValueError(
            f"over_seeds takes 2 to {len(STUDENT) + 1} runs, but there are {len(values)}: use mean."
        )
    half = STUDENT[len(values) - 2] * values.std(ddof=1) / len(values) ** 0.5
    middle = float(values.mean())
    return Estimate(middle, middle - float(half), middle + float(half), len(values), "seeds")


def steady(estimate: Estimate, spec: str = ".2f") -> Estimate:
    """The estimate itself, if every machine prints it in the same way.

    Machines add in different orders, so measured numbers differ in their last digits.

    Args:
        estimate: what is to be printed.
        spec: in which form, such as ".2f" or ".0%".

    Raises:
        ValueError: a printed digit would change if every item changed by 1e-4; the message names
            forms in which none does.
    """
    if _survives(estimate, spec):
        return estimate
    kind, digits = spec[-1], int(re.sub(r"\D", "", spec))
    others = [f".{d}{kind}" for d in (digits - 1, digits + 1) if d >= 0]
    good = [f"{other!r}" for other in others if _survives(estimate, other)]
    raise ValueError(
        f"{estimate!r} is not steady in the form {spec!r}: a digit changes if the number changes "
        f"by {JITTER:g}. Print it as {' or '.join(good) or 'a bound'}."
    )


def _survives(estimate, spec):
    numbers = estimate.mean, estimate.low, estimate.high
    return all(written(x - JITTER, spec) == written(x + JITTER, spec) for x in numbers)


def written(number: float, spec: str) -> str:
    """A number in some form; a zero has no sign, though it may come from a number that had one.

    >>> written(-0.001, ".2f"), written(-0.01, ".2f")
    ('0.00', '-0.01')
    """
    text = format(number, spec)
    return text.lstrip("-") if not re.search("[1-9]", text) else text


def _checked(values, fewest=FEWEST):
    values = np.asarray(values, "float64")
    if values.ndim != 1 or len(values) < fewest:
        raise ValueError(
            f"values must be one number for each of at least {fewest} items, but have the shape "
            f"{values.shape}."
        )
    if not np.isfinite(values).all():
        first = int(np.isfinite(values).argmin())
        raise ValueError(f"values must be finite, but number {first} is {values[first]}.")
    return values


def _estimate(numerators, denominators):
    drawn = _draws(len(numerators))  # (samples, n): how often each item is drawn
    found = drawn @ numerators / (drawn @ denominators)
    middle = numerators.sum() / denominators.sum()
    without = (numerators.sum() - numerators) / (denominators.sum() - denominators)
    low, high = np.quantile(found, _levels(found, middle, without))
    return Estimate(float(middle), float(low), float(high), len(numerators))


def _levels(found, middle, without):
    """Which of the sorted means begin and end the interval: 2.5 and 97.5 %, corrected.

    `without` holds what is left without each item in turn.
    """
    normal, tie = statistics.NormalDist(), 1e-9 * (1 + abs(middle))
    below = ((found < middle - tie).mean() + (found <= middle + tie).mean()) / 2  # ties count half
    bias = normal.inv_cdf(min(max(below, 1 / SAMPLES), 1 - 1 / SAMPLES))
    pull = without.mean() - without
    spread = (pull**2).sum()
    acceleration = (pull**3).sum() / (6 * spread**1.5) if spread > tie**2 else 0.0
    levels = []
    for level in ((1 - SHARE) / 2, (1 + SHARE) / 2):
        moved = bias + normal.inv_cdf(level)
        levels.append(normal.cdf(bias + moved / (1 - acceleration * moved)))
    return levels


@functools.cache
def _draws(n: int) -> np.ndarray:
    """How often each of n items is in each sample, the same in every version of NumPy."""
    picked = np.random.PCG64(0).random_raw((SAMPLES, n)) % n
    places = np.arange(SAMPLES)[:, None] * n + picked.astype("int64")
    return np.bincount(places.ravel(), minlength=SAMPLES * n).reshape(SAMPLES, n).astype("float64")
