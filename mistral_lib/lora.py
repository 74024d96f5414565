"""Choosing layers, saving, loading and merging (chapter 14, "LoRA")."""

import hashlib
import json
import os
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np

from mistral_lib.checks import check_integer, check_number

DEFAULT_TARGETS = ("query", "value")


def projections(backbone) -> dict[str, object]:
    """Every `Projection` of a backbone by its path, `transformer_layer_0/self_attention/query`.

    >>> from mistral_lib import MistralBackbone
    >>> list(projections(MistralBackbone(10, 1, 2, 8, 16, 1)))[:2]
    ['transformer_layer_0/self_attention/query', 'transformer_layer_0/self_attention/key']
    """
    found = {}
    for block in backbone.transformer_layers:
        attention, feedforward = block.self_attention, block.feedforward
        parts = (attention.query, attention.key, attention.value, attention.attention_output)
        for layer in (*parts, feedforward.gate, feedforward.up, feedforward.down):
            parent = attention if layer in parts else feedforward
            found[f"{block.name}/{parent.name}/{layer.name}"] = layer
    return found


def settings(backbone) -> dict | None:
    """`rank`, `target_layer_names` and `lora_alpha` of a backbone with LoRA, else `None`."""
    adapted = [layer for layer in projections(backbone).values() if layer.lora_enabled]
    if not adapted:
        return None
    return {
        "rank": adapted[0].lora_rank,
        "target_layer_names": sorted({layer.name for layer in adapted}),
        "lora_alpha": adapted[0].lora_alpha,
    }


def enable(backbone, rank: int, target_layer_names=None, lora_alpha: float | None = None) -> None:
    """See `MistralBackbone.enable_lora`. Everything is checked before anything changes."""
    layers = projections(backbone)
    known = sorted({layer.name for layer in layers.values()})
    targets = DEFAULT_TARGETS if target_layer_names is None else target_layer_names
    if isinstance(targets, str):
        targets = (targets,)
    unknown = sorted(set(targets) - set(known))
    if unknown or not targets:
        found = f"there is no layer {unknown[0]!r}" if unknown else "it is empty"
        raise ValueError(
            f"target_layer_names must name layers to adapt, but {found}. The layers are: "
            f"{', '.join(known)}."
        )
    wanted = {
        "rank": check_integer("rank", rank),
        "target_layer_names": sorted(set(targets)),
        "lora_alpha": rank if lora_alpha is None else check_number("lora_alpha", lora_alpha),
    }
    present = settings(backbone)
    if present == wanted:
        return
    if present is not None:
        raise ValueError(
            f"This backbone has LoRA already, with {_describe(present)}; asked for was "
            f"{_describe(wanted)}. Call merge_lora first, or start from the base model."
        )
    for variable in backbone.variables:
        variable.trainable = False
    for layer in layers.values():
        if layer.name in wanted["target_layer_names"]:
            layer.enable_lora(wanted["rank"], wanted["lora_alpha"])
    forget_compiled(backbone)


def merge(backbone) -> None:
    """See `MistralBackbone.merge_lora`."""
    _require(backbone)
    for layer in projections(backbone).values():
        if layer.lora_enabled:
            layer.merge_lora()
    for variable in backbone.variables:
        variable.trainable = True
    forget_compiled(backbone)


def save(backbone, filepath: str | os.PathLike) -> None:
    """See `MistralBackbone.save_lora_weights`."""
    present = _require(backbone)
    path = _checked_path(filepath)
    partial = path.with_name(path.name + ".partial")
    with h5py.File(partial, "w") as file:
        file.attrs["settings"] = json.dumps(present)
        file.attrs["base"] = json.dumps(fingerprint(backbone))
        for name, layer in projections(backbone).items():
            if layer.lora_enabled:
                file[f"{name}/a"] = np.asarray(layer.lora_kernel_a.value)
                file[f"{name}/b"] = np.asarray(layer.lora_kernel_b.value)
    os.replace(partial, path)


