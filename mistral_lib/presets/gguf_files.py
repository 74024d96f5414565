"""GGUF files: their metadata and their tensors (chapter 17, "Presets and checkpoints").

A file in llama.cpp's format holds a whole model. It begins with four letters and a version. Then
come the metadata, which are keys with typed values; then the name, shape, type and place of every
tensor; and then the numbers. Rows of quantized types are cut into blocks of 32 or 256 numbers, each
with scales of its own.

The package `gguf` decodes the blocks, and writes files. Its reader is not used for files from
elsewhere: it trusts every count, so a false one keeps it busy forever; it takes seconds to read a
vocabulary; and it maps the file into memory, so the process crashes if the file shrinks.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import functools
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mistral_lib.presets.json_files import check_file
from mistral_lib.presets.safetensors_files import CHUNK, SafeTensor, in_file_order
from mistral_lib.presets.tensors import aligned_empty

MAGIC, VERSIONS = b"GGUF", (2, 3)
LARGEST_HEADER = 256 * 2**20  # bytes; a vocabulary of 131,072 tokens and its merges need 8 million
ALIGNMENT, ALIGNMENT_KEY = 32, "general.alignment"
MOST_AXES = 4

# The types of metadata: their numbers in the file, and how `struct` reads their values.
NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
TEXT, ARRAY = 8, 9

# The types of tensors that are read, and the dtype that each becomes.
KINDS = {
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "Q8_0": "float32",
    "Q4_0": "float32",
    "Q4_K": "float32",
    "Q6_K": "float32",
}


@functools.cache
def library() -> Any:
    """The package `gguf`, an optional dependency.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import gguf  # imports mistral-common where that is installed, which takes seconds
    except ImportError as error:
        raise ImportError(
            "GGUF files need the package gguf: install mistral-lib[gguf], or gguf itself (pip "
            "install gguf)."
        ) from error
    return gguf


