"""Writes quantized presets with KerasHub, and what KerasHub computes from them.

The ordinary tests read the files and need no KerasHub. To make them again, install the peers as
`make_reference.py` says, and in the folder `tests`:

    ../.venv-peers/bin/python -m reference.make_quantized_preset
"""

import os
import shutil
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np

HERE = Path(__file__).parent
MODES = ("int8", "int4")
TOKEN_IDS = np.arange(2 * 5).reshape(2, 5) % 40
CONFIG = {
    "vocabulary_size": 40,
    "num_layers": 1,
    "num_query_heads": 4,
    "hidden_dim": 8,
    "intermediate_dim": 130,
    "num_key_value_heads": 2,
    "sliding_window": 3,
}


def preset(mode: str) -> Path:
    """The folder of a quantized preset."""
    return HERE / f"keras_preset_{mode}"


def keras_hub_backbone(mode: str):
    """KerasHub's backbone with large random weights, quantized."""
    from keras_hub import models

    backbone = models.MistralBackbone(**CONFIG, name="mistral_backbone")
    random = np.random.default_rng(0)
    for variable in backbone.weights:
        variable.assign(random.normal(size=variable.shape) * 0.6)
    backbone.quantize(mode)
    return backbone


def main():
    """Writes the presets, and the hidden states into each."""
    inputs = {"token_ids": TOKEN_IDS, "padding_mask": np.ones_like(TOKEN_IDS)}
    for mode in MODES:
        shutil.rmtree(preset(mode), ignore_errors=True)
        backbone = keras_hub_backbone(mode)
        backbone.save_to_preset(preset(mode))
        np.save(preset(mode) / "hidden_states.npy", np.asarray(backbone(inputs)))


if __name__ == "__main__":
    main()
