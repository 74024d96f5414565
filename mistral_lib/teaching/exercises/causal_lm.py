"""The exercises of chapter 1, "One token"."""

from __future__ import annotations

import math

import numpy as np

from mistral_lib.generation.reading import PromptReader
from mistral_lib.teaching.exercises.answers import numbers
from mistral_lib.teaching.exercises.kinds import (
    BreakingInput,
    Estimate,
    Explanation,
    Function,
    Line,
    Value,
)


def _guesses():
    """Logarithms (S, V) and token ids (S,): short texts and few words first."""
    yield np.array([[-1.0, -2.0], [-3.0, -4.0]]), np.array([0, 1])
    yield -np.arange(1.0, 10.0).reshape(3, 3), np.array([0, 2, 1])
    random = np.random.default_rng(1)
    for length, vocabulary in ((4, 3), (3, 5), (5, 4)):
        ids = random.permutation(5)[:length] % vocabulary
        yield -random.integers(1, 30, (length, vocabulary)).astype(float), ids


def _losses(log_probabilities, ids):
    return -log_probabilities[np.arange(len(ids) - 1), ids[1:]]


def _pooled(bits, sizes):
    return bits.sum() / sizes.sum()


def _mean_of_ratios(bits, sizes):
    return (bits / sizes).mean()


def _refuse(bits, sizes):
    """Whether the lists could have come from texts."""
    if bits.ndim != 1 or bits.shape != sizes.shape or not bits.size:
        return "Give two lists of the same length: a text has bits and bytes."
    if not (sizes >= 1).all() or (sizes % 1).any():
        return "Every text has at least one byte, and whole bytes only."
    return None if (np.isfinite(bits) & (bits >= 0)).all() else "No text costs less than 0 bits."


