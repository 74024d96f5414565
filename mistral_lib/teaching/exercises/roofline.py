"""The exercises of chapter 19, "GPU runs"."""

from __future__ import annotations

import numpy as np

from mistral_lib.teaching.exercises.kinds import (
    Explanation,
    Function,
    Timing,
    Value,
)

ROWS = tuple(4 * 2**power for power in range(9))  # 4 to 1,024
LONGER = 1.5  # times: from there on twice the rows are said to take longer


def _works():
    """Rows, weights and their bytes, FLOPs and bytes of one cache, FLOPs and bytes a second."""
    yield 1, 2, 8, 4, 4, 4, 2
    yield 3, 2, 8, 4, 4, 4, 2
    yield 3, 8, 8, 2, 4, 4, 2
    yield 2, 8, 8, 16, 4, 4, 2
    yield 32, 7.1e9, 3.7e9, 2.1e9, 0.54e9, 65e12, 320e9


def _step(rows, weights, weight_bytes, flops, cache_bytes, rate, bandwidth):
    products = max(2 * weights * rows / rate, weight_bytes / bandwidth)
    return products + rows * max(flops / rate, cache_bytes / bandwidth)


def _bound(ratios: np.ndarray) -> str | None:
    """Which of two products took longer for twice the rows: neither, the larger, or both."""
    small, large = (ratios > LONGER).tolist()
    if not ((ratios > 0.6) & (ratios < 6)).all() or (small and not large):
        return None
    return "abc"[small + large]


def _doubled(seconds: np.ndarray) -> str | None:
    """The number of rows that first takes twice the time of the fewest."""
    if not ((seconds > 0) & (seconds < 60)).all() or seconds[-1] < 0.5 * seconds[0]:
        return None
    twice = np.flatnonzero(seconds >= 2 * seconds[0])
    return str(ROWS[twice[0]]) if len(twice) else "never"


