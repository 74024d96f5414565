"""What fewer key-value heads cost in quality (chapter 6, "Many heads, fewer keys").

    python training/grouped_heads.py

trains small models that differ in the number of key-value heads alone, each from several seeds, on
the docstrings of the standard library, and writes how well each predicts held-out docstrings into
the record that the chapter reads. It takes some minutes on two cores that have nothing else to do.
"""

import argparse
import json
import os
import platform
import time
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from batches import Batches
from measure import bits_per_byte, document_bits
from train_tiny import Settings, build_model
from vocabulary import encode, train_vocabulary

from mistral_lib.teaching import corpus

# In the package, so that the chapter finds it wherever the library is installed.
RECORD = Path(corpus.__file__).parent / "records" / "grouped_heads.json"
SETTINGS = Settings(
    steps=400,
    batch_size=16,
    length=128,
    vocabulary_size=1024,
    num_layers=3,
    num_query_heads=8,
    num_key_value_heads=8,
    hidden_dim=64,
    intermediate_dim=128,
    sliding_window=128,
    peak_learning_rate=4e-3,
    warmup_steps=50,
)
KEY_VALUE_HEADS = (8, 4, 2, 1)
SEEDS = (0, 1, 2)


def train_variants(
    text: corpus.Corpus, settings: Settings, key_value_heads=KEY_VALUE_HEADS, seeds=SEEDS
) -> dict:
    """Trains one model for each number of key-value heads and each seed.

    A seed decides the first weights and the order of the text: the models of one seed read the same
    batches.

    Args:
        text: what to learn from, and what to be judged on.
        settings: of every run, but for `num_key_value_heads` and `seed`.
        key_value_heads: K of the variants.
        seeds: of the runs of each variant.

    Returns:
        The record: settings, sizes and versions, and a list of runs with `key_value_heads`, `seed`,
        `parameters`, `cache_bytes_per_token` (in bfloat16) and `held_out_bits_per_byte`.
    """
    texts = [document.text for document in text.training]
    held_out = [document.text for document in text.held_out]
    vocabulary = train_vocabulary(texts, settings.vocabulary_size)
    rows, held_out_ids = encode(vocabulary, texts), encode(vocabulary, held_out)
    began, runs = time.perf_counter(), []
    for heads in key_value_heads:
        variant = replace(settings, num_key_value_heads=heads)
        model = build_model(variant)  # compiled once for all seeds
        for seed in seeds:
            _start_again(model, build_model(replace(variant, seed=seed)))
            batches = Batches(rows, variant.batch_size, variant.length, seed)
            steps = variant.steps
            model.fit(batches(0, steps), steps_per_epoch=steps, shuffle=False, verbose=0)
            bits = document_bits(model, held_out_ids, variant.length, variant.length // 2)
            head_dim = variant.hidden_dim // variant.num_query_heads
            runs.append(
                {
                    "key_value_heads": heads,
                    "seed": seed,
                    "parameters": model.count_params(),
                    "cache_bytes_per_token": 2 * variant.num_layers * heads * head_dim * 2,
                    "held_out_bits_per_byte": round(bits_per_byte(bits, held_out), 4),
                }
            )
            print(runs[-1], f"{time.perf_counter() - began:.0f} s", flush=True)
    shared = asdict(settings)
    return {
        "settings": {k: v for k, v in shared.items() if k not in ("num_key_value_heads", "seed")},
        "training_tokens": int(sum(map(len, rows))),
        "held_out_bytes": sum(len(document.encode()) for document in held_out),
        "training_text": corpus.fingerprint(text.training),
        "held_out_text": corpus.fingerprint(text.held_out),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("keras", "jax", "sentencepiece")},
        "seconds": round(time.perf_counter() - began),
        "runs": runs,
    }


def _start_again(model: keras.Model, fresh: keras.Model):
    """Gives a model, and its optimizer, the state of one that was never trained."""
    for old, new in (
        (model.variables, fresh.variables),
        (model.optimizer.variables, fresh.optimizer.variables),
    ):
        for variable, start in zip(old, new, strict=True):
            variable.assign(start.value)


def differences(runs: list[dict], key_value_heads: int, other: int) -> np.ndarray:
    """By how many bits per byte one variant is worse than another, for each seed.

    >>> runs = [
    ...     {"key_value_heads": heads, "seed": seed, "held_out_bits_per_byte": 2 - heads / 8}
    ...     for heads in (1, 2)
    ...     for seed in (0, 1)
    ... ]
    >>> differences(runs, 1, 2).tolist()
    [0.125, 0.125]
    """
    bits = {(run["key_value_heads"], run["seed"]): run["held_out_bits_per_byte"] for run in runs}
    seeds = sorted({run["seed"] for run in runs})
    return np.array([bits[key_value_heads, seed] - bits[other, seed] for seed in seeds])


def main(arguments: list[str] | None = None):
    """Trains all variants and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=RECORD)
    parser.add_argument("--steps", type=int, default=SETTINGS.steps)
    options = parser.parse_args(arguments)
    settings = replace(SETTINGS, steps=options.steps)
    record = train_variants(corpus.build_corpus(packages=()), settings)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    for heads in KEY_VALUE_HEADS[1:]:
        worse = differences(record["runs"], heads, KEY_VALUE_HEADS[0])
        print(f"K = {heads}: {worse.round(4).tolist()} bits per byte more than K = 8")


if __name__ == "__main__":
    main()
