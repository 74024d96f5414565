"""Checkpoints in eight bits, converted to float as they are read (chapter 18, "Quantization").

A quantized weight is two tensors in the file: numbers in fp8 (e4m3: a sign, four bits of exponent,
three of fraction) or int8, and floats by which they are multiplied. There is one such scale for the
whole matrix, one for each row, or one for each block of rows and columns. There may also be scales
of activations, which matter only to programs that multiply in eight bits.

Numbers that are packed, or that lie on another grid than that of their dtype, cannot be read in
this simple way, so such checkpoints are refused. Their float originals can be quantized here.

Source: transformers 5.23, `integrations/finegrained_fp8.py`; compressed-tensors 0.20,
`quantization/lifecycle/forward.py`.
"""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mistral_lib.presets.safetensors_files import SafeTensor
from mistral_lib.presets.tensors import Tensor, aligned_empty

EIGHT_BITS = ("float8_e4m3fn", "int8")
# What the name of a scale has in place of "weight": in transformers ("inv" is historical: it
# multiplies too), in compressed-tensors, and in Mistral's own format.
SCALES = ("weight_scale_inv", "weight_scale", "qscale_weight")
ACTIVATIONS = re.compile(
    r"\.(activation_scale|input_scale|output_scale|qscale_act|[qkv]_scale|kv_scale)$|fake_quantizer"
)
PLAIN = ("float-quantized", "int-quantized", "naive-quantized")  # formats of compressed-tensors
ADVICE = (
    "Load the checkpoint from which it was quantized instead, and pass quantization='int8' or "
    "'int4' if it is to be small here too."
)


@dataclass(frozen=True)
class Quantization:
    """How the weights of a checkpoint are quantized.

    Attributes:
        block: rows and columns that share a scale, if the config gives them; the last block in each
            direction may be smaller.
    """

    block: tuple[int, int] | None = None


def read_quantization(config: Any, file: Path) -> Quantization:
    """The settings of a `quantization_config`, if the weights are plain numbers times scales.

    Args:
        config: the object, as transformers and Mistral write it.
        file: the file that it was read from, for errors.

    Raises:
        ValueError: it names another method; the message gives advice.

    >>> read_quantization({"quant_method": "fp8", "weight_block_size": [128, 128]}, Path("c.json"))
    Quantization(block=(128, 128))
    >>> read_quantization({"quant_method": "awq", "bits": 4}, Path("c.json"))
    Traceback (most recent call last):
    ValueError: c.json: the weights are quantized by 'awq', which is not read here. ...
    """
    config = config if isinstance(config, dict) else {"quant_method": config}
    method = config.get("quant_method")
    if method == "fp8":  # if the config gives no blocks, transformers takes these
        return Quantization(_check_block(config.get("weight_block_size", [128, 128]), file))
    if config.get("qformat_weight") == "fp8_e4m3":
        return Quantization()
    if method == "compressed-tensors":
        return Quantization(_read_groups(config, file))
    if method is None and (config.get("load_in_4bit") or config.get("load_in_8bit")):
        method = "bitsandbytes"
    method = config.get("qformat_weight") if method is None else method
    raise ValueError(
        f"{file}: the weights are quantized by {method!r:.80}, which is not read here. {ADVICE}"
    )


def _read_groups(config: dict[str, Any], file: Path) -> tuple[int, int] | None:
    """The size of a block in a config of compressed-tensors, whose groups must all be plain."""
    groups = config.get("config_groups")
    groups = list(groups.values()) if isinstance(groups, dict) else []
    for part in (config, *groups):
        form = part.get("format") if isinstance(part, dict) else part
        if form not in PLAIN and not (form is None and part is not config):
            raise ValueError(
                f"{file}: the weights are in the format {form!r:.80} of compressed-tensors, which "
                f"is not read here: only {', '.join(PLAIN)} are. {ADVICE}"
            )
    blocks = set()
    for group in groups:
        weights = group.get("weights") if isinstance(group, dict) else None
        weights = weights if isinstance(weights, dict) else {}
        if weights.get("num_bits") != 8 or weights.get("symmetric", True) is not True:
            raise ValueError(
                f"{file}: a group of weights has num_bits = {weights.get('num_bits')!r:.20} and "
                f"symmetric = {weights.get('symmetric')!r:.20}, but only 8 and true are read here. "
                f"{ADVICE}"
            )
        blocks.add(_check_block(weights.get("block_structure"), file))
    for name in ("sparsity_config", "transform_config"):
        found = config.get(name)
        if found and not (isinstance(found, dict) and found.get("format") == "dense"):
            raise ValueError(f"{file}: {name} is {found!r:.80}, which is not read here. {ADVICE}")
    return blocks.pop() if len(blocks) == 1 else None


