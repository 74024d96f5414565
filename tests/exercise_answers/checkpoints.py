"""Answers to the exercises of chapter 17, "Presets and checkpoints": today's checkpoints."""

import numpy as np

ANSWERS = {
    "checkpoints.fp8": (
        [-1.5, -0.75, 0.375, -0.25, -48, -3, 0.75, -(1 + 4 / 8) * 2**6, "minus three eighths", 1.5],
        [-0.375, "-3/8", -(1 + 4 / 8) / 2 * 0.5, np.float16(-0.375), "-0.375", [-0.375]],
    ),
    "checkpoints.shortest": (
        [12, 24, 25, 1, 2, 11, 14, 36, "thirteen", 0],
        [13, "13", 12 + 1, np.int64(13), 13.0, [13]],
    ),
}
