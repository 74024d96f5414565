"""Estimates: the intervals of SciPy, printed digits that hold everywhere."""

import numpy as np
import pytest
from scipy import stats

from mistral_lib.teaching import estimates
from mistral_lib.teaching.estimates import Estimate, mean, over_seeds, paired, ratio, steady

RANDOM = np.random.default_rng(0)
DRAWN = {
    "even": RANDOM.normal(size=36),
    "uneven": np.exp(RANDOM.normal(-3, 1.5, 36)),
    "yes or no": (RANDOM.random(36) < 0.2).astype(float),
}


def by_scipy(values, statistic, **options):
    """The interval of another program, with other random numbers."""
    found = stats.bootstrap(values, statistic, n_resamples=20_000, random_state=1, **options)
    return found.confidence_interval


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWN)
def test_the_interval_of_a_mean_is_scipys(name):
    values = DRAWN[name]
    found, expected = mean(values), by_scipy((values,), np.mean)
    width = expected.high - expected.low
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(expected.low, abs=0.05 * width)
    assert found.high == pytest.approx(expected.high, abs=0.05 * width)
    assert found.n == 36


@pytest.mark.slow
def test_the_interval_of_a_ratio_is_scipys():
    bits, sizes = RANDOM.random(20) * 10 + np.arange(20), np.arange(20) + 5

    def of_sums(one, other, axis=-1):
        return one.sum(axis=axis) / other.sum(axis=axis)

    found, expected = ratio(bits, sizes), by_scipy((bits, sizes), of_sums, paired=True)
    width = expected.high - expected.low
    assert found.mean == pytest.approx(bits.sum() / sizes.sum())
    assert found.low == pytest.approx(expected.low, abs=0.05 * width)
    assert found.high == pytest.approx(expected.high, abs=0.05 * width)


def test_a_constant_has_no_width():
    found = mean(np.full(12, 0.3))
    assert found.low == pytest.approx(0.3) == found.high


def test_paired_differences_are_narrower_than_two_means():
    hard = np.linspace(0, 1, 30)
    easy = hard - 0.1 + 0.01 * np.cos(np.arange(30))
    found = paired(hard, easy)
    assert 0.09 < found.low < 0.1 < found.high < 0.11
    assert mean(hard).low < mean(easy).high


def test_the_same_numbers_are_drawn_every_time():
    assert mean(DRAWN["uneven"]) == mean(DRAWN["uneven"])
    drawn = estimates._draws(5)
    assert (drawn.sum(axis=1) == 5).all()
    assert drawn[:2].tolist() == [[0.0, 2.0, 1.0, 1.0, 1.0], [0.0, 1.0, 2.0, 1.0, 1.0]]


@pytest.mark.slow
def test_most_intervals_hold_the_truth():
    random = np.random.default_rng(2)
    held = 0
    for _ in range(300):
        found = mean(random.beta(0.5, 2, 36))
        held += found.low <= 0.2 <= found.high
    assert 0.9 < held / 300 < 0.98


@pytest.mark.parametrize("runs", range(2, 11))
def test_the_interval_over_seeds_is_students(runs):
    values = np.random.default_rng(runs).normal(size=runs)
    low, high = stats.t.interval(0.95, runs - 1, values.mean(), stats.sem(values))
    found = over_seeds(values)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-3 * (high - low))
    assert (found.n, found.unit) == (runs, "seeds")


@pytest.mark.parametrize("runs", [1, 11])
def test_too_few_or_too_many_seeds_are_refused(runs):
    with pytest.raises(ValueError, match=r"2 to 10 runs|at least 2 items"):
        over_seeds(np.ones(runs))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones(7), r"each of at least 8 items, but have the shape \(7,\)"),
        (np.array([1.0] * 8 + [np.nan]), "finite, but number 8 is nan"),
    ],
)
def test_values_that_are_no_items_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        mean(values)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", "0.36 (0.29 to 0.43, n = 24)"),
        (".3f", "0.360 (0.290 to 0.430, n = 24)"),
        (".0%", "36% (29% to 43%, n = 24)"),
    ],
)
def test_an_estimate_is_printed_with_interval_and_n(spec, expected):
    assert format(Estimate(0.36, 0.29, 0.43, 24), spec) == expected


def test_seeds_are_called_seeds():
    assert str(Estimate(2.18, 2.16, 2.21, 3, "seeds")) == "2.18 (2.16 to 2.21, 3 seeds)"


def test_a_zero_has_no_sign():
    assert str(Estimate(-0.001, -0.02, 0.004, 20)) == "0.00 (-0.02 to 0.00, n = 20)"


def test_a_steady_estimate_is_given_back():
    estimate = Estimate(0.3613, 0.2921, 0.4333, 24)
    assert steady(estimate) is estimate


@pytest.mark.parametrize("number", ["mean", "low", "high"])
def test_a_digit_that_another_machine_may_print_otherwise_is_refused(number):
    numbers = {"mean": 0.361, "low": 0.292, "high": 0.433, number: 0.36505}
    estimate = Estimate(**numbers, n=24)
    with pytest.raises(ValueError, match=r"not steady in the form '.2f'.*Print it as '.1f'"):
        steady(estimate)
    assert steady(estimate, ".1f") is estimate


def test_a_percentage_is_steady_to_a_hundredth():
    assert steady(Estimate(0.361, 0.292, 0.433, 24), ".0%")
    with pytest.raises(ValueError, match=r"Print it as '.1%'"):
        steady(Estimate(0.36503, 0.292, 0.433, 24), ".0%")
