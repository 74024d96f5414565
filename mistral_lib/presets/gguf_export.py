"""From a model to a GGUF file (chapter 17, "Presets and checkpoints").

The file holds config, weights and vocabulary. llama.cpp and the programs built on it run it as it
is. Norms stay float32, as there. Each tensor is made, written and released before the next one.

Source: llama.cpp, `conversion/llama.py`; `src/llama-quant.cpp` for what is quantized, and how.
"""

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from mistral_lib import lora
from mistral_lib.checks import as_path, check_choice
from mistral_lib.config import EMBEDDINGS, OUTPUT, MistralConfig
from mistral_lib.presets.atomic import replaced_file
from mistral_lib.presets.checkpoints import is_transposed
from mistral_lib.presets.gguf_files import KINDS, library, stored_bytes
from mistral_lib.presets.gguf_format import (
    ARGUMENTS,
    HEAD_DIM,
    KEY_HEADS,
    LENGTH,
    ROTARY_DIM,
    VALUE_DIM,
    VOCABULARY,
    WINDOW,
    places,
    rotary_heads,
)
from mistral_lib.presets.gguf_rope import (
    ROPE_TENSOR,
    architecture_of,
    frequency_divisors,
    write_rope,
)
from mistral_lib.presets.gguf_tokenizer import describe_vocabulary
from mistral_lib.presets.k_quants import quantize_k
from mistral_lib.presets.progress import progress_bar
from mistral_lib.presets.safetensors_files import in_file_order
from mistral_lib.presets.sources import GGUF
from mistral_lib.presets.tensors import Place, owner_of
from mistral_lib.settings import CONTEXT_LENGTH

QUANTIZATION_VERSION = 2
LARGEST = 65504.0  # in float16, the dtype of the scales of blocks
# llama.cpp's names of files in which most tensors are of one kind.
FILE_TYPES = {kind: f"MOSTLY_{kind}" for kind in KINDS} | {
    "F32": "ALL_F32",
    "Q4_K": "MOSTLY_Q4_K_S",
}
# The kind of each tensor, and its shape in the file, by its name.
Tensors = Mapping[str, tuple[str, tuple[int, ...]]]


def export_backbone(backbone: Any, path: str | Path, dtype: str = "F16") -> None:
    """Writes config and weights: see `MistralBackbone.export_to_gguf`."""
    _export(backbone, path, dtype, {})


def export_causal_lm(model: Any, path: str | Path, dtype: str = "F16") -> None:
    """Writes backbone and tokenizer: see `MistralCausalLM.export_to_gguf`."""
    values = {}
    if model.preprocessor is not None:
        size = model.backbone.vocabulary_size
        values = describe_vocabulary(model.preprocessor.tokenizer, size)
    _export(model.backbone, path, dtype, values)


def _export(backbone: Any, path: str | Path, dtype: str, vocabulary: dict[str, Any]) -> None:
    path = checked_path(path)
    check_choice("dtype", dtype, tuple(KINDS))
    _check_exportable(backbone)
    config = backbone.config
    kinds = {place: _kind(place, dtype, config) for place in places(config)}
    tensors = {place.name: (kind, place.shape) for place, kind in kinds.items()}
    arrays = _arrays(backbone, kinds)
    scaling = config.rope_scaling
    if scaling is not None and scaling.rope_type == "llama3":
        divisors = frequency_divisors(config.head_dim, config.rope_max_wavelength, scaling)
        tensors = {ROPE_TENSOR: ("F32", divisors.shape), **tensors}
        arrays = _after(divisors.astype("float32"), arrays)
    architecture = architecture_of(config)
    values = {
        "general.type": "model",
        "general.name": path.stem,
        "general.file_type": int(library().LlamaFileType[FILE_TYPES[dtype]]),
        "general.quantization_version": QUANTIZATION_VERSION,
        **{f"{architecture}.{key}": value for key, value in _describe(backbone).items()},
        **vocabulary,
    }
    write_gguf(path, architecture, values, tensors, arrays)


def checked_path(path: str | Path) -> Path:
    """The path of a file to write, if its name has the right ending."""
    path = as_path(path)
    if path.suffix != GGUF:
        raise ValueError(f"The name of a GGUF file must end in {GGUF}, but is {path.name!r}.")
    return path