EXERCISES = [
    Estimate(
        name="causal_lm.numbers",
        kind="estimate",
        minutes=2,
        difficulty=1,
        solution=4_096 * 32_000 * 4 / 2**20,
        factor=1.25,
        unit="MiB",
        mistakes=(
            (32_000 * 4 / 2**20, "that is the last position alone. Every position answers."),
            (4_096 * 32_000 / 2**20, "that counts the numbers. Each takes four bytes."),
            (4_096 * 32_000 * 2 / 2**20, "two bytes are bfloat16; logits are float32."),
            (4_096 * 4_096 * 4 / 2**20, "those are the hidden states, 4,096 numbers a token."),
        ),
        hints=(
            "How many numbers does one position return, and how many positions are there?",
            "The last two of the three sizes (1, S, V), and the bytes of a float32.",
            "4096 * 32000 * 4 / 2**20",
        ),
    ),
    Function(
        name="causal_lm.shift",
        kind="missing lines",
        minutes=6,
        difficulty=2,
        solution=_losses,
        cases=_guesses,
        mistakes={
            "scores each position on the token that it has just read: shift by one.": (
                lambda log_p, ids: -log_p[np.arange(len(ids) - 1), ids[:-1]]
            ),
            "has one number too many: the last position's token is not in the text.": (
                lambda log_p, ids: -log_p[np.arange(len(ids)), ids]
            ),
            "asks the last position for the first token: np.roll goes round in a circle.": (
                lambda log_p, ids: -log_p[np.arange(len(ids)), np.roll(ids, -1)]
            ),
            "shifts the wrong way: it asks each position for the token before it.": (
                lambda log_p, ids: -log_p[np.arange(1, len(ids)), ids[:-1]]
            ),
            "asks every position for the token that it has just read, and lacks the minus sign.": (
                lambda log_p, ids: log_p[np.arange(len(ids)), ids]
            ),
            "lacks the minus sign: a loss is never negative.": (
                lambda log_p, ids: -_losses(log_p, ids)
            ),
            "is the average: one number for each predicted token is asked for.": (
                lambda log_p, ids: _losses(log_p, ids).mean()
            ),
        },
        hints=(
            "Position i has read token i. Which token is it asked about?",
            "S tokens give S - 1 questions: drop the last row of the table and the first token.",
            "-log_probabilities[np.arange(len(ids) - 1), ids[1:]]",
        ),
    ),
    Value(
        name="causal_lm.by_hand",
        kind="trace by hand",
        minutes=3,
        difficulty=1,
        solution=0.5,
        mistakes=(
            (2, "that is bits per token. Divide the total by bytes."),
            (6, "that is the total in bits, not yet divided by the bytes."),
            (-0.5, "the size is right. A surprise is minus the logarithm, so it is positive."),
            (7 / 12, "each token's own ratio was averaged, so long tokens count too little."),
            (math.log(2) / 2, "that is in nats. Halving a probability costs one bit."),
        ),
        hints=(
            "A probability of 1/2 costs one bit. What does half of that probability cost?",
            "The costs are 1, 3 and 2 bits, and the three tokens spell 12 bytes.",
            "(1 + 3 + 2) / (4 + 6 + 2)",
        ),
    ),
    Estimate(
        name="causal_lm.units",
        kind="estimate",
        minutes=2,
        difficulty=1,
        solution=round(2.0 / math.log(2) / 4.0, 3),
        factor=1.05,
        unit="bits per byte",
        mistakes=(
            (0.5, "that is nats per byte. A nat is 1 / ln 2 = 1.44 bits."),
            (2 / math.log(2), "that is bits per token. A token is 4 bytes here."),
            (2 * math.log(2) / 4, "ln 2 is on the wrong side: bits are smaller, so more of them."),
            (8 / math.log(2), "the bytes are on the wrong side: a byte is a part of a token."),
        ),
        hints=(
            "Two units change: nats become bits, and tokens become bytes.",
            "One nat is 1.44 bits; one token is 4 bytes.",
            "2.0 / math.log(2) / 4.0",
        ),
    ),
    BreakingInput(
        name="causal_lm.average",
        kind="break this function",
        minutes=4,
        difficulty=2,
        right=_pooled,
        broken=_mean_of_ratios,
        solution=([30, 100], [10, 100]),
        form="A pair of lists (bits, sizes), such as ([8, 4], [2, 2]),",
        readers=(numbers, numbers),
        valid=_refuse,
        mistakes={
            "One text has one ratio, and that is its own mean.": lambda bits, sizes: len(bits) == 1,
            "All texts are equally long, so that each counts as much as its bytes do.": (
                lambda bits, sizes: (sizes == sizes[0]).all()
            ),
            "All texts cost the same for each byte, so that every average of them is that.": (
                lambda bits, sizes: np.allclose(bits / sizes, bits[0] / sizes[0])
            ),
        },
        hints=(
            "When is an average of ratios the ratio of the sums?",
            "One text, or texts of one length, will not do. Neither will equal ratios.",
            "A short text with 3 bits per byte and a long one with 1: ([30, 100], [10, 100]).",
        ),
    ),
    Estimate(
        name="causal_lm.loop_cost",
        kind="estimate",
        minutes=3,
        difficulty=2,
        solution=sum(range(1, 1_001)) / 1_000,
        factor=1.25,
        unit="times",
        mistakes=(
            (1_000, "so much more does the last token cost. The first costs the same either way."),
            (500_500, "that is how many tokens the loop reads. The cache reads 1,000 of them."),
            (1_000_000, "that is 1,000 turns of 1,000 tokens: the first turn reads one token."),
        ),
        hints=(
            "How many tokens does the model read in the first turn, and in the last?",
            "Without a cache, 1 + 2 + 3 + ... + 1000 tokens are read; with one, 1000.",
            "(1000 * 1001 / 2) / 1000",
        ),
    ),
    Line(
        name="causal_lm.library",
        kind="read the library",
        minutes=4,
        difficulty=2,
        function=PromptReader._read_chunk,
        line="last = states",
        wrong={
            "before, part": (
                "this line takes out the rows that still have tokens, and nothing of a row."
            ),
            "states, part": (
                "this line reads the whole chunk: it returns hidden states for all of it."
            ),
            "last = jnp": (
                "this line keeps the old state of rows that are done. All are single by now."
            ),
        },
        hints=(
            "Logits are made from hidden states, V numbers from each. How many are still there?",
            "Follow the name `states`: in which line does it lose its positions?",
            "An index [rows, positions] with one position a row leaves one hidden state a row.",
        ),
    ),
    Explanation(
        name="causal_lm.explain",
        kind="explain",
        minutes=5,
        difficulty=2,
        points=(
            "a loss is an average over tokens, and the two models cut the text differently",
            "longer tokens are fewer and harder to guess, so the loss per token is higher",
            "the total surprise of a text does not depend on how it was cut: divide it by bytes",
            "both have to be judged on the same text, which neither was trained on",
        ),
        hints=(
            "What is a loss of 1.9 a loss of 1.9 per?",
            "The table has the lower loss in this chapter. Why is that worth nothing?",
            "Divide each total in bits by the bytes of the text before you compare.",
        ),
    ),
]
