"""The exercises of chapter 17, "Presets and checkpoints"."""

from __future__ import annotations

import json
import posixpath

import numpy as np

from mistral_lib.teaching.exercises.answers import text
from mistral_lib.teaching.exercises.kinds import (
    BreakingInput,
    Experiment,
    Explanation,
    Function,
)

CODES = {"float32": "F32", "float16": "F16"}
DTYPES = {"F32": np.float32, "F16": np.float16}


def _header(tensors) -> bytes:
    """The header of a safetensors file, from the shape and the bytes of each tensor by name."""
    header, end = {}, 0
    for name, (dtype, shape, num_bytes) in tensors.items():
        start, end = end, end + num_bytes
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    return json.dumps(header).encode()


def _file(**arrays) -> bytes:
    described = {n: (CODES[str(a.dtype)], a.shape, a.nbytes) for n, a in arrays.items()}
    header = _header(described)
    data = b"".join(array.tobytes() for array in arrays.values())
    return len(header).to_bytes(8, "little") + header + data


def _files():
    """Files and the name of a tensor in them."""
    first = np.array([1], "float32")
    second = np.arange(6, dtype="float32").reshape(2, 3)
    third = np.arange(8, dtype="float16").reshape(4, 2) / 8
    yield _file(a=first), "a"
    yield _file(a=first, b=second), "b"
    yield _file(a=first, b=second, c=third), "b"
    yield _file(a=first, b=second, c=third), "c"


def _read(data, name):
    length = int.from_bytes(data[:8], "little")
    entry = json.loads(data[8 : 8 + length])[name]
    start, end = (8 + length + offset for offset in entry["data_offsets"])
    return np.frombuffer(data[start:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])


def _read_from(begin, flat=False):
    """A reader that counts offsets from a wrong place, or leaves the numbers in a row."""

    def read(data, name):
        length = int.from_bytes(data[:8], "little")
        entry = json.loads(data[8 : 8 + length])[name]
        start, end = (begin(length) + offset for offset in entry["data_offsets"])
        numbers = np.frombuffer(data[start:end], DTYPES[entry["dtype"]])
        return numbers if flat else numbers.reshape(entry["shape"])

    return read


def _weights():
    """Rows of heads whose rotary pairs lie side by side, (H h, D), and the number of heads."""
    for heads, size, width in ((1, 4, 1), (1, 6, 1), (2, 4, 2), (2, 6, 3)):
        yield np.arange(heads * size * width).reshape(heads * size, width), heads


