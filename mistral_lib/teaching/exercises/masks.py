"""The exercises of chapter 7, "Sliding windows and masks"."""

from __future__ import annotations

import numpy as np

from mistral_lib.layers.dense import masked_softmax
from mistral_lib.masks import attention_mask
from mistral_lib.teaching.exercises.answers import numbers, whole
from mistral_lib.teaching.exercises.kinds import (
    BreakingInput,
    Estimate,
    Experiment,
    Function,
    Line,
    Value,
)


def _windows():
    """Query positions, key positions and a window: whole sequences first, then late queries."""
    for length in range(1, 6):
        for window in range(1, length + 2):
            yield np.arange(length), np.arange(length), window
    for first, length in ((1, 2), (2, 3), (1, 3), (4, 7)):
        for window in range(1, length + 1):
            yield np.arange(first, length), np.arange(length), window


def _distance(queries, keys):
    return queries[:, None] - keys[None, :]


def _by_triangles(queries, keys, window):
    """A mask that counts rows and columns, and knows no positions."""
    shape = len(queries), len(keys)
    return np.tri(*shape, dtype=bool) & ~np.tri(*shape, -window, dtype=bool)


def _window_of_the_queries(queries, keys, window):
    """KerasHub's mistake on TensorFlow before pull request #1738."""
    return attention_mask(queries, keys, min(len(queries), window))


def _whole(queries, keys, window):
    """Positions as whole numbers, where a reader gave 5.0."""
    return queries.astype(int), keys.astype(int), window


def _refuse(queries, keys, window):
    """Whether the input could occur: consecutive positions, queries at the end of the keys."""
    if not keys.size or not np.array_equal(keys, np.arange(keys.size)):
        return "Take consecutive key positions that start with 0: np.arange(…)."
    if not queries.size or not np.array_equal(queries, keys[-queries.size :]):
        return "Take the last positions of the keys as queries."
    return None if window >= 1 else "A window has at least one token."


def _empty_rows(length, window, pads):
    positions = np.arange(length)
    real = positions < length - pads
    return int((~attention_mask(positions, positions, window, real).any(axis=1)).sum())


