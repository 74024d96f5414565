"""The exercises of chapter 20, "Many devices"."""

from __future__ import annotations

import numpy as np

from mistral_lib.distribution import cache_sharding
from mistral_lib.teaching.exercises.kinds import Estimate, Explanation, Function, Line, Value
from mistral_lib.teaching.facts import MISTRAL_7B

MEBIBYTE = 2**20
STREAM_7B = 4096 * 4096 * 2 / MEBIBYTE  # 4,096 tokens of 4,096 features in bfloat16


def _silu(z):
    return z / (1 + np.exp(-z))


def _network(x, gate, up, down):
    return (_silu(x @ gate) * (x @ up)) @ down


def _networks():
    """Inputs (S, D), kernels, the number of a device, and how many there are: small ones first."""
    for device in range(2):
        up, down = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[1.0, 2.0], [3.0, 4.0]])
        yield np.array([[1.0, 2.0]]), np.eye(2), up, down, device, 2
    random = np.random.default_rng(20)
    for tokens, features, units, count in ((1, 2, 4, 2), (3, 4, 8, 2), (2, 4, 12, 4)):
        shapes = (tokens, features), (features, units), (features, units), (units, features)
        arrays = [random.integers(-2, 3, shape).astype(float) for shape in shapes]
        for device in range(count):
            yield *arrays, device, count


def _part(size, device, count):
    width = size // count
    return slice(device * width, (device + 1) * width)


def _share(x, gate, up, down, device, count):
    own = _part(gate.shape[1], device, count)
    return _network(x, gate[:, own], up[:, own], down[own])


def _share_of_features(x, gate, up, down, device, count):
    own = _part(x.shape[1], device, count)
    return _network(x[:, own], gate[own], up[own], down)


def _share_in_turn(x, gate, up, down, device, count):
    own = slice(device, None, count)
    return _network(x, gate[:, own], up[:, own], down[own])


def _share_of_outputs(x, gate, up, down, device, count):
    return _network(x, gate, up, down[:, _part(down.shape[1], device, count)])


def _batches():
    """Losses of tokens and which tokens are real, a list of arrays each: one array a device."""
    yield [np.array([1.0, 2.0]), np.array([3.0, 6.0])], [np.array([True, True])] * 2
    yield (
        [np.array([1.0, 1.0]), np.array([4.0, 9.0])],
        [np.array([True, True]), np.array([True, False])],
    )
    yield (
        [np.array([2.0, 2.0, 5.0]), np.array([1.0, 7.0, 7.0]), np.array([3.0, 4.0, 5.0])],
        [np.array([True, True, False]), np.array([True, False, False]), np.array([True] * 3)],
    )


def _mean(losses, real):
    total = sum(part[mask].sum() for part, mask in zip(losses, real))
    return total / sum(mask.sum() for mask in real)


