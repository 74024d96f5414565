"""The exercises of chapter 10, "SwiGLU"."""

from __future__ import annotations

import numpy as np

from mistral_lib.teaching.exercises.kinds import Estimate, Explanation, Function, Value
from mistral_lib.teaching.facts import MISTRAL_7B

BLOCK_7B = 3 * 4096 * 14336


def _sigmoid(z):
    return 1 / (1 + np.exp(-np.asarray(z, float)))


def _silu(z):
    return z * _sigmoid(z)


def _layers():
    """Hidden states (S, D) and the kernels gate, up and down; D = F, so that a mix-up runs."""
    yield tuple(np.array([[number]]) for number in (1.0, 2.0, 3.0, 4.0))
    up, down = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [2.0, 1.0]])
    yield np.array([[1.0, 2.0]]), np.eye(2), up, down
    random = np.random.default_rng(12)
    for tokens, size in ((2, 2), (3, 4)):
        x = random.integers(-2, 3, (tokens, size)).astype(float)
        yield x, *random.integers(-2, 3, (3, size, size)).astype(float)


def _feed_forward(x, gate, up, down):
    return (_silu(x @ gate) * (x @ up)) @ down


def _points():
    """Numbers at which a derivative is asked for: one, then several."""
    yield (np.array([0.0]),)
    yield (np.array([2.0]),)
    yield (np.linspace(-5, 5, 11),)


def _derivative(z):
    s = _sigmoid(z)
    return s * (1 + z * (1 - s))


