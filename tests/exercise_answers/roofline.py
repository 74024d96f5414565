"""Answers to the exercises of chapter 19, "GPU runs"."""

import numpy as np

from mistral_lib.teaching.facts import MISTRAL_7B


def longer_one(flops, size, rate, bandwidth):
    arithmetic = flops / rate
    reading = size / bandwidth
    return arithmetic if arithmetic > reading else reading


def by_the_corner(flops, size, rate, bandwidth):
    intensity = flops / size
    return flops / rate if intensity > rate / bandwidth else size / bandwidth


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
    "roofline.least": (
        [
            lambda flops, size, rate, bandwidth: flops / rate + size / bandwidth,
            lambda flops, size, rate, bandwidth: min(flops / rate, size / bandwidth),
            lambda flops, size, rate, bandwidth: flops / rate,
            lambda flops, size, rate, bandwidth: size / bandwidth,
            lambda flops, size, rate, bandwidth: max(rate / flops, bandwidth / size),
            lambda flops, size, rate, bandwidth: max(flops / bandwidth, size / rate),
            lambda flops, size, rate, bandwidth: (flops / rate + size / bandwidth) / 2,
            lambda flops, size, rate, bandwidth: 1000 * max(flops / rate, size / bandwidth),
            lambda flops, size, rate, bandwidth: max(flops, size) / max(rate, bandwidth),
            lambda flops, size, rate, bandwidth: (flops / rate, size / bandwidth),
            lambda flops, rate: flops / rate,
        ],
        [
            longer_one,
            by_the_corner,
            lambda flops, size, rate, bandwidth: max(flops / rate, size / bandwidth),
            lambda flops, size, rate, bandwidth: np.maximum(flops / rate, size / bandwidth),
            lambda flops, size, rate, bandwidth: sorted([flops / rate, size / bandwidth])[1],
        ],
    ),
    "roofline.loop": (
        [30, 20, 640, 960, 32, 600, 970, 50 * 32, "thirty", 10],
        [650, "650", 10 + 32 * 20, 650.0, np.int64(650)],
    ),
    "roofline.batch": (
        [406, 102, 812, 25, 65_000, 0.2, 320, 65, "many", 1],
        [203, 200, 65e12 / 320e9, "203 texts", 203.125, np.int64(203)],
    ),
    "roofline.fastest": (
        [4000, 4488, 22.7, 43, 11.6, 86_486, 0.0864, 320 * 3.7, "ninety-nine", 12],
        [86, 86.5, "86", 320 / 3.7, 90, np.float32(86.49)],
    ),
    "roofline.cache": (
        [
            14.5e9 / (64 * 1024),
            27_656,
            4096,
            14.5e9 / (4 * 1024),
            110,
            14.5e9 / 128,
            14.5 / 128,
            MISTRAL_7B / 128,
            "soon",
            32_768,
        ],
        [110_000, 110_626, "111,000", 14.5e9 / (128 * 1024), "110 thousand", 113_000],
    ),
    "roofline.bug": (
        [5, 2, 3, 7, 4, 1, "line 5", "after the loop", 6.5, 0],
        [6, "6", "line 6", np.int64(6), 6.0],
    ),
}
