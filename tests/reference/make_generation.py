"""Writes two golden files: what transformers generates with options, and what KerasHub scores.

The ordinary tests read the files. To make them again, in the folder `tests`, in the environment
that `make_reference.py` describes:

    ../.venv-peers/bin/python -m reference.make_generation

Model and prompts of the first are those of the golden file `generation`.
"""

import numpy as np

from . import golden, peers
from .make_reference import (
    BASE,
    GENERATION,
    GENERATION_SEED,
    NEW_TOKENS,
    PROMPT_LENGTHS,
    check_versions,
)

# The steps of a sampler, alone and together, in transformers' own names.
SAMPLERS = {
    "penalty": {"repetition_penalty": 1.3},
    "penalty_below_1": {"repetition_penalty": 0.7},
    "temperature": {"temperature": 0.6},
    "top_k": {"top_k": 7},
    "top_p": {"top_p": 0.6},
    "min_p": {"min_p": 0.2},
    "top_k_then_p": {"top_k": 5, "top_p": 0.5},
    "all": {
        "repetition_penalty": 1.4,
        "temperature": 1.7,
        "top_k": 20,
        "top_p": 0.8,
        "min_p": 0.15,
    },
}

# Searches: arguments of transformers' `generate`, and how many stop tokens there are.
SEARCHES = {
    "2_beams": ({"num_beams": 2}, 0),
    "4_beams": ({"num_beams": 4}, 0),
    "4_beams_stopped": ({"num_beams": 4}, 1),
    "3_beams_2_stops": ({"num_beams": 3}, 2),
    "long_favoured": ({"num_beams": 4, "length_penalty": 2.0}, 2),
    "short_favoured": ({"num_beams": 4, "length_penalty": -1.0}, 2),
    "no_penalty": ({"num_beams": 4, "length_penalty": 0.0}, 2),
    "penalised": ({"num_beams": 4, "repetition_penalty": 1.2}, 1),
    "greedy_penalised": ({"repetition_penalty": 1.3}, 0),
}
# By this part of its score a search must win, and by so many logits a greedy choice, so that
# rounding decides neither.
LEAST_MARGIN = 1e-3


def processed(logits, token_ids, options):
    """Logits (B, V) after transformers' processors, in the order in which it puts them."""
    import torch
    from transformers import GenerationConfig

    # Top-k is 50 by default in `generate`; here a step that is not named is left out.
    config = GenerationConfig(do_sample=True, **{"top_k": 0, **options})
    processors = peers.transformers_model(
        GENERATION, golden.random_weights(GENERATION, 0)
    )._get_logits_processor(generation_config=config, input_ids_seq_length=token_ids.shape[1])
    ids = torch.from_numpy(token_ids).long()
    return processors(ids, torch.from_numpy(logits)).numpy()


def searched(model, prompt, stop_tokens, options):
    """What `generate` writes after one prompt, its score, and how far it is ahead."""
    import torch

    ids = torch.from_numpy(prompt[None]).long()
    with torch.no_grad():
        written = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=stop_tokens or None,
            pad_token_id=0,
            num_return_sequences=min(2, options.get("num_beams", 1)),
            output_scores=True,
            return_dict_in_generate=True,
            **options,
        )
    tokens = written.sequences[0, len(prompt) :].numpy()
    ends = np.flatnonzero(np.isin(tokens, stop_tokens)) if stop_tokens else ()
    tokens = tokens[: ends[0] + 1] if len(ends) else tokens
    if "num_beams" not in options:
        best = torch.stack(written.scores).topk(2).values
        return tokens, None, float((best[..., 0] - best[..., 1]).min())
    first, second = written.sequences_scores.numpy()
    return tokens, first, (first - second) / abs(first)


def make_options() -> golden.Golden:
    """Every sampler on random logits, every search on every prompt."""
    rng = np.random.default_rng(GENERATION_SEED)
    size = GENERATION["vocabulary_size"]
    logits = rng.normal(0, 2, (5, size)).astype("float32")
    token_ids = rng.integers(0, size, (5, 9)).astype("int16")
    arrays = {"logits": logits, "token_ids": token_ids}
    for name, options in SAMPLERS.items():
        arrays[f"samplers/{name}"] = processed(logits.copy(), token_ids.astype(int), options)

    base = golden.load("generation")
    weights = golden.random_weights(base.config, base.seed, base.gains)
    model = peers.transformers_model(base.config, weights)
    for name, (options, number) in SEARCHES.items():
        for length in PROMPT_LENGTHS:
            text = base.arrays[f"{length}/token_ids"].astype(int)
            # Tokens of the greedy continuation: some of them the beams meet as well.
            stop_tokens = [int(text[length + 9]), int(text[length + 20])][:number]
            tokens, score, margin = searched(model, text[:length], stop_tokens, options)
            print(f"{name:18} prompt {length:2}: {len(tokens)} tokens, ahead by {margin:.4f}")
            if margin < LEAST_MARGIN:
                raise SystemExit(f"{name}, prompt {length}: rounding could decide it.")
            arrays[f"{name}/{length}/stop_tokens"] = np.array(stop_tokens, "int16")
            arrays[f"{name}/{length}/tokens"] = tokens.astype("int16")
            if score is not None:
                arrays[f"{name}/{length}/score"] = score
    return golden.Golden("generation_options", base.config, base.seed, base.gains, arrays)


def make_scores() -> golden.Golden:
    """KerasHub's `score` of two rows, the second padded, both longer than the window."""
    import keras_hub

    config = BASE | {"sliding_window": 6}
    weights = golden.random_weights(config, 7)
    model = keras_hub.models.MistralCausalLM(
        backbone=peers.keras_hub_model(config, weights), preprocessor=None
    )
    padding_mask = np.arange(15) < np.array([[15], [9]])
    token_ids = golden.random_token_ids(padding_mask.shape, config["vocabulary_size"], 7)
    token_ids = token_ids * padding_mask
    target_ids = golden.random_token_ids(padding_mask.shape, config["vocabulary_size"], 8)
    inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
    arrays = {
        "token_ids": token_ids.astype("int16"),
        "padding_mask": padding_mask,
        "target_ids": target_ids.astype("int16"),
        "logits": model.score(**inputs),
        "losses": model.score(**inputs, scoring_mode="loss", target_ids=target_ids),
        "intercepted_logits": model.score(
            **inputs, layer_intercept_fn=lambda x, index: 2.0 * x if index == 0 else x
        ),
    }
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    return golden.Golden("scores", config, 7, {}, arrays)


def main() -> None:
    """Makes the files."""
    check_versions()
    for made in (make_options(), make_scores()):
        path = golden.save(made)
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
