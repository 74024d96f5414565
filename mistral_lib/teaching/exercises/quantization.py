"""The exercises of chapter 18, "Quantization"."""

from __future__ import annotations

import numpy as np

from mistral_lib.teaching.exercises.answers import numbers
from mistral_lib.teaching.exercises.kinds import (
    BreakingInput,
    Experiment,
    Explanation,
    Function,
    Value,
)


def _matrices():
    """Matrices of weights, smallest first; nothing lies halfway between two lines."""
    yield (np.array([[1.27], [0.334]]),)
    yield (np.array([[1.27, -2.54], [0.334, 0.034]]),)
    yield (np.array([[7.0, -30.0, 0.2], [2.0, 70.0, 0.7], [-5.0, 10.0, -0.3], [3.0, 20.0, 0.1]]),)


def _int8(matrix):
    """Back in float, from whole numbers and one scale a column."""
    scale = 127 / abs(matrix).max(axis=0)
    return np.round(matrix * scale) / scale


def _int4(block):
    """Back in float, from whole numbers from -8 to 7, a scale and a zero."""
    scale = (block.max() - block.min()) / 15
    zero = np.clip(np.round(-block.min() / scale) - 8, -8, 7)
    return (np.clip(np.round(block / scale) + zero, -8, 7) - zero) * scale


def _bytes():
    """Bytes in each of which two numbers from -8 to 7 lie, the first in the low half."""
    for pairs in ([(3, 1)], [(-3, 2)], [(5, -8), (-1, 7), (0, -1)]):
        low, high = np.array(pairs, "int8").T
        yield ((low & 15) | (high << 4),)


def _unpack(packed):
    low, high = ((packed & 15) ^ 8) - 8, packed >> 4
    return np.stack([low, high], axis=-1).reshape(-1)


def _far_off(block):
    """Whether int4 moves a weight of a block by more than two steps."""
    step = (block.max() - block.min()) / 15
    return (abs(_int4(block) - block) > 2 * step).any()


def _check_block(block):
    if block.ndim != 1 or not 2 <= block.size <= 128:
        return "A list of 2 to 128 numbers is asked for."
    if not (abs(block) < 1e100).all() or block.max() - block.min() < 1e-100:
        return "The numbers must be finite, of ordinary size, and not all the same."
    return None


