"""LoRA adapters as GGUF files (chapter 14, "LoRA").

A file holds, for each adapted tensor of the model, `<name>.lora_a` (r, inputs) and `<name>.lora_b`
(outputs, r), the transposes of ours, and one alpha for all. The rows of B belong to the rows of the
tensor, so for queries and keys they are reordered in the same way.

Source: llama.cpp, `convert_lora_to_gguf.py`, `src/llama-adapter.cpp`.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from mistral_lib import lora
from mistral_lib.presets.addresses import open_source
from mistral_lib.presets.gguf_export import checked_path, encode, write_gguf
from mistral_lib.presets.gguf_files import GgufFile, read_gguf
from mistral_lib.presets.gguf_format import ARCHITECTURES, NAMES, rotary_heads
from mistral_lib.presets.gguf_rope import architecture_of
from mistral_lib.presets.lora_format import MESSAGES
from mistral_lib.presets.safetensors_files import in_file_order
from mistral_lib.presets.sources import GGUF, OneFile
from mistral_lib.presets.tensors import Place, match

ALPHA, KIND = "adapter.lora.alpha", "adapter.type"
TOKENS = "adapter.alora.invocation_tokens"


def save(backbone: Any, path: str | Path) -> None:
    """Writes an adapter: see `MistralBackbone.export_lora_to_gguf`."""
    plan, names = lora.require(backbone), tensor_names(backbone)
    alpha = Counter(wanted["lora_alpha"] for wanted in plan.values()).most_common(1)[0][0]
    arrays = {}
    for layer, factor in lora.factors(backbone).items():
        layer, _, part = layer.rpartition("/")
        heads = _heads(backbone, layer) if part == "b" else None
        if part == "b":  # there is one alpha for all
            factor = factor * (plan[layer]["lora_alpha"] / alpha)
        rows = in_file_order(factor, True, heads).reshape(factor.shape[::-1])
        name = f"{names[layer]}.lora_{part}"
        arrays[name] = encode(rows.astype("float32"), "F32", name)
    values = {"general.type": "adapter", KIND: "lora", ALPHA: float(alpha)}
    tensors = {name: ("F32", array.shape) for name, array in arrays.items()}
    write_gguf(
        checked_path(path), architecture_of(backbone.config), values, tensors, arrays.values()
    )


def load(backbone: Any, path: str | os.PathLike) -> None:
    """Reads an adapter: see `MistralBackbone.load_lora_weights`."""
    address = os.fspath(path)
    source = open_source(address if "://" in address else Path(address))
    if not isinstance(source, OneFile):
        raise FileNotFoundError(f"{address} must be a {GGUF} file, but is a folder.")
    file = read_gguf(source.get(source.name))
    alpha, names = _read_alpha(file), tensor_names(backbone)
    plan = {}
    for layer, name in names.items():
        if f"{name}.lora_a" in file.places:
            rank = file.places[f"{name}.lora_a"][0][0]
            plan[layer] = {"rank": rank, "lora_alpha": alpha or rank}
    if not plan:
        raise ValueError(f"{file.path} adapts none of this model's projections.")
    places = [
        Place(factor, f"{names[factor[:-2]]}.lora_{factor[-1]}", shape[::-1])
        for factor, shape in lora.factor_shapes(backbone, plan).items()
    ]
    arrays = {}
    for factor, tensor in match(places, file.tensors(), file.path, MESSAGES).items():
        heads = _heads(backbone, factor[:-2]) if factor.endswith("/b") else None
        arrays[factor] = tensor.arranged(True, heads).read()
    lora.assign(backbone, plan, arrays)


def tensor_names(backbone: Any) -> dict[str, str]:
    """The projections' names in a GGUF file, by their paths here.

    >>> from mistral_lib import MistralBackbone
    >>> tensor_names(MistralBackbone(10, 1, 2, 8, 16, 1))["transformer_layer_0/feedforward/up"]
    'blk.0.ffn_up.weight'
    """
    return {
        weight.layer.replace(".", "/"): NAMES[weight.pattern].format(weight.block)
        for weight in backbone.config.weights()
        if weight.attribute == "kernel"
    }


def _heads(backbone: Any, layer: str) -> int | None:
    return rotary_heads(backbone.config, f"{layer.replace('/', '.')}.kernel")


def _read_alpha(file: GgufFile) -> float:
    """The alpha of an adapter, if the file is one; 0 means the rank."""
    values = file.metadata
    if (values.get("general.type"), values.get(KIND)) != ("adapter", "lora"):
        raise ValueError(
            f"{file.path} holds no LoRA adapter: general.type is "
            f"{values.get('general.type')!r:.40} and {KIND} {values.get(KIND)!r:.40}, but must be "
            "'adapter' and 'lora'."
        )
    architecture = values.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"{file.path} adapts a model of the architecture {architecture!r:.40}, but a Mistral "
            f"is {' or '.join(map(repr, ARCHITECTURES))} there."
        )
    if TOKENS in values:
        raise ValueError(
            f"{file.path} is an adapter that begins to work at certain tokens ({TOKENS}), which is "
            "not supported."
        )
    alpha = values.get(ALPHA, 0.0)
    return lora.check_alpha(alpha) if alpha else 0.0
