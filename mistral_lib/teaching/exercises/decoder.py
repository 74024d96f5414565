"""The exercises of chapter 11, "The block and the residual stream"."""

from __future__ import annotations

import numpy as np

from mistral_lib.teaching.exercises.kinds import Estimate, Explanation, Function, Value

ATTENTION_7B = 2 * 4096 * 4096 + 2 * 4096 * 1024
NETWORK_7B = 3 * 4096 * 14336


def _blocks():
    """Hidden states (S, D), then what stands in for norm, attention, norm and network."""
    yield np.array([[2.0]]), np.negative, np.square, np.reciprocal, np.exp2
    yield np.array([[1.0, 2.0], [4.0, 3.0]]), np.square, np.negative, np.abs, np.sqrt
    yield np.array([[1.0, -2.0, 3.0]]), np.sign, np.exp2, np.square, np.tanh


def _block(x, attention_norm, attention, feedforward_norm, feedforward):
    x = x + attention(attention_norm(x))
    return x + feedforward(feedforward_norm(x))


def _parallel(x, attention_norm, attention, feedforward_norm, feedforward):
    return x + attention(attention_norm(x)) + feedforward(feedforward_norm(x))


def _stream_normalised(x, attention_norm, attention, feedforward_norm, feedforward):
    x = attention_norm(x)
    x = x + attention(x)
    x = feedforward_norm(x)
    return x + feedforward(x)


def _post_norm(x, attention_norm, attention, feedforward_norm, feedforward):
    x = attention_norm(x + attention(x))
    return feedforward_norm(x + feedforward(x))


def _no_stream(x, attention_norm, attention, feedforward_norm, feedforward):
    return feedforward(feedforward_norm(attention(attention_norm(x))))


def _stream_once(x, attention_norm, attention, feedforward_norm, feedforward):
    x = x + attention(attention_norm(x))
    return feedforward(feedforward_norm(x))


def _no_norms(x, attention_norm, attention, feedforward_norm, feedforward):
    x = x + attention(x)
    return x + feedforward(x)


EXERCISES = [
    Value(
        name="decoder.by_hand",
        kind="trace by hand",
        minutes=3,
        difficulty=1,
        solution=[0, 6],
        mistakes=(
            ([-1, 2], "that is the last update alone. The stream keeps what was there before."),
            ([-3, 6], "that is the sum of the updates. The embedding is in the stream, too."),
            ([-1, 4], "one update was left out: there are three."),
            ([3, 0], "that is the stream as it began."),
        ),
        hints=(
            "Nothing is replaced in a stream. What happens instead?",
            "Add feature by feature: the embedding and three updates.",
            "[3 - 2 + 0 - 1, 0 + 1 + 3 + 2]",
        ),
    ),
    Function(
        name="decoder.write",
        kind="missing lines",
        minutes=4,
        difficulty=1,
        solution=_block,
        cases=_blocks,
        mistakes={
            "lets both parts read the same stream: the network reads what attention wrote.": (
                _parallel
            ),
            "adds to the normalised copy: the stream itself is never normalised.": (
                _stream_normalised
            ),
            "normalises after adding: that is the post-norm of the first Transformer.": _post_norm,
            "has no stream: each update is added to what it came from.": _no_stream,
            "drops the stream before the network: its update is added, too.": _stream_once,
            "does not use the norms.": _no_norms,
        },
        hints=(
            "Twice the same sentence: the stream, plus what a part makes of its normalised copy.",
            "x = x + part(norm(x)), once for attention and once for the network.",
            "x = x + attention(attention_norm(x)), and the same for feedforward.",
        ),
    ),
    Estimate(
        name="decoder.parameters",
        kind="estimate",
        minutes=4,
        difficulty=1,
        solution=(ATTENTION_7B + NETWORK_7B + 2 * 4096) / 1e6,
        factor=1.05,
        unit="million parameters",
        mistakes=(
            (NETWORK_7B / 1e6, "that is the network. Attention has four matrices of its own."),
            (ATTENTION_7B / 1e6, "that is attention. The network has three matrices of its own."),
            (
                (4 * 4096 * 4096 + NETWORK_7B) / 1e6,
                "key and value have 8 heads, not 32: their matrices are a quarter as wide.",
            ),
            (
                (ATTENTION_7B + NETWORK_7B * 2 / 3) / 1e6,
                "a gated network has three matrices, not two.",
            ),
        ),
        hints=(
            "Seven matrices and two norms. Which of them are square?",
            "Query and output are D by D, key and value D by D / 4, and then three of D by F.",
            "(2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336) / 1e6",
        ),
    ),
    Value(
        name="decoder.silent",
        kind="predict, then run",
        minutes=3,
        difficulty=2,
        solution=1,
        mistakes=(
            (0, "the embedding of the token itself is still in the stream."),
            (128, "that is the window. Who could carry anything from one token to another?"),
            (49, "that is the whole prompt. Who could carry anything between tokens?"),
        ),
        hints=(
            "What is left in the stream when every update is zero?",
            "Only attention moves anything between tokens, and it writes zeros.",
            "The stream of a token is then its embedding, from the first block to the last: 1.",
        ),
    ),
    Estimate(
        name="decoder.growth",
        kind="estimate",
        minutes=3,
        difficulty=2,
        solution=8.0,
        factor=1.1,
        mistakes=(
            (64, "so large it would be if all updates pointed the same way."),
            (32, "two parts a block, and at right angles squares add up, not lengths."),
            (32**0.5, "one update for each block was counted. A block writes twice."),
            (1, "the stream is not normalised: only the copies are that the parts read."),
        ),
        hints=(
            "How long is the sum of two vectors of length 1 at right angles?",
            "Squares of lengths add up, 64 times 1.",
            "64 ** 0.5",
        ),
    ),
    Estimate(
        name="decoder.paths",
        kind="estimate",
        minutes=3,
        difficulty=2,
        solution=2.0**64,
        factor=2.0,
        unit="paths",
        mistakes=(
            (64.0, "that is the number of parts. At each of them there are two ways on."),
            (128.0, "two ways at each of 64 parts: they multiply."),
            (2.0**65, "64 sums, and two ways at each: the last norm is no sum."),
            (2.0**63, "64 sums, and two ways at each, at the first and at the last, too."),
            (2.0**32, "a block has two parts, each of which can be passed through or by."),
        ),
        hints=(
            "At a sum, a gradient goes both ways. How many sums are there?",
            "32 blocks with two sums each, and two ways at each of them.",
            "2.0 ** 64",
        ),
    ),
    Explanation(
        name="decoder.explain",
        kind="explain",
        minutes=5,
        difficulty=2,
        points=(
            "the blocks before and after it go on writing what they write: the stream is a sum",
            "a small average can hide single tokens that get much worse",
            "an effect of removing one part says nothing about removing two",
            "the price is of these texts and this model; measure on the text that matters",
        ),
        hints=(
            "What does the average over a text leave out?",
            "Compare the bits per byte with the largest change of a logit.",
            "Say what you would measure before you delete the block.",
        ),
    ),
]
