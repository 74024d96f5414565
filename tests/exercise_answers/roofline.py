"""Answers to the exercises of chapter 19, "GPU runs"."""

import numpy as np

TIMES = [0.006, 0.007, 0.012, 0.02, 0.041, 0.08, 0.15, 0.3, 0.61]
EVEN = [0.001] * 8 + [0.0015]


def two_parts(rows, weights, weight_bytes, flops, cache_bytes, rate, bandwidth):
    products = max(2 * weights * rows / rate, weight_bytes / bandwidth)
    attention = max(rows * flops / rate, rows * cache_bytes / bandwidth)
    return products + attention


def by_conditions(rows, weights, weight_bytes, flops, cache_bytes, rate, bandwidth):
    total = weight_bytes / bandwidth
    if 2 * weights * rows / rate > total:
        total = 2 * weights * rows / rate
    for _ in range(rows):
        total += cache_bytes / bandwidth if cache_bytes * rate > flops * bandwidth else flops / rate
    return total


def sorted_parts(rows, weights, weight_bytes, flops, cache_bytes, rate, bandwidth):
    products = sorted([2 * weights * rows / rate, weight_bytes / bandwidth])[1]
    return products + rows * np.maximum(flops / rate, cache_bytes / bandwidth)


def one_roof(rows, weights, weight_bytes, flops, cache_bytes, rate, bandwidth):
    work = rows * (2 * weights + flops)
    return max(work / rate, (weight_bytes + rows * cache_bytes) / bandwidth)


def all_added(rows, weights, weight_bytes, flops, cache_bytes, rate, bandwidth):
    work = rows * (2 * weights + flops)
    return work / rate + (weight_bytes + rows * cache_bytes) / bandwidth


def once_more(rows, weights, weight_bytes, flops, cache_bytes, rate, bandwidth):
    return rows * two_parts(1, weights, weight_bytes, flops, cache_bytes, rate, bandwidth)


def one_cache(rows, weights, weight_bytes, flops, cache_bytes, rate, bandwidth):
    products = max(2 * weights * rows / rate, weight_bytes / bandwidth)
    return products + max(flops / rate, cache_bytes / bandwidth)


def no_cache(rows, weights, weight_bytes, flops, cache_bytes, rate, bandwidth):
    return max(2 * weights * rows / rate, weight_bytes / bandwidth)


def half_the_flops(rows, weights, weight_bytes, flops, cache_bytes, rate, bandwidth):
    return two_parts(rows, weights / 2, weight_bytes, flops, cache_bytes, rate, bandwidth)


def shorter(rows, weights, weight_bytes, flops, cache_bytes, rate, bandwidth):
    products = min(2 * weights * rows / rate, weight_bytes / bandwidth)
    return products + rows * min(flops / rate, cache_bytes / bandwidth)


ANSWERS = {
    "roofline.by_hand": (
        [
            (4, 200),
            (0.4, 20),
            (4, 4),
            (4.4, 24),
            (0.4, 4),
            (0.004, 0.02),
            (20, 4),
            (0.2, 10),
            24,
            4,
            "4 and 20",
            [4, 20, 24],
        ],
        [(4, 20), [4.0, 20.0], np.array([4, 20]), "4, 20", (max(0.4, 4), max(20, 4))],
    ),
    "roofline.step": (
        [
            one_roof,
            all_added,
            once_more,
            one_cache,
            no_cache,
            half_the_flops,
            shorter,
            lambda rows, weights: 2 * rows * weights,
            lambda *numbers: sum(numbers),
            "max",
        ],
        [two_parts, by_conditions, sorted_parts],
    ),
    "roofline.which": (
        [
            ((1.1, 1.8), "a"),
            ((1.1, 1.8), "c"),
            ((1.1, 1.2), "b"),
            ((1.9, 2.0), "b"),
            ((1.9, 2.0), "a"),
            ((0.004, 0.2), "b"),
            ((0.9, 0.5), "b"),
            ((1.1, 250.0), "b"),
            ((1.9, 1.1), "b"),
            ((-1.1, 1.8), "b"),
            ((1.1, 1.8), "d"),
            (1.1, "b"),
            "b",
        ],
        [
            ((1.1, 1.8), "b"),
            ([0.97, 2.1], "(B)"),
            (np.array([1.0, 1.1]), "a"),
            ((1.7, 1.9), "c"),
        ],
    ),
    "roofline.corner": (
        [
            (TIMES, "8"),
            (TIMES, 1024),
            (TIMES, 64),
            (TIMES, "never"),
            (EVEN, 32),
            ((400.0, 730, 1200, 1500, 1600, 1600, 1600, 1600, 1600), "8"),
            (TIMES[::-1], 32),
            (TIMES[:5], 16),
            ([0.0] * 9, 16),
            (TIMES, 12),
            (TIMES, "b"),
            16,
        ],
        [
            (TIMES, 16),
            (np.array(TIMES), "16"),
            ([1000 * seconds / 20 for seconds in TIMES], 16),
            (EVEN, "never"),
        ],
    ),
    "roofline.bug": (
        [5, 2, 3, 7, 4, 1, "line 5", "after the loop", 6.5, 0],
        [6, "6", "line 6", np.int64(6), 6.0],
    ),
}
