"""The exercises of chapter 7, "Sliding windows and masks"."""

from __future__ import annotations

import numpy as np

from mistral_lib.layers.dense import masked_softmax
from mistral_lib.masks import attention_mask
from mistral_lib.teaching.exercises.answers import numbers, whole
from mistral_lib.teaching.exercises.kinds import (
    BreakingInput,
    Estimate,
    Explanation,
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
            ([4, 5, 6, 7], "that is the row below: position 6 cannot see position 7."),
        ),
        hints=(
            "Subtract each key's position from 6. Which differences are allowed?",
            "Read the row of position 6 in the table of distances: 6, 5, 4, 3, 2, 1, 0, -1.",
            "Keep the positions where the difference is 0, 1, 2 or 3.",
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
            "distance = queries[:, None] - keys[None, :], then compare it with 0 and with window.",
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
                "a window makes a band, and no triangle: nearly every row is full.",
            ),
            (32_768 * 32_769 // 2, "that is causal attention without a window."),
            (4_096**2, "that is one window by one window: every one of the 32,768 rows has one."),
            (32 * 32_768 * 4_096, "query heads counted? The question is about one head."),
        ),
        hints=(
            "Count row by row: how many keys does a query see once the window is full?",
            "Nearly all of the 32,768 rows are full. What does a full row hold?",
            "32768 * 4096, less the corner that the first rows lack: 4096 * 4095 / 2.",
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
            "Compare attention_mask(p, p, 4) with attention_mask(p, p, 4, real) in rows 0 to 5.",
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
            "One query at the end of several keys: np.array([5]), np.arange(6) and a window of 3.",
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
            "is one row short: the pad W - 1 places on sees no real token but itself, a pad.": (
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
            "The n-th pad is empty when n >= window: that leaves pads - window + 1 of them, or 0.",
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
            "Follow an empty row through the five lines with numbers.",
            "After line 3 its weights are all 0, so after line 4 its total is 0.",
            "Which line would divide 0 by 0, and what does it do instead?",
        ),
    ),
    Explanation(
        name="masks.explain",
        kind="explain",
        minutes=5,
        difficulty=2,
        points=(
            "a square without offset cannot tell indices from positions",
            "without padding, or with padding on one side, a padding rule may be missing",
            "a wrong key changes numbers a little: nothing crashes and the loss looks normal",
            "small sizes can be tried exhaustively, and a bug has a small example",
        ),
        hints=(
            "Which mutants of the museum pass that one test?",
            "Look along the column of that test in the figure of tests against mutants.",
            "Name one mutant that passes, and the smallest input that shows it.",
        ),
    ),
]
