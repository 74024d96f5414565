"""The exercises of chapter 10, "SwiGLU"."""

from __future__ import annotations

import numpy as np

from mistral_lib.teaching.exercises.kinds import Experiment, Function, Value


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
            "The products are 0 * -8 and 10 * 3. Which row of `down` belongs to which?",
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
            "The first term is s. The second is z times a derivative that you know.",
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
            "multiplies by x before `up` does: * and @ have the same rank, so use brackets.": (
                lambda x, gate, up, down: (_silu(x @ gate) * x) @ up @ down
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
            "silu goes around x @ gate alone. In Python * and @ have the same rank.",
            "Begin with opened = silu(x @ gate) and value = x @ up.",
        ),
    ),
    Experiment(
        name="feedforward.search",
        kind="run an experiment",
        minutes=10,
        difficulty=3,
        solution=((0.62, 0.50), "b"),
        within=0.006,
        claims={
            "a": "this unit recognises the drawn tokens, though we cannot say by what.",
            "b": "among so many units some fit by luck, and in other texts they are no better than "
            "chance.",
            "c": "then the units that fit full stops and line feeds were found by luck, too.",
        },
        refusals={
            "a": "then it would separate them in the other half, too.",
            "c": "those were quoted from texts in which nobody had searched, and held there.",
        },
        others=(
            ((0.50, 0.62), "the half in which you searched comes first."),
            ((0.62, 0.62), "that is the same half twice. Quote the other one."),
            ((0.60, 0.60), "you searched in the half that is to be quoted."),
            ((1.0, 1.0), "that is the full stop. Take `by_lot`."),
        ),
        hints=(
            "A search among 3,072 units is a lottery with 3,072 tickets.",
            "by_lot(searched) and by_lot(documents) are lists of bool arrays, as `separations` "
            "takes them.",
            "best_unit returns the block, the unit and what it found. Which half have you not "
            "asked yet?",
        ),
    ),
    Experiment(
        name="feedforward.choose",
        kind="run an experiment",
        minutes=10,
        difficulty=2,
        solution=((0.035, 0.047, 0.012), "b"),
        within=0.002,
        claims={
            "a": "the gate decides which units matter, so `up` need not be computed to choose "
            "them.",
            "b": "neither factor chooses as well as their product, which needs both matrices.",
            "c": "`up` decides which units matter, because the gate does no more than open and "
            "shut.",
        },
        refusals={
            "a": "then the first number would be as small as the third.",
            "c": "then the second number would be as small as the third.",
        },
        others=(
            ((0.047, 0.035, 0.012), "the order is gate, up, product."),
            (
                (0.051, 0.047, 0.012),
                "the first run kept the largest opened gates, with their signs. Compare sizes.",
            ),
            ((0.076, 0.151, 0.040), "that is a tenth of the products. Keep a quarter, 128 of 512."),
            ((0.014, 0.009, 0.002), "that is half of the products. Keep a quarter, 128 of 512."),
            ((1.39, 1.41, 1.37), "those are prices. By how much are they above the model's own?"),
        ),
        hints=(
            "All three runs keep 128 products as they are. They differ in how they choose them.",
            "Write a network that keeps the products that largest(sizes, 128) marks. Only the "
            "sizes differ between the runs.",
            "With opened = jax.nn.silu(x @ gate) the first run compares abs(opened), the second "
            "abs(x @ up). What does the third compare?",
        ),
    ),
]