def _rows(weight, heads):
    pairs = weight.reshape(heads, -1, 2, weight.shape[1])  # (H, h / 2, 2, D)
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def _rows_back(weight, heads):
    halves = weight.reshape(heads, 2, -1, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def _leads_out(name):
    """Whether a path leads to a file outside of the folder from which it is read."""
    path = posixpath.normpath(name)
    return path == ".." or path.startswith(("../", "/"))


def _is_read_outside(name):
    """Whether the program reads a file outside of its folder."""
    return _leads_out(name) and not name.startswith("..")


EXERCISES = [
    Function(
        name="presets.read",
        kind="missing lines",
        minutes=8,
        difficulty=2,
        solution=_read,
        cases=_files,
        mistakes={
            "counts offsets from the start of the file: they begin after the header.": (
                _read_from(lambda length: 0)
            ),
            "forgets the eight bytes of the length.": _read_from(lambda length: length),
            "leaves the numbers in a row: the header knows their shape.": (
                _read_from(lambda length: 8 + length, flat=True)
            ),
        },
        hints=(
            "Length, header, numbers: where does each begin?",
            "The numbers begin at 8 + length, and data_offsets count from there.",
            'Unpack start and end from entry["data_offsets"], and add the same number to both '
            "before you cut data.",
        ),
    ),
    Function(
        name="presets.rows",
        kind="missing lines",
        minutes=7,
        difficulty=3,
        solution=_rows,
        cases=_weights,
        mistakes={
            "is the way back, from halves to neighbours; for heads of 4 the two are the same.": (
                _rows_back
            ),
            "takes all rows for one head: each head has its own pairs.": (
                lambda weight, heads: _rows(weight, 1)
            ),
            "leaves the rows as they are.": lambda weight, heads: weight,
        },
        hints=(
            "In each head, first of all pairs first, then second of all pairs.",
            "Give the rows of a head two axes, one for the pair and one for the place in the pair.",
            "Reshape to (heads, −1, 2, D), exchange the two axes in the middle, and reshape back.",
        ),
    ),
    Experiment(
        name="presets.layouts",
        kind="run an experiment",
        minutes=10,
        difficulty=2,
        solution=((0.81, 0.70, 0.0), "b"),
        within=0.02,
        claims={
            "a": "our order of rows is the better one: only one of the three costs nothing.",
            "b": "the two orders are the same model, as long as rows and rotation have the same "
            "one.",
            "c": "(1) and (2) are one mistake made in two places, so they cost the same.",
        },
        refusals={
            "a": "the one that costs nothing has the file's rows. What else has it changed?",
            "c": "they differ by 0.1 bits per byte. In both, the rotation turns features together "
            "that are no pair, but not the same features.",
        },
        others=(
            ((2.17, 2.06, 1.36), "those are the costs. How much more are they than the right one?"),
            ((0.70, 0.81, 0.0), "(1) is the one with our rows. The model has them as it is."),
            ((0.0, 0.81, 0.70), "each of them is right, but (3) is the one that changes both."),
            ((0.0, 0.70, 0.81), "(1) is the one with our rows, and with the other rotation."),
            ((0.0, 0.0, 0.0), "nothing was changed. each_block takes the change and the measure."),
        ),
        hints=(
            "A score is a product of a query with a key. Which pairs of features does the rotation "
            "mix?",
            "documents_cost and with_neighbours take a model; each_block(rows_of_file, …) measures "
            "with the rows of the file.",
            "The cost of (3) is each_block(rows_of_file, with_neighbours). Subtract "
            "documents_cost(model) from each, and divide the sum by documents.bytes.sum().",
        ),
    ),
    Experiment(
        name="presets.suspects",
        kind="run an experiment",
        minutes=15,
        difficulty=3,
        solution=(((1, 0), (0, 1), (128, 0)), "b"),
        within=0.1,
        claims={
            "a": "in A rows of queries and keys are permuted, in B a kernel is not turned, C has "
            "another window.",
            "b": "A has another wavelength, in B a kernel is not turned, C has another window.",
            "c": "A and C are right, because every tensor of theirs is.",
        },
        refusals={
            "a": "A's tensors are ours, bit by bit, so none of its rows can be in another order.",
            "c": "their logits are not ours. What does a file of tensors say nothing about?",
        },
        others=(
            (((2, 0), (1, 1), (129, 0)), "positions are counted from 0."),
            (((0, 1), (1, 0), (0, 128)), "the position comes first, and then the tensors."),
            (((1, 57), (0, 57), (128, 57)), "57 is all of them. Compare bytes with bytes."),
            (((1, 57), (0, 56), (128, 57)), "those are the tensors that are equal."),
            (
                ((0, 0), (0, 1), (0, 0)),
                "look for a difference larger than 0.001: rounding moves every logit a little.",
            ),
        ),
        hints=(
            "The first wrong position says what kind of mistake it is, and the file says whether "
            "it lies in the weights.",
            "A token that sees only itself is not turned against any other. Which mistakes can it "
            "show, and which not?",
            "Call each model with token_ids=long.token_ids[:1] and compare with right_long[0]; "
            "read_safetensors opens the folder's model.safetensors.",
        ),
    ),
    BreakingInput(
        name="presets.break_it",
        kind="break this function",
        minutes=4,
        difficulty=2,
        right=lambda name: False,
        broken=_is_read_outside,
        solution=("shards/../../secret.safetensors",),
        form='A name, such as "model.safetensors",',
        readers=(text,),
        valid=lambda name: None if name else "A name has one character or more.",
        mistakes={
            "It leads out, but it begins with two dots, and those are refused.": _leads_out,
            "It stays in the folder; that it is refused is a mistake, but not the one to find.": (
                lambda name: name.startswith("..")
            ),
            "A program takes ~ for a letter; only a shell makes a folder of it.": (
                lambda name: name.startswith("~")
            ),
            "A path is no address: nothing in it is decoded, and `file:` is a folder's name.": (
                lambda name: "%" in name or "://" in name
            ),
            "A backslash is a letter of the name, except on Windows.": lambda name: "\\" in name,
            "It stays in the folder. How does one go up in a path, or start from the root?": (
                lambda name: True
            ),
        },
        hints=(
            "How can a path leave a folder without beginning with two dots?",
            "Two dots can come later, and a path can begin at the root.",
            "Go into a folder first, and then up more often than you went down.",
        ),
    ),
    Explanation(
        name="presets.explain",
        kind="explain",
        minutes=5,
        difficulty=2,
        points=(
            "a wrong reading raises nothing: names and shapes still fit",
            "text that reads well proves little; some mistakes cost a few per cent",
            "compare numbers: logits of the original program on a fixed input, within rounding",
            "use an input that is longer than the window, or its absence cannot show",
        ),
        hints=(
            "What would each mistake of the figure have done to one short text?",
            "Name something that can be compared number by number, and how long it has to be.",
            "Say what the original program has to write down once.",
        ),
    ),
]