def _check_block(size: Any, file: Path) -> tuple[int, int] | None:
    sizes = isinstance(size, list) and len(size) == 2
    if size is not None and not (sizes and all(type(n) is int and n > 0 for n in size)):
        raise ValueError(
            f"{file}: the weights' blocks have the size {size!r:.80}, but it must be two numbers, "
            "of rows and columns."
        )
    return tuple(size) if size is not None else None


@dataclass(frozen=True)
class ScaledTensor(Tensor):
    """A quantized weight in a file, which `read` converts to float32.

    Attributes:
        numbers: the eight-bit numbers.
        scale: what they are multiplied by.
        block: rows and columns that share a scale.
    """

    numbers: SafeTensor
    scale: SafeTensor
    block: tuple[int, int]

    @property
    def is_quantized(self) -> bool:
        return True

    def arranged(self, transposed: bool, interleaved_heads: int | None = None) -> "ScaledTensor":
        """The same tensor, read in another arrangement."""
        return replace(self, numbers=self.numbers.arranged(transposed, interleaved_heads))

    def read(self) -> np.ndarray:
        rows, columns = self.block
        blocks = -(-self.shape[0] // rows), -(-self.shape[1] // columns)
        scales = self.scale.read().astype("float32").reshape(blocks)
        if scales.shape[1] > 1:
            scales = np.repeat(scales, columns, axis=1)[:, : self.shape[1]]
        array, first = aligned_empty(self.numbers.arranged_shape, "float32"), 0
        for part, stored in self.numbers.chunks(array):
            numbers = stored.view(self.numbers.dtype).astype("float32")
            numbers = numbers.reshape(-1, self.shape[1])
            numbers *= scales[(first + np.arange(len(numbers))) // rows]
            part[...] = numbers.reshape(part.shape)
            first += len(numbers)
        return array


def scaled(
    stored: dict[str, SafeTensor], quantization: Quantization | None
) -> dict[str, SafeTensor | ScaledTensor]:
    """The tensors of a checkpoint, each quantized one together with its scale.

    Args:
        stored: all tensors by their names.
        quantization: how they are quantized, if they are.

    Raises:
        ValueError: numbers without a scale, or a scale whose shape fits none of the layouts.
    """
    if quantization is None:
        return {**stored}
    stored = {name: tensor for name, tensor in stored.items() if not ACTIVATIONS.search(name)}
    found: dict[str, SafeTensor | ScaledTensor] = dict(stored)
    for name, tensor in stored.items():
        if tensor.dtype in EIGHT_BITS:
            stem = name.removesuffix("weight")
            scale = next((stem + end for end in SCALES if stem + end in stored), None)
            if scale is None:
                raise ValueError(
                    f"{tensor.file}: {tensor.name!r} has the dtype {tensor.dtype}, but there is no "
                    f"scale with which to multiply it, such as {stem + SCALES[0]!r}. {ADVICE}"
                )
            del found[scale]
            block = _block_of(tensor, stored[scale], quantization)
            found[name] = ScaledTensor(
                tensor.file, tensor.name, tensor.shape, "float32", tensor, stored[scale], block
            )
    return found


def _block_of(
    numbers: SafeTensor, scale: SafeTensor, quantization: Quantization
) -> tuple[int, int]:
    """How many rows and columns of a weight share a scale, from the scale's shape."""
    if len(numbers.shape) == 2 and scale.dtype not in EIGHT_BITS:
        rows, columns = numbers.shape
        if math.prod(scale.shape) == 1:
            return rows, columns
        grid = (*scale.shape, 1) if len(scale.shape) == 1 else scale.shape
        grid = grid if all(grid) else ()
        blocks = [quantization.block] if quantization.block else []
        if len(grid) == 2 and all(n and not n % size for n, size in zip(numbers.shape, grid)):
            blocks.append((rows // grid[0], columns // grid[1]))
        for block in blocks:
            if grid == (-(-rows // block[0]), -(-columns // block[1])):
                return block
    said = f" in blocks of {quantization.block}" if quantization.block else ""
    raise ValueError(
        f"{scale.file}: {scale.name!r} has the shape {scale.shape} and the dtype {scale.dtype}, "
        f"which are not those of scales for {numbers.name!r} of the shape {numbers.shape}{said}."
    )
