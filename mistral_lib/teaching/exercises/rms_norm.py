"""The exercises of chapter 9, "RMSNorm"."""

from __future__ import annotations

import numpy as np

from mistral_lib.teaching.exercises.answers import numbers
from mistral_lib.teaching.exercises.kinds import (
    BreakingInput,
    Experiment,
    Function,
    Value,
)

EPSILON = 1e-6


def _vectors():
    """Arrays (S, D) and scales (D,): one vector first, then zeros, quiet ones and several."""
    yield np.array([[3.0, 4.0]]), np.ones(2)
    yield np.array([[1.0, 1.0], [7.0, 1.0]]), np.array([1.0, 2.0])
    yield np.array([[0.0, 0.0]]), np.ones(2)
    yield np.array([[0.001, 0.002]]), np.ones(2)
    random = np.random.default_rng(9)
    for size in (1, 100):
        for rows, features in ((2, 3), (3, 2)):
            vectors = size * random.integers(-5, 6, (rows, features)).astype(float)
            yield vectors, random.integers(1, 4, features).astype(float)


def _norm(x, scale, epsilon=EPSILON):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + epsilon) * scale


def _over_everything(x):
    return x / np.sqrt((x**2).mean() + EPSILON)


def _equally_loud(x):
    sizes = (x**2).mean(axis=-1)
    return np.allclose(sizes, sizes[0])


def _refuse(x):
    """Whether the array could be the hidden states of a text."""
    if x.ndim != 2 or not x.size:
        return "Give an array of two axes, tokens and features."
    return None if (abs(x) < 1e100).all() else "Take finite numbers, of ordinary size."


def _gradients():
    """Hidden states, scales and the gradients that arrive, one vector first."""
    random = np.random.default_rng(10)
    for x, scale in _vectors():
        yield x, scale, random.integers(1, 4, x.shape).astype(float)


def _parts(x, scale, upstream):
    """The root mean square, the normalised vector, and what arrives before the scale."""
    r = np.sqrt((x**2).mean(axis=-1, keepdims=True) + EPSILON)
    return r, x / r, upstream * scale


def _gradient(x, scale, upstream):
    r, normal, w = _parts(x, scale, upstream)
    return (w - normal * (w * normal).mean(axis=-1, keepdims=True)) / r


def _root_held_fixed(x, scale, upstream):
    r, _, w = _parts(x, scale, upstream)
    return w / r


def _scale_forgotten(x, scale, upstream):
    return _gradient(x, np.ones_like(scale), upstream)


def _sum_not_mean(x, scale, upstream):
    r, normal, w = _parts(x, scale, upstream)
    return (w - normal * (w * normal).sum(axis=-1, keepdims=True)) / r


def _not_divided(x, scale, upstream):
    r, _, _ = _parts(x, scale, upstream)
    return _gradient(x, scale, upstream) * r


def _kernels():
    """Scales (D,) and kernels (D, D): square, as that of the query is, so that a mix-up runs."""
    yield np.array([2.0, 3.0]), np.array([[1.0, 1.0], [10.0, 10.0]])
    random = np.random.default_rng(11)
    for features in (2, 3, 4):
        scale, kernel = random.integers(1, 6, features), random.integers(-5, 6, (features,) * 2)
        yield scale.astype(float), kernel.astype(float)


