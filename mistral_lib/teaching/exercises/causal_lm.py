"""The exercises of chapter 1, "One token"."""

from __future__ import annotations

import math

import numpy as np

from mistral_lib.teaching.exercises.answers import numbers
from mistral_lib.teaching.exercises.kinds import (
    BreakingInput,
    Estimate,
    Experiment,
    Explanation,
    Function,
    Value,
)


def _guesses():
    """Logarithms (S, V) and token ids (S,): short texts and few words first.

    The shortest has two questions: with one, a table of every pair would differ by its axes alone.
    """
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
            "picks every pair of a row and a column: pair row i with answer i, by np.arange.": (
                lambda log_p, ids: -log_p[:-1, ids[1:]]
            ),
            "is the average: one number for each predicted token is asked for.": (
                lambda log_p, ids: _losses(log_p, ids).mean()
            ),
        },
        hints=(
            "Position i has read token i. Which token is it asked about?",
            "S tokens give S - 1 questions: drop the last row of the table and the first token.",
            "table[rows, columns] with two arrays of the same length picks one entry from each "
            "row; np.arange makes the rows.",
        ),
    ),
    Value(
        name="causal_lm.by_hand",
        kind="trace by hand",
        minutes=5,
        difficulty=1,
        solution=(4.0, 2.0, 0.5, 0.5),
        mistakes=(
            ((14 / 3, 2, 0.5, 0.5), "A's perplexity is not the mean of 1/p: bits are averaged."),
            ((64, 64, 0.5, 0.5), "those powers are of all bits. Perplexity is about one token."),
            ((2, 1, 0.5, 0.5), "the first two are bits per token. Perplexity is a power of 2."),
            ((math.exp(2), math.e, 0.5, 0.5), "the costs are in bits, so the base is 2, not e."),
            ((0.25, 0.5, 0.5, 0.5), "the power has the wrong sign: nobody chooses among 1/4."),
            ((4, 2, 2, 1), "the last two are bits per token. Divide by the 12 bytes."),
            ((4, 2, 6, 6), "the last two are the bits of the whole text: divide by its bytes."),
            ((4, 2, 2, 2), "the last two are upside down: bits come first, and bytes below."),
            ((4, 2, 1 / 3, 1 / 6), "perplexity was divided by bytes. Divide the bits."),
            ((2, 4, 0.5, 0.5), "A and B are swapped in the first two."),
        ),
        hints=(
            "A probability of 1/2 costs one bit. What does half of that probability cost?",
            "Add up the bits of each model. Perplexity wants them per token, and then as a power "
            "of 2.",
            "2 ** (bits / tokens) is the perplexity, and bits / 12 are the bits per byte.",
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
            "You need two texts of different lengths and with different ratios.",
            "Take a short text that costs 3 bits per byte and a long one that costs 1, and write "
            "down what each costs in all.",
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
            (1_000, "that is the factor for the last token. The first costs the same either way."),
            (500_500, "that is how many tokens the loop reads. The cache reads 1,000 of them."),
            (1_000_000, "that is 1,000 turns of 1,000 tokens: the first turn reads one token."),
        ),
        hints=(
            "How many tokens does the model read in the first turn, and in the last?",
            "Without a cache, 1 + 2 + 3 + ... + 1000 tokens are read; with one, 1000.",
            "sum(range(...)) of the tokens that are read, divided by those that a cache reads.",
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
            "A loss of 1.9 per what?",
            "The table has the lower loss in this chapter. Why is that worth nothing?",
            "Divide each total in bits by the bytes of the text before you compare.",
        ),
    ),
    Experiment(
        name="causal_lm.tables",
        kind="run an experiment",
        minutes=10,
        difficulty=2,
        solution=((0.743, 7.711, 3.752), "b"),
        within=0.02,
        claims={
            "a": "with four bytes the table is the best model of this chapter.",
            "b": "it has learned the documents by heart.",
            "c": "on new documents it is a little worse, but better than with one byte.",
        },
        refusals={
            "a": "the first number is about texts that it has counted, where it looks the answer "
            "up. On new ones it needs nearly 8 bits per byte.",
            "c": "on new documents it needs twice as many bits as the table with one byte.",
        },
        others=(
            ((0.743, 7.809, 3.740), "you judged the other half by what was counted on ours."),
            ((0.743, 0.778, 3.431), "the other half was judged by what was counted on itself."),
            ((0.515, 5.345, 2.601), "those are nats per byte."),
            ((1.280, 5.497, 3.752), "that is a table that looks at three bytes."),
            ((0.475, 9.719, 3.752), "that is a table that looks at five bytes."),
            ((7.711, 0.743, 3.752), "the first two numbers are swapped."),
            ((0.743, 7.711, 3.447), "the last table has counted the documents that it judges."),
        ),
        hints=(
            "How often does a table see four bytes that it has never counted before?",
            "table_bits takes the texts that are counted, and then those that are judged. The "
            "judged ones are our documents all three times.",
            "The sum of what table_bits returns, divided by documents.bytes.sum(). The texts of "
            "the other half are in other_half.items, and have to be encoded first.",
        ),
    ),
    Experiment(
        name="causal_lm.context",
        kind="run an experiment",
        minutes=12,
        difficulty=2,
        solution=((5.65, 5.64, 5.20, 4.40), "c"),
        within=0.02,
        claims={
            "a": "any text will do.",
            "b": "only the order helps.",
            "c": "the right words help even backwards, and in their order more.",
        },
        refusals={
            "a": "another document saves nothing that could be seen.",
            "b": "backwards there is no order left, and the words still save nearly half a bit.",
        },
        others=(
            ((5.70, 5.66, 5.29, 4.40), "that is the half of the panel that is for looking around."),
            ((7.31, 6.88, 7.22, 6.41), "that is prose."),
            ((3.92, 3.91, 3.60, 3.05), "those are nats."),
            ((4.40, 5.64, 5.20, 5.65), "the first number and the last are swapped."),
            ((5.65, 5.20, 5.64, 4.40), "the two numbers in the middle are swapped."),
        ),
        hints=(
            "Compare each of the three contexts with none at all.",
            "last_before(documents, 32) is a list with one row of tokens for each document, and "
            "price_after takes such a list.",
            "A list is moved on by one with own[1:] + own[:1], and a row is turned round with "
            "row[::-1].",
        ),
    ),
    Experiment(
        name="causal_lm.honest",
        kind="run an experiment",
        minutes=12,
        difficulty=2,
        solution=((0.415, 0.404, 0.319, 0.200), "b"),
        within=0.006,
        claims={
            "a": "the model is too sure of itself in both.",
            "b": "in documents it claims what it can keep, and in prose it is too sure.",
            "c": "its probabilities can be taken at their word in both.",
        },
        refusals={
            "a": "in documents the two numbers are so close that 26 texts cannot tell them apart.",
            "c": "in prose it is less sure, but it is right much less often than it says.",
        },
        others=(
            ((0.357, 0.241, 0.305, 0.169), "padding was counted, too."),
            (
                (0.400, 0.387, 0.319, 0.197),
                "those are means over texts, or of the other half. Count every token of "
                "`documents` alike, and then of `prose`.",
            ),
            (
                (0.282, 0.404, 0.122, 0.200),
                "take the probability of the likeliest token, not of the one that came.",
            ),
            ((0.404, 0.415, 0.200, 0.319), "in each pair the two are swapped."),
            ((0.319, 0.200, 0.415, 0.404), "documents come first."),
        ),
        hints=(
            "A calibrated model is right as often as it says.",
            "softmax(read(model, rows)) has a row for each token. The last row of a text has no "
            "answer, and rows.padding_mask says which tokens are real.",
            "Keep .max(axis=-1) and .argmax(axis=-1) of the rows [:, :-1]. Compare the second with "
            "rows.token_ids[:, 1:], and average both where rows.padding_mask[:, 1:] is true.",
        ),
    ),
]
