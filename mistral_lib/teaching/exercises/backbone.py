"""The exercises of chapter 12, "The backbone"."""

from __future__ import annotations

import re

import numpy as np

from mistral_lib.teaching.exercises.answers import texts
from mistral_lib.teaching.exercises.kinds import (
    BreakingInput,
    Estimate,
    Explanation,
    Function,
    Value,
)
from mistral_lib.teaching.facts import MISTRAL_7B

TABLES_7B = 2 * 32_000 * 4096
BLOCK_7B = 2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096
NAME = re.compile(r"decoder(?:_([1-9]\d*))?")


def _models():
    """V, n, H, K, D and F: small ones first, Mistral 7B last."""
    yield 3, 1, 2, 1, 4, 5
    yield 10, 2, 8, 4, 16, 8
    yield 2048, 6, 6, 2, 192, 512
    yield 32_000, 32, 32, 8, 4096, 14336


def _count(V, n, H, K, D, F, *, tables=2, kernels=3, norms=2, final=1, key_heads=None):
    """The parameters of a backbone, or what comes out if one of its parts is counted wrongly."""
    key_width = (K if key_heads is None else H) * D // H
    block = 2 * D * D + 2 * D * key_width + kernels * D * F + norms * D
    return tables * V * D + n * block + final * D


def _wrongly(**changes):
    return lambda *sizes: _count(*sizes, **changes)


def _number(name):
    return int(name.partition("_")[2] or 0)


def _numbers_in_order(names):
    return sorted(map(_number, names))


def _numbers_by_name(names):
    return [_number(name) for name in sorted(names)]


def _refuse(names):
    """Whether these could be the blocks of a model."""
    for name in names:
        if not NAME.fullmatch(name):
            return f"{name!r} is not a name like decoder, decoder_1, decoder_2."
    return None if len(set(names)) == len(names) else "No two blocks have the same name."


def _states():
    """States (n + 1, S, D), a scale (D,), a kernel (D, V) and ids (S,): small ones first."""
    yield np.array([[[3.0, 4.0], [0.0, 1.0]]]), np.array([1.0, 2.0]), np.eye(2), np.array([0, 1])
    random = np.random.default_rng(12)
    for stations, tokens, size, vocabulary in ((2, 3, 2, 4), (3, 4, 3, 5)):
        states = random.integers(-5, 6, (stations, tokens, size)).astype(float)
        scale = random.integers(1, 4, size).astype(float)
        kernel = random.integers(-2, 3, (size, vocabulary)).astype(float)
        yield states, scale, kernel, random.integers(0, vocabulary, tokens)
    # Logits of 1,000, whose exponentials are infinite.
    yield np.ones((1, 2, 1)), np.ones(1), np.full((1, 2), 1000.0), np.array([0, 1])


