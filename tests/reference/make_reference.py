"""Writes the golden files: what transformers and KerasHub compute from random weights.

The ordinary tests read the files and need neither. To make them again, in the folder `tests`:

    python3.11 -m venv ../.venv-peers
    ../.venv-peers/bin/pip install -r reference/requirements.txt
    ../.venv-peers/bin/python -m reference.make_reference

The two peers must agree with each other, and with `plain.py` in float64, or nothing is written.
"""

import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import ml_dtypes
import numpy as np

from . import golden, peers, plain

BASE = {
    "vocabulary_size": 61,
    "num_layers": 2,
    "num_query_heads": 4,
    "hidden_dim": 32,
    "intermediate_dim": 48,
    "num_key_value_heads": 2,
    "sliding_window": 6,
}


@dataclass(frozen=True)
class Case:
    """One golden file to write.

    Attributes:
        config: what differs from `BASE`.
        real: for each row of the batch, the (first, end) of every run of real tokens.
        length: S.
        gains: argument of `golden.random_weights`.
        gradients_from: the peer whose gradients are stored.
        bfloat16: whether both peers' bfloat16 hidden states are stored as well.
    """

    config: dict = field(default_factory=dict)
    real: tuple = (((0, 24),), ((0, 17),), ((0, 5),))  # right padding
    length: int = 24
    gains: dict = field(default_factory=dict)
    gradients_from: str = "transformers"
    bfloat16: bool = False

    def padding_mask(self) -> np.ndarray:
        mask = np.zeros((len(self.real), self.length), "bool")
        for row, runs in zip(mask, self.real):
            for first, end in runs:
                row[first:end] = True
        return mask


LEFT = (((0, 24),), ((7, 24),), ((20, 24),))
HOLES = (((0, 3), (5, 24)), ((2, 9), (16, 17), (20, 22)), ((0, 1), (23, 24)))
CASES = {
    "grouped": Case(),
    "multi_query": Case({"num_key_value_heads": 1, "sliding_window": 5}),
    "full_heads": Case({"num_key_value_heads": 4, "sliding_window": None}, bfloat16=True),
    "window_1": Case({"sliding_window": 1}),
    "window_2": Case({"sliding_window": 2, "num_query_heads": 8, "num_key_value_heads": 4}),
    "window_longer": Case({"sliding_window": 100}),
    "head_dim": Case({"head_dim": 12, "num_query_heads": 6, "hidden_dim": 40}),
    "rope_scaling": Case({"rope_scaling_factor": 4.0, "sliding_window": None}),
    "theta": Case({"rope_max_wavelength": 1e6, "sliding_window": None}),
    # With embeddings this small, epsilon is half of what the first norm divides by.
    "epsilon": Case({"layer_norm_epsilon": 1e-5}, gains={"embeddings": 0.003}),
    "tied": Case({"tie_word_embeddings": True}),
    "left_padding": Case(real=LEFT, gradients_from="keras_hub"),
    "holes": Case(real=HOLES, gradients_from="keras_hub"),
    # Longer than a block of the banded path, and ends inside one.
    "banded": Case({"sliding_window": 16}, (((0, 330),), ((0, 201),)), 330, bfloat16=True),
    "banded_holes": Case(
        {"sliding_window": 16, "num_key_value_heads": 1},
        (((0, 40), (50, 255), (257, 330)), ((270, 330),)),
        330,
        gradients_from="keras_hub",
    ),
    # Long enough that the banded path is the automatic choice.
    "banded_long": Case({"sliding_window": 64}, (((0, 1100),),), 1100),
}

# A prompt shorter than the window of 8, one as long, one far longer.
GENERATION = BASE | {"num_query_heads": 8, "num_key_value_heads": 2, "sliding_window": 8}
PROMPT_LENGTHS = (3, 8, 53)
NEW_TOKENS = 40
# The first from 100 whose texts neither repeat themselves nor hang on the rounding of a logit.
GENERATION_SEED = 173


def make_backbone_case(name: str, case: Case, seed: int) -> golden.Golden:
    """What both peers compute for one case."""
    config = BASE | case.config
    padding_mask = case.padding_mask()
    token_ids = golden.random_token_ids(padding_mask.shape, config["vocabulary_size"], seed)
    token_ids *= padding_mask
    cotangent = golden.random_cotangent(padding_mask, config["vocabulary_size"], seed)
    weights = golden.random_weights(config, seed, case.gains)

    transformers_model = peers.transformers_model(config, weights)
    hidden_states, gradients = {}, {}
    hidden_states["transformers"], gradients["transformers"] = peers.transformers_pass(
        transformers_model, token_ids, padding_mask, cotangent
    )
    keras_hub_model = peers.keras_hub_model(config, weights)
    hidden_states["keras_hub"], gradients["keras_hub"] = peers.keras_hub_pass(
        config, keras_hub_model, token_ids, padding_mask, cotangent
    )
    exact = plain.hidden_states(config, weights, token_ids, padding_mask)
    agree(name, hidden_states, gradients, exact, padding_mask)

    arrays = {"token_ids": token_ids.astype("int16"), "padding_mask": padding_mask}
    for peer, array in hidden_states.items():
        arrays[f"{peer}/hidden_states"] = array * padding_mask[..., None]
    for weight, gradient in gradients[case.gradients_from].items():
        arrays[f"gradients/{weight}"] = gradient
    if case.bfloat16:
        arrays |= bfloat16_arrays(config, weights, token_ids, padding_mask)
    return golden.Golden(name, config, seed, case.gains, arrays)


