"""Adapters in files of their own, `.lora.h5` (chapter 14, "LoRA").

Such a file holds, for each adapted projection, `<path>/a` and `<path>/b`; the plan (see
`mistral_lib.lora`) as the attribute `settings`; and under `base` the fingerprint of the base model.
"""

import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mistral_lib import lora
from mistral_lib.checks import as_path
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
        if has_group(path, "lora"):
            raise ValueError(
                f"{path} was saved by KerasHub, whose factors have other shapes: one A for each "
                "head. It is not read here. Train the adapter again with enable_lora, or load it "
                "in KerasHub."
            )
        raise ValueError(f"{path} holds no adapter that was saved by save_lora_weights.")
    return plan


def fingerprint(backbone: Any) -> dict[str, np.ndarray]:
    """A few numbers of every tensor, which tell one base model from another.

    `norms` has one row for each RMSNorm, whose scales quantization leaves alone; `kernels`, one row
    for each projection, is there for float models only. Both are float32.
    """
    norms = [backbone.layer_norm.scale]
    for block in backbone.transformer_layers:
        norms += [block.self_attention_layernorm.scale, block.feedforward_layernorm.scale]
    samples = {"norms": np.stack([_sample(scale) for scale in norms])}
    layers = lora.projections(backbone).values()
    if all(layer.quantization_mode is None for layer in layers):
        samples["kernels"] = np.stack([_sample(layer.kernel) for layer in layers])
    return samples


def _sample(variable: keras.Variable) -> np.ndarray:
    size = int(np.prod(variable.shape))
    positions = np.linspace(0, size - 1, SAMPLES).astype("int64")
    # Picked one by one: a flat view of a kernel would be a copy of it.
    return np.asarray(variable.value[np.unravel_index(positions, variable.shape)], "float32")


def _check_base(backbone: Any, saved: dict[str, StoredTensor], path: Path) -> None:
    mine = fingerprint(backbone)
    if "base/norms" not in saved:
        raise ValueError(f"{path} lacks the fingerprint of its base model.")
    for name, numbers in mine.items():
        tensor = saved.get(f"base/{name}")
        if tensor is None:  # saved from a quantized model
            continue
        # The same model in another float dtype is the same base: bfloat16 rounds to 2**-9, float16
        # to multiples of 2**-24.
        if tensor.shape != numbers.shape or not np.allclose(
            tensor.read(), numbers, rtol=2**-8, atol=2**-23, equal_nan=True
        ):
            raise ValueError(
                f"The adapter {path.name} was trained on another base model: the {name} of this "
                "one differ. Load the preset that it was trained on, unmerged, and then the "
                "adapter."
            )


def _checked_path(filepath: str | os.PathLike) -> Path:
    path = as_path(filepath)
    if not path.name.endswith(".lora.h5"):
        raise ValueError(f"The name of a LoRA file must end in .lora.h5, but is {path.name!r}.")
    return path
