"""The exercises of chapter 17, "Presets and checkpoints"."""

from __future__ import annotations

import json
import math
import posixpath

import numpy as np

from mistral_lib.config import MistralConfig
from mistral_lib.presets.transformers_format import TransformersFormat
from mistral_lib.teaching.exercises.answers import text
from mistral_lib.teaching.exercises.kinds import (
    BreakingInput,
    Estimate,
    Explanation,
    Function,
    Value,
)
from mistral_lib.teaching.facts import MISTRAL_7B

CONFIG_7B = MistralConfig(32_000, 32, 32, 4096, 14_336, 8)
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


def _header_of_7b() -> int:
    """Bytes of the header of Mistral 7B in one file, with the names of transformers."""
    places = TransformersFormat().places(CONFIG_7B)
    tensors = {p.name: ("BF16", p.shape, 2 * math.prod(p.shape)) for p in places}
    return len(_header(tensors))


EXERCISES = [
    Value(
        name="presets.offset",
        kind="trace by hand",
        minutes=4,
        difficulty=1,
        solution=92,
        mistakes=(
            (20, "that is the place among the numbers. What comes before them in the file?"),
            (84, "the eight bytes of the length come before the header."),
            (76, "numbers are stored row by row: a whole row of five comes before it."),
            (77, "a float32 has four bytes."),
            (72, "that is where row 0 begins."),
        ),
        hints=(
            "What comes before the numbers in the file, and which numbers come before this one?",
            "Eight bytes, then 64, then the five numbers of row 0 with four bytes each.",
            "8 + 64 + 5 * 4",
        ),
    ),
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
            "np.frombuffer(data[8 + length + start : 8 + length + end], dtype).reshape(shape)",
        ),
    ),
    Estimate(
        name="presets.header",
        kind="estimate",
        minutes=4,
        difficulty=2,
        solution=round(_header_of_7b() / 1024, 1),
        factor=1.6,
        unit="KiB",
        mistakes=(
            (_header_of_7b() / 1024 / 32, "that is one block of 32."),
            (2 * MISTRAL_7B / 1024, "that is the numbers; the header only describes them."),
        ),
        hints=(
            "How many tensors are there, and how many characters describe one?",
            "Nine in each of 32 blocks and three more, about 120 characters each.",
            "(9 * 32 + 3) * 120 / 1024",
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
            "Reshape to (heads, h / 2, 2, D), exchange the two axes in the middle, reshape back.",
            "weight.reshape(heads, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)",
        ),
    ),
    Estimate(
        name="presets.peak",
        kind="estimate",
        minutes=3,
        difficulty=2,
        solution=round(6 * MISTRAL_7B / 1e9, 1),
        factor=1.1,
        unit="GB",
        mistakes=(
            (4 * MISTRAL_7B / 1e9, "the bytes of the file are still there when the last is made."),
            (2 * MISTRAL_7B / 1e9, "that is the file alone."),
            (8 * MISTRAL_7B / 1e9, "the file has two bytes for each number, not four."),
        ),
        hints=(
            "What is in memory at the moment when the last array has been made?",
            "Two bytes a number for the file, and four for the arrays.",
            "6 * 7.24",
        ),
    ),
    Value(
        name="presets.library",
        kind="read the library",
        minutes=3,
        difficulty=2,
        solution="LARGEST_FILE",
        mistakes=(
            ("size", "the file is as large as it says: the header ends before the file does."),
            ("first", "the header ends before the file does: `first > size` is false."),
            ("LENGTH_BYTES", "the file has more than eight bytes."),
        ),
        hints=(
            "The file is consistent: nothing that it says about itself is wrong.",
            "Of the three conditions of the first `if`, which does not look at the file's size?",
            '"LARGEST_FILE"',
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
            '("shards/../../secret.safetensors",)',
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
