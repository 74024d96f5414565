"""Adapters in files of their own, `.lora.h5` (chapter 14, "LoRA").

Such a file holds, for each adapted projection, `<path>/a` and `<path>/b`; the plan (see
`mistral_lib.lora`) as the attribute `settings`; and under `base` the fingerprint of the base model.
KerasHub's `.lora.h5` files are read too; they have no fingerprint.
"""

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mistral_lib import lora
from mistral_lib.checks import as_path
from mistral_lib.layers.quantized import elements
from mistral_lib.presets.atomic import replaced_file
from mistral_lib.presets.hdf5 import (
    StoredTensor,
    has_group,
    list_tensors,
    read_attribute,
    writing,
)
from mistral_lib.presets.tensors import Messages, Place, match

SAMPLES = 64  # numbers of each tensor that go into a fingerprint
MEAN_SQUARE = 0.2  # of errors, in steps; quantization alone causes 1/12, and bfloat16 with it 1/8

# The layers of a block that have weights, by their names here, in the order in which Keras lists
# the layers of KerasHub (seen in 0.32). The embedding comes before the first block.
HUB_LAYERS = (
    *("block", "norm", "feedforward/down", "feedforward/gate", "feedforward/up"),
    *("norm", "self_attention", "self_attention/attention_output", "self_attention/value"),
    *("self_attention/key", "self_attention/query"),
)
HUB_FACTOR = re.compile(r"lora/(\d+)/vars/lora_kernel_([ab])")

EXPECTED = "In {where}, {name} must have the shape {expected}, but "
OTHERWISE = ". The adapter belongs to another model, or it is damaged."
MESSAGES = Messages(
    missing=f"{EXPECTED}is missing{OTHERWISE}",
    unexpected="{where} holds {name}{more}, which its settings do not ask for.",
    shape=f"{EXPECTED}has the shape {{found}}{OTHERWISE}",
    dtype=f"In {{where}}, {{name}} must be of floats, but has the dtype {{found}}{OTHERWISE}",
)


def save(backbone: Any, filepath: str | os.PathLike) -> None:
    """See `MistralBackbone.save_lora_weights`."""
    plan = lora.require(backbone)
    path = _checked_path(filepath)
    with replaced_file(path) as new, writing(new) as file:
        file.attrs["settings"] = json.dumps(plan)
        for name, factor in lora.factors(backbone).items():
            file[name] = factor
        for name, numbers in fingerprint(backbone).items():
            file[f"base/{name}"] = numbers


def load(backbone: Any, filepath: str | os.PathLike, check_base: bool = True) -> None:
    """Loads a `.lora.h5` file; `check_base` compares the base's fingerprint."""
    path = _checked_path(filepath)
    if not path.exists():
        raise FileNotFoundError(f"There is no LoRA file {path}.")
    if has_group(path, "lora"):
        lora.assign(backbone, *_read_hub(backbone, path))
        return
    plan = read_plan(path)
    tensors = list_tensors(path)
    base = {name: tensor for name, tensor in tensors.items() if name.startswith("base/")}
    stored = {name: tensor for name, tensor in tensors.items() if name not in base}
    shapes = lora.factor_shapes(backbone, plan)
    places = [Place(name, name, shape) for name, shape in shapes.items()]
    factors = match(places, stored, path, MESSAGES)
    if check_base:
        _check_base(backbone, base, path)
    lora.assign(backbone, plan, {name: tensor.read() for name, tensor in factors.items()})


def read_plan(path: Path) -> lora.Plan:
    """The plan in a file's settings. What it says is checked where it is used.

    Raises:
        ValueError: not HDF5, or without settings.
    """
    text = read_attribute(path, "settings")
    try:
        plan = json.loads(text or "")
    except (ValueError, RecursionError):
        plan = None
    if not (isinstance(plan, dict) and plan):
        raise ValueError(f"{path} holds no adapter that was saved by save_lora_weights.")
    return plan


