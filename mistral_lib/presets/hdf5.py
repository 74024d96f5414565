"""Tensors in HDF5 files, untrusted ones too (chapter 17, "Presets and checkpoints").

HDF5 can point out of a file (external and soft links, external and virtual datasets) and can
declare far more than it stores. Here a file is taken for an ordinary table of tensors, and anything
else in it is refused by name.
"""

import contextlib
import io
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np

from mistral_lib.interrupts import uninterrupted
from mistral_lib.presets.json_files import check_file
from mistral_lib.presets.tensors import Tensor, aligned_empty

DTYPES = ("float16", "float32", "float64", "int8")  # and bfloat16, which HDF5 does not know


class StoredTensor(Tensor):
    """A tensor in an HDF5 file. Its name is its path there, such as "layers/embedding/vars/0"."""

    def read(self):
        # HDF5 knows no bfloat16: Keras stores the two bytes of each number as they are.
        bfloat16 = self.dtype == "bfloat16"
        array = aligned_empty(self.shape, "V2" if bfloat16 else self.dtype)
        with _opened(self.file) as h5:
            dataset = h5[self.name]
            if not isinstance(dataset, h5py.Dataset):
                raise ValueError(f"{self.name!r} was a tensor, and is none any more.")
            dataset.read_direct(array)
        return array.view(ml_dtypes.bfloat16) if bfloat16 else array


def list_tensors(file: Path, ignored: Collection[str] = ()) -> dict[str, StoredTensor]:
    """All tensors of an HDF5 file, by their path inside it, without reading them.

    Args:
        file: where it is.
        ignored: paths inside it of what is no tensor of weights.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not HDF5, cut off, or holding anything but groups and plain tensors of numbers.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "weights.h5"
    >>> with h5py.File(file, "w") as h5:
    ...     h5["layers/embedding/vars/0"] = np.zeros((10, 4), "float32")
    >>> list_tensors(file)["layers/embedding/vars/0"].shape
    (10, 4)
    """
    tensors = {}
    with _opened(file) as h5:
        groups: list[tuple[str, h5py.Group]] = [("", h5)]
        visited = set()
        while groups:
            prefix, group = groups.pop()
            if group in visited:
                raise ValueError(f"the group {prefix!r} is linked from two places.")
            visited.add(group)
            for key in group:
                name = f"{prefix}/{key}".lstrip("/")
                link = type(group.get(key, getlink=True))
                if link is not h5py.HardLink:
                    raise ValueError(
                        f"{name!r} is a link of the kind {link.__name__}, which is not "
                        "followed: weights must lie in the file itself."
                    )
                item = group[key]
                if isinstance(item, h5py.Group):
                    groups.append((name, item))
                elif name not in ignored:
                    tensors[name] = _describe(file, name, item)
    return tensors


def read_attribute(file: Path, name: str) -> str | None:
    """A text that is attached to an HDF5 file as a whole; `None` if there is none, or no text."""
    with _opened(file) as h5:
        value = h5.attrs.get(name)
    return value if isinstance(value, str) else None


def has_group(file: Path, name: str) -> bool:
    """Whether an HDF5 file has a group of that name at the top."""
    with _opened(file) as h5:
        return h5.get(name, getclass=True, getlink=False) is h5py.Group


def write_tensor(h5: h5py.File, name: str, array: np.ndarray) -> None:
    """Adds a tensor to an open HDF5 file as Keras does: bfloat16 as two bytes and a note."""
    dataset = h5.create_dataset(name, data=array)
    if array.dtype == ml_dtypes.bfloat16:
        dataset.attrs["dtype"] = "bfloat16"


@contextlib.contextmanager
def writing(file: Path) -> Iterator[h5py.File]:
    """A new HDF5 file to write into.

    HDF5 cannot cope with a full disk: it fails again when it closes the file, and may crash the
    process. So here it never hears of an error, and the first one is raised at the end.

    Raises:
        OSError: the disk is full, for example.
    """
    # HDF5 calls `_Disk`, and does not know what to do with an exception: Ctrl-C waits for the file.
    with uninterrupted(), _Disk(file, "w+") as disk:
        try:
            with h5py.File(disk, "w") as h5:
                yield h5
        finally:
            if disk.error is not None:
                raise disk.error


class _Disk(io.FileIO):
    """A file that keeps the first error, and from then on only seems to be written."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data)
        try:
            while self.error is None and left:
                left = left[super().write(left) :]
        except OSError as error:
            self.error = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size) if self.error is None else size or 0
        except OSError as error:
            self.error = error
            return size or 0


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[h5py.File]:
    """The open file; whatever h5py raises about it becomes a ValueError that names it."""
    size = check_file(file)
    try:
        with h5py.File(file, "r", locking="best-effort") as h5:
            yield h5
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    except (OSError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} ({size:,} bytes) is not an HDF5 file, or is cut off or damaged: {error}. "
            "Get it again from its source."
        ) from error


def _describe(file: Path, name: str, item: h5py.Dataset | h5py.Datatype) -> StoredTensor:
    if not isinstance(item, h5py.Dataset):
        raise ValueError(f"{name!r} is neither a group nor a tensor.")
    if item.external or item.is_virtual:
        raise ValueError(
            f"the data of {name!r} lies in another file, which is not read: weights must "
            "lie in the file itself."
        )
    if item.shape is None:
        raise ValueError(f"{name!r} has no shape.")
    dtype = item.dtype.name
    if item.dtype == "V2" and item.attrs.get("dtype") == "bfloat16":
        dtype = "bfloat16"
    elif dtype not in DTYPES:
        raise ValueError(
            f"{name!r} has the dtype {item.dtype}; weights must be bfloat16 or one of "
            f"{', '.join(DTYPES)}."
        )
    if not _is_stored_whole(item):
        raise ValueError(
            f"{name!r} declares {math.prod(item.shape):,} numbers, but stores only "
            f"{item.id.get_storage_size():,} bytes. Get the file again from its source."
        )
    return StoredTensor(file, name, item.shape, dtype)


def _is_stored_whole(item: h5py.Dataset) -> bool:
    """Whether every number is in the file: HDF5 reads what was never written as zeros."""
    if item.chunks is None:
        return item.id.get_storage_size() == math.prod(item.shape) * item.dtype.itemsize
    chunks = math.prod(-(-size // chunk) for size, chunk in zip(item.shape, item.chunks))
    return item.id.get_num_chunks() == chunks
