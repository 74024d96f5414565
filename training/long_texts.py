"""What scalings of rotary positions do to texts longer than in training (chapter 5).

    python training/long_texts.py

lets the shipped model, which never saw a key 128 or more tokens back, read held-out documents of
at least 512 tokens without its window, under several scalings, and writes what each document costs
within the first 128 tokens and beyond them into the record that the chapter reads. Nothing is
trained. It takes some minutes on two cores.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np

from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.teaching import corpus

RECORD = Path(corpus.__file__).parent / "records" / "long_texts.json"
LENGTH, KNOWN = 512, 128  # tokens of a document; those that training let a query see
BUCKET = 32  # tokens whose mean cost is one point of a curve
ROWS = 8
YARN = {"rope_type": "yarn", "factor": LENGTH / KNOWN, "original_max_position_embeddings": KNOWN}
FREE = {"sliding_window": None}
WAYS = {
    "window": {},
    "no scaling": FREE,
    "positions / 4": {**FREE, "rope_scaling_factor": LENGTH / KNOWN},
    "YaRN": {**FREE, "rope_scaling": YARN},
    "YaRN, attention factor 1": {**FREE, "rope_scaling": {**YARN, "attention_factor": 1.0}},
    "dynamic": {**FREE, "rope_scaling": {**YARN, "rope_type": "dynamic"}},
    "llama3": {
        **FREE,
        "rope_scaling": {
            **YARN,
            "rope_type": "llama3",
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
    },
}


def long_documents(model: MistralCausalLM, documents: list[str], length: int) -> np.ndarray:
    """The first `length` tokens of every document that has so many, int (documents, length)."""
    rows = model.preprocessor.tokenizer.encode(documents, add_bos=True)
    return np.array([row[:length] for row in rows if len(row) >= length])


def costs(model: MistralCausalLM, token_ids: np.ndarray, changes: dict) -> np.ndarray:
    """The bits of every token but the first under another architecture, (documents, S - 1)."""
    backbone = MistralBackbone.from_config(model.backbone.get_config() | changes)
    backbone.set_weights(model.backbone.get_weights())
    changed = MistralCausalLM(backbone)
    parts = [
        np.asarray(changed.score(token_ids[first : first + ROWS], scoring_mode="loss"))
        for first in range(0, len(token_ids), ROWS)
    ]
    return np.concatenate(parts)[:, :-1] / np.log(2)


def measure(model: MistralCausalLM, token_ids: np.ndarray, known: int, ways: dict) -> dict:
    """The record: for every way what each document costs, and the mean cost along the text."""
    tokenizer = model.preprocessor.tokenizer
    near = [len(tokenizer.decode(row[:known]).encode()) for row in token_ids]
    far = [len(tokenizer.decode(row).encode()) for row in token_ids] - np.array(near)
    found = {}
    for name, changes in ways.items():
        bits = costs(model, token_ids, changes)
        within, beyond = bits[:, : known - 1].sum(axis=1), bits[:, known - 1 :].sum(axis=1)
        ends = range(BUCKET - 1, bits.shape[1] + 1, BUCKET)
        found[name] = {
            "within_bits_per_byte": np.round(within / near, 4).tolist(),
            "beyond_bits_per_byte": np.round(beyond / far, 4).tolist(),
            "bits_per_token": np.round(
                [bits[:, max(end - BUCKET, 0) : end].mean() for end in ends], 3
            ).tolist(),
        }
        print(f"{name:26} {np.mean(within / near):.3f} {np.mean(beyond / far):.3f}", flush=True)
    return found


def main() -> None:
    """Measures, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RECORD)
    arguments = parser.parse_args()
    model = MistralCausalLM.from_preset("mistral_tiny_en")
    held_out = corpus.build_corpus().held_out
    token_ids = long_documents(model, [document.text for document in held_out], LENGTH)
    record = {
        "length": LENGTH,
        "known": KNOWN,
        "documents": len(token_ids),
        "held_out_fingerprint": corpus.fingerprint(held_out),
        "ways": measure(model, token_ids, KNOWN, WAYS),
    }
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