def _read_hub(backbone: Any, path: Path) -> tuple[lora.Plan, dict[str, np.ndarray]]:
    """Plan and factors of an adapter that KerasHub saved.

    Its layers have numbers instead of names, and the kernel of a query is (D, H, h). Each head has
    its own A (D, r), and all heads share one B (r, h). Together they are a product of rank H * r:
    all A side by side, times a matrix with copies of B on its diagonal. KerasHub scales by 1.
    """
    plan, factors, blocks = {}, {}, backbone.transformer_layers
    for name, tensor in list_tensors(path, ignored=["lora/vars/rank"]).items():
        match = HUB_FACTOR.fullmatch(name)
        block, place = divmod(int(match[1]) - 1, len(HUB_LAYERS)) if match else (-1, 0)
        if match is None or not (0 <= block < len(blocks) and "/" in HUB_LAYERS[place]):
            raise ValueError(f"{path} was saved by KerasHub for another model: it holds {name}.")
        factors[f"{blocks[block].name}/{HUB_LAYERS[place]}/{match[2]}"] = tensor.read()
    for name in [name for name in factors if name.endswith("/a")]:
        layer, first = name.removesuffix("/a"), factors[name]
        second = factors.get(f"{layer}/b", np.zeros(0))
        if second.ndim != 2 or not first.ndim or first.shape[-1] != len(second):
            raise ValueError(f"{path} was saved by KerasHub, but is damaged at {layer}.")
        rank = len(second)
        if first.ndim == 3 and layer.endswith("attention_output"):
            first = first.reshape(-1, rank)
        elif first.ndim == 3:
            second = np.kron(np.eye(first.shape[1], dtype="float32"), second)
            first = first.reshape(len(first), -1)
        factors[name], factors[f"{layer}/b"] = first, second
        plan[layer] = {"rank": len(second), "lora_alpha": len(second)}
    for name, shape in lora.factor_shapes(backbone, plan).items():
        if factors[name].shape != shape:
            raise ValueError(
                f"{path} was saved by KerasHub for another model: {name} must have the shape "
                f"{shape}, but has {factors[name].shape}."
            )
    if not plan or len(factors) != 2 * len(plan):
        raise ValueError(f"{path} was saved by KerasHub, but factors are missing.")
    return plan, factors


def fingerprint(backbone: Any) -> dict[str, np.ndarray]:
    """A few numbers from every tensor, which distinguish one base model from another.

    `norms` has one row for each RMSNorm, whose scales are never quantized, and `kernels` has one
    row for each projection. A quantized model has `dequantized` in place of `kernels`, and `steps`
    with the step of each number: rounding changed it by at most half a step. All are float32.
    """
    norms = [backbone.layer_norm.scale]
    for block in backbone.transformer_layers:
        norms += [block.self_attention_layernorm.scale, block.feedforward_layernorm.scale]
    samples = {"norms": np.stack([_sample(scale) for scale in norms])}
    layers = lora.projections(backbone).values()
    if all(layer.quantization_mode is None for layer in layers):
        samples["kernels"] = np.stack([_sample(layer.kernel) for layer in layers])
    else:
        quantized = [
            elements(layer.quantized_matrix("kernel"), *_places(layer.matrix_shape))
            for layer in layers
        ]
        samples["dequantized"] = np.array([values for values, _ in quantized], "float32")
        samples["steps"] = np.array([steps for _, steps in quantized], "float32")
    return samples


def _places(shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    positions = np.linspace(0, math.prod(shape) - 1, SAMPLES).astype("int64")
    return np.unravel_index(positions, shape)


def _sample(variable: keras.Variable) -> np.ndarray:
    # Picked one by one: a flat view of a kernel would be a copy of it.
    return np.asarray(variable.value[_places(variable.shape)], "float32")


def _check_base(backbone: Any, saved: dict[str, StoredTensor], path: Path) -> None:
    mine = fingerprint(backbone)
    theirs = {name.removeprefix("base/"): tensor.read() for name, tensor in saved.items()}
    if "norms" not in theirs:
        raise ValueError(f"{path} lacks the fingerprint of its base model.")
    pairs: dict[str, list] = {"norms": [(numbers["norms"], 0.0) for numbers in (mine, theirs)]}
    if {"kernels", "dequantized"} & theirs.keys():  # older files may lack `dequantized`
        pairs["kernels"] = [
            (each["kernels"], 0.0) if "kernels" in each else (each["dequantized"], each["steps"])
            for each in (mine, theirs)
        ]
    for name, (one, other) in pairs.items():
        if not _agree(*one, *other):
            raise ValueError(
                f"The adapter {path.name} was trained on another base model: the {name} of this "
                "one differ. Load the preset that it was trained on, unmerged, and then the "
                "adapter."
            )


def _agree(
    ones: np.ndarray, steps: np.ndarray | float, others: np.ndarray, other_steps: np.ndarray | float
) -> bool:
    """Whether two samples can come from the same weights, in another float dtype or quantized.

    bfloat16 rounds by up to 2**-9 of a number, float16 to multiples of 2**-24, and quantization by
    up to half a step. Changes with a root mean square below a third of a step cannot be
    distinguished from such rounding.
    """
    if ones.shape != others.shape:
        return False
    allowed = steps + other_steps + 2**-8 * np.abs(others) + 2**-23
    with np.errstate(invalid="ignore"):
        error = np.abs(ones - others) / allowed
    error = np.where((ones == others) | (np.isnan(ones) & np.isnan(others)), 0, error)
    return bool((error <= 1).all()) and (
        not np.any(steps + other_steps) or bool(((error**2).mean(axis=1) <= MEAN_SQUARE).all())
    )


def _checked_path(filepath: str | os.PathLike) -> Path:
    path = as_path(filepath)
    if not path.name.endswith(".lora.h5"):
        raise ValueError(f"The name of a LoRA file must end in .lora.h5, but is {path.name!r}.")
    return path