EXERCISES = [
    Value(
        name="feedforward.by_hand",
        kind="trace by hand",
        minutes=3,
        difficulty=1,
        solution=15,
        mistakes=(
            (-25, "the first gate is 0, so its unit passes nothing on, whatever `up` says."),
            (19, "gate and up are multiplied, not added."),
            (10, "that is the sum of the opened gates; each is multiplied by its `up`."),
            (30, "that is the product before `down`, whose second row is 0.5."),
        ),
        hints=(
            "Unit by unit: open the gate, multiply by up, then weigh with down.",
            "The gates open to 0 and 10, and `up` says -8 and 3.",
            "(0 * -8) * 5 + (10 * 3) * 0.5",
        ),
    ),
    Function(
        name="feedforward.derivative",
        kind="missing lines",
        minutes=6,
        difficulty=2,
        solution=_derivative,
        cases=_points,
        mistakes={
            "is the sigmoid: the factor z in silu moves, too.": _sigmoid,
            "lacks a term: the product rule has two.": (
                lambda z: z * _sigmoid(z) * (1 - _sigmoid(z))
            ),
            "is silu itself.": _silu,
            "is the derivative of relu.": lambda z: (np.asarray(z) > 0).astype(float),
        },
        hints=(
            "silu is a product, z times the sigmoid of z.",
            "The sigmoid s has the derivative s (1 - s). Then the product rule.",
            "s + z * s * (1 - s)",
        ),
    ),
    Function(
        name="feedforward.write",
        kind="missing lines",
        minutes=4,
        difficulty=1,
        solution=_feed_forward,
        cases=_layers,
        mistakes={
            "opens the wrong branch: silu belongs to gate, and up is left as it is.": (
                lambda x, gate, up, down: (_silu(x @ up) * (x @ gate)) @ down
            ),
            "gates with the sigmoid: that is GLU. silu is z times the sigmoid.": (
                lambda x, gate, up, down: (_sigmoid(x @ gate) * (x @ up)) @ down
            ),
            "gates with relu: silu does not stop at zero.": (
                lambda x, gate, up, down: (np.maximum(x @ gate, 0) * (x @ up)) @ down
            ),
            "puts silu around the product: only the gate is opened.": (
                lambda x, gate, up, down: _silu((x @ gate) * (x @ up)) @ down
            ),
            "adds the branches: a gate multiplies.": (
                lambda x, gate, up, down: (_silu(x @ gate) + x @ up) @ down
            ),
            "does not project down.": lambda x, gate, up, down: _silu(x @ gate) * (x @ up),
        },
        hints=(
            "Two projections of the same x, multiplied number by number, then a third.",
            "silu goes around x @ gate alone; * and @ bind equally strongly, so use brackets.",
            "(silu(x @ gate) * (x @ up)) @ down",
        ),
    ),
    Function(
        name="feedforward.bug",
        kind="find the bug",
        minutes=4,
        difficulty=2,
        solution=_feed_forward,
        cases=_layers,
        mistakes={
            "is the function as it was: look at what `opened * x @ up` multiplies first.": (
                lambda x, gate, up, down: (_silu(x @ gate) * x) @ up @ down
            ),
            "puts the brackets around the wrong pair: x meets up first.": (
                lambda x, gate, up, down: _silu(x @ gate) @ up * x @ down
            ),
            "opens up instead of gate: that was right already.": (
                lambda x, gate, up, down: (_silu(x @ up) * (x @ gate)) @ down
            ),
        },
        hints=(
            "In Python * and @ have the same rank, and such chains are read from the left.",
            "`opened * x @ up` is `(opened * x) @ up`. With D = F nothing complains.",
            "hidden = opened * (x @ up)",
        ),
    ),
    Estimate(
        name="feedforward.share",
        kind="estimate",
        minutes=3,
        difficulty=1,
        solution=100 * 32 * BLOCK_7B / MISTRAL_7B,
        factor=1.05,
        unit="per cent",
        mistakes=(
            (200 / 3 * 32 * BLOCK_7B / MISTRAL_7B, "two matrices counted? There are three."),
            (100 * BLOCK_7B / MISTRAL_7B, "that is one block. There are 32."),
            (32 * BLOCK_7B / MISTRAL_7B, "that is the fraction; per cent are asked for."),
        ),
        hints=(
            "Count the numbers in three matrices, times the blocks.",
            "A block has 3 times 4,096 times 14,336 of them, 176 million.",
            "100 * 32 * 3 * 4096 * 14336 / 7.24e9",
        ),
    ),
    Estimate(
        name="feedforward.width",
        kind="estimate",
        minutes=3,
        difficulty=2,
        solution=8 / 3 * 4096,
        factor=1.03,
        unit="units",
        mistakes=(
            (4 * 4096, "with three matrices that would be half as many numbers again."),
            (2 * 4096, "a third is too much to take away: three F are to equal two times 4 D."),
            (4096 / 3, "that makes the three matrices as large as one of D times D."),
        ),
        hints=(
            "Write the number of parameters of both layers and set them equal.",
            "2 times D times 4 D on one side, 3 times D times F on the other.",
            "8 / 3 * 4096",
        ),
    ),
    Estimate(
        name="feedforward.flops",
        kind="estimate",
        minutes=3,
        difficulty=2,
        solution=2 * 32 * BLOCK_7B / 1e9,
        factor=1.1,
        unit="billion FLOPs",
        mistakes=(
            (32 * BLOCK_7B / 1e9, "that counts multiplications; each comes with an addition."),
            (2 * BLOCK_7B / 1e9, "that is one block of 32."),
            (2 * MISTRAL_7B / 1e9, "that is the whole model with its embedding."),
        ),
        hints=(
            "Every weight meets the token once: how many FLOPs is that?",
            "32 blocks of 176 million weights, and two FLOPs for each.",
            "2 * 32 * 3 * 4096 * 14336 / 1e9",
        ),
    ),
    Value(
        name="feedforward.library",
        kind="read the library",
        minutes=3,
        difficulty=2,
        solution="gate",
        mistakes=(
            ("up", "`up` stays in the compute dtype. What does silu read?"),
            ("down", "projections run in the compute dtype. What does silu read?"),
            ("all", "look at what is turned into float32 before silu: one of them."),
        ),
        hints=(
            "An exponential needs digits; a product of two numbers does not.",
            'Find the word "float32" in the listing, and what stands in its brackets.',
            '"gate"',
        ),
    ),
    Explanation(
        name="feedforward.explain",
        kind="explain",
        minutes=5,
        difficulty=2,
        points=(
            "a negative gate gives a small number, not zero: silu has a dip",
            "with relu in its place the zeros are exact, and the model reads worse",
            "most units are small for a given token, but other units for other tokens",
            "which units are small is known only after gate and up were computed",
        ),
        hints=(
            "What is silu of -1?",
            "Compare the cross with the curve in the figure of kept units.",
            "Say what happens to the bits per byte, and which of the three products is saved.",
        ),
    ),
]