EXERCISES = [
    Function(
        name="distribution.mean",
        kind="find the bug",
        minutes=5,
        difficulty=2,
        solution=_mean,
        cases=_batches,
        mistakes={
            "is the mean of means as it was: a device with few real tokens counts as much as one "
            "with many.": (
                lambda losses, real: np.mean([p[m].mean() for p, m in zip(losses, real)])
            ),
            "counts padding: the losses of tokens that are not real are in it.": (
                lambda losses, real: np.concatenate(losses).mean()
            ),
            "divides by all tokens: the padding is in the count.": (
                lambda losses, real: (
                    sum(p[m].sum() for p, m in zip(losses, real)) / np.concatenate(real).size
                )
            ),
            "is the sum: it still has to be divided by the number of real tokens.": (
                lambda losses, real: sum(p[m].sum() for p, m in zip(losses, real))
            ),
        },
        hints=(
            "Which number would one device compute that had all rows?",
            "Two things have to be summed over the devices before anything is divided.",
            "sum(part[mask].sum() ...) / sum(mask.sum() ...)",
        ),
    ),
    Value(
        name="distribution.by_hand",
        kind="trace by hand",
        minutes=3,
        difficulty=1,
        solution=[12, 43],
        mistakes=(
            ([55, 55], "that is what both hold after the sum."),
            ([13, 42], "that deals the units out in turn. Device 0 holds the first two."),
            ([30, 77], "`down` is cut, too: a device has only the rows of its own units."),
            ([33, 77], "`down` is cut, too: a device has only the rows of its own units."),
            ([3, 7], "those are sums of products before `down`."),
        ),
        hints=(
            "A device multiplies what it has with the rows of `down` that it has.",
            "Device 0 has the products 1 and 2 and the rows 10 and 1.",
            "[1 * 10 + 2 * 1, 3 * 1 + 4 * 10]",
        ),
    ),
    Function(
        name="distribution.share",
        kind="missing lines",
        minutes=6,
        difficulty=2,
        solution=_share,
        cases=_networks,
        mistakes={
            "cuts x, gate and up by features. Their products would have to be summed before silu, "
            "and they are not.": _share_of_features,
            "deals the units out in turn. The sum would be right, but neighbours are asked for, as "
            "a layout cuts.": _share_in_turn,
            "cuts down by its columns: pieces of the output, which are joined and not summed.": (
                _share_of_outputs
            ),
            "does not cut: every device computes the whole network.": (
                lambda x, gate, up, down, device, count: _network(x, gate, up, down)
            ),
            "divides by the number of devices: shares are added, not averaged.": (
                lambda *arguments: _share(*arguments) / arguments[-1]
            ),
        },
        hints=(
            "What belongs to one unit: a column of gate, one of up, and a row of down.",
            "Device d has the units from d * F / count to (d + 1) * F / count.",
            "own = slice(device * width, (device + 1) * width), then gate[:, own] and down[own]",
        ),
    ),
    Line(
        name="distribution.library",
        kind="read the library",
        minutes=4,
        difficulty=2,
        function=cache_sharding,
        line="rows = None",
        wrong={
            "if heads": "that asks; the answer has to be written down somewhere.",
            "return None": "that is a model without any distribution.",
            "heads = distribution": "that is how the heads lie. The rows are asked for.",
            "return keras": "that line puts the decisions together. Where is this one taken?",
        },
        hints=(
            "Whole on every device means: no axis of the mesh.",
            "For one row and an axis of four devices, the remainder is 1. What happens then?",
            "rows = None",
        ),
    ),
    Estimate(
        name="distribution.bytes",
        kind="estimate",
        minutes=3,
        difficulty=1,
        solution=round(MISTRAL_7B * 2 / 4 / 1e9, 2),
        factor=1.05,
        unit="GB",
        mistakes=(
            (
                MISTRAL_7B * 2 / 8 / 1e9,
                "eight devices hold two copies: the axis of rows splits no weights.",
            ),
            (MISTRAL_7B * 2 / 1e9, "that is the whole model. Four devices share it."),
            (
                MISTRAL_7B * 2 / 2 / 1e9,
                "four devices share the weights, not two; and bfloat16 takes two bytes.",
            ),
        ),
        hints=(
            "Along which of the two axes are weights split?",
            "7.24 billion numbers of two bytes, shared by the four devices of one row of the mesh.",
            "7.24 * 2 / 4",
        ),
    ),
    Estimate(
        name="distribution.ring",
        kind="estimate",
        minutes=5,
        difficulty=3,
        solution=2 * 2 * 7 / 8 * STREAM_7B,
        factor=1.05,
        unit="MiB",
        mistakes=(
            (2 * 7 / 8 * STREAM_7B, "that is one of the two sums of a block."),
            (2 * STREAM_7B, "two sums go there. Each has to come back, too: nearly twice as much."),
            (2 * 2 * STREAM_7B, "a device's own eighth of the sum needs no message: 7 / 8."),
            (2 * 7 / 8 * STREAM_7B / 2, "bytes, not numbers: two each; and two sums."),
            (8 * 2 * 2 * 7 / 8 * STREAM_7B, "that is what all eight devices send together."),
            (2 * 2 * 7 / 8 * STREAM_7B * 2, "that is float32."),
        ),
        hints=(
            "How large is the array that is summed, and how often does a ring send it?",
            "4,096 times 4,096 numbers of two bytes are 32 MiB. A sum sends 2 · 7/8 of that.",
            "2 * 2 * 7 / 8 * 4096 * 4096 * 2 / 2**20",
        ),
    ),
    Estimate(
        name="distribution.wait",
        kind="estimate",
        minutes=3,
        difficulty=2,
        solution=round((2 * 32 + 1) * 0.01, 2),
        factor=1.1,
        unit="ms",
        mistakes=(
            (65 * 8192 / 3e9, "that is the time of the bytes. A sum takes 10 microseconds anyway."),
            (32 * 0.01, "that is one sum a block. There are two."),
            (0.02, "that is one block. There are 32."),
            (2 * 32 * 8 * 0.01, "the eight devices wait at the same time."),
            (2 * 32 * 10, "microseconds: a thousand of them are a millisecond."),
        ),
        hints=(
            "The message is small, so only the number of sums counts.",
            "Two for each of the 32 blocks, and one for the lookup of the token.",
            "(2 * 32 + 1) * 0.01",
        ),
    ),
    Value(
        name="distribution.heads",
        kind="trace by hand",
        minutes=3,
        difficulty=2,
        solution=(4, 8),
        mistakes=(
            ((1, 32), "it has 32 query heads, but only 8 key-value heads to share out."),
            ((2, 16), "16 devices cannot share 8 key-value heads."),
            ((8, 4), "that works, but splits the weights less than it could."),
            ((8, 8), "that would be 64 devices."),
            ((1, 8), "that uses 8 of the 32 devices."),
        ),
        hints=(
            "Which of the sizes of the model is the smallest that the devices have to share?",
            "The model axis has to divide 8 key-value heads; both axes together make 32.",
            "(32 // 8, 8)",
        ),
    ),
    Explanation(
        name="distribution.explain",
        kind="explain",
        minutes=5,
        difficulty=2,
        points=(
            "One token at a time, a device mostly waits for its weights: an eighth of them takes "
            "an eighth of that time.",
            "The two sums in each block do not shrink: each takes its time however small it is.",
            "So the gain has a limit, and it depends on the wires between the devices.",
            "Eight copies with other texts on each answer eight times as many readers, and no "
            "single one sooner.",
        ),
        hints=(
            "Which part of the work for one token shrinks with the devices, and which does not?",
            "Compare the exercise on waiting with the time for reading an eighth of the weights.",
            "Say what you would measure first: the time of one small sum.",
        ),
    ),
]
