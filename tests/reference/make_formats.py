"""Writes small checkpoints with transformers and in Mistral's own format, and their logits.

The ordinary tests read the files and need neither peer. To make them again, install the peers as
`make_reference.py` says, and beside them, without what they require (no GPU is needed here):

    ../.venv-peers/bin/pip install --no-deps mistral-inference==1.6.0 simple-parsing==0.1.9 \
        docstring-parser==0.18.0
    ../.venv-peers/bin/python -m reference.make_formats

mistral-inference takes its attention from xformers, which needs a GPU. Here PyTorch's attention
stands in for it, with the mask written out; names, shapes, norms, rotary positions and the rest
are mistral-inference's own.
"""

import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np

from . import golden, peers
from .make_keras_preset import vocabulary

FOLDER = Path(__file__).parent / "formats"
TOKEN_IDS = np.arange(2 * 12).reshape(2, 12) * 7 % 61
BASE = {
    "vocabulary_size": 61,
    "num_layers": 2,
    "num_query_heads": 4,
    "hidden_dim": 16,
    "intermediate_dim": 24,
    "num_key_value_heads": 2,
    "rope_max_wavelength": 500.0,
    "layer_norm_epsilon": 1e-5,
    "sliding_window": 5,
}
CASES = {
    "single": {"vocabulary_size": 280},
    "sharded": {},
    "tied": {"tie_word_embeddings": True, "sliding_window": None},
    "head_dim": {"head_dim": 6, "num_key_value_heads": 1},
    "older": {},
    "linear": {"rope_scaling_factor": 4.0},
    "older_linear": {"rope_scaling_factor": 4.0},
    # As version 0.1 has it: a window, and no word of the wavelength.
    "mistral_window": {"rope_max_wavelength": 1e4},
    # As the versions after it; there mistral-inference takes the wavelength that it should.
    "mistral_full": {"rope_max_wavelength": 1e6, "sliding_window": None},
    "mistral_theta": {"head_dim": 6, "num_key_value_heads": 1},
}
# What config.json looked like before transformers 5: without the entries on rotary positions.
OLDER = {
    "architectures": ["MistralForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.34.0.dev0",
    "use_cache": True,
}
MISTRAL_BLOCK = {
    "attention_norm": "attention_norm",
    "query": "attention.wq",
    "key": "attention.wk",
    "value": "attention.wv",
    "output": "attention.wo",
    "feedforward_norm": "ffn_norm",
    "gate": "feed_forward.w1",
    "up": "feed_forward.w3",
    "down": "feed_forward.w2",
}


# A tied output has the size of embeddings, whose numbers would make logits above 10.
GAINS = {"tied": {"embeddings": 0.3}}


def config_of(name: str) -> dict:
    """The constructor arguments that a case's files describe."""
    return BASE | CASES[name]


def make_transformers(name: str) -> np.ndarray:
    """Writes one checkpoint with transformers, and returns the logits of the one read again."""
    import torch
    import transformers

    folder, config = FOLDER / name, config_of(name)
    weights = golden.random_weights(config, list(CASES).index(name), GAINS.get(name))
    dtype, size = ("bfloat16", "4KB") if name == "sharded" else ("float32", "1GB")
    model = peers.transformers_model(config, weights, dtype)
    model.generation_config.eos_token_id = [2, 7]
    model.save_pretrained(folder, max_shard_size=size)
    if name == "single":
        (folder / "tokenizer.model").write_bytes(vocabulary())
    if name.startswith("older"):
        content = json.loads((folder / "config.json").read_text())
        kept = ("vocab_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
        kept += ("hidden_size", "intermediate_size", "rms_norm_eps", "sliding_window")
        content = OLDER | {key: content[key] for key in kept}
        content["rope_theta"] = config["rope_max_wavelength"]
        if name == "older_linear":
            content["rope_scaling"] = {"type": "linear", "factor": 4.0}
        (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        return model(torch.from_numpy(TOKEN_IDS).long()).logits.numpy()


def make_mistral(name: str) -> np.ndarray:
    """Writes one checkpoint in Mistral's format, and returns mistral-inference's logits."""
    import torch
    from safetensors.torch import save_file

    folder, config = FOLDER / name, config_of(name)
    weights = golden.random_weights(config, list(CASES).index(name), GAINS.get(name))
    tensors = {
        "tok_embeddings.weight": weights["embeddings"],
        "norm.weight": weights["final_norm"],
        "output.weight": weights["reverse_embeddings"].T,
    }
    for index in range(config["num_layers"]):
        for mine, theirs in MISTRAL_BLOCK.items():
            array = weights[f"layers.{index}.{mine}"]
            tensors[f"layers.{index}.{theirs}.weight"] = array.T
    folder.mkdir()
    tensors = {key: torch.from_numpy(array.copy()) for key, array in tensors.items()}
    save_file(tensors, folder / "consolidated.safetensors")
    params = {
        "dim": config["hidden_dim"],
        "n_layers": config["num_layers"],
        "head_dim": golden.head_dim(config),
        "hidden_dim": config["intermediate_dim"],
        "n_heads": config["num_query_heads"],
        "n_kv_heads": config["num_key_value_heads"],
        "norm_eps": config["layer_norm_epsilon"],
        "vocab_size": config["vocabulary_size"],
    }
    if config["sliding_window"] is not None:
        params["sliding_window"] = config["sliding_window"]
    if name == "mistral_theta":
        params["rope_theta"] = config["rope_max_wavelength"]
    (folder / "params.json").write_text(json.dumps(params, indent=2) + "\n")
    if name == "mistral_window":  # which this version of mistral-inference would get wrong
        params["rope_theta"] = config["rope_max_wavelength"]
    return run_mistral_inference(params, tensors)


def run_mistral_inference(params: dict, tensors: dict) -> np.ndarray:
    """Logits of mistral-inference's model."""
    import torch

    window = params.get("sliding_window", 10**9)

    def attention(query, key, value, mask):
        queries, keys = np.ogrid[: query.shape[1], : key.shape[1]]
        seen = torch.from_numpy((keys <= queries) & (queries - keys < window))
        heads_first = (array.transpose(1, 2) for array in (query, key, value))
        attend = torch.nn.functional.scaled_dot_product_attention
        return attend(*heads_first, attn_mask=seen).transpose(1, 2)

    bias = ["AttentionBias", "BlockDiagonalCausalMask", "BlockDiagonalMask"]
    bias += ["BlockDiagonalCausalWithOffsetPaddedKeysMask"]
    for module, names in {
        "xformers": {},
        "xformers.ops": {},
        "xformers.ops.fmha": {"memory_efficient_attention": attention},
        "xformers.ops.fmha.attn_bias": dict.fromkeys(bias),
    }.items():
        sys.modules[module] = types.ModuleType(module)
        vars(sys.modules[module]).update(names)
    for module in [name for name in sys.modules if name.startswith("mistral_inference")]:
        del sys.modules[module]  # it keeps the attention of the last call
    from mistral_inference.args import TransformerArgs
    from mistral_inference.transformer import Transformer

    model = Transformer(TransformerArgs.from_dict(params | {"max_batch_size": len(TOKEN_IDS)}))
    model.load_state_dict(tensors, strict=True)
    with torch.no_grad():
        rows = [model(torch.from_numpy(row).long(), seqlens=[len(row)]) for row in TOKEN_IDS]
    return torch.stack(rows).numpy()


def main() -> None:
    """Writes every checkpoint, and the logits of all."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    logits = {
        name: (make_mistral if name.startswith("mistral") else make_transformers)(name)
        for name in CASES
    }
    np.savez_compressed(FOLDER / "logits.npz", **logits)
    size = sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file())
    print(f"{len(CASES)} checkpoints, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
