"""The exercises of chapter 5, "Rotary positions"."""

from __future__ import annotations

import math

import numpy as np

from mistral_lib.teaching.exercises.answers import numbers, whole
from mistral_lib.teaching.exercises.kinds import (
    BreakingInput,
    Estimate,
    Explanation,
    Function,
    Value,
)


def _turn(x, positions, *, base=10000.0, steps=1.0, sign=1, speed=1.0, layout="halves"):
    """Turns pairs of features; the options are mistakes."""
    size = x.shape[1]
    pairs = np.arange(size // 2)
    angles = speed * np.outer(positions, base ** (-2.0 * steps * pairs / size))
    cosine, sine = np.cos(angles), sign * np.sin(angles)
    if layout == "neighbours":
        first, second = x[:, ::2], x[:, 1::2]
    else:
        first, second = x[:, : size // 2], x[:, size // 2 :]
    turned = first * cosine - second * sine, second * cosine + first * sine
    if layout == "neighbours":
        return np.stack(turned, axis=-1).reshape(x.shape)
    return np.concatenate(turned, axis=1)


def _in_place(x, positions):
    """What comes out if the second half is turned with a first half that is turned already."""
    half = x.shape[1] // 2
    angles = np.outer(positions, 10000.0 ** (-np.arange(half) / half))
    first = x[:, :half] * np.cos(angles) - x[:, half:] * np.sin(angles)
    return np.concatenate([first, x[:, half:] * np.cos(angles) + first * np.sin(angles)], axis=1)


def _mirrored(x, positions):
    half = x.shape[1] // 2
    angles = np.outer(positions, 10000.0 ** (-np.arange(half) / half))
    cosine, sine = np.cos(angles), np.sin(angles)
    first, second = x[:, :half], x[:, half:]
    return np.concatenate([first * cosine - second * sine, second * cosine - first * sine], axis=1)


def _vectors():
    """Vectors (S, h) and their positions: one pair at position 0 first."""
    yield np.array([[1.0, 2.0]]), np.array([0])
    yield np.array([[1.0, 2.0]]), np.array([1])
    yield np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([1])
    random = np.random.default_rng(5)
    for size, positions in ((8, [0, 1, 2]), (6, [7, 3])):
        yield random.integers(-5, 6, (len(positions), size)).astype(float), np.array(positions)


def _permutation(size):
    return np.arange(size).reshape(2, size // 2).T.reshape(-1)


def _score(query, key, position, key_position):
    """The product of a turned query and a turned key, one pair at one radian a token."""
    both = _turn(np.array([query, key]), np.array([position, key_position]))
    return both[0] @ both[1]


def _score_of_the_turned_query(query, key, position, key_position):
    """What is left if a program forgets to turn the key."""
    return _turn(np.array([query]), np.array([position]))[0] @ key


def _multiplier(turns, factor, low, high):
    """What llama3 multiplies a pair's frequency by, if the pair makes so many turns in training."""
    kept = np.clip((np.asarray(turns) - low) / (high - low), 0, 1)
    return kept + (1 - kept) / factor


def _unbounded(turns, factor, low, high):
    kept = (np.asarray(turns) - low) / (high - low)
    return kept + (1 - kept) / factor


def _ramps():
    """Turns of some pairs, the factor, and the two ends of the ramp; single pairs come first."""
    for turns in ([0.5], [8.0], [2.0], [4, 1], [10, 3, 1.6, 0.2]):
        for factor, low, high in ((2, 1, 4), (8, 1, 3)):
            yield np.array(turns, float), factor, low, high


def _refuse(query, key, position, key_position):
    """Whether a query and a key could stand at these positions."""
    if query.shape != (2,) or key.shape != (2,):
        return "Give a query and a key of two numbers each."
    if not (abs(np.array([query, key], float)) < 1e100).all():
        return "The numbers have to be finite, and of ordinary size."
    if not (0 <= position < 2**24 and 0 <= key_position < 2**24):
        return "Positions are whole numbers from 0 on, below 2**24."
    return None


EXERCISES = [
    Value(
        name="rotary.by_hand",
        kind="trace by hand",
        minutes=4,
        difficulty=1,
        solution=-4,
        mistakes=(
            (4, "that is the product before anything was turned."),
            (-3, "that is one quarter turn. They are two positions apart."),
            (3, "one of the two was turned, and the other stayed. Both stand somewhere."),
            (0, "a quarter turn makes a vector upright to itself. Here it is a half turn."),
        ),
        hints=(
            "Only the difference of the positions counts. How large is it?",
            "Two quarter turns are a half turn: what does it make of the vector (1, 2)?",
            "-(1 * 2 + 2 * 1)",
        ),
    ),
    BreakingInput(
        name="rotary.break_it",
        kind="break this function",
        minutes=5,
        difficulty=2,
        right=_score,
        broken=_score_of_the_turned_query,
        solution=([1, 0], [1, 0], 1, 1),
        form="Four things (query, key, position, key_position), as in ([1, 2], [3, 4], 5, 0),",
        readers=(numbers, numbers, whole, whole),
        valid=_refuse,
        mistakes={
            "The key is at position 0, where nothing turns it.": (
                lambda query, key, position, key_position: key_position == 0
            ),
            "A vector of zeros stays what it is, and its product is 0.": (
                lambda query, key, position, key_position: not (query.any() and key.any())
            ),
            "The key stands so near to a full turn that the scores hardly differ.": (
                lambda *arguments: True
            ),
        },
        hints=(
            "For which position of the key is nothing missing?",
            "At position 0 the key is not turned anyway. Put it elsewhere.",
            "([1, 0], [1, 0], 1, 1)",
        ),
    ),
    Function(
        name="rotary.turn",
        kind="missing lines",
        minutes=10,
        difficulty=2,
        solution=_turn,
        cases=_vectors,
        mistakes={
            "turns the other way: the sign of the sine.": lambda x, p: _turn(x, p, sign=-1),
            "turns the second half with a first half that is turned already: keep the old one.": (
                _in_place
            ),
            "mirrors: the second feature gets + first * sine.": _mirrored,
            "turns neighbours: a pair is x[p] and x[p + h / 2].": lambda x, p: _turn(
                x, p, layout="neighbours"
            ),
            "is too fast for later pairs: the exponent is -2p / h.": lambda x, p: _turn(
                x, p, steps=0.5
            ),
            "turns every pair at the same speed.": lambda x, p: _turn(x, p, steps=0),
            "counts in full turns: a position is an angle in radians.": lambda x, p: _turn(
                x, p, speed=2 * math.pi
            ),
            "does not turn at all.": lambda x, p: x,
        },
        hints=(
            "Each pair of features is a point in a plane. Turn it by position times speed.",
            "Angles are a table (S, h / 2): np.outer of positions and speeds. Then the two lines "
            "of the formula, on the two halves of x.",
            "speeds = 10000 ** (-2 * np.arange(h // 2) / h), angles = np.outer(positions, speeds), "
            "and np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=1)",
        ),
    ),
    Estimate(
        name="rotary.wavelength",
        kind="estimate",
        minutes=3,
        difficulty=2,
        solution=round(2 * math.pi * 10_000 ** (126 / 128)),
        factor=1.25,
        unit="tokens",
        mistakes=(
            (10_000 ** (126 / 128), "so many tokens make one radian. A full turn is 2π of them."),
            (10_000, "so many tokens make one radian. A full turn is 2π of them."),
            (2 * math.pi, "that is the fastest pair, p = 0."),
            (2 * math.pi * 100, "that is the pair in the middle. The last one has p = 63."),
            (128, "that is the number of features, not the number of tokens."),
        ),
        hints=(
            "How many radians does the last pair turn at each token?",
            "10,000 to the power of -126/128: nearly one in ten thousand. A full turn is 2π.",
            "2 * math.pi * 10_000 ** (126 / 128)",
        ),
    ),
    Function(
        name="rotary.permute",
        kind="missing lines",
        minutes=6,
        difficulty=2,
        solution=_permutation,
        cases=lambda: ((size,) for size in (2, 4, 6, 8, 32)),
        mistakes={
            "is the way back: it takes neighbours apart.": lambda size: (
                np.arange(size).reshape(size // 2, 2).T.reshape(-1)
            ),
            "leaves everything where it is.": lambda size: np.arange(size),
            "swaps the halves, and each half stays together.": lambda size: np.roll(
                np.arange(size), size // 2
            ),
        },
        hints=(
            "Which two features of the half-split layout are a pair, and where do they go?",
            "Feature p goes to place 2p, and feature p + h / 2 to place 2p + 1.",
            "np.arange(size).reshape(2, size // 2).T.reshape(-1)",
        ),
    ),
    Estimate(
        name="rotary.precision",
        kind="estimate",
        minutes=4,
        difficulty=3,
        solution=2**24,
        factor=1.2,
        unit="tokens",
        mistakes=(
            (2**23, "float32 stores 23 bits of digits, and a leading 1 that it need not store."),
            (2**25, "there neighbours are 4 apart. Where do they begin to be 2 apart?"),
            (2**32, "float32 has 32 bits, but only 24 of them hold the number's digits."),
            (2**31, "an int32 ends there. The angle is a float32, with 24 bits of digits."),
            (2**12, "half of the digits are still to the right of the point there."),
            (2**7, "those are the bits of the exponent."),
        ),
        hints=(
            "A float32 has 24 bits for its digits, wherever the point stands.",
            "From which number on are two neighbouring float32 numbers more than one apart?",
            "2**24",
        ),
    ),
    Function(
        name="rotary.ramp",
        kind="missing lines",
        minutes=7,
        difficulty=2,
        solution=_multiplier,
        cases=_ramps,
        mistakes={
            "goes on beyond the ends of the ramp, but the line is level there.": _unbounded,
            "slows the fast pairs, but pairs that turn often must stay.": lambda turns, f, a, b: (
                _multiplier(a + b - turns, f, a, b)
            ),
            "jumps, but between low and high there is a straight line.": lambda t, f, a, b: (
                np.where(t < a, 1 / f, 1.0)
            ),
            "blends wavelengths, but frequencies are on a straight line.": lambda t, f, a, b: (
                1 / (np.clip((t - a) / (b - a), 0, 1) * (1 - f) + f)
            ),
            "speeds slow pairs up, but they must become slower.": lambda t, f, a, b: _multiplier(
                t, 1 / f, a, b
            ),
            "divides every frequency, even of fast pairs.": lambda t, f, a, b: t * 0 + 1 / f,
        },
        hints=(
            "Which share of the frequency stays if a pair turns `low` times? If it turns `high` "
            "times? And if it is halfway between the two?",
            "The share that stays is (turns - low) / (high - low), but never below 0 or above 1. "
            "The rest of the frequency is divided by the factor.",
            "kept = np.clip((turns - low) / (high - low), 0, 1), and then kept + (1 - kept) / "
            "factor",
        ),
    ),
    Explanation(
        name="rotary.explain",
        kind="explain",
        minutes=5,
        difficulty=2,
        points=(
            "the two layouts are the same turning; only which features form a pair differs",
            "queries and keys have to be permuted alike, by their kernels, and values not at all",
            "a score is a sum over pairs, so the order of the features does not change it",
            "nothing crashes without the permutation: compare logits with the other program's",
        ),
        hints=(
            "What does a permutation of features change in a product of two vectors?",
            "Which kernels make vectors that are turned? Which does not?",
            "Name the symptom, too: text that is nearly right, and no error.",
        ),
    ),
]
