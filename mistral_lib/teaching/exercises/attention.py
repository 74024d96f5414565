"""The exercises of chapter 6, "Many heads, fewer keys"."""

from __future__ import annotations

import numpy as np

from mistral_lib.layers.attention import MistralAttention
from mistral_lib.teaching.exercises.kinds import (
    Estimate,
    Experiment,
    Explanation,
    Function,
    Line,
    Value,
)


def _vectors():
    """Arrays (S, H x h) that say where each number belongs, and the number of heads."""
    for length, heads, size in ((1, 2, 1), (2, 1, 2), (2, 2, 2), (3, 2, 4), (4, 3, 2)):
        yield np.arange(length * heads * size).reshape(length, -1), heads


def _split(x, heads):
    return x.reshape(len(x), heads, -1).swapaxes(0, 1)


def _shared():
    """Keys (S, K, h) and the number of query heads."""
    for length, key_heads, heads in ((1, 1, 2), (1, 2, 4), (2, 2, 6), (3, 3, 6), (2, 2, 2)):
        yield np.arange(length * key_heads * 2).reshape(length, key_heads, 2), heads


def _repeat(key, heads):
    return np.repeat(key, heads // key.shape[1], axis=1)


EXERCISES = [
    Function(
        name="attention.split",
        kind="find the bug",
        minutes=5,
        difficulty=2,
        solution=_split,
        cases=_vectors,
        mistakes={
            "mixes tokens: a reshape keeps the order of the numbers, and S comes first.": (
                lambda x, heads: x.reshape(heads, len(x), -1)
            ),
            "deals features out in turn: a head's features are neighbours.": lambda x, heads: (
                x.reshape(len(x), -1, heads).transpose(2, 0, 1)
            ),
            "still has the tokens first: the heads are to come first.": lambda x, heads: x.reshape(
                len(x), heads, -1
            ),
        },
        hints=(
            "In which order do the numbers of one token lie in memory?",
            "Reshape to (S, heads, size) first, where no number moves. Then exchange two axes.",
            "x.reshape(S, heads, -1) has the axes (S, heads, size), and swapaxes exchanges two.",
        ),
    ),
    Estimate(
        name="attention.cache",
        kind="estimate",
        minutes=3,
        difficulty=1,
        solution=2 * 32 * 8 * 128 * 2 / 2**10,
        factor=1.25,
        unit="KiB",
        mistakes=(
            (4 * 128, "query heads counted? Only keys and values are kept."),
            (64, "keys or values? Both are kept."),
            (4, "that is one layer. There are 32, each with keys and values of its own."),
            (256, "four bytes are float32. The question is about bfloat16."),
            (16, "that is one key head. There are 8."),
        ),
        hints=(
            "What of a token do later tokens look at, and in how many places?",
            "They look at a key and a value, in every layer and for every key head.",
            "All numbers are powers of two, so you can add exponents: 32 is 2^5, 128 is 2^7, and a "
            "KiB has 2^10 bytes.",
        ),
    ),
    Value(
        name="attention.order",
        kind="predict, then run",
        minutes=8,
        difficulty=3,
        solution=[0, 3, 1, 4, 2, 5],
        mistakes=(
            ([0, 2, 4, 1, 3, 5], "that says to which place each head goes. Which head is at each?"),
            (
                [0, 1, 2, 3, 4, 5],
                "that changes nothing, so heads 1 and 4 still find the wrong keys.",
            ),
            ([3, 0, 4, 1, 5, 2], "place 0 finds key head 0, which heads 0, 1 and 2 belong to."),
            (
                [0, 1, 0, 1, 0, 1],
                "those are the key heads of the places. Which query head goes there?",
            ),
            ([0, 0, 0, 1, 1, 1], "those are the key heads. The question is about query heads."),
            (
                [0, 4, 2, 3, 1, 5],
                "the heads of a group are to stay in their order: 0 before 1 before 2.",
            ),
        ),
        hints=(
            "Which key head does each of the six places find, if they are dealt out in turn?",
            "Places 0, 2 and 4 find key head 0. Which three query heads have to be there?",
            "Call logits_in_turn with an order, and compare its logits with before. Only one order "
            "leaves them alone and keeps the heads of each group in theirs.",
        ),
    ),
    Function(
        name="attention.share",
        kind="missing lines",
        minutes=5,
        difficulty=2,
        solution=_repeat,
        cases=_shared,
        mistakes={
            "deals the key heads out in turn, 0 1 0 1: neighbours share, so 0 0 1 1.": (
                lambda key, heads: np.tile(key, (1, heads // key.shape[1], 1))
            ),
            "repeats tokens: the heads are axis 1.": lambda key, heads: np.repeat(
                key, heads // key.shape[1], axis=0
            ),
            "repeats features: the heads are axis 1.": lambda key, heads: np.repeat(
                key, heads // key.shape[1], axis=2
            ),
            "repeats each head H times: a group has H / K.": lambda key, heads: np.repeat(
                key, heads, axis=1
            ),
        },
        hints=(
            "Which key head does query head i use, with G query heads to a key head?",
            "With two key heads and four query heads, the order has to be 0 0 1 1, along axis 1.",
            "np.repeat repeats each entry, np.tile the whole row: try both on np.array([0, 1]).",
        ),
    ),
    Estimate(
        name="attention.room",
        kind="estimate",
        minutes=3,
        difficulty=2,
        solution=(80 - 13.5) * 2**20 / 128 / 8_192,
        factor=1.15,
        unit="texts",
        mistakes=(
            (80 * 2**20 / 128 / 8_192, "the weights need room, too: 13.5 GiB of the 80."),
            (66.5 * 2**20 / 512 / 8_192, "that is with 32 key heads, 512 KiB a token."),
            (16, "that is with 32 key heads, 512 KiB a token."),
            (66.5 * 2**20 / 128, "that is tokens. A text has 8,192 of them."),
        ),
        hints=(
            "How large is the cache of one text, and how much room is there for caches?",
            "One text has 8,192 tokens, and a token takes 128 KiB. A GiB has 2^20 KiB.",
            "The cache of one text comes out as a whole number of GiB. The weights leave 66.5.",
        ),
    ),
    Line(
        name="attention.library",
        kind="read the library",
        minutes=4,
        difficulty=2,
        function=MistralAttention._project,
        line="query = query",
        wrong={
            "heads = (*tokens, config.num_query_heads": "this line only writes down a shape.",
            "key_heads =": (
                "this line counts how many share. Who shares with whom is decided elsewhere."
            ),
            "query = rotate": (
                "this line cuts the features into query heads; they are not yet in groups."
            ),
            "key = rotate": "this line makes the key heads. No query is in it.",
        },
        hints=(
            "Follow the query: where does its axis of H become two axes?",
            "A reshape from H to (K, G) puts the first G heads into group 0.",
            "Two lines reshape the query: one makes heads, the other splits them into (K, G).",
        ),
    ),
    Experiment(
        name="attention.places",
        kind="run an experiment",
        minutes=10,
        difficulty=2,
        solution=((0.39, 0.40, 0.00), "b"),
        within=0.04,
        claims={
            "a": "one head only needs more numbers.",
            "b": "more numbers do not help one head, and a second set of weights does.",
            "c": "one head loses one of the two tokens whole, so at least half of all.",
        },
        refusals={
            "a": "then the head of 32 would lose less than the head of 8.",
            "c": "one head loses less than half: its weights may depend on what the tokens carry.",
        },
        others=(
            ((0.50, 0.40, 0.00), "the first head had 4 numbers. Give it 8, like two heads of 4."),
            ((0.39, 0.40, 0.52), "two heads of 2 collect 4 numbers, and 8 are asked for."),
            ((0.00, 0.40, 0.39), "the order is: one head of 8, one of 32, two heads of 4."),
        ),
        hints=(
            "What can the second head do that more numbers in the first one cannot?",
            "lost(heads, size) trains three models and returns three shares: take their mean.",
            "lost(1, 8).mean() is the first number. The others differ in the two arguments alone.",
        ),
    ),
    Experiment(
        name="attention.halves",
        kind="run an experiment",
        minutes=10,
        difficulty=2,
        solution=((0.188, 0.174, 0.471), "c"),
        within=0.006,
        claims={
            "a": "the keys are to blame: with values averaged alone, the model is hardly worse.",
            "b": "the two prices add up.",
            "c": "both together cost more than the two prices added.",
        },
        refusals={
            "a": "averaged values alone cost nearly as much as averaged keys alone.",
            "b": "the two prices sum to 0.36, and both together cost 0.47.",
        },
        others=(
            ((0.219, 0.192, 0.510), "that is the half of the panel that is for looking around."),
            (
                (0.174, 0.188, 0.471),
                "the keys come first, then the values. A mix begins with keys.",
            ),
            ((0.248, 0.325, 0.292), "that is key head 0 for all, not the average."),
            ((1.548, 1.534, 1.831), "those are all bits per byte. By how many did they rise?"),
        ),
        hints=(
            "What a part costs by itself, and what it costs beside another, may differ.",
            "A setting is a pair of mixes, of keys and then of values. A mix that is own changes "
            "nothing.",
            "sweep takes several settings as one array, (average, own) for example, and returns a "
            "row of bits for each. more_bits makes an estimate of a row; its .mean is the number.",
        ),
    ),
    Explanation(
        name="attention.explain",
        kind="explain",
        minutes=5,
        difficulty=2,
        points=(
            "runs of the same model from different seeds differ: compare with that spread",
            "one pair of runs cannot tell a small difference from luck",
            "same seed for both, several seeds, and the differences pair by pair",
            "small models on little text: whether it holds for larger ones is not shown",
        ),
        hints=(
            "By how much do two runs differ that have the same number of key heads?",
            "Look at one column of the figure, and then between the columns.",
            "Say what you would run before you believe it: seeds, pairs, and a larger model.",
        ),
    ),
]
