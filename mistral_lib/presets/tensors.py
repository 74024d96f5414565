"""Which tensors a file must hold, and which it does hold (chapter 17, "Presets and checkpoints").

Every format says where it keeps a model's variables. Before anything is allocated, what is stored
is matched against that: every tensor has one place, every place has one tensor, and shapes and
kinds of dtypes agree.
"""

import functools
import itertools
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np

from mistral_lib.presets.sources import Source

FLOATS = ("float16", "bfloat16", "float32", "float64")
ALIGNMENT = 64  # bytes; what XLA asks of memory that it did not allocate itself


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file: where it is and what it is, not yet read.

    Attributes:
        file: the file.
        name: the tensor's name, or path, in it.
        shape: as stored.
        dtype: as read: "float16", "bfloat16", "float32", "float64" or, quantized, "int8".
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def num_bytes(self) -> int:
        """Size of the tensor as read."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def is_quantized(self) -> bool:
        """Whether `read` makes floats of numbers with fewer bits."""
        return False

    def read(self) -> np.ndarray:
        """The tensor, each number bit for bit, in memory that JAX can take over without a copy."""
        raise NotImplementedError


def aligned_empty(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """An array not yet filled, in memory that JAX can take over without a copy.

    >>> aligned_empty((3, 5), "float16").ctypes.data % ALIGNMENT
    0
    """
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(num_bytes + ALIGNMENT, "uint8")
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + num_bytes].view(dtype).reshape(shape)


T = TypeVar("T", bound=Tensor)


@dataclass(frozen=True)
class Place:
    """Where a file keeps a variable.

    Attributes:
        variable: its name here: the layer of the backbone, then attributes, joined by dots.
        name: of the tensor in the file.
        shape: of the tensor in the file.
        kind: "float", or "int8" for quantized numbers.
        pattern: of the weight that the variable holds, or helps to hold, in `config.WEIGHTS`.
    """

    variable: str
    name: str
    shape: tuple[int, ...]
    kind: str = "float"
    pattern: str = ""


def owner_of(backbone: Any, variable: str) -> tuple[keras.layers.Layer, str]:
    """The layer that has a variable, and the attribute in which it has it.

    Args:
        backbone: a `MistralBackbone`.
        variable: as in `Place`.
    """
    layer, *owners, attribute = variable.split(".")
    return functools.reduce(getattr, owners, backbone.get_layer(layer)), attribute


@dataclass(frozen=True)
class Messages:
    """What to say of tensors that do not match; names in braces are filled in.

    Attributes:
        missing: of a tensor that is not there: `where`, `name` and the shape `expected`.
        unexpected: of one without a place: `where`, its `file` and `name`, how many `others`, and
            `more`, which is " and 3 others" where there are some.
        shape: of one with the shape `found`: `where`, `file`, `name`, `expected`.
        dtype: of one with the dtype `found`: `where`, `file`, `name`, `expected`.
    """

    missing: str
    unexpected: str
    shape: str = (
        "{file}: {name!r} has the shape {found}, but the config asks for {expected}. Config and "
        "weights belong to different models."
    )
    dtype: str = (
        "{file}: {name!r} has the dtype {found}, but the config asks for {expected}. Config and "
        "weights belong to different models."
    )


def match(
    places: Iterable[Place], stored: dict[str, T], where: Path, messages: Messages
) -> dict[str, T]:
    """The stored tensor of each variable, by the variable's name.

    Args:
        places: of all variables, looked at one by one until one has no tensor.
        stored: all tensors by their names in the file.
        where: the file, or the index of the files, that should hold them.
        messages: what to say otherwise.

    Raises:
        ValueError: a tensor is missing, has another shape or kind of dtype, or has no place.
    """
    left, found = dict(stored), {}
    for place in places:
        tensor = left.pop(place.name, None)
        facts = {"where": where, "name": place.name, "expected": place.shape}
        if tensor is None:
            raise ValueError(messages.missing.format(**facts))
        facts["file"] = tensor.file
        if tensor.shape != place.shape:
            raise ValueError(messages.shape.format(**facts, found=tensor.shape))
        if ("float" if tensor.dtype in FLOATS else tensor.dtype) != place.kind:
            facts["expected"] = place.kind
            raise ValueError(messages.dtype.format(**facts, found=tensor.dtype))
        found[place.variable] = tensor
    if left:
        name, others = min(left), len(left) - 1
        more = f" and {others} others" if others else ""
        facts = {"where": where, "file": left[name].file, "name": name}
        raise ValueError(messages.unexpected.format(**facts, others=others, more=more))
    return found


def list_shards(
    source: Source,
    index_name: str,
    suffix: str,
    list_tensors: Callable[[Path], dict[str, T]],
    names_tensors: bool = True,
) -> dict[str, T]:
    """All tensors of the files that an index names, the shards, by their names.

    Args:
        source: the preset.
        index_name: of the JSON file, whose `weight_map` says in which shards each entry is.
        suffix: with which the name of a shard ends, such as ".safetensors".
        list_tensors: lists the tensors of one shard.
        names_tensors: whether an entry is a tensor. KerasHub's are layers.

    Raises:
        FileNotFoundError: a shard is missing.
        ValueError: the index names something else than files in its own folder, does not agree with
            the shards, or a tensor is in two of them.
    """
    index, weight_map = source.get(index_name), source.json(index_name).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(f"{index} has no object 'weight_map' that names the shards.")
    shards = {}  # of each entry
    for entry, value in weight_map.items():
        values = value if isinstance(value, list) and not names_tensors else [value]
        shards[entry] = [_check_shard(shard, suffix, index) for shard in values]
    stored = {}
    for shard in sorted(set(itertools.chain(*shards.values()))):
        for name, tensor in list_tensors(source.get(shard)).items():
            # A tensor that the index omits is a tensor all the same.
            if names_tensors and shard not in shards.get(name, [shard]):
                raise ValueError(
                    f"{tensor.file} holds {name!r}, but {index.name} says that it is in "
                    f"{shards[name][0]}. The files belong to different models."
                )
            if name in stored:
                raise ValueError(f"{name!r} is in two shards: {stored[name].file}, {tensor.file}.")
            stored[name] = tensor
    return stored


def _check_shard(name: Any, suffix: str, index: Path) -> str:
    """The name of a shard, if it is the name of a file and no path, but for a "./" in front."""
    name = name.removeprefix("./") if isinstance(name, str) else name
    if not (isinstance(name, str) and re.fullmatch(rf"\w[\w.-]*{re.escape(suffix)}", name)):
        article = "an" if suffix == ".h5" else "a"
        raise ValueError(
            f"{index} names the shard {name!r}, which is not the name of {article} {suffix} file "
            "in its own folder."
        )
    return name
