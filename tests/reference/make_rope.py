"""Writes golden files of rotary scalings and of windows that differ by layer, with transformers.

Texts are three to four times as long as the original length. The ordinary tests read the files. To
make them again, in the folder `tests`, in the environment that `make_reference.py` describes:

    ../.venv-peers/bin/python -m reference.make_rope
"""

from pathlib import Path

import numpy as np

from . import golden, peers
from .make_reference import check_versions

FOLDER = Path(__file__).parent / "rope"
ORIGINAL, LENGTH, PROMPT = 32, 120, 40
# Positions whose logits are in the file; at 31, 63 and 95 an off-by-one would show.
KEPT = np.unique(np.r_[0:LENGTH:7, ORIGINAL - 1 : LENGTH : ORIGINAL, LENGTH - 8 : LENGTH])
BASE = {
    "vocabulary_size": 43,
    "num_layers": 2,
    "num_query_heads": 4,
    "hidden_dim": 32,
    "intermediate_dim": 48,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rope_max_wavelength": 1000.0,
    "layer_norm_epsilon": 1e-5,
    "sliding_window": None,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL}
CASES = {
    "yarn": {"rope_scaling": YARN},
    "yarn_mscale": {
        "rope_scaling": YARN
        | {"mscale": 1.5, "mscale_all_dim": 0.5, "beta_fast": 4.0, "truncate": False},
        "sliding_window": 50,
    },
    "yarn_attention_factor": {
        "rope_scaling": YARN | {"attention_factor": 1.3, "beta_fast": 6.0, "beta_slow": 0.5}
    },
    "dynamic": {
        "rope_scaling": YARN | {"rope_type": "dynamic", "factor": 3.0},
    },
    "llama3": {
        "rope_scaling": YARN
        | {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    },
    "ministral3": {
        "rope_scaling": YARN
        | {"mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 4.0, "llama_4_scaling_beta": 0.1},
    },
    "layers": {"num_layers": 4, "sliding_window": [None, 6, 6, None]},
}
WITH_GRADIENTS = ("ministral3",)
LEAST_MARGIN = 1e-3  # of the two best logits, so that rounding decides no token


def make(name: str, seed: int) -> golden.Golden | None:
    """Logits of a long text, and of what `generate` writes; `None` if rounding could decide it."""
    import torch

    config = BASE | CASES[name]
    weights = golden.random_weights(config, seed)
    # A new model for each: "dynamic" remembers the longest text.
    make_model = lambda: peers.transformers_model(config, weights)  # noqa: E731
    token_ids = golden.random_token_ids((1, LENGTH), config["vocabulary_size"], seed)
    with torch.no_grad():
        logits = make_model()(torch.from_numpy(token_ids).long()).logits.numpy()
        written = make_model().generate(
            torch.from_numpy(token_ids[:, :PROMPT]).long(),
            max_new_tokens=LENGTH - PROMPT,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
    steps = torch.stack(written.logits, dim=1).numpy()  # (1, steps, V)
    best = np.sort(steps, axis=-1)[..., -2:]
    margin = (best[..., 1] - best[..., 0]).min()
    if margin < LEAST_MARGIN:
        return None
    arrays = {
        "token_ids": token_ids.astype("int16"),
        "padding_mask": np.ones((1, LENGTH), bool),
        "logits": logits[:, KEPT],
        "written": written.sequences[:, PROMPT:].numpy().astype("int16"),
        "steps": steps[:, ::5],
    }
    if name in WITH_GRADIENTS:
        mask = arrays["padding_mask"]
        cotangent = golden.random_cotangent(mask, config["vocabulary_size"], seed)
        _, gradients = peers.transformers_pass(make_model(), token_ids, mask, cotangent)
        arrays |= {f"gradients/{weight}": array for weight, array in gradients.items()}
    print(f"{name:22} logits up to {abs(logits).max():.1f}, ahead by {margin:.4f}")
    return golden.Golden(name, config, seed, {}, arrays)


def main() -> None:
    """Makes the files."""
    check_versions()
    FOLDER.mkdir(exist_ok=True)
    for name in CASES:
        made = next(filter(None, (make(name, seed) for seed in range(20))))
        path = golden.save(made, FOLDER)
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
