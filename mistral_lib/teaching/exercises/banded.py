"""The exercises of chapter 8, "Reach and banding"."""

from __future__ import annotations

import math

import numpy as np

from mistral_lib.layers import banded
from mistral_lib.teaching.exercises.kinds import Experiment, Function, Line, Value


def _parts():
    """Pairs of running sums (output, total, highest) of one query, with high scores at the end."""
    heights = (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (-3.0, 2.0), (1000.0, 999.0), (-999.0, -1000.0)
    for first_highest, second_highest in heights:
        first = (np.array([2.0, 1.0]), 3.0, first_highest)
        second = (np.array([0.0, 4.0]), 2.0, second_highest)
        yield first, second


def _join(first, second):
    highest = max(first[2], second[2])
    shrink = math.exp(first[2] - highest), math.exp(second[2] - highest)
    output = shrink[0] * first[0] + shrink[1] * second[0]
    return np.array([*output, shrink[0] * first[1] + shrink[1] * second[1], highest])


def _from_zero(first, second):
    """Both parts measured from a score of 0, whose exponentials may be infinite."""
    highest = np.exp(max(first[2], second[2]))
    a, b = np.exp(first[2]) / highest, np.exp(second[2]) / highest
    return np.array(
        [*(a * first[0] + b * second[0]), a * first[1] + b * second[1], np.log(highest)]
    )


def _unshrunk(first, second):
    return np.array([*(first[0] + second[0]), first[1] + second[1], max(first[2], second[2])])


def _first_shrunk(first, second):
    highest = max(first[2], second[2])
    shrink = math.exp(first[2] - highest)
    output = shrink * first[0] + second[0]
    return np.array([*output, shrink * first[1] + second[1], highest])


def _grown(first, second):
    highest = max(first[2], second[2])
    growth = math.exp(highest - first[2]), math.exp(highest - second[2])
    output = growth[0] * first[0] + growth[1] * second[0]
    return np.array([*output, growth[0] * first[1] + growth[1] * second[1], highest])


def _output_alone(first, second):
    joined = _join(first, second)
    return np.array([*joined[:2], first[1] + second[1], joined[3]])


def _blocks():
    """First query of a block, number of queries in it, window."""
    yield 4, 1, 2
    yield 0, 2, 3
    yield 8, 4, 3
    yield 3, 2, 9
    yield 16, 4, 8


def _span(first, queries, window):
    return np.array([max(0, first - window + 1), first + queries])


EXERCISES = [
    Value(
        name="banded.reach",
        kind="trace by hand",
        minutes=3,
        difficulty=1,
        solution=11,
        mistakes=(
            (8, "a window of 4 reaches 3 tokens back, since the token itself is one of the four."),
            (17, "that is one layer. Three layers, one after the other, go three times as far."),
            (9, "that is how far it reaches. The position is asked for: 20 less the reach."),
        ),
        hints=(
            "Walk back from position 20, one layer at a time, as far as the window lets you.",
            "In each layer the furthest key is W - 1 = 3 positions back.",
            "The last layer reaches back to position 17. Two more layers are below it.",
        ),
    ),
    Experiment(
        name="banded.distance",
        kind="run an experiment",
        minutes=15,
        difficulty=3,
        solution=((0.235, 0.028), "b"),
        within=0.006,
        claims={
            "a": "half of the influence is half of the use: without it, a large part is lost.",
            "b": "the far tokens have much influence and little use.",
            "c": "what is beyond the last 16 tokens is of no use at all.",
        },
        refusals={
            "a": "of about 4.2 bits a token, the model loses 0.24. That is a small part.",
            "c": "without it a token costs 0.24 bits more, which 26 texts tell from nothing.",
        },
        others=(
            ((0.287, 0.013), "those come from the half for discovery. Use the half 'confirm'."),
            ((0.271, -0.004), "those are the five places of before. Use all 16 in asked."),
            ((0.163, 0.019), "those are nats. Divide by ln 2, or use bits."),
            ((-0.235, -0.028), "the signs are turned: what does a token cost *more*?"),
            ((0.028, 0.235), "the order is 16, then 64."),
            (
                (4.44, 4.24),
                "that is what a token costs. How much more is it than in the whole row?",
            ),
        ),
        hints=(
            "A row that begins later hides all that came before, in every layer.",
            "For a prediction at position p, the last 16 tokens are ids[p - 15 : p + 1]. Make one "
            "row for each of the 26 times 16 predictions.",
            "read(...)[:, -1] has the logits after each row. Give them the shape (26, 16, V), and "
            "compare their bits with whole.",
        ),
    ),
    Function(
        name="banded.join",
        kind="missing lines",
        minutes=8,
        difficulty=3,
        solution=_join,
        cases=_parts,
        mistakes={
            "measures from a score of 0, and exp of a high score is infinite.": _from_zero,
            "adds as if both parts were measured from the same highest score.": _unshrunk,
            "shrinks the first part only; the second may be the one with the lower scores.": (
                _first_shrunk
            ),
            "turns the factors round: exp(old - new) is at most 1.": _grown,
            "shrinks the outputs and not the totals.": _output_alone,
        },
        hints=(
            "Bring both parts to the same unit: the higher of the two highest scores.",
            "Each part has a factor of its own, and it is never above 1.",
            "A part's factor is np.exp of a difference of highest scores. It multiplies the output "
            "and the total.",
        ),
    ),
    Function(
        name="banded.span",
        kind="find the bug",
        minutes=5,
        difficulty=2,
        solution=_span,
        cases=_blocks,
        mistakes={
            "is the function as it was: the block's first query sees further back.": (
                lambda first, queries, window: np.array(
                    [max(0, first + queries - window), first + queries]
                )
            ),
            "may begin before the sequence: what is key number -1?": (
                lambda first, queries, window: np.array([first - window + 1, first + queries])
            ),
            "stops at the first query: the others of the block see further on.": (
                lambda first, queries, window: np.array([max(0, first - window + 1), first + 1])
            ),
        },
        also={
            "starts one key earlier than it must, and multiplies a column for nothing.": (
                lambda first, queries, window: np.array([max(0, first - window), first + queries])
            )
        },
        hints=(
            "Which query of the block looks back furthest, and how far?",
            "The first query sees window - 1 keys before itself; the last one ends the span.",
            "Only the argument of max is wrong: it counts back from the last query.",
        ),
    ),
    Experiment(
        name="banded.low",
        kind="run an experiment",
        minutes=10,
        difficulty=2,
        solution=((-50_746, -50_088), "b"),
        within=20,
        claims={
            "a": "every score below -50,000 comes out wrong.",
            "b": "it is right until exp(score + 50,000) is rounded to zero: the dtype decides.",
            "c": "longer rows would be right at lower scores, since their totals are larger.",
        },
        refusals={
            "a": "a few hundred lower it is still right in float64, and 80 lower in float32.",
            "c": "try it with five keys: every weight is rounded to zero at the same score.",
        },
        others=(
            ((-50_001, -50_001), "that is where the start is the highest. Look at the results."),
            ((-50_746, -50_746), "both are float64. Give JAX arrays the second time."),
            ((-50_088, -50_746), "the order is float64, then float32."),
            ((50_746, 50_088), "the scores are negative."),
            ((-746, -88), "those are the distances from -50,000. The scores themselves are asked."),
        ),
        hints=(
            "With one key the weight is divided by itself. When can that go wrong?",
            "Count down from -50,000 until the output is no longer 3. NaN is never near 3.",
            "attend(score * one, one, 3 * one, 1, 1, 1, tile=low_start), where one is "
            "xp.ones((1, 1)) and xp is np or jnp.",
        ),
    ),
    Line(
        name="banded.library",
        kind="read the library",
        minutes=4,
        difficulty=2,
        function=banded._attend,
        line="weights =",
        wrong={
            "scores = jnp.where": (
                "all scores of the row become equally low, and exp(0) is 1 for all of them."
            ),
            "new_highest =": (
                "the highest score of an empty tile is the lowest number, which is what it was."
            ),
            "shrunk =": "both are the lowest number there, so that this factor is exp(0) = 1.",
        },
        hints=(
            "In an empty tile every score is the lowest number. What is exp(score - highest) then?",
            "It is exp(0) = 1 for every hidden key, if the row has seen nothing before.",
            "Some line has to turn these ones into zeros. Hiding the scores was not enough.",
        ),
    ),
]
