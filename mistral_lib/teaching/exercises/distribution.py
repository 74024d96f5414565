"""The exercises of chapter 20, "Many devices"."""

from __future__ import annotations

import numpy as np

from mistral_lib.distribution import cache_sharding
from mistral_lib.teaching.exercises.kinds import Experiment, Explanation, Function, Line, Value


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
            "Each device can offer two numbers, and it must not divide yet.",
            "`part[mask]` are the losses of one device that count, and `mask.sum()` says how many "
            "there are.",
        ),
    ),
    Value(
        name="distribution.ring",
        kind="trace by hand",
        minutes=5,
        difficulty=2,
        solution=[1, 4, 3, 2],
        mistakes=(
            ([4, 4, 4, 4], "that is after the all-gather. Halfway only one piece is complete."),
            ([4, 1, 1, 1], "the complete piece is another one, and the others are not untouched."),
            ([1, 4, 1, 1], "the piece is right, but what went past on its way was added, too."),
            ([1, 2, 3, 4], "that is the ring in the other direction: they send to the right."),
            ([4, 3, 2, 1], "that is device 3. The last piece that arrives here is piece 1."),
            ([1, 1, 3, 2], "that is after two steps. With four devices there are three."),
        ),
        hints=(
            "Each number says how many devices are in the sum so far.",
            "In step 0 device 3 sends piece 3 to device 0. Which piece does it send in step 1, and "
            "what is in it by then?",
            "Write a grid of four by four ones. In each of three steps, move along "
            "`(device - step) % 4`.",
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
            "Make one slice, and use it three times: twice for columns, once for rows.",
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
            'The answer is an assignment, and a layout without a name says "copies".',
        ),
    ),
    Experiment(
        name="distribution.cut",
        kind="run an experiment",
        minutes=10,
        difficulty=2,
        solution=(CUT, "b"),
        within=0.06,
        claims={
            "a": "one wrong cut costs as much as cutting all matrices wrongly.",
            "b": "each wrong cut adds its own messages, and two add what both add.",
            "c": "only `down` matters, because it is the larger matrix.",
        },
        refusals={
            "a": "each of them alone stays well below what both cost together, 2.2.",
            "c": "the size of the matrix is not sent. Compare the two numbers.",
        },
        others=OTHER_CUTS,
        hints=(
            "The library's cut makes two messages in a block. Which of the two disappears, and "
            "what is sent instead?",
            "The keys of the map are the patterns printed above. Delete one entry, and set it "
            "again.",
            "sent_in_blocks(layouts) returns kinds and bytes. Divide the bytes by per_block, and "
            "look at the kinds, too.",
        ),
    ),
    Experiment(
        name="distribution.wait",
        kind="run an experiment",
        minutes=8,
        difficulty=2,
        solution=((SPEED4, SPEED8), "b"),
        within=0.05,
        claims={
            "a": "with more texts the messages grow, so many devices pay off less.",
            "b": "with more texts the devices have more to share, and the steps take as long as "
            "before. So many devices pay off more.",
            "c": "nothing changes, because reading and messages grow alike.",
        },
        refusals={
            "a": "both speeds are higher than with one text, and now eight are faster than four.",
            "c": "compare them with the speeds for one text: both are higher now.",
        },
        others=(
            ((2.65, 2.39), "that is one text. Let 64 be written at once."),
            ((SPEED8, SPEED4), "that of four devices comes first."),
            (OLD4, "that compares with one device and one text. Compare with 64 texts on one."),
        ),
        hints=(
            "Which of the terms grows with the texts, and which does not?",
            'token_seconds takes the number of texts, and "as fast" compares with one device and '
            "the same 64 texts.",
            "Compute token_seconds(1, 64) first, and see what the caches add to the weights.",
        ),
    ),
    Experiment(
        name="distribution.fsdp",
        kind="run an experiment",
        minutes=12,
        difficulty=3,
        solution=((378, 378, 112, 896), "c"),
        within=1,
        claims={
            "a": "FSDP sends less, because it gathers where the other sums.",
            "b": "tensor parallelism sends less, because it never moves a weight.",
            "c": "what FSDP sends does not depend on the text, and the other grows with it.",
        },
        refusals={
            "a": "with 8 tokens it sends more than three times as much.",
            "b": "with 64 tokens it sends more than twice as much.",
        },
        others=(
            ((406, 602, 140, 1120), "the lookup is in it. Keep what belongs to the blocks."),
            ((112, 896, 378, 378), "FSDP comes first."),
            ((378, 112, 378, 896), "give both lengths of FSDP, and then both of the other."),
        ),
        hints=(
            "What does each way send: something whose size has S in it, or something that has not?",
            "ways holds the distributions, and messages_of(way, False, length) their messages. "
            "Keep those of the blocks.",
            "Sum c.sent over the messages with the right c.scope, and divide by 1,024. Four "
            "numbers.",
        ),
    ),
    Experiment(
        name="distribution.bubble",
        kind="run an experiment",
        minutes=8,
        difficulty=2,
        solution=((0.474, 0.389), "c"),
        within=0.006,
        claims={
            "a": "the bubble shrinks towards zero as before.",
            "b": "micro-batches do not help, because the last device is always late.",
            "c": "micro-batches help only down to a limit: three devices wait for the slowest, "
            "however many there are.",
        },
        refusals={
            "a": "with four equal devices and 64 it was 4 %. Try 1,000: does it still shrink?",
            "b": "they do help: the share with 64 is smaller. How far down does it go?",
        },
        others=(
            ((0.273, 0.045), "those are four equal devices. The last one takes twice as long."),
            ((0.389, 0.474), "the share with 8 micro-batches comes first."),
            ((0.526, 0.611), "that is how much they work. How much are they idle?"),
        ),
        hints=(
            "In the long run, how often does a micro-batch leave the line?",
            "`idle_share` takes the work of each device.",
            "Try 1,000 micro-batches, too. Towards which number do the shares go?",
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
            "Compare the time of 65 sums with the time for reading an eighth of the weights.",
            "Say what you would measure first: the time of one small sum.",
        ),
    ),
]
