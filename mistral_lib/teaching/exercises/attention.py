"""The exercises of chapter 6, "Many heads, fewer keys"."""

from __future__ import annotations

import numpy as np

from mistral_lib.layers.attention import MistralAttention
from mistral_lib.teaching.exercises.kinds import Estimate, Explanation, Function, Line, Value


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
            "x.reshape(len(x), heads, -1).swapaxes(0, 1)",
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
            "A key and a value, of 128 numbers each, in 8 heads of 32 layers, two bytes a number.",
            "2 * 32 * 8 * 128 * 2 / 2**10",
        ),
    ),
    Value(
        name="attention.group",
        kind="trace by hand",
        minutes=2,
        difficulty=1,
        solution=4,
        mistakes=(
            (1, "17 modulo 8 (or 4) deals the heads out in turn. Neighbours share a key head."),
            (2, "17 // 8 divides by the number of key heads. A group has 4 query heads."),
            (5, "count the groups from 0: heads 0 to 3 are group 0."),
            (17, "only with 32 key heads would each query head have its own."),
        ),
        hints=(
            "How many query heads share a key head?",
            "Groups of 32 / 8 = 4: heads 0 to 3 use key head 0, heads 4 to 7 key head 1.",
            "17 // 4",
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
            "Query head i uses key head i // G. Repeat each head G times, along axis 1.",
            "np.repeat(key, heads // key.shape[1], axis=1)",
        ),
    ),
    Estimate(
        name="attention.parameters",
        kind="estimate",
        minutes=4,
        difficulty=2,
        solution=2 * 4_096 * (32 - 8) * 128 * 32 / 1e9,
        factor=1.25,
        unit="billion parameters",
        mistakes=(
            (4_096 * 24 * 128 * 32 / 1e9, "keys or values? Both have a kernel."),
            (2 * 4_096 * 24 * 128 / 1e9, "that is one layer. There are 32."),
            (2 * 4_096 * 32 * 128 * 32 / 1e9, "those are all of them with 32 key heads."),
            (2 * 4_096 * 8 * 128 * 32 / 1e9, "those are the ones that are left with 8 key heads."),
        ),
        hints=(
            "Which two kernels have a size that depends on the number of key heads?",
            "Each of the two has 4,096 rows, and 24 × 128 columns fewer than it could have.",
            "2 * 4096 * (32 - 8) * 128 * 32 / 1e9",
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
            "How large is the cache of one text, and how much room is there?",
            "8,192 tokens of 128 KiB are one GiB. The GPU has 80, the weights take 13.5.",
            "(80 - 13.5) / (8192 * 128 / 2**20)",
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
            "Look for key_heads[:3] followed by groups.",
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