def _softmax(z):
    weights = np.exp(z - z.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _norm(x, scale):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * scale


def _lens(states, scale, kernel, ids):
    chances = _softmax(_norm(states, scale) @ kernel)[:, :-1]  # (n + 1, S - 1, V)
    return chances[:, np.arange(len(ids) - 1), ids[1:]]


def _without_norm(states, scale, kernel, ids):
    return _softmax(states @ kernel)[:, np.arange(len(ids) - 1), ids[1:]]


def _without_maximum(states, scale, kernel, ids):
    weights = np.exp(_norm(states, scale) @ kernel)
    chances = weights / weights.sum(axis=-1, keepdims=True)
    return chances[:, np.arange(len(ids) - 1), ids[1:]]


def _without_scale(states, scale, kernel, ids):
    return _lens(states, 1.0, kernel, ids)


def _token_that_was_read(states, scale, kernel, ids):
    chances = _softmax(_norm(states, scale) @ kernel)
    return chances[:, np.arange(len(ids) - 1), ids[:-1]]


def _logits(states, scale, kernel, ids):
    return (_norm(states, scale) @ kernel)[:, np.arange(len(ids) - 1), ids[1:]]


EXERCISES = [
    BreakingInput(
        name="backbone.order",
        kind="break this function",
        minutes=4,
        difficulty=1,
        right=_numbers_in_order,
        broken=_numbers_by_name,
        solution=(["decoder_9", "decoder_10"],),
        form='A list of names, such as ["decoder", "decoder_1"],',
        readers=(texts,),
        valid=_refuse,
        mistakes={
            "Up to decoder_9, the order of letters is that of the numbers.": (
                lambda names: all(_number(name) < 10 for name in names)
            ),
            "Of these names, those of one digit come first by letters as well as by numbers.": (
                lambda names: True
            ),
        },
        hints=(
            "Names are sorted letter by letter. When is that not the order of the numbers?",
            "The shipped model has 6 blocks, and there it works. Mistral 7B has 32.",
            '["decoder_9", "decoder_10"]',
        ),
    ),
    Value(
        name="backbone.silent",
        kind="predict, then run",
        minutes=4,
        difficulty=2,
        solution=5,
        mistakes=(
            (4, "dropout leaves no trace in the shapes either, though only training uses it."),
            (6, "that is how many the names and shapes do tell."),
            (7, "the kernel of the queries is (D, H, h) in the file, so that H and K can be read."),
            (3, "go through all eleven, and ask of each in which shape it stands."),
        ),
        hints=(
            "A number that says how large an array is can be read from that array.",
            "The number of blocks is in the names. Which of the eleven say how to compute?",
            "Wavelength, scaling factor, epsilon, window and dropout: 5.",
        ),
    ),
    Value(
        name="backbone.by_hand",
        kind="trace by hand",
        minutes=5,
        difficulty=1,
        solution=_count(10, 2, 8, 4, 16, 8),
        mistakes=(
            (_count(10, 2, 8, 4, 16, 8, final=0), "one norm is missing, the last."),
            (_count(10, 2, 8, 4, 16, 8, tables=1), "one table was counted. There are two."),
            (_count(10, 1, 8, 4, 16, 8), "one block was counted. There are two."),
            (
                _count(10, 2, 8, 4, 16, 8, key_heads="all"),
                "keys and values have 4 heads, not 8: their kernels are 16 by 8.",
            ),
            (_count(10, 2, 8, 4, 16, 8, kernels=2), "a network has three kernels."),
        ),
        hints=(
            "Two tables, then the blocks, then one more norm.",
            "A block: 16 × 16 twice, 16 × 8 twice, 16 × 8 three times, and 16 twice.",
            "2 * 160 + 2 * (2 * 256 + 2 * 128 + 3 * 128 + 2 * 16) + 16",
        ),
    ),
    Function(
        name="backbone.count",
        kind="missing lines",
        minutes=6,
        difficulty=2,
        solution=_count,
        cases=_models,
        mistakes={
            "counts one table: the model reads with one and writes with another.": _wrongly(
                tables=1
            ),
            "gives keys and values H heads: they have K, and are K * D // H wide.": _wrongly(
                key_heads="all"
            ),
            "leaves out the norm behind the last block.": _wrongly(final=0),
            "counts one norm a block: there are two.": _wrongly(norms=1),
            "counts two kernels in a network: one with a gate has three.": _wrongly(kernels=2),
            "leaves out the norms.": _wrongly(norms=0, final=0),
        },
        hints=(
            "Add up the sizes of all arrays: two tables, n blocks, one norm.",
            "A block has four kernels of attention, three of the network and two norms.",
            "2*V*D + n * (2*D*D + 2*D*(K*D//H) + 3*D*F + 2*D) + D",
        ),
    ),
    Estimate(
        name="backbone.memory",
        kind="estimate",
        minutes=2,
        difficulty=1,
        solution=round(MISTRAL_7B * 2 / 2**30, 2),
        factor=1.05,
        unit="GiB",
        mistakes=(
            (MISTRAL_7B * 4 / 2**30, "that is float32, four bytes a number."),
            (MISTRAL_7B * 2 / 1e9, "those are gigabytes. A GiB is 2 ** 30 bytes."),
            (MISTRAL_7B / 2**30, "that is one byte a number."),
        ),
        hints=(
            "How many bytes has a number of 16 bits?",
            "Two bytes for each of 7.24 billion numbers; a GiB is 2 ** 30 bytes.",
            "7_241_732_096 * 2 / 2**30",
        ),
    ),
    Estimate(
        name="backbone.fit",
        kind="estimate",
        minutes=4,
        difficulty=2,
        solution=(24 * 2**30 // 2 - TABLES_7B - 4096) // BLOCK_7B,
        factor=1.04,
        unit="blocks",
        mistakes=(
            (28, "that is float32, four bytes a number."),
            (116, "that is one byte a number."),
            (59, "the tables need room, too: 262 million numbers."),
            (53, "a GiB is 2 ** 30 bytes, not a billion."),
        ),
        hints=(
            "How many numbers fit, and how many of them are not in blocks?",
            "24 GiB hold 12.9 billion numbers. The tables are 262 million, a block 218 million.",
            "(24 * 2**30 / 2 - 2 * 32_000 * 4096) / 218_112_000",
        ),
    ),
    Estimate(
        name="backbone.rounding",
        kind="estimate",
        minutes=3,
        difficulty=2,
        solution=100 * 2.0**-8,
        factor=1.2,
        unit="%",
        mistakes=(
            (100 * 2.0**-7, "that is the step between neighbours. The nearest is half as far."),
            (100 * 2.0**-9, "the 8 digits include the leading 1, which is not stored."),
            (100 * 2.0**-11, "that is float16, which has 11 digits."),
        ),
        hints=(
            "How far apart are neighbours just above 1, and how far is the nearest at most?",
            "With 8 binary digits, 1.0000000 is followed by 1.0000001: a step of 1/128.",
            "100 * (1 / 128) / 2",
        ),
    ),
    Function(
        name="backbone.lens",
        kind="missing lines",
        minutes=7,
        difficulty=2,
        solution=_lens,
        cases=_states,
        mistakes={
            "leaves out the last norm: late states are larger, and would look surer.": (
                _without_norm
            ),
            "does not subtract the highest logit before exp, which high logits make infinite.": (
                _without_maximum
            ),
            "leaves out the scale of the last norm.": _without_scale,
            "asks for the token that was just read: the answer is the one behind it.": (
                _token_that_was_read
            ),
            "returns logits: probabilities are asked for.": _logits,
        },
        hints=(
            "As if the model ended there: which two parts stand behind the last block?",
            "Norm, scale, kernel, softmax; then row i is asked about token i + 1.",
            "chances[:, np.arange(len(ids) - 1), ids[1:]]",
        ),
    ),
    Explanation(
        name="backbone.explain",
        kind="explain",
        minutes=5,
        difficulty=2,
        points=(
            "two bytes a number round every result, so that logits have to differ a little",
            "what is to be expected can be measured: the same model in both dtypes",
            "a mistake is looked for in float32, where the two programs have to agree closely",
            "differences are compared block by block, and the first that is too large names it",
        ),
        hints=(
            "By how much do the logits of one and the same model differ in bfloat16?",
            "In which dtype would a mistake stand out from the rounding?",
            "Say what you would run before you decide.",
        ),
    ),
]