def _check_exportable(backbone: Any) -> None:
    """Refuses what llama.cpp does not support, and warns of what it ignores."""
    if lora.settings(backbone) is not None:
        raise ValueError(
            "This backbone has LoRA, which a GGUF file of a model cannot hold. Call merge_lora() "
            "first; or export the adapter with export_lora_to_gguf, and the base model that it "
            "was trained on."
        )
    if backbone.quantization is not None:
        raise ValueError(
            f"This backbone is quantized to {backbone.quantization}, whose blocks GGUF does not "
            "have. Load the float model, and export it with dtype='Q8_0' or 'Q4_K'."
        )
    window, length = backbone.sliding_window, backbone.context_length or CONTEXT_LENGTH
    if isinstance(window, tuple):
        raise ValueError(
            f"The layers of this backbone have different windows ({window!r:.80}), but llama.cpp "
            "has none for a Mistral. Save it with save_to_preset."
        )
    if window is not None and window < length:
        warnings.warn(
            f"llama.cpp has no sliding window for a Mistral, so beyond {window:,} tokens, this "
            "model's window, it will compute other logits. The file names the window, and this "
            "library reads it.",
            stacklevel=5,
        )


def _kind(place: Place, dtype: str, config: MistralConfig) -> str:
    """The type of a tensor: the one asked for, or a similar one whose blocks fit its rows."""
    if len(place.shape) == 1:
        return "F32"
    output = EMBEDDINGS if config.tie_word_embeddings else OUTPUT
    kind = "Q6_K" if place.pattern == output and dtype.startswith("Q4") else dtype
    gguf = library()
    for other in (kind, "Q8_0", "F16"):
        if place.shape[-1] % gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[other]][0] == 0:
            return other
    raise AssertionError  # a row of F16 may have any length


def _describe(backbone: Any) -> dict[str, Any]:
    """A backbone's metadata, by keys without the name of the architecture."""
    config = backbone.config
    return {
        **{key: getattr(config, name) for name, key in ARGUMENTS.items()},
        VOCABULARY: config.vocabulary_size,
        LENGTH: backbone.context_length or CONTEXT_LENGTH,
        KEY_HEADS: config.num_key_value_heads,
        **dict.fromkeys((HEAD_DIM, VALUE_DIM, ROTARY_DIM), config.head_dim),
        **({} if config.sliding_window is None else {WINDOW: config.sliding_window}),
        **write_rope(config),
    }


def _arrays(backbone: Any, kinds: dict[Place, str]) -> Iterator[np.ndarray]:
    """The tensors as the file stores them, one at a time."""
    size = sum(stored_bytes(place.shape, kind) for place, kind in kinds.items())
    with progress_bar("Exporting weights", size) as progress:
        for place, kind in kinds.items():
            array = np.asarray(getattr(*owner_of(backbone, place.variable)).value)
            heads = rotary_heads(backbone.config, place.variable)
            rows = in_file_order(array, is_transposed(place.variable), heads)
            stored = encode(rows.astype("float32").reshape(place.shape), kind, place.name)
            yield stored
            progress.update(stored.nbytes)


def _after(first: np.ndarray, others: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from others


def encode(array: np.ndarray, kind: str, name: str) -> np.ndarray:
    """A float32 tensor as a file stores it.

    Args:
        array: its numbers, in the file's order.
        kind: one of `KINDS`.
        name: of the tensor, for the error.

    Raises:
        ValueError: numbers that the kind cannot hold.

    >>> encode(np.ones((1, 32), "float32"), "Q8_0", "x").shape
    (1, 34)
    """
    limit = np.inf if kind in ("F32", "BF16") else LARGEST
    if not np.abs(array).max(initial=0) <= limit:
        raise ValueError(
            f"{name} has numbers beyond {LARGEST:,.0f}, or NaN, which {kind} cannot hold. Pass "
            "dtype='BF16' or 'F32'."
        )
    if kind in ("F32", "F16"):
        return array.astype(KINDS[kind])
    if kind == "BF16":
        return array.astype(ml_dtypes.bfloat16).view("uint16")
    if kind.endswith("_K"):
        return quantize_k(array, kind)
    gguf = library()
    return gguf.quants.quantize(array, gguf.GGMLQuantizationType[kind])


def write_gguf(
    path: Path,
    architecture: str,
    values: Mapping[str, Any],
    tensors: Tensors,
    arrays: Iterable[np.ndarray],
) -> None:
    """Writes a file, which replaces an old one once it is complete.

    Args:
        path: the file.
        architecture: of the model.
        values: metadata; the architecture is added.
        tensors: kind and shape of each tensor, in the order of `arrays`.
        arrays: the tensors as `encode` makes them, each taken after the one before is written.
    """
    gguf = library()
    with replaced_file(path) as new, contextlib.closing(gguf.GGUFWriter(new, architecture)) as file:
        add = {
            bool: file.add_bool,
            int: file.add_uint32,
            float: file.add_float32,
            str: file.add_string,
            list: file.add_array,
        }
        for key, value in values.items():
            add[type(value)](key, value)
        for name, (kind, shape) in tensors.items():
            raw = gguf.GGMLQuantizationType[kind]
            file.add_tensor_info(name, shape, np.dtype("float32"), stored_bytes(shape, kind), raw)
        file.write_header_to_file()
        file.write_kv_data_to_file()
        file.write_ti_data_to_file()
        for array in arrays:
            file.write_tensor_data(array)
