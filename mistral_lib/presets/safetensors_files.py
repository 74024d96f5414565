"""Safetensors files: tensors in and out, one at a time (chapter 17, "Presets and checkpoints").

A file is eight bytes with the length of the header, the header in JSON, and the numbers of one
tensor after the other. The header is trusted only if it agrees with the file: every byte
belongs to exactly one tensor, and every tensor has as many bytes as its shape needs. The library
`safetensors` checks that too, but takes the last of two equal names, gives no bfloat16 to NumPy
before version 0.8, and maps the file into memory, where a file that shrinks ends the process.

Source: https://github.com/huggingface/safetensors, "Format".
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from mistral_lib.presets.json_files import LARGEST_FILE, check_file, parse_json
from mistral_lib.presets.tensors import Tensor, aligned_empty

LENGTH_BYTES = 8
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
DTYPES |= {"F8_E4M3": "float8_e4m3fn", "I8": "int8"}  # of quantized weights
CODES = {dtype: code for code, dtype in DTYPES.items()}
CHUNK = 2**17  # bytes at a time: turning rows into columns is fastest while both stay in the cache


@dataclass(frozen=True)
class SafeTensor(Tensor):
    """A tensor in a safetensors file.

    Attributes:
        start: the position of its first byte in the file.
        transposed: whether `read` exchanges the two axes.
        interleaved_heads: if given, the rows are this many heads, whose rotary pairs lie side by
            side in the file; `read` puts them half a head apart (and transposes).
    """

    start: int
    transposed: bool = False
    interleaved_heads: int | None = None

    def arranged(self, transposed: bool, interleaved_heads: int | None = None) -> "SafeTensor":
        """The same tensor, read in another arrangement."""
        return replace(self, transposed=transposed, interleaved_heads=interleaved_heads)

    @property
    def arranged_shape(self) -> tuple[int, ...]:
        """The shape that `read` gives."""
        return self.shape[:: -1 if self.transposed else 1]

    def read(self):
        # As unsigned integers: NumPy moves those fastest, and changes no NaN.
        array = aligned_empty(self.arranged_shape, self._bits)
        for part, stored in self.chunks(array):
            part[...] = stored
        return array.view(self.dtype)

    @property
    def _bits(self) -> str:
        return f"uint{8 * np.dtype(self.dtype).itemsize}"

    def chunks(self, array: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Views of an array of the `arranged_shape`, each with the stored bits that belong there.

        Together they are the whole array, in the order of the file.
        """
        check_file(self.file)
        with self.file.open("rb") as file:
            file.seek(self.start)
            for part in _blocks(in_file_order(array, self.transposed, self.interleaved_heads)):
                stored = np.empty(part.shape, self._bits)
                if file.readinto(stored.reshape(-1).view("uint8").data) < stored.nbytes:
                    raise ValueError(
                        f"{self.file} ends inside {self.name!r}: it was cut off while it was read."
                    )
                yield part, stored


def in_file_order(
    array: np.ndarray, transposed: bool, interleaved_heads: int | None = None
) -> np.ndarray:
    """A view of an array in which the numbers have the order that the file has or shall have.

    Args:
        array: as used here: a kernel is (inputs, outputs).
        transposed: whether the file has (outputs, inputs).
        interleaved_heads: number of heads whose rotary pairs lie side by side in the file.

    >>> kernel = np.arange(8).reshape(1, 8)  # two heads of four: pairs (0, 2), (1, 3), (4, 6), ...
    >>> in_file_order(kernel, True, interleaved_heads=2).ravel()
    array([0, 2, 1, 3, 4, 6, 5, 7])
    """
    if not transposed:
        return array
    rows = array.T  # (outputs, inputs)
    if interleaved_heads is None:
        return rows
    halves = rows.reshape(interleaved_heads, 2, -1, rows.shape[-1])  # (H, 2, h / 2, inputs)
    return halves.swapaxes(1, 2)


def list_tensors(file: Path) -> dict[str, SafeTensor]:
    """All tensors of a safetensors file by name, without reading them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a safetensors file, cut off, with a header that does not agree with the
            file, or with a tensor of a dtype that is not read here.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> write_tensors(file, {"norm.weight": ((4,), "float32")}, [np.ones(4, "float32")])
    >>> list_tensors(file)["norm.weight"].shape
    (4,)
    """
    size = check_file(file)
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(LENGTH_BYTES), "little")
        first = LENGTH_BYTES + length
        if size < LENGTH_BYTES or first > size or length > LARGEST_FILE:
            raise ValueError(
                f"{file} ({size:,} bytes) is not a safetensors file, or is cut off: it begins with "
                f"the length of a header, {length:,} bytes. Get it again from its source."
            )
        header = parse_json(opened.read(length), f"The header of {file}")
    header.pop("__metadata__", None)
    tensors = {name: _describe(file, name, entry, first) for name, entry in header.items()}
    end = first
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.num_bytes)):
        if tensor.start != end:
            kind = "overlaps with the tensor before it" if tensor.start < end else "leaves a gap"
            raise ValueError(f"{file}: {tensor.name!r} {kind}. The file is damaged.")
        end += tensor.num_bytes
    if end != size:
        raise ValueError(
            f"{file} has {size:,} bytes, but its tensors need {end:,}. It is cut off or damaged: "
            "get it again from its source."
        )
    return tensors


def _describe(file: Path, name: str, entry: Any, first: int) -> SafeTensor:
    """One entry of the header as a tensor, if it has the three parts and they agree."""
    entry = entry if isinstance(entry, dict) else {}
    code, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not (_are_sizes(shape) and _are_sizes(offsets) and len(offsets) == 2):
        raise ValueError(
            f"{file}: the header gives {name!r} the shape {shape!r:.80} and the offsets "
            f"{offsets!r:.80}, which no tensor can have. The file is damaged."
        )
    if not (isinstance(code, str) and code in DTYPES):
        raise ValueError(
            f"{file}: {name!r} has the dtype {code!r:.80}; weights must be one of "
            f"{', '.join(DTYPES)}. Packed numbers are not read."
        )
    tensor = SafeTensor(file, name, tuple(shape), DTYPES[code], first + offsets[0])
    if offsets[1] - offsets[0] != tensor.num_bytes:
        raise ValueError(
            f"{file}: {name!r} of the shape {tensor.shape} and the dtype {code} needs "
            f"{tensor.num_bytes:,} bytes, but has the offsets {offsets}. The file is damaged."
        )
    return tensor


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**63 for v in values)


def write_tensors(
    file: Path, tensors: dict[str, tuple[tuple[int, ...], str]], arrays: Iterable[np.ndarray]
) -> None:
    """Writes a safetensors file, a tensor at a time.

    Args:
        file: a new file.
        tensors: shape and dtype of each tensor by its name, in the order of `arrays`.
        arrays: the tensors, each taken when the one before is written; views in any order of
            memory (see `in_file_order`).
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (shape, dtype) in tensors.items():
        start, end = end, end + math.prod(shape) * ml_dtypes.finfo(dtype).bits // 8
        header[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)  # so that every tensor is aligned
    with file.open("xb") as opened:
        opened.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
        for array in arrays:
            for block in _blocks(array.view(f"uint{8 * array.itemsize}")):
                opened.write(np.ascontiguousarray(block).data)


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Views of a few rows each, which together are the array."""
    rows = array[None] if array.ndim == 0 else array
    step = max(1, CHUNK // max(1, rows[:1].nbytes))
    for first in range(0, len(rows), step):
        yield rows[first : first + step]
