"""Exercises about the model, for paper, with new numbers (used by all chapters)."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from mistral_lib.teaching.exercises.fresh import Fresh


def _seen(position, window):
    return list(range(position - window + 1, position + 1))


def _slots(length, slots):
    newest = length - 1
    return [newest - (newest - slot) % slots for slot in range(slots)]


def _texts(a, tokens, exponent, size):
    """Perplexities of A and B, and their bits per byte."""
    return (2 ** (sum(a) / 3), 2**exponent, sum(a) / size, tokens * exponent / size)


def _scattered(ids, arrived, keep=None):
    """The gradient of a table of four rows: the sum of what arrived, or the last of it."""
    table = [[0, 0] for _ in range(4)]
    for row, gradient in zip(ids, arrived):
        table[row] = [g + (0 if keep else t) for g, t in zip(gradient, table[row])]
    return table


def _order(heads, key_heads):
    group = heads // key_heads
    return [place % key_heads * group + place // key_heads for place in range(heads)]


def _quarters(vector, turns):
    for _ in range(turns % 4):
        vector = -vector[1], vector[0]
    return vector


def _product(query, key, at, key_at):
    one, other = _quarters(query, at), _quarters(key, key_at)
    return one[0] * other[0] + one[1] * other[1]


PAIRS = [(a, b) for a in range(-3, 4) for b in range(-3, 4) if a and b and a != b]
VECTORS = [
    vector
    for numbers in ((1, 5, 5, 7), (1, 1, 3, 5), (1, 1, 7, 7), (2, 4, 4, 8), (2, 2, 6, 10))
    for vector in sorted(set(permutations(numbers)))
]


FRESH = {
    "attention.order": Fresh(
        text="A model has {heads} query heads and {key_heads} key heads; neighbouring query heads "
        "share a key head. A program deals the key heads out in turn: place i finds key head i "
        "modulo {key_heads}. In which order must the query heads be put in the places, so that "
        "each finds its own? Write the query head of each place, and keep the heads of a group in "
        "order.",
        book=dict(heads=6, key_heads=2),
        ranges=dict(heads=(6, 8, 10, 12, 15, 16), key_heads=(2, 3, 4, 5)),
        good=lambda heads, key_heads: heads % key_heads == 0 and heads != key_heads**2,
        answer=_order,
        mistakes=lambda heads, key_heads: (
            (
                np.argsort(_order(heads, key_heads)).tolist(),
                "that says to which place each head goes. Which head is at each?",
            ),
            (list(range(heads)), "that changes nothing, so most heads still find the wrong keys."),
            (
                [place % key_heads for place in range(heads)],
                "those are the key heads of the places. Which query head goes there?",
            ),
        ),
    ),
    "banded.reach": Fresh(
        text="With W = {window} and {layers} layers, which is the first position whose token can "
        "influence the result at position {position}?",
        book=dict(window=4, layers=3, position=20),
        ranges=dict(window=range(3, 9), layers=range(2, 7), position=range(20, 61)),
        good=lambda window, layers, position: position > layers * window,
        answer=lambda window, layers, position: position - layers * (window - 1),
        mistakes=lambda window, layers, position: (
            (
                position - layers * window,
                f"a window of {window} reaches {window - 1} tokens back, since the token itself is "
                f"one of the {window}.",
            ),
            (position - window + 1, f"that is one layer, and there are {layers}."),
            (layers * (window - 1), "that is how far it reaches. The position is asked for."),
        ),
    ),
    "cache.slot": Fresh(
        text="A cache with {slots} slots has read {length} tokens. Which positions do its slots "
        "hold? Write them in the order of the slots.",
        book=dict(slots=4, length=11),
        ranges=dict(slots=range(3, 8), length=range(7, 40)),
        good=lambda slots, length: length > slots and length % slots,
        answer=lambda slots, length: _slots(length, slots),
        mistakes=lambda slots, length: (
            (
                list(range(length - slots, length)),
                "these are the right ones, but in the order of the text. Where is each?",
            ),
            (
                _slots(length + 1, slots),
                f"the first is at position 0, so the last at {length - 1}.",
            ),
            (list(range(slots)), "later tokens have taken these slots."),
        ),
    ),
    "causal_lm.by_hand": Fresh(
        text="A text has {size} bytes. Model A cuts it into three tokens, to which it gives the "
        "probabilities 1/2**{a[0]}, 1/2**{a[1]} and 1/2**{a[2]}. Model B cuts it into {tokens} "
        "tokens and gives 1/2**{exponent} to each. Write down four numbers: the perplexities of A "
        "and B, and their bits per byte.",
        book=dict(a=(1, 3, 2), tokens=6, exponent=1, size=12),
        ranges=dict(
            a=((1, 3, 2), (1, 1, 4), (4, 2, 3), (5, 2, 2), (3, 1, 5), (6, 1, 2), (1, 2, 6)),
            tokens=(4, 5, 6, 8),
            exponent=(1, 2),
            size=(10, 12, 16, 20, 24),
        ),
        answer=_texts,
        mistakes=lambda a, tokens, exponent, size: (
            (
                (sum(2**x for x in a) / 3, *_texts(a, tokens, exponent, size)[1:]),
                "A's perplexity is not the mean of 1/p: bits are averaged.",
            ),
            (
                (sum(a) / 3, exponent, *_texts(a, tokens, exponent, size)[2:]),
                "the first two are bits per token. Perplexity is a power of 2.",
            ),
            (
                (*_texts(a, tokens, exponent, size)[:2], sum(a) / 3, exponent),
                f"the last two are bits per token. Divide by the {size} bytes.",
            ),
        ),
    ),
    "dense.by_hand": Fresh(
        text="Three tokens have the values {values[0]}, {values[1]} and {values[2]}. The scores of "
        "the middle token are 0, ln {ratio} and 0. What does causal attention return at the middle "
        "token?",
        book=dict(values=(10, 20, 40), ratio=3),
        ranges=dict(
            values=((10, 20, 40), (8, 4, 24), (12, 36, 6), (5, 15, 45), (30, 20, 70), (6, 16, 1)),
            ratio=(2, 3, 4, 9),
        ),
        answer=lambda values, ratio: (values[0] + ratio * values[1]) / (1 + ratio),
        mistakes=lambda values, ratio: (
            (
                (values[0] + ratio * values[1] + values[2]) / (2 + ratio),
                "the last token was asked too: it is in the future of the middle one.",
            ),
            (values[1], "that is the value of the winner alone. The other has a say, too."),
            (
                (values[0] + values[1]) / 2,
                f"that is the plain average of what it sees. The weights are 1 to {ratio}.",
            ),
            (values[0] + ratio * values[1], "the weights have to be divided by their sum."),
        ),
    ),
    "embedding.by_hand": Fresh(
        text="A table has four rows of two numbers. The text is {ids[0]}, {ids[1]}, {ids[2]}, and "
        "the gradients {arrived[0]}, {arrived[1]} and {arrived[2]} arrive at its three vectors. "
        "What is the gradient of the table?",
        book=dict(ids=(2, 0, 2), arrived=((1, 0), (5, 5), (2, -1))),
        ranges=dict(
            ids=[(a, b, a) for a in range(4) for b in range(4) if a != b],
            arrived=[(PAIRS[i], PAIRS[-1 - i // 2], PAIRS[i - 7]) for i in range(len(PAIRS))],
        ),
        answer=_scattered,
        mistakes=lambda ids, arrived: (
            (
                _scattered(ids, arrived, keep="last"),
                f"row {ids[0]} was read twice, and both gradients count. Yours kept the last.",
            ),
            (
                [list(pair) for pair in arrived],
                "that is what arrived, token by token. The table has four rows.",
            ),
        ),
    ),
    "masks.row": Fresh(
        text="With W = {window}: which positions does the token at position {position} see? Write "
        "them in order, the smallest first.",
        book=dict(window=4, position=6),
        ranges=dict(window=range(2, 7), position=range(7, 40)),
        answer=_seen,
        mistakes=lambda position, window: (
            (
                _seen(position, window + 1),
                f"that is a window of W + 1. A distance of {window} is no longer below {window}.",
            ),
            (
                _seen(position, window + 1)[:-1],
                "a token sees itself: the distance 0 is allowed, and it counts.",
            ),
            (_seen(position, window)[::-1], "write the smallest first."),
        ),
    ),
    "rms_norm.by_hand": Fresh(
        text="Normalise x = {x} on paper, with all scales 1 and without epsilon. Write the four "
        "numbers as a list.",
        book=dict(x=(1, 7, 5, 5)),
        ranges=dict(x=VECTORS),
        answer=lambda x: (np.array(x) / np.sqrt(np.mean(np.square(x)))).tolist(),
        mistakes=lambda x: (
            (
                (np.array(x) / np.linalg.norm(x)).tolist(),
                "that is divided by the length. Average the squares first.",
            ),
            (
                (np.array(x) / np.mean(x)).tolist(),
                "that is divided by the mean. The squares are averaged, then comes the root.",
            ),
            (
                (np.array(x) / np.mean(np.square(x))).tolist(),
                "that is divided by the mean square: its root is missing.",
            ),
        ),
    ),
    "rotary.by_hand": Fresh(
        text="Here every token is a quarter turn: (x, y) becomes (-y, x). The query {query} is at "
        "position {at}, and the key {key} is at position {key_at}. What is their product after "
        "both were turned?",
        book=dict(query=(1, 2), key=(2, 1), at=3, key_at=1),
        ranges=dict(query=PAIRS, key=PAIRS, at=range(2, 10), key_at=range(1, 9)),
        good=lambda query, key, at, key_at: at > key_at and (at - key_at) % 4 != 0,
        answer=_product,
        mistakes=lambda query, key, at, key_at: (
            (_product(query, key, 0, 0), "that is the product before anything was turned."),
            (
                _product(query, key, 0, key_at),
                "the key was turned, and the query was not. Neither is at position 0.",
            ),
        ),
    ),
}