def agree(name, hidden_states, gradients, exact, padding_mask) -> None:
    """Prints how far apart the implementations are, and refuses to go on if too far."""
    real = padding_mask[..., None]
    between = np.abs((hidden_states["transformers"] - hidden_states["keras_hub"]) * real).max()
    from_exact = max(np.abs((array - exact) * real).max() for array in hidden_states.values())
    relative = max(
        np.abs(gradients["keras_hub"][weight] - gradient).max() / np.abs(gradient).max()
        for weight, gradient in gradients["transformers"].items()
        if gradient.any()  # with a window of 1, queries and keys change nothing
    )
    size = np.sqrt((exact**2 * real).sum() / (real.sum() * exact.shape[-1]))
    print(
        f"{name:16} hidden states of size {size:.2f}; peers apart {between:.1e}, from float64 "
        f"{from_exact:.1e}, gradients apart {relative:.1e}"
    )
    # float32 angles at positions in the thousands are exact to 1e-4 only, whoever computes them.
    if between > 1e-5 or from_exact > 5e-5 or relative > 1e-5:
        raise SystemExit(f"{name}: the peers do not agree, and nothing was written.")


def bfloat16_arrays(config, weights, token_ids, padding_mask) -> dict[str, np.ndarray]:
    """Both peers in bfloat16 (as bits), and float64 on the same rounded weights."""
    rounded = {
        name: array.astype(ml_dtypes.bfloat16).astype("float32") for name, array in weights.items()
    }
    no_gradient = np.zeros((*token_ids.shape, config["vocabulary_size"]), "float32")
    hidden_states = {
        "transformers": peers.transformers_pass(
            peers.transformers_model(config, rounded, "bfloat16"),
            token_ids,
            padding_mask,
            no_gradient,
        )[0],
        "keras_hub": peers.keras_hub_pass(
            config,
            peers.keras_hub_model(config, rounded, "bfloat16"),
            token_ids,
            padding_mask,
            no_gradient,
        )[0],
    }
    arrays = {
        f"{peer}/bfloat16": (array * padding_mask[..., None])
        .astype(ml_dtypes.bfloat16)
        .view("uint16")
        for peer, array in hidden_states.items()
    }
    exact = plain.hidden_states(config, rounded, token_ids, padding_mask)
    return arrays | {"float64_of_bfloat16": (exact * padding_mask[..., None]).astype("float32")}


def make_generation_case(name: str, seed: int) -> golden.Golden:
    """What transformers' greedy `generate` writes after three prompts, and all the logits.

    The arrays are `{length}/token_ids` (prompt and continuation), and `{length}/logits`, which one
    call without a cache computes for all of them.
    """
    import torch

    gains = {"reverse_embeddings": 3.0}
    weights = golden.random_weights(GENERATION, seed, gains)
    model = peers.transformers_model(GENERATION, weights)
    arrays = {}
    for length in PROMPT_LENGTHS:
        prompt = golden.random_token_ids((1, length), GENERATION["vocabulary_size"], seed + length)
        prompt = torch.from_numpy(prompt).long()
        with torch.no_grad():
            token_ids = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                pad_token_id=0,
            )
            logits = model(token_ids, use_cache=False).logits[0].numpy()
        token_ids = token_ids[0].numpy()
        best = np.sort(logits[length - 1 : -1], axis=-1)
        margin = (best[:, -1] - best[:, -2]).min()
        if (logits[length - 1 : -1].argmax(-1) != token_ids[length:]).any() or margin < 0.03:
            raise SystemExit(f"{name}, prompt {length}: greedy is ambiguous, margin {margin:.4f}.")
        if 0 in token_ids:
            raise SystemExit(f"{name}, prompt {length}: id 0 looks like padding; try another seed.")
        different = len(set(token_ids[length:]))
        if different < NEW_TOKENS // 3:
            raise SystemExit(f"{name}, prompt {length}: repeats itself; try another seed.")
        print(
            f"{name:16} prompt {length}: least margin {margin:.3f}, "
            f"{different} different tokens of {NEW_TOKENS}"
        )
        arrays[f"{length}/token_ids"] = token_ids.astype("int16")
        arrays[f"{length}/logits"] = logits
    return golden.Golden(name, GENERATION, seed, gains, arrays)


def check_versions() -> None:
    """Ends the script unless the versions in `requirements.txt` are installed."""
    lines = Path(__file__).with_name("requirements.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    found = {name: metadata.version(name).split("+")[0] for name in pins}
    if found != pins:
        sys.exit(f"The committed files come from {pins}, but installed are {found}.")


def main() -> None:
    """Makes every file, then writes them all."""
    check_versions()
    made = [make_backbone_case(name, case, seed) for seed, (name, case) in enumerate(CASES.items())]
    made.append(make_generation_case("generation", GENERATION_SEED))
    size = sum(golden.save(one).stat().st_size for one in made)
    print(f"{len(made)} files, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
