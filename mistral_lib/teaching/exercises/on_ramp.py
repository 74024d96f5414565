"""The exercises of the on-ramp: shapes, einsum, Keras, JAX, and what bits can say."""

from __future__ import annotations

import numpy as np

from mistral_lib.teaching.exercises.kinds import Estimate, Function, Value


def _projections():
    """Hidden states (B, S, D) and kernels (D, H, h): small ones first, then of several sizes."""
    yield np.array([[[1.0, 2.0]]]), np.array([[[1.0]], [[10.0]]])
    yield np.array([[[1.0], [2.0]]]), np.array([[[1.0], [10.0], [100.0]]])
    yield np.array([[[1.0, 0.0], [0.0, 1.0]]]), np.array([[[1.0], [2.0]], [[3.0], [4.0]]])
    random = np.random.default_rng(0)
    for B, S, D, H, h in ((2, 2, 2, 2, 2), (2, 4, 3, 3, 2)):
        shapes = (B, S, D), (D, H, h)
        yield tuple(random.integers(-3, 4, shape).astype(float) for shape in shapes)


def _heads(x, kernel):
    return np.einsum("bsd,dnh->bnsh", x, kernel)


def _tokens_first(x, kernel):
    return np.einsum("bsd,dnh->bsnh", x, kernel)


def _reshaped(x, kernel):
    D, H, h = kernel.shape
    return (x @ kernel.reshape(D, H * h)).reshape(len(x), H, x.shape[1], h)


EXERCISES = [
    Value(
        name="on_ramp.shape",
        kind="trace by hand",
        minutes=3,
        difficulty=1,
        solution=[2, 2, 3, 5, 7],
        mistakes=(
            ([2, 5, 2, 3, 7], "the order is that after the arrow: b, k, g, s, t."),
            ([2, 2, 3, 5, 4], "h is in both inputs and not in the output, so it is summed over."),
            ([2, 2, 3, 5], "there are five letters after the arrow."),
            ([2, 2, 3, 5, 5], "the keys have 7 places, and theirs is the letter t."),
        ),
        hints=(
            "Each letter is a size. Which letters come after the arrow?",
            "b = 2, k = 2, g = 3, s = 5 from the queries; t = 7 from the keys.",
            "Write a list of five sizes, one for each letter after the arrow.",
        ),
    ),
    Function(
        name="on_ramp.einsum",
        kind="missing lines",
        minutes=4,
        difficulty=2,
        solution=_heads,
        cases=_projections,
        mistakes={
            "is (B, S, H, h): the heads must come before the tokens.": _tokens_first,
            "mixes tokens and heads: a reshape moves no axis past another.": _reshaped,
        },
        hints=(
            "Give every axis a letter, and the two axes that are multiplied the same one.",
            "x is bsd, the kernel dnh. In which order should b, s, n and h come?",
            'np.einsum("bsd,dnh->...", x, kernel): after the arrow comes the order of the result.',
        ),
    ),
    Estimate(
        name="on_ramp.bytes",
        kind="estimate",
        minutes=2,
        difficulty=1,
        solution=8 * 4096 * 4096 * 2 / 2**20,
        factor=1.1,
        unit="MiB",
        mistakes=(
            (8 * 4096 * 4096 * 4 / 2**20, "that is float32: bfloat16 has two bytes."),
            (4096 * 4096 * 2 / 2**20, "that is one text. There are eight."),
            (8 * 4096 * 4096 / 2**20, "that is one byte a number. It has 16 bits."),
        ),
        hints=(
            "How many numbers are in an array (B, S, D), and how many bytes has each?",
            "8 times 4,096 times 4,096 numbers of two bytes; a MiB is 2 ** 20 bytes.",
            "Count the numbers of all eight texts first, then turn them into bytes.",
        ),
    ),
    Estimate(
        name="on_ramp.kernel",
        kind="estimate",
        minutes=2,
        difficulty=1,
        solution=4096 * 14_336 / 1e6,
        factor=1.1,
        unit="million weights",
        mistakes=(
            (3 * 4096 * 14_336 / 1e6, "that is the whole network. One kernel is asked for."),
            ((4096 + 14_336) / 1e6, "those are the sizes added. A kernel has rows times columns."),
            (4096 * 4096 / 1e6, "that is a kernel from D to D."),
        ),
        hints=(
            "A kernel has a number for every pair of an input and an output.",
            "4,096 inputs, 14,336 outputs.",
            "Every input is paired with every output. Divide by 1e6 to count in millions.",
        ),
    ),
    Value(
        name="on_ramp.jit",
        kind="predict, then run",
        minutes=4,
        difficulty=2,
        solution=[6, 6, 30],
        mistakes=(
            ([6, 30, 30], "the second call finds the program of the first, with the 2 in it."),
            ([6, 6, 6], "3.0 is a float: for another dtype the function is read again."),
            ([6, 30, 6], "it is the other way round: which of the calls reads the function again?"),
        ),
        hints=(
            "When does JAX read your Python, and when does it run a program that it has already?",
            "3 and 3 have the same shape and dtype. And 3.0?",
            "The first two calls run the same program. Which factor does JAX see when it reads the "
            "function again?",
        ),
    ),
    Value(
        name="on_ramp.rounding",
        kind="trace by hand",
        minutes=4,
        difficulty=2,
        solution=1004,
        mistakes=(
            (1003, "that takes ten binary digits, 1111101011, and bfloat16 has eight."),
            (1000, "it is the other neighbour. Which of the two is nearer?"),
            (1002, "that takes nine binary digits. The neighbours are 4 apart."),
            (1008, "the neighbours are 4 apart there, not 8."),
            (1024, "between 512 and 1,024 there are 128 numbers."),
        ),
        hints=(
            "With eight digits, how far apart are neighbours from 512 to 1,024?",
            "512 / 128 = 4. Which multiple of 4 is nearest?",
            "Between which two multiples of 4 does 1,003 lie?",
        ),
    ),
]
