"""Writes adapters with PEFT, and what transformers computes with them.

The ordinary tests read the files and need neither. To make them again, install the peers as
`make_reference.py` says, and in the folder `tests`:

    ../.venv-peers/bin/python -m reference.make_peft

The base is that of `golden.random_weights`. The factors are random and large enough to matter.
"""

import shutil
from pathlib import Path

import numpy as np

from . import golden, peers

FOLDER = Path(__file__).parent / "peft"
CONFIG = {
    "vocabulary_size": 31,
    "num_layers": 2,
    "num_query_heads": 4,
    "hidden_dim": 16,
    "intermediate_dim": 24,
    "num_key_value_heads": 2,
    "sliding_window": 5,
}
SEED = 14
TOKEN_IDS = golden.random_token_ids((2, 11), CONFIG["vocabulary_size"], SEED)
PADDING_MASK = np.arange(11) < np.array([[11], [7]])

# Arguments of peft.LoraConfig, and the dtype in which the factors are saved.
CASES = {
    "plain": ({"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}, "float32"),
    "patterns": (
        {
            "r": 4,
            "lora_alpha": 6,
            "target_modules": "all-linear",
            "exclude_modules": ["o_proj"],
            "rank_pattern": {"down_proj": 2, r"layers\.1\.self_attn\..*": 3, "q_proj": 1},
            "alpha_pattern": {"model.layers.0.mlp.gate_proj": 20, "^model.layers.1.mlp.up_proj": 1},
            "use_rslora": True,
            "bias": "all",
        },
        "float32",
    ),
    "expression": (
        {"r": 2, "lora_alpha": 3, "target_modules": r".*\.[01]\.(self_attn\.[qk]|mlp\.up)_proj"},
        "bfloat16",
    ),
    "one_layer": (
        {
            "r": 3,
            "lora_alpha": 3,
            "target_modules": ["o_proj", "layers.0.mlp.gate_proj", "self_attn.k_proj"],
            "layers_to_transform": [1],
            "layers_pattern": "layers",
            "fan_in_fan_out": True,
        },
        "float16",
    ),
}


def base_model():
    """transformers' model of the configuration."""
    return peers.transformers_model(CONFIG, golden.random_weights(CONFIG, SEED))


def logits(model) -> np.ndarray:
    """float32 (B, S, V)."""
    import torch

    with torch.no_grad():
        found = model(
            torch.from_numpy(TOKEN_IDS).long(),
            attention_mask=torch.from_numpy(PADDING_MASK).long(),
        ).logits
    return found.numpy() * PADDING_MASK[..., None]


def adapted_model(arguments: dict, dtype: str):
    """The base with an adapter of random factors, each a number of that dtype."""
    import peft
    import torch

    model = peft.get_peft_model(
        base_model(), peft.LoraConfig(task_type="CAUSAL_LM", **arguments)
    ).eval()
    torch.manual_seed(SEED)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            values = torch.randn(parameter.shape) / parameter.shape[1] ** 0.5
            parameter.data = values.to(getattr(torch, dtype)).float()
    return model


def main() -> None:
    """Makes every adapter, and the logits of all."""
    import torch

    arrays = {"base": logits(base_model())}
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name, (arguments, dtype) in CASES.items():
        model = adapted_model(arguments, dtype)
        arrays[name] = logits(model)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(getattr(torch, dtype))
        model.save_pretrained(FOLDER / name)
        (FOLDER / name / "README.md").unlink()  # a model card with nothing in it
        change = np.abs(arrays[name] - arrays["base"]).max()
        print(f"{name:12} changes the logits by {change:.2f}")
    np.savez_compressed(FOLDER / "logits.npz", **arrays)


if __name__ == "__main__":
    main()
