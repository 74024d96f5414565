"""Answers to the exercises of chapter 17, "Presets and checkpoints": today's checkpoints."""

import numpy as np

TOKEN = 2 * 2 * 8 * 128

ANSWERS = {
    "checkpoints.cache": (
        [
            4.5,
            36 * TOKEN * 131_072 / 2**30,
            18,
            TOKEN * (9 * 131_072 + 27 * 32_768) / 2**31,
            4 * 7.875,
            8.456,
            7.875 * 1024,
            TOKEN * 9 * 131_072 / 2**30,
            "eight MiB",
            2,
        ],
        [7.875, 7.9, "7.88 GiB", TOKEN * (9 * 131_072 + 27 * 32_768) / 2**30, 8, np.float32(7.875)],
    ),
    "checkpoints.fp8": (
        [-1.5, -0.75, 0.375, -0.25, -48, -3, 0.75, -(1 + 4 / 8) * 2**6, "minus three eighths", 1.5],
        [-0.375, "-3/8", -(1 + 4 / 8) / 2 * 0.5, np.float16(-0.375), "-0.375", [-0.375]],
    ),
    "checkpoints.shortest": (
        [12, 24, 25, 1, 2, 11, 14, 36, "thirteen", 0],
        [13, "13", 12 + 1, np.int64(13), 13.0, [13]],
    ),
}