EXERCISES = [
    Value(
        name="rms_norm.by_hand",
        kind="trace by hand",
        minutes=2,
        difficulty=1,
        solution=[0.2, 1.4, 1.0, 1.0],
        mistakes=(
            ([0.1, 0.7, 0.5, 0.5], "that is divided by the length, 10. Average the squares first."),
            (
                [1 / 4.5, 7 / 4.5, 5 / 4.5, 5 / 4.5],
                "that is divided by the mean, 4.5. The squares are averaged, then comes the root.",
            ),
            (
                [0.04, 0.28, 0.2, 0.2],
                "that is divided by 25, the mean square: its root is missing.",
            ),
            (
                (np.array([1, 7, 5, 5]) - 4.5) / np.sqrt(4.75),
                "that is LayerNorm, which takes the mean away first.",
            ),
        ),
        hints=(
            "Read the name from right to left: square, mean, root.",
            "The squares are 1, 49, 25 and 25.",
            "Their mean is 25. Take its root, and divide each of the four numbers by it.",
        ),
    ),
    Function(
        name="rms_norm.write",
        kind="missing lines",
        minutes=4,
        difficulty=1,
        solution=lambda x, scale: _norm(x, scale),
        cases=_vectors,
        mistakes={
            "divides by the length of the vector: take the mean of the squares, not the sum.": (
                lambda x, scale: x / np.sqrt((x**2).sum(axis=-1, keepdims=True) + EPSILON) * scale
            ),
            "divides by the length of all vectors together, and leaves the scale out.": (
                lambda x, scale: x / np.linalg.norm(x)
            ),
            "divides by the length of all vectors together: take the mean, of each by itself.": (
                lambda x, scale: x / np.linalg.norm(x) * scale
            ),
            "takes the mean over all vectors: each has its own root mean square.": (
                lambda x, scale: x / np.sqrt((x**2).mean() + EPSILON) * scale
            ),
            "adds epsilon after the root: it belongs to the mean square.": (
                lambda x, scale: (
                    x / (np.sqrt((x**2).mean(axis=-1, keepdims=True)) + EPSILON) * scale
                )
            ),
            "has no epsilon: a quiet vector becomes too loud, and zeros become NaN.": (
                lambda x, scale: _norm(x, scale, 0.0)
            ),
            "does not use the scale.": lambda x, scale: _norm(x, 1.0),
            "divides by the mean square: the root is missing.": (
                lambda x, scale: x / ((x**2).mean(axis=-1, keepdims=True) + EPSILON) * scale
            ),
            "is LayerNorm: the mean is not to be taken away.": (
                lambda x, scale: _norm(x - x.mean(axis=-1, keepdims=True), scale)
            ),
        },
        hints=(
            "One number for each vector: square, mean over the features, root.",
            "The mean runs over the last axis; keepdims=True lets the division broadcast.",
            "Begin with mean_square = (x**2).mean(axis=-1, keepdims=True). Where does epsilon "
            "belong?",
        ),
    ),
    BreakingInput(
        name="rms_norm.break_it",
        kind="break this function",
        minutes=4,
        difficulty=2,
        right=lambda x: _norm(x, 1.0),
        broken=_over_everything,
        solution=([[1.0, 1.0], [3.0, 3.0]],),
        form="An array (S, D), such as [[3, 4], [4, 3]],",
        readers=(numbers,),
        valid=_refuse,
        mistakes={
            "With one token, the mean over everything is its own.": lambda x: len(x) == 1,
            "All tokens have the same root mean square, so that their common mean is that, too.": (
                _equally_loud
            ),
        },
        hints=(
            "What does the mean run over here, and over what should it run?",
            "With one token both are the same. With two tokens, what else must they not share?",
            "Write two rows, and make the numbers of the second larger than those of the first.",
        ),
    ),
    Function(
        name="rms_norm.fold",
        kind="missing lines",
        minutes=4,
        difficulty=2,
        solution=lambda scale, kernel: kernel * scale[:, None],
        cases=_kernels,
        mistakes={
            "scales the outputs: the scale belongs to the features that go in, the rows.": (
                lambda scale, kernel: kernel * scale
            ),
            "divides: the norm multiplies by its scale, and the kernel takes that over.": (
                lambda scale, kernel: kernel / scale[:, None]
            ),
            "returns the scaled features added up, not a kernel.": (
                lambda scale, kernel: scale @ kernel
            ),
        },
        hints=(
            "Feature d meets its scale first, and then row d of the kernel.",
            "The product of both can be stored in that row.",
            "scale[:, None] has the shape (D, 1). Does it multiply rows or columns of the kernel?",
        ),
    ),
    Experiment(
        name="rms_norm.gains",
        kind="run an experiment",
        minutes=10,
        difficulty=2,
        solution=((1.73, 0.02), "b"),
        within=0.01,
        claims={
            "a": "the model needs what the scales say about single features.",
            "b": "the model needs how large the scales of each norm are; that they differ from "
            "feature to feature matters little.",
            "c": "a model that is trained without scales would be far worse.",
        },
        refusals={
            "a": "the second number has no differences between features left, and costs little.",
            "c": "no model was trained here. This one learned with scales, and the exercise before "
            "showed that the next kernel could hold them.",
        },
        others=(
            ((3.09, 1.38), "those are prices. By how much are they above the model's own?"),
            ((0.02, 1.73), "the scales of 1 come first."),
            ((1.73, 1.73), "in the second run each norm keeps one number of its own."),
            ((1.94, 0.02), "the last norm has scales, too."),
            ((0.18, 0.02), "that is the last norm alone. There are thirteen."),
        ),
        hints=(
            "A transplanted norm gets the scales as its second argument, and need not use them.",
            "norm_by_arrays(x, 1.0, epsilon) has no scales. For the other run, make one number of "
            "`scale` first.",
            "Call more_bits(interventions.read(model, documents)).mean inside `with "
            "transplanted(model, norm=...)`.",
        ),
    ),
    Experiment(
        name="rms_norm.stations",
        kind="run an experiment",
        minutes=12,
        difficulty=3,
        solution=((0.03, 0.69, 0.0), "b"),
        within=0.01,
        claims={
            "a": "a norm makes the model indifferent to the size of its hidden states.",
            "b": "a part does not notice the size of what it reads, but what it adds weighs less "
            "in a louder stream.",
            "c": "a block that reads a louder stream adds more to it.",
        },
        refusals={
            "a": "then the second number would be 0 as well.",
            "c": "then all later blocks would be louder, too, the last norm would divide it out, "
            "and all three numbers would be 0.",
        },
        others=(
            ((1.39, 2.06, 1.36), "those are prices. By how much are they above the model's own?"),
            (
                (0.0, 0.69, 0.03),
                "station 0 is before the first block, and station 6 after the last.",
            ),
            ((0.0, 0.0, 0.0), "that is `louder`, which multiplies every part. Take one station."),
            ((0.69, 0.59, 0.14), "those are stations 1, 2 and 5."),
        ),
        hints=(
            "`louder` is an edit of many sites. You need one site, at one layer.",
            'The site is "stream", and its layer is the number of the station.',
            "Write a function that makes the edit of a station. "
            "more_bits(interventions.read(model, documents, edit)).mean is one number.",
        ),
    ),
    Function(
        name="rms_norm.gradient",
        kind="missing lines",
        minutes=8,
        difficulty=3,
        solution=_gradient,
        cases=_gradients,
        mistakes={
            "takes the root mean square for a constant: it moves with x, too.": _root_held_fixed,
            "lets the gradient pass the scale untouched.": _scale_forgotten,
            "adds up where the mean is due: the root is one of a mean.": _sum_not_mean,
            "is not divided by the root mean square.": _not_divided,
        },
        hints=(
            "Two ways lead from x to y: through the numerator, and through the root below it.",
            "With w = upstream * scale and normal = x / r: which part of w points along normal?",
            "That part is normal times a mean over the features. Take it away from w. What is left "
            "to divide by?",
        ),
    ),
]
