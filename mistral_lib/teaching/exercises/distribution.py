"""The exercises of chapter 20, "Many devices"."""

from __future__ import annotations

import numpy as np

from mistral_lib.teaching.exercises.kinds import Experiment, Explanation, Function, Value


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
    Experiment(
        name="distribution.cut",
        kind="run an experiment",
        minutes=10,
        difficulty=2,
        solution=((2.42, 2.01), "a"),
        within=0.1,
        claims={
            "a": "one wrong cut costs about as much as both: the stream is then in parts, and "
            "whatever reads it has to collect them.",
            "b": "each wrong cut adds its own messages, so both together cost what the two add.",
            "c": "only `down` matters, because it is the larger matrix.",
        },
        refusals={
            "b": "then both would cost 3.4 times the bytes, and the chapter counted 2.2.",
            "c": "the smaller matrix doubles the bytes as well.",
        },
        others=(
            ((1.0, 1.0), "that is the library's map. Did you set the entry that you deleted?"),
            ((2.2, 2.2), "that is both at once. Cut one of them, and leave the other as it was."),
            ((2.01, 2.42), "the ratio of down comes first."),
            ((232.5, 192.6), "those are KiB. Divide the bytes by per_block."),
        ),
        hints=(
            "How is the stream divided after a matrix that leads back and is cut by columns? Who "
            "reads it next?",
            "The keys of the map are the patterns printed above. Delete one entry, and set it "
            "again.",
            "`program_of(layouts).as_text()` is the program. Divide its bytes by `per_block`, and "
            "look at its `collectives`, too.",
        ),
    ),
    Experiment(
        name="distribution.fsdp",
        kind="run an experiment",
        minutes=12,
        difficulty=3,
        solution=((112, 448, 378), "c"),
        within=1,
        claims={
            "a": "FSDP always sends less, because it gathers where the other sums.",
            "b": "tensor parallelism always sends less, because it never moves a weight.",
            "c": "tensor parallelism sends the stream, which grows with the text, and FSDP at most "
            "the weights.",
        },
        refusals={
            "a": "with 8 tokens tensor parallelism sends 112 KiB, and with one token less.",
            "b": "with 32 tokens it sends more, and with every token that is added.",
        },
        others=(
            ((140, 560, 491), "the lookup is in it. Keep what belongs to the blocks."),
            ((378, 112, 448), "tensor parallelism comes first."),
            ((112, 448, 196), "that is FSDP with 8 tokens. Give rows of 32."),
        ),
        hints=(
            "What does each way send: something whose size has `S` in it, or something that has "
            "not?",
            "`ways` holds the distributions, and `messages_of(way, False, length)` their messages. "
            "Keep those of the blocks.",
            'Sum `c.sent` over the messages with "transformer_layer" in `c.scope`, and divide by '
            "1,024.",
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