@dataclass(frozen=True)
class QuantizedTensor(SafeTensor):
    """A tensor of blocks, which is converted to float32 as it is read, a few rows at a time.

    Attributes:
        kind: its type, one of `KINDS`.
    """

    kind: str = ""

    @property
    def is_quantized(self) -> bool:
        return True

    def read(self):
        gguf = library()
        kind = gguf.GGMLQuantizationType[self.kind]
        array = aligned_empty(self.shape[:: -1 if self.transposed else 1], self.dtype)
        rows = in_file_order(array, self.transposed, self.interleaved_heads)
        row_bytes = stored_bytes(rows.shape[1:], self.kind)
        step = max(1, CHUNK // row_bytes)
        check_file(self.file)
        with self.file.open("rb") as file:
            file.seek(self.start)
            for first in range(0, len(rows), step):
                part = rows[first : first + step]
                stored = file.read(len(part) * row_bytes)
                if len(stored) < len(part) * row_bytes:
                    raise ValueError(
                        f"{self.file} ends inside {self.name!r}: it was cut off while it was read."
                    )
                blocks = np.frombuffer(stored, "uint8").reshape(len(part), -1)
                part[...] = gguf.quants.dequantize(blocks, kind).reshape(part.shape)
        return array


def stored_bytes(shape: tuple[int, ...], kind: str) -> int:
    """The size of a tensor in a file.

    >>> stored_bytes((2, 64), "Q8_0")  # blocks of 32 bytes and a scale of two
    136
    """
    gguf = library()
    numbers, num_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    return math.prod(shape) // numbers * num_bytes


@dataclass(frozen=True)
class GgufFile:
    """What a GGUF file says about its contents.

    Attributes:
        path: the file.
        metadata: values by their keys.
        kinds: the type of each tensor, by its name.
        places: the shape, in the order of NumPy, and the first byte of each tensor.
    """

    path: Path
    metadata: dict[str, Any]
    kinds: dict[str, str]
    places: dict[str, tuple[tuple[int, ...], int]]

    def tensors(self) -> dict[str, SafeTensor]:
        """All tensors by their names, not yet read.

        Raises:
            ValueError: a tensor has a type that is not read here.
        """
        found = {}
        for name, kind in self.kinds.items():
            if kind not in KINDS:
                raise ValueError(
                    f"{self.path}: {name!r} is of the type {kind}, which is not read here; known "
                    f"are {', '.join(KINDS)}. Take a file in these, as Q8_0, Q6_K and Q4_K_M are "
                    "(but not Q4_K_S), or convert this one with llama.cpp's llama-quantize "
                    "--allow-requantize."
                )
            shape, start = self.places[name]
            tensor = SafeTensor(self.path, name, shape, KINDS[kind], start)
            if kind.startswith("Q"):
                tensor = QuantizedTensor(**vars(tensor), kind=kind)
            found[name] = tensor
        return found


def read_gguf(path: Path) -> GgufFile:
    """Reads a file up to the numbers of its tensors.

    Raises:
        FileNotFoundError: no such file.
        ImportError: the package `gguf` is not installed.
        ValueError: not a GGUF file, one of another version or byte order, cut off, or damaged.
    """
    size = check_file(path)
    with path.open("rb") as opened:
        header = _Header(path, opened, size)
        num_tensors, num_values = header.begin()
        metadata = {}
        for _ in range(num_values):
            key = header.text()
            if key in metadata:
                raise header.damaged(f"the key {key!r:.80} stands twice")
            metadata[key] = header.value(header.number("I"))
        infos = [header.tensor() for _ in range(num_tensors)]
        first = header.position
    alignment = metadata.get(ALIGNMENT_KEY, ALIGNMENT)
    if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
        raise header.damaged(f"{ALIGNMENT_KEY} is {alignment!r:.80}, which is no power of two")
    kinds = {name: kind for name, _, kind, _ in infos}
    places = _places(header, infos, _aligned(first, alignment), alignment)
    return GgufFile(path, metadata, kinds, places)


def _places(
    header: "_Header", infos: list[tuple], first: int, alignment: int
) -> dict[str, tuple[tuple[int, ...], int]]:
    """Shape and first byte of each tensor, if the tensors follow one another to the file's end."""
    places, end = {}, first
    for name, shape, kind, offset in sorted(infos, key=lambda info: info[3]):
        if name in places:
            raise header.damaged(f"the tensor {name!r:.80} stands twice")
        start = first + offset
        if start != _aligned(end, alignment):
            raise header.damaged(
                f"{name!r:.80} begins at byte {start:,}, but must begin at "
                f"{_aligned(end, alignment):,}, where the tensor before it ends"
            )
        end = start + stored_bytes(shape, kind)
        if end > header.size:
            raise header.damaged(f"{name!r:.80} would end at byte {end:,}")
        places[name] = (shape, start)
    return places


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


class _Header:
    """What comes before the numbers, read in order; nothing in it is trusted."""

    def __init__(self, path: Path, opened: BinaryIO, size: int):
        self.path, self.opened, self.size, self.position = path, opened, size, 0

    def damaged(self, what: str) -> ValueError:
        return ValueError(
            f"{self.path} ({self.size:,} bytes) is damaged or cut off: {what}. Get it again from "
            "its source."
        )

    def begin(self) -> tuple[int, int]:
        """The number of tensors, and the number of values of metadata."""
        start = self.opened.read(len(MAGIC) + 4)
        self.position = len(start)
        if start[: len(MAGIC)] != MAGIC or len(start) < self.position:
            raise ValueError(
                f"{self.path} ({self.size:,} bytes) is not a GGUF file: it begins with "
                f"{start[: len(MAGIC)]!r}, not with {MAGIC!r}."
            )
        version = int.from_bytes(start[len(MAGIC) :], "little")
        if version and not version & 0xFFFF:
            raise ValueError(
                f"{self.path} is written for machines that put the highest byte of a number first. "
                "Convert it with gguf-convert-endian, which comes with the package gguf."
            )
        if version not in VERSIONS:
            raise ValueError(
                f"{self.path} is a GGUF file of version {version}, but only versions 2 and 3 are "
                "read here. Convert the model again with a present llama.cpp."
            )
        return self.number("Q"), self.number("Q")

    def take(self, length: int) -> bytes:
        """The next bytes, if the file has that many."""
        if length > min(self.size, LARGEST_HEADER) - self.position:
            raise self.damaged(f"what begins at byte {self.position:,} needs {length:,} bytes")
        self.position += length
        return self.opened.read(length)

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def text(self) -> str:
        start = self.position
        try:
            return self.take(self.number("Q")).decode()
        except UnicodeDecodeError as error:
            raise self.damaged(f"the text at byte {start:,} is no UTF-8 ({error})") from error

    def value(self, kind: int) -> Any:
        """A value of metadata, or a list of them."""
        if kind == TEXT:
            return self.text()
        if kind in NUMBERS:
            number = self.number(NUMBERS[kind])
            # The shortest decimal of a float32: 1e-05, not 9.999999747378752e-06.
            return float(str(np.float32(number))) if NUMBERS[kind] == "f" else number
        if kind != ARRAY:
            raise self.damaged(f"there is no type {kind} of values (byte {self.position:,})")
        inner, length = self.number("I"), self.number("Q")
        if inner in NUMBERS:
            dtype = np.dtype(NUMBERS[inner]).newbyteorder("<")
            return np.frombuffer(self.take(length * dtype.itemsize), dtype).tolist()
        if inner != TEXT:
            raise self.damaged(f"there is a list of the type {inner} (byte {self.position:,})")
        if length * 8 > self.size:  # each text has a length of eight bytes
            raise self.damaged(f"a list at byte {self.position:,} has {length:,} texts")
        return [self.text() for _ in range(length)]

    def tensor(self) -> tuple[str, tuple[int, ...], str, int]:
        """Name, shape, type and offset of a tensor."""
        name, num_axes = self.text(), self.number("I")
        if num_axes > MOST_AXES:
            raise self.damaged(f"{name!r:.80} has {num_axes:,} axes")
        shape = tuple(self.number("Q") for _ in range(num_axes))[::-1]
        code, offset = self.number("I"), self.number("Q")
        gguf = library()
        try:
            kind = gguf.GGMLQuantizationType(code)
        except ValueError as error:
            raise ValueError(
                f"{self.path}: {name!r:.80} is of the type {code}, which the installed package "
                "gguf does not know. The file is damaged, or newer: pip install --upgrade gguf."
            ) from error
        block = gguf.GGML_QUANT_SIZES[kind][0]
        if shape and shape[-1] % block:
            raise self.damaged(
                f"{name!r:.80} of the shape {shape} is not made of blocks of {block}"
            )
        return name, shape, kind.name, offset