EXERCISES = [
    Value(
        name="quantization.by_hand",
        kind="trace by hand",
        minutes=3,
        difficulty=1,
        solution=-0.26,
        mistakes=(
            (-13, "that is the whole number that is stored. What does it stand for?"),
            (-0.264, "that is the weight. Between steps of 0.02 there is nothing."),
            (-0.28, "the nearest step is asked for, not the next one below."),
            (0.26, "the sign is stored, too."),
        ),
        hints=(
            "The largest weight of the column becomes 127. How large is a step?",
            "2.54 / 127 is 0.02. How many steps are -0.264?",
            "round() gives the nearest whole number of steps. Multiply it by the step again.",
        ),
    ),
    Function(
        name="quantization.columns",
        kind="missing lines",
        minutes=6,
        difficulty=2,
        solution=_int8,
        cases=_matrices,
        mistakes={
            "takes one scale for the whole matrix; each column has its own.": (
                lambda matrix: (
                    np.round(matrix * (127 / abs(matrix).max())) / (127 / abs(matrix).max())
                )
            ),
            "takes the largest weight of a column: the largest size is meant, abs comes first.": (
                lambda matrix: (
                    np.round(matrix * (127 / matrix.max(axis=0))) / (127 / matrix.max(axis=0))
                )
            ),
            "takes a scale for each row; the axis of the maximum is the other one.": (
                lambda matrix: _int8(matrix.T).T
            ),
            "is the matrix as it was: nothing was rounded.": lambda matrix: matrix,
            "returns the whole numbers; divide them by the scale again.": (
                lambda matrix: np.round(matrix * (127 / abs(matrix).max(axis=0)))
            ),
            "cuts the decimals off; round goes to the nearest.": (
                lambda matrix: (
                    np.trunc(matrix * (127 / abs(matrix).max(axis=0)))
                    / (127 / abs(matrix).max(axis=0))
                )
            ),
        },
        hints=(
            "Which weight of a column becomes 127?",
            "abs(matrix).max(axis=0) is the largest of each column; round what was scaled.",
            "Begin with scale = 127 / abs(matrix).max(axis=0), one number for each column. "
            "np.round rounds the scaled matrix. What brings it back?",
        ),
    ),
    Experiment(
        name="quantization.clip",
        kind="run an experiment",
        minutes=8,
        difficulty=2,
        solution=((103.2, 46.1, 24.3, 66.8), "b"),
        within=1.5,
        claims={
            "a": "clipping only does harm, since the largest weights come back wrong.",
            "b": "finer lines for the many outweigh clipped weights, down to about a half; below "
            "that, too many are clipped.",
            "c": "the lower the clip, the finer the lines, and the cheaper the texts.",
        },
        refusals={
            "a": "at 0.7 and 0.5 the texts cost less than at 1.",
            "c": "at 0.3 they cost more than at 0.5.",
        },
        others=(
            (
                (15.2, 13.0, 84.3, 676.5),
                "those are grids for single columns. One kernel, one grid.",
            ),
            (
                (0.1032, 0.0461, 0.0243, 0.0668),
                "numbers so small are bits for one byte, or errors of weights. Take the bits for "
                "1,000 bytes.",
            ),
            ((66.8, 24.3, 46.1, 103.2), "the clips are asked for in the order 1, 0.7, 0.5, 0.3."),
        ),
        hints=(
            "cost_of takes a function that rounds one matrix. The clip is an argument of on_grid.",
            'WAYS["kernel"] makes a kernel one long column, and WAYS["column"] leaves it as it is. '
            "Which of the two has one grid for each kernel?",
            "with_grid makes the function and hands on the clip; more(...).mean is one number. "
            "Do this for all four clips.",
        ),
    ),
    BreakingInput(
        name="quantization.break_it",
        kind="break this function",
        minutes=5,
        difficulty=3,
        right=lambda block: False,
        broken=_far_off,
        solution=([1.0, 1.1, 1.2, 1.3],),
        form="A list of 2 to 128 numbers, such as [-1, 2],",
        readers=(numbers,),
        valid=_check_block,
        mistakes={
            "There are weights of both signs, or 0, and then the grid has a line for zero, however "
            "large or small they are.": lambda block: block.min() <= 0 <= block.max(),
            "All weights have one sign, but are so far apart that zero is near the grid.": (
                lambda block: True
            ),
        },
        hints=(
            "From where to where does the grid run, and does it always contain zero?",
            "The zero is clipped to -8 ... 7: it must lie on the grid. When does it not?",
            "Try a block whose weights are all larger than 0, and near each other.",
        ),
    ),
    Function(
        name="quantization.unpack",
        kind="find the bug",
        minutes=5,
        difficulty=2,
        solution=_unpack,
        cases=_bytes,
        mistakes={
            "is the function as it was: what becomes of -3, which is stored as 13?": (
                lambda packed: np.stack([packed & 15, packed >> 4], axis=-1).reshape(-1)
            ),
            "has the halves exchanged: the first number lies in the low half.": (
                lambda packed: _unpack(packed).reshape(-1, 2)[:, ::-1].reshape(-1)
            ),
            "takes the sign off both halves.": (
                lambda packed: np.stack([packed & 15, (packed >> 4) & 15], axis=-1).reshape(-1)
            ),
            "returns all first numbers and then all second ones.": (
                lambda packed: np.concatenate([((packed & 15) ^ 8) - 8, packed >> 4])
            ),
        },
        hints=(
            "Which numbers come back wrong: small ones, large ones, negative ones?",
            "A low half from 8 to 15 stands for a negative number, 16 less.",
            "(x ^ 8) - 8 takes 16 off numbers from 8 to 15. Which of the two halves needs it?",
        ),
    ),
    Experiment(
        name="quantization.sensitive",
        kind="run an experiment",
        minutes=10,
        difficulty=2,
        solution=((5.2, 30.7, 1.4, 0.0, 2.8, 3.2, 8.2, 5.0, 10.9), "b"),
        within=0.6,
        claims={
            "a": "the three kinds of the network cost most, since they hold more than half of the "
            "weights.",
            "b": "the output matrix costs most, though it has only an eighth of the weights.",
            "c": "each weight costs about the same, wherever it is.",
        },
        refusals={
            "a": "gate, up and down together cost less than one kind that is smaller than each.",
            "c": "then gate, up and down, which are equally large, would cost the same, and keys "
            "would not be free.",
        },
        others=(
            (
                (0.0, 5.5, 0.5, 0.9, -0.2, 1.0, 0.7, 0.3, 3.0),
                "those are four bits. In three bits the differences are larger.",
            ),
            (
                (30.7, 5.2, 1.4, 0.0, 2.8, 3.2, 8.2, 5.0, 10.9),
                "the embedding comes first, and then the output matrix.",
            ),
            (
                (0.0052, 0.0307, 0.0014, 0.0, 0.0028, 0.0032, 0.0082, 0.005, 0.0109),
                "that is for one byte. Take 1,000 bytes.",
            ),
        ),
        hints=(
            "The costs differ most when few bits are left: take three bits, not four.",
            "cost_of has a second argument, only: a part of the paths of the matrices that are "
            "rounded.",
            'Loop over KINDS, round with with_grid("32 rows", 3), and take more(...).mean of each '
            "cost.",
        ),
    ),
    Experiment(
        name="quantization.speed",
        kind="run an experiment",
        minutes=8,
        difficulty=2,
        solution=((3.46, 1.5, 1.0), "b"),
        within=0.03,
        claims={
            "a": "int4 is about four times as fast, however many texts are written at once.",
            "b": "int4 is more than three times as fast for one text, and no faster for 203.",
            "c": "int4 helps most where many texts share the reading of the weights.",
        },
        refusals={
            "a": "at 203 rows the ratio is 1: arithmetic and caches take all the time.",
            "c": "many texts read the weights once for all, so little is left to save.",
        },
        others=(
            ((0.289, 0.667, 1.0), "those are times of int4 in times of bfloat16: turn them over."),
            ((1.93, 1.29, 1.0), "that is int8."),
            ((3.8, 3.8, 3.8), "those are bytes of the weights alone. Caches are read, too."),
            ((1.0, 1.5, 3.46), "1 row comes first."),
        ),
        hints=(
            "Which of the four terms of the equation does the dtype of the weights change?",
            "decoding_step takes the rows, 4,096 tokens and a dtype; seconds takes the rate and "
            "the bandwidth.",
            "Divide the seconds of bfloat16 by those of int4/128_from_bfloat16, for 1, 32 and 203 "
            "rows.",
        ),
    ),
    Explanation(
        name="quantization.explain",
        kind="explain",
        minutes=5,
        difficulty=2,
        points=(
            "weights are what decoding reads from memory: a quarter of the bytes is the gain",
            "weights are made float before each product: nothing gets faster by itself, as the "
            "clock shows on a CPU",
            "the cost is a rounding error of each weight, to be measured as bits per byte",
            "a scale for few weights keeps one large weight from ruining the others",
        ),
        hints=(
            "What becomes smaller, and in which dtype does the model still compute?",
            "Look at the costs with their intervals, and at the clock.",
            "Say also how you would notice that it went wrong.",
        ),
    ),
]
