"""The exercises of chapter 3, "Embeddings and back"."""

from __future__ import annotations

import math

import numpy as np

from mistral_lib.teaching.exercises.answers import numbers, whole
from mistral_lib.teaching.exercises.kinds import (
    BreakingInput,
    Estimate,
    Experiment,
    Explanation,
    Function,
    Value,
)


def _arrivals():
    """Token ids (S,), the gradients that arrive at their vectors (S, D), and V: short first."""
    for ids, vocabulary in (([0], 2), ([1, 0], 2), ([1, 1], 2), ([2, 0, 2, 2], 4)):
        yield np.array(ids), np.arange(1.0, 1 + 2 * len(ids)).reshape(-1, 2), vocabulary
    random = np.random.default_rng(3)
    yield np.array([3, 1, 3]), random.integers(-5, 6, (3, 4)).astype(float), 6


def _scatter(ids, arrived, vocabulary):
    gradient = np.zeros((vocabulary, arrived.shape[1]))
    np.add.at(gradient, ids, arrived)
    return gradient


def _last_one_stays(ids, arrived, vocabulary):
    gradient = np.zeros((vocabulary, arrived.shape[1]))
    gradient[ids] += arrived
    return gradient


def _averaged(ids, arrived, vocabulary):
    counts = np.bincount(ids, minlength=vocabulary)
    return _scatter(ids, arrived, vocabulary) / np.maximum(counts, 1)[:, None]


def _cosines(table, row):
    """The cosine of every row with one, and -inf for that row itself."""
    lengths = np.linalg.norm(table, axis=1)
    return _of_others(table @ table[row] / lengths / lengths[row], row)


def _of_others(scores, row):
    return np.where(np.arange(len(scores)) == row, -np.inf, scores)


def _nearest(table, row):
    """Which rows have the highest cosine: one, or several."""
    cosines = _cosines(table, row)
    return cosines > cosines.max() - 1e-9


def _highest(table, row):
    """Which rows have the highest product: one, or several."""
    products = _of_others(table @ table[row], row)
    return products >= products.max() - 1e-9 * abs(products.max())


def _finds_a_nearest(table, row):
    """Whether a row of the highest product is one of those of the highest cosine."""
    return (_nearest(table, row) & _highest(table, row)).any()


def _level(table, row):
    """Whether one of several rows of the highest product has the highest cosine, too."""
    return _highest(table, row).sum() > 1 and _finds_a_nearest(table, row)


def _refuse(table, row):
    """Whether this could be a table of vectors and one of its rows."""
    if table.ndim != 2 or len(table) < 3:
        return "Give a table of at least three rows."
    sizes = abs(table[table != 0])
    if not np.isfinite(table).all() or not ((sizes > 1e-50) & (sizes < 1e50)).all():
        return "The numbers have to be finite, and of ordinary size."
    if not table.any(axis=1).all():
        return "No row may be all zeros: it has no direction."
    return None if 0 <= row < len(table) else f"The row is one of 0 to {len(table) - 1}."


def _last_products():
    """Hidden states (S, D) and kernels (D, V): a long sum, a long input, then some of each."""
    yield np.array([[256.0, 1.0]]), np.array([[1.0], [1.0]])
    yield np.array([[257.0]]), np.array([[1.0]])
    yield np.array([[1.0]]), np.array([[257.0]])
    yield np.array([[257.0, -256.0]]), np.array([[1.0], [1.0]])
    yield np.array([[2_049.0, 257.0]]), np.array([[1.0], [1.0]])
    yield np.array([[70_000.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 3.0]])
    random = np.random.default_rng(3)
    hidden, kernel = random.integers(-40, 41, (2, 3, 3)).astype(float)
    yield hidden[:2], np.concatenate([kernel, hidden], axis=1)


def _product(hidden, kernel, *, inputs=("bfloat16", "bfloat16"), sums="float32"):
    hidden, kernel = (np.asarray(x, np.dtype(name)) for x, name in zip((hidden, kernel), inputs))
    product = hidden.astype("float32") @ kernel.astype("float32")
    return product.astype(np.dtype(sums)).astype("float32")


def _equally_long(table, row):
    lengths = np.delete(np.linalg.norm(table, axis=1), row)
    return np.allclose(lengths, lengths[0])


