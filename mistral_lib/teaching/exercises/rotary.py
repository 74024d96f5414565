"""The exercises of chapter 5, "Rotary positions"."""

from __future__ import annotations

import math

import numpy as np

from mistral_lib.teaching.exercises.answers import numbers, whole
from mistral_lib.teaching.exercises.kinds import (
    BreakingInput,
    Estimate,
    Experiment,
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
            (3, "one of the two was turned, and the other was not. Neither is at position 0."),
            (0, "a quarter turn makes a right angle. Here it is a half turn."),
        ),
        hints=(
            "Only the difference of the positions counts. How large is it?",
            "Two quarter turns are a half turn. What does a half turn make of the vector (1, 2)?",
            "Multiply the two vectors as they are. Then give one of them a half turn, and "
            "multiply again.",
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
            "The key is so near to a full turn that the scores hardly differ.": (
                lambda *arguments: True
            ),
        },
        hints=(
            "At which position of the key does the function give the right result?",
            "At position 0 the key is not turned anyway. Put it elsewhere.",
            "Put query and key at one place, but not at 0. Which product should come out, wherever "
            "that place is?",
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
            "The speeds are 10000.0 to the power of an np.arange, and np.concatenate(..., axis=1) "
            "puts two halves side by side.",
        ),
    ),
    Estimate(
        name="rotary.wavelength",
        kind="estimate",
        minutes=6,
        difficulty=2,
        solution=46,
        factor=1.05,
        unit="pairs",
        mistakes=(
            (58, "you counted a radian as a round. A full turn is 2π of them."),
            (64, "those are all pairs. The slowest needs more than 50,000 tokens."),
            (18, "those are the pairs that do not finish their first round."),
            (50, "that is for a window of 8,192 tokens."),
            (60, "that is for a text of 32,768 tokens."),
            (652, "so many times the fastest pair goes round. How many pairs do it at least once?"),
            (16, "a head of our small model has so many pairs. Mistral 7B has 64."),
        ),
        hints=(
            "After how many tokens has a pair of a given speed gone round once?",
            "A pair needs 2π / θ tokens. That must not be more than 4,096.",
            "Solve for p with logarithms, or compute all 64 wavelengths and count.",
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
            "Write the numbers 0 to 7 as a table of two rows of four. In which direction do you "
            "have to read it?",
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
            "A float32 has 24 bits for its digits, wherever the point is.",
            "From which number on are two neighbouring float32 numbers more than one apart?",
            "np.spacing(np.float32(1000)) is the distance from 1000 to the next float32. Try "
            "powers of two.",
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
            "np.clip(x, 0, 1) keeps a share between 0 and 1. Add what the two shares of the "
            "frequency become.",
        ),
    ),
    Experiment(
        name="rotary.rounding",
        kind="run an experiment",
        minutes=10,
        difficulty=2,
        solution=((0.34, 0.33), "b"),
        within=0.02,
        claims={
            "a": "the angles are inexact, and the positions matter little.",
            "b": "eight tokens at a time have one position, and that explains what is lost.",
            "c": "the model is as lost as without positions.",
        },
        refusals={
            "a": "with exact angles and rounded positions just as much is lost.",
            "c": "without positions 0.93 bits more are needed, nearly three times as many.",
        },
        others=(
            ((0.34, 0.71), "the distances shrank eightfold, too. Multiply by 8 again."),
            ((0.34, 0.78), "positions start at 0 again after every eight tokens."),
            ((0.34, 0.21), "you rounded to multiples of 4."),
            ((0.34, 0.49), "you rounded to multiples of 16."),
            ((0.34, 0.93), "all tokens have the same position."),
            ((0.34, 0.0), "nothing was rounded."),
        ),
        hints=(
            "Add 0, 1, 2, up to 15 to 100,000,000. What does float32 make of these numbers?",
            "bits_more takes any positions, so you can round small ones yourself.",
            "Integer division by 8 forgets the rest. What has to follow, so that the distances "
            "stay as they were?",
        ),
    ),
    Experiment(
        name="rotary.pairs",
        kind="run an experiment",
        minutes=10,
        difficulty=2,
        solution=((0.00, 0.91), "c"),
        within=0.03,
        claims={
            "a": "both halves are needed.",
            "b": "the slow pairs carry the order: they alone can tell near from far.",
            "c": "the fast pairs carry the order, and the slow ones might as well stand still.",
        },
        refusals={
            "a": "without the slow half nothing is lost.",
            "b": "with the slow pairs alone the model is nearly as lost as without positions.",
        },
        others=(
            ((0.91, 0.00), "the two are swapped: first the fast pairs turn alone."),
            ((0.38, 0.91), "only four fast pairs turned. Half of 16 are eight."),
            ((0.24, 0.91), "you let every second pair turn. Take the first eight."),
            ((0.93, 0.93), "no pair turned. A speed of 0 is for those that stand still."),
            ((0.00, 0.00), "both times the fast half turned."),
        ),
        hints=(
            "A pair that does not turn is a pair with the speed 0.",
            "turn_at makes a function from 16 speeds. Set half of the speeds to 0.",
            "np.where(np.arange(16) < 8, ..., ...) chooses between two arrays, and bits_more takes "
            "the function.",
        ),
    ),
]