EXERCISES = [
    Value(
        name="masks.row",
        kind="trace by hand",
        minutes=2,
        difficulty=1,
        solution=[3, 4, 5, 6],
        mistakes=(
            ([2, 3, 4, 5, 6], "that is a window of W + 1. A distance of 4 is no longer below 4."),
            ([2, 3, 4, 5], "a token sees itself: the distance 0 is allowed, and it counts."),
            ([6, 7], "those lie ahead. The distance is query minus key."),
            ([6, 5, 4, 3], "those are the right positions, but write the smallest first."),
            ([4, 5, 6, 7], "that is the row below: position 6 cannot see position 7."),
        ),
        hints=(
            "Subtract each key's position from 6. Which differences are allowed?",
            "The distances from position 6 to the keys 0, 1, 2, … are 6, 5, 4, 3, 2, 1, 0, -1.",
            "A window of 4 allows four distances, and the smallest of them is 0.",
        ),
    ),
    Function(
        name="masks.window",
        kind="missing lines",
        minutes=5,
        difficulty=1,
        solution=lambda queries, keys, window: attention_mask(queries, keys, window),
        cases=_windows,
        mistakes={
            "equals the mask with W + 1: use <, not <=.": lambda q, k, w: attention_mask(
                q, k, w + 1
            ),
            "equals the mask with W - 1: a token's own place counts.": lambda q, k, w: (
                attention_mask(q, k, w - 1)
            ),
            "lets every query see the future: distances below 0 pass.": lambda q, k, w: (
                _distance(q, k) < w
            ),
            "looks both ways: drop the absolute value.": lambda q, k, w: (
                np.abs(_distance(q, k)) < w
            ),
            "looks ahead instead of back: the distance is query minus key.": lambda q, k, w: (
                (_distance(q, k) <= 0) & (_distance(q, k) > -w)
            ),
            "counts rows and columns, not positions: late queries see wrong keys.": _by_triangles,
            "is the causal mask: the window is not used.": lambda q, k, w: attention_mask(q, k),
        },
        hints=(
            "Every cell asks one question: how far back is this key?",
            "Make the table of distances first: queries down, keys across. NumPy's broadcasting "
            "does it in one line.",
            "queries[:, None] is a column and keys[None, :] a row. Compare what their difference "
            "gives twice, and join the two arrays with &.",
        ),
    ),
    Estimate(
        name="masks.pairs",
        kind="estimate",
        minutes=3,
        difficulty=1,
        solution=32_768 * 4_096 - 4_096 * 4_095 // 2,
        factor=1.25,
        unit="pairs",
        mistakes=(
            (32_768**2, "the whole square was counted, the future with it."),
            (
                32_768 * 4_096 // 2,
                "a window makes a band, not a triangle: nearly every row is full.",
            ),
            (32_768 * 32_769 // 2, "that is causal attention without a window."),
            (4_096**2, "that is one window by one window: every one of the 32,768 rows has one."),
            (32 * 32_768 * 4_096, "query heads counted? The question is about one head."),
        ),
        hints=(
            "Count row by row: how many keys does a query see once the window is full?",
            "Nearly all of the 32,768 rows are full. What does a full row hold?",
            "Only the first 4,095 rows are shorter. Is the corner that they lack large enough to "
            "matter?",
        ),
    ),
    Value(
        name="masks.right_padding",
        kind="predict, then run",
        minutes=3,
        difficulty=2,
        solution=0,
        mistakes=(
            (12, "those cells are hidden already, because a pad on the right is in the future."),
            (3, "those cells are in the rows of the pads; the question is about real tokens."),
            (15, "count the rows of real tokens only, and only cells that were open before."),
        ),
        hints=(
            "Which rule hides a pad from a real token already?",
            "Take the last real token, position 5, and the first pad, position 6.",
            "Make both masks, with and without real, and count in rows 0 to 5 where they differ.",
        ),
    ),
    BreakingInput(
        name="masks.break_it",
        kind="break this function",
        minutes=5,
        difficulty=2,
        right=lambda *call: attention_mask(*_whole(*call)),
        broken=lambda *call: _window_of_the_queries(*_whole(*call)),
        solution=(np.array([5]), np.arange(6), 3),
        form="Three things (queries, keys, window), as in (np.arange(3), np.arange(3), 2),",
        readers=(numbers, numbers, whole),
        valid=_refuse,
        mistakes={
            "The queries are all of the keys, and then a window of more tokens changes nothing.": (
                lambda queries, keys, window: len(queries) == len(keys)
            ),
            "There are as many queries as the window has tokens, or more: the window stays.": (
                lambda queries, keys, window: len(queries) >= window
            ),
        },
        hints=(
            "What is the same for every query in a square mask, and differs when decoding?",
            "Make the number of queries smaller than the window.",
            "Take the call of a model that writes one token: a single query, at the end of several "
            "keys.",
        ),
    ),
    Function(
        name="masks.empty_rows",
        kind="missing lines",
        minutes=6,
        difficulty=2,
        solution=_empty_rows,
        cases=lambda: (
            (length, window, pads)
            for length in range(1, 9)
            for window in range(1, length + 1)
            for pads in range(length)
        ),
        mistakes={
            "counts every pad: a pad still sees the real tokens in its window.": (
                lambda length, window, pads: pads
            ),
            "is one row short: the window of pad number W holds W pads, and no real token.": (
                lambda length, window, pads: max(0, pads - window)
            ),
            "goes below zero when the window is longer than the padding.": (
                lambda length, window, pads: pads - window + 1
            ),
        },
        hints=(
            "A pad sees no key once its whole window lies among the pads.",
            "Number the pads 1, 2, 3 … from the left. How many pads does the window of the n-th "
            "one hold?",
            "Draw the last rows for W = 3 and 1, 2, 3 and 4 pads, and count the empty ones: the "
            "number begins with 0, 0, 1.",
        ),
    ),
    Line(
        name="masks.library",
        kind="read the library",
        minutes=4,
        difficulty=2,
        function=masked_softmax,
        line="return weights",
        wrong={
            "scores =": "the finite minimum avoids -inf - -inf, but the row still sums to 0.",
            "highest =": "the highest score only keeps exp from overflowing.",
            "weights =": "this line makes the weights 0, and with them the sum.",
            "total = weights": "this line computes the sum; it does not yet divide by it.",
        },
        hints=(
            "Write down what each line makes of a row in which mask is False everywhere.",
            "After line 3 its weights are all 0, so after line 4 its total is 0.",
            "Which line would divide 0 by 0, and what does it do instead?",
        ),
    ),
    Experiment(
        name="masks.smallest",
        kind="run an experiment",
        minutes=12,
        difficulty=2,
        solution=((513, 258, 129, 9), "b"),
        within=0,
        claims={
            "a": "it takes at most twice as many keys as the small calls have.",
            "b": "each is caught as soon as a call goes past the number that the mutant contains.",
            "c": "one call with 4,096 keys and a window of 4,096 would have caught all four.",
        },
        refusals={
            "a": "that is true of in_blocks alone; the others take 129 keys or more.",
            "c": "with so wide a window in_blocks skips nothing, and is right.",
        },
        others=(
            ((512, 257, 128, 8), "those are the last positions. How many keys are there?"),
            ((514, 259, 130, 10), "one key fewer is enough for each."),
            ((512, 256, 127, 8), "those are the numbers in the code. Run calls to see."),
            ((513, 258, 129, 5), "the last one was compared with something other than the loops."),
        ),
        hints=(
            "Begin with one key and add one at a time, until some window makes the mutant differ "
            "from the loops.",
            "Not every window has to be tried. A cap shows with a window that is as wide as the "
            "text, the others with a narrow one.",
            "Write a function with itertools.count(1), and give failing a list of two calls, which "
            "differ in their window.",
        ),
    ),
    Experiment(
        name="masks.width",
        kind="run an experiment",
        minutes=10,
        difficulty=2,
        solution=((0.015, 0.0, 0.236), "b"),
        within=0.003,
        claims={
            "a": "the further a window is from 128, to either side, the more it costs.",
            "b": "half of the window does as well on these texts, while double costs a lot.",
            "c": "the more the model sees, the less it costs.",
        },
        refusals={
            "a": "with 64 tokens, half of the window, the cost is too small to see.",
            "c": "with 256 tokens the model sees the most, and it costs the most.",
        },
        others=(
            (
                (0.020, 0.003, 0.249),
                "those come from the half for discovery. Use the half 'confirm'.",
            ),
            ((0.044, 0.001, 0.712), "those are bits for each token. Divide by bytes: more_bits."),
            ((-0.015, 0.0, -0.236), "the signs are turned: what is *more* than with 128?"),
            ((0.236, 0.0, 0.015), "the order is 32, 64, 256."),
            ((1.414, 1.400, 1.636), "that is what it needs. How much more is it than with 128?"),
            ((0.012, 0.001, 0.104), "near positions were counted too. Take those from 128 on."),
        ),
        hints=(
            "Read the texts once with each window, and compare each reading with that of 128.",
            "read_with gives two things, and the first are the bits. more_bits compares two "
            "readings.",
            "The last cell with a guess did all this for 256. Its result has a mean.",
        ),
    ),
]