EXERCISES = [
    Value(
        name="embedding.by_hand",
        kind="trace by hand",
        minutes=3,
        difficulty=1,
        solution=[[5, 5], [0, 0], [3, -1], [0, 0]],
        mistakes=(
            (
                [[5, 5], [0, 0], [2, -1], [0, 0]],
                "row 2 was read twice, and both gradients count. Yours kept the last.",
            ),
            (
                [[5, 5], [0, 0], [1, 0], [0, 0]],
                "row 2 was read twice, and both gradients count. Yours kept the first.",
            ),
            (
                [[5, 5], [0, 0], [1.5, -0.5], [0, 0]],
                "that is the average of what arrived at row 2. A gradient is a sum.",
            ),
            (
                [[1, 0], [5, 5], [2, -1]],
                "that is what arrived, token by token. The table has four rows.",
            ),
        ),
        hints=(
            "If you move a row a little, every vector that was read from it moves, too.",
            "For each of the rows 0 to 3: which of the three tokens read it?",
            "Write four lists. For each row, go through the three tokens and add up what arrived.",
        ),
    ),
    Function(
        name="embedding.scatter",
        kind="missing lines",
        minutes=5,
        difficulty=2,
        solution=_scatter,
        cases=_arrivals,
        mistakes={
            "keeps only the last gradient of a row that was read twice.": _last_one_stays,
            "averages over the times a row was read: a gradient is a sum.": _averaged,
            "returns a row for each token that was read, not for each row of the table.": (
                lambda ids, arrived, vocabulary: arrived
            ),
            "counts how often a row was read, and forgets what arrived.": (
                lambda ids, arrived, vocabulary: _scatter(ids, np.ones_like(arrived), vocabulary)
            ),
            "gives every row the sum of all gradients: which rows were read?": (
                lambda ids, arrived, vocabulary: np.tile(arrived.sum(axis=0), (vocabulary, 1))
            ),
        },
        hints=(
            "Start with zeros. Then each vector that arrives is added to the row it came from.",
            "With repeated indices, NumPy's += keeps only one of the additions. Which function "
            "keeps them all?",
            "A loop over zip(ids, arrived) does it, and so does np.add.at, which has three "
            "arguments. How large is the array of zeros that they add to?",
        ),
    ),
    Experiment(
        name="embedding.silence",
        kind="run an experiment",
        minutes=10,
        difficulty=2,
        solution=((1.45, 6.6), "b"),
        within=0.1,
        claims={
            "a": "a row of zeros says nothing, so nothing changes.",
            "b": "a row of zeros has the logit 0, and that takes chance from tokens that do come.",
            "c": "without these rows the model no longer knows what comes next.",
        },
        refusals={
            "a": "these tokens had no chance at all before, and now they have more than 1 %.",
            "c": "0.007 bits per byte is half a percent of the 1.36 that the model needs anyway.",
        },
        others=(
            (
                (0, 0),
                "that is nearly nothing. Give percent and thousandths of a bit; and is your kernel "
                "the one that is used inside transplanted?",
            ),
            ((1.60, 7.6), "those are documents of the half that is for looking around."),
            ((1.45, 0.0066), "the bits are asked for in thousandths."),
            ((0.0145, 6.6), "the chance is asked for in percent."),
            ((0.10, 0.4), "those rows were set to the average of all others, not to zero."),
            ((2.44, 3057.1), "that is one table for both ends."),
        ),
        hints=(
            "What is the logit of a token whose row is zero? Compare it with the others'.",
            "transplanted takes a function of hidden and kernel for its logits. That function "
            "may ignore its kernel and use another one.",
            "Copy writing.T, set the columns of never to 0, and read the documents inside the "
            "with block. The costs are sums of bits over sums of bytes.",
        ),
    ),
    BreakingInput(
        name="embedding.nearest",
        kind="break this function",
        minutes=4,
        difficulty=2,
        right=lambda table, row: True,
        broken=_finds_a_nearest,
        solution=([[1, 0], [2, 0], [9, 9]], 0),
        form="A pair (table, row), such as ([[1, 0], [0, 1], [1, 1]], 0),",
        readers=(numbers, whole),
        valid=_refuse,
        mistakes={
            "The other rows are equally long: then the order of products is that of cosines.": (
                _equally_long
            ),
            "Several rows have the highest product. Which of them wins is chance: give the wrong "
            "one a clear lead.": _level,
            "Several rows have the highest cosine, and the function returns one of them.": (
                lambda table, row: _nearest(table, row).sum() > 1
            ),
            "The row of the highest product has the highest cosine, too.": lambda table, row: True,
        },
        hints=(
            "A product is a cosine times two lengths. Which of them differs between candidates?",
            "Put one row in nearly the same direction, and another, much longer one well "
            "to the side.",
            "Let row 0 be [1, 0], row 1 be [2, 0], and row 2 point half-way between the axes. How "
            "long must row 2 be?",
        ),
    ),
    Experiment(
        name="embedding.contexts",
        kind="run an experiment",
        minutes=10,
        difficulty=3,
        solution=((0.17, 0.20), "b"),
        within=0.015,
        claims={
            "a": "the mirror image holds: what comes after is the reading table's subject.",
            "b": "what comes after shows in both tables to about the same small degree.",
            "c": "what comes after shows in neither table.",
        },
        refusals={
            "a": "then the reading table would agree better than the writing table.",
            "c": "both are far above zero, and their intervals are, too.",
        },
        others=(
            ((0.09, 0.42), "that is what stood before. Turn the counts around."),
            ((0.20, 0.17), "the reading table comes first."),
            ((0.28, 0.24), "those are correlations of the numbers. Take those of their ranks."),
            ((0.17, 0.15), "those are the halves that are for looking around."),
            ((0.17, 0.42), "the second number is about what stood before."),
            ((0.09, 0.20), "the first number is about what stood before."),
        ),
        hints=(
            "Which rows of which matrix say what came after a token?",
            "follows has a row for each token, and in it how often each token came after.",
            "agreement takes a table and a matrix with one row of counts for each token. Take the "
            "means of what it returns.",
        ),
    ),
    Explanation(
        name="embedding.explain",
        kind="explain",
        minutes=5,
        difficulty=2,
        points=(
            "equal shapes do not make equal tables: these two were trained apart",
            "the config says whether they are tied; a checkpoint of untied ones holds both",
            "nothing crashes: the symptom is a loss above that of a uniform guess",
            "tying is a decision before training, and it saves one table of V times D numbers",
        ),
        hints=(
            "What do the two tables of one token have in common in this model?",
            "What happened to the bits per byte when one table did the work of both?",
            "Say how your colleague would notice: compare the loss with that of a uniform guess.",
        ),
    ),
    Function(
        name="embedding.logits",
        kind="missing lines",
        minutes=6,
        difficulty=2,
        solution=_product,
        cases=_last_products,
        mistakes={
            "makes float32 of sums that were rounded to bfloat16 before: that is too late.": (
                lambda hidden, kernel: _product(hidden, kernel, sums="bfloat16")
            ),
            "leaves the inputs as they are: of each, a bfloat16 model keeps eight bits.": (
                lambda hidden, kernel: _product(hidden, kernel, inputs=("float32", "float32"))
            ),
            "rounds the hidden states only: the kernel is bfloat16, too.": lambda hidden, kernel: (
                _product(hidden, kernel, inputs=("bfloat16", "float32"))
            ),
            "rounds the kernel only: the hidden states are bfloat16, too.": lambda hidden, kernel: (
                _product(hidden, kernel, inputs=("float32", "bfloat16"))
            ),
            "rounds only the sums: it is the inputs that are bfloat16.": lambda hidden, kernel: (
                _product(hidden, kernel, inputs=("float32",) * 2, sums="bfloat16")
            ),
            "takes float16, which ends at 65,504 and keeps more digits than bfloat16.": (
                lambda hidden, kernel: _product(hidden, kernel, inputs=("float16", "float16"))
            ),
        },
        hints=(
            "Round each of the two inputs, and don't round the sums.",
            'jnp.asarray(x, "bfloat16") rounds. A product of two bfloat16 arrays is bfloat16, '
            "unless you ask for something else.",
            "jnp.matmul has an argument preferred_element_type. Or turn the rounded inputs back "
            "into float32 before you multiply.",
        ),
    ),
    Estimate(
        name="embedding.rungs",
        kind="estimate",
        minutes=4,
        difficulty=2,
        solution=round(100 * (math.exp(1 / 8) - 1), 1),
        factor=1.2,
        unit="%",
        mistakes=(
            (100 * (math.exp(1 / 16) - 1), "the step of 1/16 holds between 8 and 16, not at 20."),
            (100 / 16, "the step of 1/16 holds between 8 and 16, not at 20."),
            (100 * (math.exp(1 / 4) - 1), "the step is 1/4 only from 32 on."),
            (1 / 8, "that is the step of the logit. What does it do to a probability, in percent?"),
            (100 / 256, "that is how far a number moves. Logits are exponents."),
        ),
        hints=(
            "Which numbers near 20 does bfloat16 have, and what does one step of a logit do to the "
            "probability?",
            "From 16 to 32 there are 128 steps. If a logit rises by s, the probability is "
            "multiplied by e to the s.",
            "np.exp of the step is the ratio of the two probabilities. A ratio of 1 is 0 percent.",
        ),
    ),
]