def load(backbone, filepath: str | os.PathLike, check_base: bool = True) -> None:
    """See `MistralBackbone.load_lora_weights`; `check_base` compares the base's fingerprint."""
    path = _checked_path(filepath)
    if not path.is_file():
        raise FileNotFoundError(f"There is no LoRA file {path}.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} is not an HDF5 file, or it is cut short: {error}") from error
    with file:
        if not {"settings", "base"} <= set(file.attrs):
            raise ValueError(f"{path} holds no adapter that was saved by save_lora_weights.")
        wanted = json.loads(file.attrs["settings"])
        if check_base:
            _check_base(backbone, json.loads(file.attrs["base"]), path)
        factors = _read_factors(file, backbone, wanted, path)
        enable(backbone, **wanted)
    for layer, a, b in factors:
        layer.lora_kernel_a.assign(a)
        layer.lora_kernel_b.assign(b)


def fingerprint(backbone) -> dict[str, str]:
    """Hashes that tell one base model from another.

    `norms` is of the scales of all RMSNorms, which quantization leaves alone; `kernels`, of a few
    numbers of each kernel, is there for float models only. Both are of values rounded to bfloat16,
    so that a float32 model and its bfloat16 copy count as one base.
    """
    norms = [backbone.layer_norm.scale]
    for block in backbone.transformer_layers:
        norms += [block.self_attention_layernorm.scale, block.feedforward_layernorm.scale]
    result = {"norms": _hash(norms)}
    layers = projections(backbone).values()
    if all(layer.quantization_mode is None for layer in layers):
        result["kernels"] = _hash([layer._kernel for layer in layers])
    return result


def forget_compiled(model) -> None:
    """Drops what Keras compiled with the old set of variables."""
    model.train_function = model.test_function = model.predict_function = None


def _hash(variables) -> str:
    digest = hashlib.sha256()
    for variable in variables:
        flat = np.asarray(
            variable.value.reshape(-1)[:: max(1, int(np.prod(variable.shape)) // 997)]
        )
        digest.update(str(tuple(variable.shape)).encode())
        digest.update(flat.astype("float32").astype(ml_dtypes.bfloat16).tobytes())
    return digest.hexdigest()


def _check_base(backbone, saved: dict, path: Path) -> None:
    mine = fingerprint(backbone)
    for name in saved.keys() & mine.keys():
        if saved[name] != mine[name]:
            raise ValueError(
                f"The adapter {path.name} was trained on another base model: the {name} of this "
                "one differ. Load the preset that it was trained on, unmerged, and then the "
                "adapter."
            )


def _read_factors(file, backbone, wanted: dict, path: Path) -> list[tuple]:
    """The layers and their factors, all checked against the backbone."""
    factors = []
    for name, layer in projections(backbone).items():
        if layer.name not in wanted["target_layer_names"]:
            continue
        shapes = {"a": (layer.input_dim, wanted["rank"]), "b": (wanted["rank"], layer.units)}
        for part, shape in shapes.items():
            found = file.get(f"{name}/{part}")
            if not isinstance(found, h5py.Dataset) or found.shape != shape:
                state = "missing" if found is None else f"of shape {getattr(found, 'shape', None)}"
                raise ValueError(
                    f"In {path}, {name}/{part} must have the shape {shape}, but is {state}."
                )
        factors.append((layer, file[f"{name}/a"][()], file[f"{name}/b"][()]))
    return factors


def _require(backbone) -> dict:
    present = settings(backbone)
    if present is None:
        raise ValueError("This backbone has no LoRA. Call enable_lora(rank) first.")
    return present


def _checked_path(filepath) -> Path:
    path = Path(filepath)
    if not path.name.endswith(".lora.h5"):
        raise ValueError(f"The name of a LoRA file must end in .lora.h5, but is {path.name!r}.")
    return path


def _describe(found: dict) -> str:
    names = ", ".join(found["target_layer_names"])
    return f"rank {found['rank']} and alpha {found['lora_alpha']} on {names}"
