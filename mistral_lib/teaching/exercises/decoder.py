"""The exercises of chapter 11, "The block and the residual stream"."""

from __future__ import annotations

import numpy as np

from mistral_lib.teaching.exercises.kinds import Experiment, Explanation, Function, Value


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


def _ways_back():
    """Gradients (S, D) at a block's output, and what stands in for the two ways back.

    Real ones are linear; with these no wrong answer comes to the right number by chance.
    """
    yield np.array([[2.0]]), np.square, np.positive
    yield np.array([[1.0, 2.0], [3.0, 4.0]]), np.positive, np.square
    yield np.array([[1.0, -2.0, 3.0]]), np.exp2, np.abs


def _gradient(upstream, back_attention, back_network):
    at_m = upstream + back_network(upstream)
    return at_m + back_attention(at_m)


def _missing_path(upstream, back_attention, back_network):
    return upstream + back_attention(upstream) + back_network(upstream)


def _attention_first(upstream, back_attention, back_network):
    at_m = upstream + back_attention(upstream)
    return at_m + back_network(at_m)


def _no_sums(upstream, back_attention, back_network):
    return back_attention(back_network(upstream))


def _one_sum(upstream, back_attention, back_network):
    return upstream + back_attention(back_network(upstream))


def _not_past_attention(upstream, back_attention, back_network):
    return back_attention(upstream + back_network(upstream))


def _not_past_the_network(upstream, back_attention, back_network):
    at_m = back_network(upstream)
    return at_m + back_attention(at_m)


EXERCISES = [
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
            "Both lines say the same: the stream, plus what a part makes of its normalised copy.",
            "Each line assigns to the stream the stream itself plus something.",
            "The first line is x = x + attention(...). What does attention read? And which x does "
            "the network read?",
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
            "Which part can move something from one token to another, and what does it write here?",
            "Multiply each update in `read` by 0, change one token of the text, and see which rows "
            "change.",
        ),
    ),
    Experiment(
        name="decoder.pair",
        kind="run an experiment",
        minutes=10,
        difficulty=2,
        solution=((0.179, 0.218), "b"),
        within=0.005,
        claims={
            "a": "the costs add up, because each block does work of its own.",
            "b": "together they cost more, because while one of them was there, it made up for "
            "part of the other.",
            "c": "together they cost less, because both do the same work.",
        },
        refusals={
            "a": "then both numbers would be the same. The second is a fifth larger.",
            "c": "the second number is the larger one.",
        },
        others=(
            ((0.218, 0.179), "the sum comes first."),
            ((0.098, 0.081), "those are the two costs alone. Add them up."),
            ((0.098, 0.218), "that is block 2 alone. Add what block 3 costs."),
            ((0.081, 0.218), "that is block 3 alone. Add what block 2 costs."),
            ((0.179, 0.030), "that is the swap, in which both are still there."),
            ((2.896, 1.576), "those are prices. By how much are they above the model's own?"),
        ),
        hints=(
            "A part is cheap to lose if others can do without it. What if those are missing as "
            "well?",
            "A cut is a list of names of parts, and two such lists can be added.",
            "`bits_without(...)` takes several cuts and returns a row for each; `cost(row).mean` "
            "is one number.",
        ),
    ),
    Function(
        name="decoder.gradient",
        kind="missing lines",
        minutes=7,
        difficulty=2,
        solution=_gradient,
        cases=_ways_back,
        mistakes={
            "lacks the path through both parts: the network has read what attention wrote.": (
                _missing_path
            ),
            "meets attention first: on the way back the network's sum is the first.": (
                _attention_first
            ),
            "goes through the parts alone: each sum hands the gradient past its part, too.": (
                _no_sums
            ),
            "passes both parts at once: there are two sums, each with two ways.": _one_sum,
            "does not go past attention: what arrives at m is passed on undiminished, too.": (
                _not_past_attention
            ),
            "does not go past the network: what arrives at the output is passed on to m, too.": (
                _not_past_the_network
            ),
        },
        hints=(
            "A block is two sums. Which of them does the gradient meet first?",
            "Give the gradient between the two sums, at m, a name of its own.",
            "at_m = upstream + back_network(upstream). Which gradient does attention get?",
        ),
    ),
    Experiment(
        name="decoder.nudge",
        kind="run an experiment",
        minutes=12,
        difficulty=3,
        solution=((0.064, 0.007), "b"),
        within=0.003,
        claims={
            "a": "block 0 hardly matters, because hardly anything of its update is left at the "
            "end.",
            "b": "block 0 matters at least as much, because all later blocks read what it wrote.",
            "c": "both matter alike, because both wrote half of their sum.",
        },
        refusals={
            "a": "its update is gone at the end, but the change of the output is the larger one.",
            "c": "then both numbers would be alike, but the first is several times as large.",
        },
        others=(
            ((0.007, 0.064), "block 0 comes first."),
            ((0.022, 0.002), "that is pre-norm. Take post_norm."),
            ((0.925, 0.925), "that is a step of all weights. Change the kernel of one block."),
        ),
        hints=(
            "`first_step` changes all weights. You need one block's, and the same measure.",
            "`before._replace(down=...)` are weights with another `down`; "
            "`array.at[number].add(...)` is an array with another row.",
            "Copy `first_step`, and build `after` from `before.down` and "
            "`jnp.sign(slopes.down[number])`.",
        ),
    ),
    Explanation(
        name="decoder.explain",
        kind="explain",
        minutes=5,
        difficulty=2,
        points=(
            "one text shows how to measure, and only many show what the block is worth",
            "a small average can hide many tokens at which another choice is made",
            "an effect of removing one part says nothing about removing two",
            "the price is of these texts and this model; measure on the text that matters",
        ),
        hints=(
            "On how many texts does the number rest, and what does an average leave out?",
            "Compare the bits per byte with the share of positions at which the likeliest token "
            "changes.",
            "Say what you would measure before you delete the block.",
        ),
    ),
]