EXERCISES = [
    Value(
        name="roofline.by_hand",
        kind="trace by hand",
        minutes=4,
        difficulty=1,
        solution=(4, 20),
        unit="ms",
        mistakes=(
            ((0.4, 20), "one vector: 4 MB at 1 GB a second are 4 ms, and that takes longer."),
            ((4, 4), "fifty vectors need 50 times the arithmetic: 100 million FLOPs."),
            ((4.4, 24), "both happen at the same time: the longer one counts, not the sum."),
            ((4, 200), "the matrix is read once for all 50 vectors."),
            ((0.4, 4), "those are the shorter ones of each pair. The slower part decides."),
        ),
        hints=(
            "Compute two times for each product: for the arithmetic, and for reading the matrix.",
            "One vector: 2 million FLOPs and 4 MB. Fifty vectors: 100 million FLOPs and 4 MB.",
            "For each product, divide its FLOPs by FLOPs a second and its bytes by bytes a second, "
            "and keep the longer time.",
        ),
    ),
    Function(
        name="roofline.step",
        kind="missing lines",
        minutes=6,
        difficulty=2,
        solution=_step,
        cases=_works,
        mistakes={
            "adds what goes on at the same time: in each part the longer time counts.": (
                lambda rows, weights, weight_bytes, flops, cache_bytes, rate, bandwidth: (
                    2 * weights * rows / rate
                    + weight_bytes / bandwidth
                    + rows * (flops / rate + cache_bytes / bandwidth)
                )
            ),
            "lets attention overlap with the products, but it waits for them.": (
                lambda rows, weights, weight_bytes, flops, cache_bytes, rate, bandwidth: max(
                    (2 * weights * rows + rows * flops) / rate,
                    (weight_bytes + rows * cache_bytes) / bandwidth,
                )
            ),
            "reads the weights again for each row: they are read once for all.": (
                lambda rows, weights, weight_bytes, flops, cache_bytes, rate, bandwidth: _step(
                    rows, weights, rows * weight_bytes, flops, cache_bytes, rate, bandwidth
                )
            ),
            "reads one cache for all rows: each row has its own.": (
                lambda rows, weights, weight_bytes, flops, cache_bytes, rate, bandwidth: (
                    _step(rows, weights, weight_bytes, 0, 0, rate, bandwidth)
                    + max(flops / rate, cache_bytes / bandwidth)
                )
            ),
            "leaves the caches out.": (
                lambda rows, weights, weight_bytes, flops, cache_bytes, rate, bandwidth: _step(
                    rows, weights, weight_bytes, 0, 0, rate, bandwidth
                )
            ),
            "counts one FLOP for each weight: a multiplication and an addition are two.": (
                lambda rows, weights, weight_bytes, flops, cache_bytes, rate, bandwidth: _step(
                    rows, weights / 2, weight_bytes, flops, cache_bytes, rate, bandwidth
                )
            ),
        },
        hints=(
            "Which bytes serve all rows, and which serve one row alone?",
            "One part is made of products with weights, the other of attention. In each of them "
            "compare two times.",
            "Write two calls of max, and multiply one of them by rows.",
        ),
    ),
    Timing(
        name="roofline.which",
        kind="run an experiment",
        minutes=8,
        difficulty=2,
        solution=((1.1, 1.8), "b"),
        another=((1.0, 1.1), "a"),
        concludes=_bound,
        doubt="twice the rows cannot take less time, nor can a small product lose more time by "
        "them than a large one. Measure again, with more repetitions.",
        claims={
            "a": "both products are memory-bound.",
            "b": "the small product is memory-bound, and the large one is compute-bound.",
            "c": "both products are compute-bound.",
        },
        refusals={
            "a": "one of your ratios is above 1.5, and more arithmetic would not cost a "
            "memory-bound product that much.",
            "b": "look on which side of 1.5 each of your ratios is.",
            "c": "one of your ratios is below 1.5, so there twice the arithmetic was nearly free.",
        },
        others=(
            ((0.004, 0.2), "those are seconds. How many times as long did twice the rows take?"),
            ((0.9, 0.5), "that is the short time divided by the long one. Turn it round."),
            ((1.1, 250.0), "compare 1,024 rows with 512, not with 4."),
        ),
        hints=(
            "If the matrix has to be read anyway, what do more rows cost?",
            "timed(4, 8, 512, 1024) returns a dictionary with the seconds of each number of rows.",
            "Divide the seconds of 8 rows by those of 4, and compare the ratio with 1.5.",
        ),
    ),
    Timing(
        name="roofline.corner",
        kind="run an experiment",
        minutes=8,
        difficulty=2,
        solution=((0.01, 0.011, 0.013, 0.021, 0.04, 0.08, 0.16, 0.32, 0.64), "32"),
        another=((0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.0015), "never"),
        concludes=_doubled,
        doubt="those cannot be the seconds of 4, 8, 16 and so on up to 1,024 rows.",
        claims={str(rows): f"from {rows} rows on, arithmetic takes the time." for rows in ROWS[1:]}
        | {"never": "to this device even 1,024 rows are few."},
        refusals={
            str(rows): f"the first of your times that is at least twice that of 4 rows is not the "
            f"one of {rows} rows."
            for rows in ROWS[1:]
        }
        | {"never": "one of your times is at least twice that of 4 rows."},
        others=(
            ((400.0, 730, 1200, 1500, 1600, 1600, 1600, 1600, 1600), "those are rows a second."),
            ((0.64, 0.32, 0.16, 0.08, 0.04, 0.021, 0.013, 0.011, 0.01), "begin with 4 rows."),
        ),
        hints=(
            "A memory-bound product takes the time of its bytes. When does that stop?",
            "Time the numbers of rows in ROWS, and make a list of the seconds in their order.",
            "Go through the list until a time is at least twice the first.",
        ),
    ),
    Value(
        name="roofline.bug",
        kind="find the bug",
        minutes=4,
        difficulty=2,
        solution=6,
        mistakes=(
            (2, "nothing has been computed before that line."),
            (
                3,
                "that keeps the first call out of the timing, and does no harm. But the others "
                "still run on when the clock is read.",
            ),
            (1, "nothing has been computed before that line."),
            (4, "nothing is at work before that line but the first call, and that is not timed."),
            (5, "there every call would wait for the one before: with a GPU, a gap each time."),
            (7, "then the clock has been read already."),
        ),
        hints=(
            "What has happened when a call of a compiled function returns?",
            "The calls return at once; the device is still at work when the clock is read.",
            "jax.block_until_ready waits for work that was handed over before. When has all of it "
            "been handed over?",
        ),
    ),
    Explanation(
        name="roofline.explain",
        kind="explain",
        minutes=5,
        difficulty=2,
        points=(
            "One token reads all weights once and does two FLOPs with each: the arithmetic units "
            "mostly wait.",
            "So for one text the bandwidth decides, and the second GPU is hardly faster.",
            "Reading prompts and training have many tokens for each weight: there it is twice as "
            "fast.",
            "Fewer bytes help one text: smaller weights, a shorter cache.",
        ),
        hints=(
            "Which of the two limits does writing one token run into?",
            "Mark the points of the figure on the left, and move the flat part of the roof up.",
            "Say for which work twice the FLOPs are twice the speed.",
        ),
    ),
]
