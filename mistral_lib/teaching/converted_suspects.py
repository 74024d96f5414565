"""The shipped model, converted wrongly in three ways (used by chapter 17)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mistral_lib import MistralCausalLM
from mistral_lib.checks import check_choice

PRESET = "mistral_tiny_en"
NAMES = ("A", "B", "C")
WRONG_CONFIG = {"A": {"rope_max_wavelength": 1e6}, "C": {"sliding_window": 256}}
BLOCK = 3  # of the damage to "B"


def write(name: str, folder: str | Path) -> Path:
    """Writes a checkpoint of transformers in which one thing is wrong, as converters do it.

    It opens without an error, and its tensors have the right shapes. What is wrong says only this
    module.

    Args:
        name: "A", "B" or "C".
        folder: where to write it; it may exist.

    Returns:
        The folder.

    Raises:
        ValueError: no suspect has that name.

    >>> import tempfile
    >>> sorted(path.name for path in write("A", tempfile.mkdtemp()).glob("*.safetensors"))
    ['model.safetensors']
    """
    check_choice("name", name, NAMES)
    wrong = WRONG_CONFIG.get(name, {})
    model = MistralCausalLM.from_preset(PRESET, dtype="bfloat16", **wrong)
    if name == "B":  # a square kernel lies as in Keras, not as in PyTorch
        kernel = model.backbone.transformer_layers[BLOCK].self_attention.attention_output.kernel
        kernel.assign(np.asarray(kernel.value).T)
    model.export_to_transformers(folder)
    return Path(folder)
