"""The exercises of chapter 12, "The backbone"."""

from __future__ import annotations

import re

import numpy as np

from mistral_lib.teaching.exercises.answers import texts
from mistral_lib.teaching.exercises.kinds import (
    BreakingInput,
    Estimate,
    Experiment,
    Explanation,
    Function,
    Value,
)

TABLES_7B = 2 * 32_000 * 4096
BLOCK_7B = 2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096
NAME = re.compile(r"decoder(?:_([1-9]\d*))?")


def _models():
    """V, L, H, K, D and F: small ones first, Mistral 7B last."""
    yield 3, 1, 2, 1, 4, 5
    yield 10, 2, 8, 4, 16, 8
    yield 2048, 6, 6, 2, 192, 512
    yield 32_000, 32, 32, 8, 4096, 14336


def _count(V, L, H, K, D, F, *, tables=2, kernels=3, norms=2, final=1, key_heads=None):
    """The parameters of a backbone, or what comes out if one of its parts is counted wrongly."""
    key_width = (K if key_heads is None else H) * D // H
    block = 2 * D * D + 2 * D * key_width + kernels * D * F + norms * D
    return tables * V * D + L * block + final * D


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
    """States (L + 1, S, D), a scale (D,), a kernel (D, V) and ids (S,): small ones first."""
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
    chances = _softmax(_norm(states, scale) @ kernel)[:, :-1]  # (L + 1, S - 1, V)
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
            "Print in_order(...) of two names, one of them with a number of two digits.",
        ),
    ),
    Experiment(
        name="backbone.debug",
        kind="run an experiment",
        minutes=12,
        difficulty=3,
        solution=(((4, 0), (1, 1), (0, 127)), "b"),
        within=0.1,
        claims={
            "a": "A is damaged in its queries or keys, and B in its values or its network.",
            "b": "A is damaged in its values or its network, B in its queries or keys, C in its "
            "window.",
            "c": "streams name the block, but nothing can be said about the part.",
        },
        refusals={
            "a": "the first token sees only itself, with the weight 1, whatever its query and key.",
            "c": "the position says something: what is the first token's one weight, and which "
            "token is the first that sees 128?",
        },
        others=(
            (((5, 0), (2, 1), (1, 127)), "those are stations. Block 0 writes station 1."),
            (((0, 4), (1, 1), (127, 0)), "the block comes first, and then the position."),
            (((4, 1), (1, 2), (0, 128)), "positions are counted from 0."),
            (((5, 1), (2, 2), (1, 128)), "blocks and positions are counted from 0."),
            (((5, 0), (5, 1), (5, 127)), "those are the last blocks that differ. Which is first?"),
        ),
        hints=(
            "A token that sees only itself gives itself the weight 1, whatever its score is.",
            "library_streams takes a model as its second argument. Compare its result with theirs.",
            "Call first_difference(library_streams(ids, suspects.load(name)), theirs) for each "
            "name. Which block writes the station that it returns?",
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
            "Look for each number of the printed list in the shapes below it.",
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
            "leaves out the norm after the last block.": _wrongly(final=0),
            "counts one norm a block: there are two.": _wrongly(norms=1),
            "counts two kernels in a network: one with a gate has three.": _wrongly(kernels=2),
            "leaves out the norms.": _wrongly(norms=0, final=0),
        },
        hints=(
            "Add up the sizes of all arrays: two tables, L blocks, one norm.",
            "A block has four kernels of attention, three of the network and two norms.",
            "Begin with key_width = K * D // H, then in_block = 2 * D * D + ...",
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
            "A number has two bytes, and a GiB has 2 ** 30. Take the tables off first.",
            "count gives you a block: count(32_000, 2, ...) - count(32_000, 1, ...).",
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
            "asks for the token that was just read: the answer is the one after it.": (
                _token_that_was_read
            ),
            "returns logits: probabilities are asked for.": _logits,
        },
        hints=(
            "As if the model ended there: which two parts come after the last block?",
            "Norm, scale, kernel, softmax; then row i is asked about token i + 1.",
            "With chances of the shape (L + 1, S, V), index the middle axis by np.arange(len(ids) "
            "- 1). Which ids belong in the last axis?",
        ),
    ),
    Experiment(
        name="backbone.patch",
        kind="run an experiment",
        minutes=15,
        difficulty=3,
        solution=((0.64, 0.12), "b"),
        within=0.02,
        claims={
            "a": "the network finds the name.",
            "b": "attention brings the name, mostly by itself, and partly through the network.",
            "c": "attention brings the name, but it acts through the network only.",
        },
        refusals={
            "a": "most of the answer moves with attention alone, and the network sees one token.",
            "c": "then patching attention alone would change nothing, since the network's part "
            "stayed as it was.",
        },
        others=(
            ((0.77, 0.12), "the network read the patched stream. Keep what it adds as it was."),
            ((0.55, 0.02), "those are names that begin with a letter. Take all prompts."),
            ((0.77, 0.19), "those are names of one piece. Take all prompts."),
            ((0.66, 0.19), "those are names whose first piece is longer. Take all prompts."),
            ((0.22, 0.0), "that is block 2."),
            ((0.12, 0.64), "attention's share comes first."),
            ((0.36, 0.88), "those are the shares that stay. Which move?"),
        ),
        hints=(
            "Station 6 is station 5 plus what the two halves of block 5 add.",
            "halves(mine[i][5], blocks[5]) and halves(other[i][5], blocks[5]) give what you need "
            "for prompt i. Change row −1 of one half only.",
            "finish(..., 6) makes logits of station 6, lead(..., i) the lead, and "
            "moved(np.array(leads)).mean the share.",
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
            "streams are compared station by station, and the first that is off names the block",
        ),
        hints=(
            "By how much do the logits of the same model differ in bfloat16?",
            "In which dtype would a mistake stand out from the rounding?",
            "Say what you would run before you decide.",
        ),
    ),
]
