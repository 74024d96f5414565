"""How well weights of 16 bits learn (chapter 13, "Training a Mistral from nothing").

    python training/sixteen_bits.py

trains the same small model in float32, bfloat16 and float16, with and without float32 master
weights, each from several seeds, on the docstrings of the standard library, and writes how well
each predicts held-out docstrings into the record that the chapter reads. It takes some minutes on
two cores that have nothing else to do.
"""

import argparse
import json
import os
import platform
import time
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from batches import Batches
from measure import bits_per_byte, document_bits
from vocabulary import encode, train_vocabulary

from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.teaching import corpus

# In the package, so that the chapter finds it wherever the library is installed.
RECORD = Path(corpus.__file__).parent / "records" / "sixteen_bits.json"
SEEDS = (0, 1, 2, 3, 4, 5)
WAYS = (  # dtype of the weights, whether they have float32 masters, and Adam's beta_2
    ("float32", False, 0.999),  # Keras's default
    ("bfloat16", False, 0.999),
    ("bfloat16", True, 0.999),
    ("float16", False, 0.999),
    ("float16", True, 0.999),
    ("float32", False, 0.98),
    ("bfloat16", False, 0.98),  # which bfloat16 can hold
    ("bfloat16", True, 0.98),
)


@dataclass(frozen=True)
class Settings:
    """Of every run. The optimizer is Keras's Adam; its other settings are the defaults."""

    steps: int = 200
    batch_size: int = 16
    length: int = 64
    vocabulary_size: int = 1024
    num_layers: int = 2
    num_query_heads: int = 4
    num_key_value_heads: int = 2
    hidden_dim: int = 64
    intermediate_dim: int = 128
    learning_rate: float = 3e-3


def build_model(
    settings: Settings, dtype: str, masters: bool, beta_2: float, seed: int
) -> MistralCausalLM:
    """A model with the first weights of a seed, in every dtype the same but for rounding."""
    sizes = (
        "vocabulary_size num_layers num_query_heads num_key_value_heads hidden_dim intermediate_dim"
    )
    sizes = {name: getattr(settings, name) for name in sizes.split()}
    keras.utils.set_random_seed(seed)
    first = MistralBackbone(**sizes, dtype="float32").get_weights()  # JAX draws others in 16 bits
    model = MistralCausalLM(MistralBackbone(**sizes, dtype=dtype))
    model.backbone.set_weights(first)
    # The library's `compile` gives every optimizer masters where weights have 16 bits.
    compile_model = type(model).compile if masters else keras.Model.compile
    optimizer = keras.optimizers.Adam(settings.learning_rate, beta_2=beta_2)
    compile_model(model, optimizer, loss=model.loss)
    return model


def train_all(text: corpus.Corpus, settings: Settings = Settings(), ways=WAYS, seeds=SEEDS) -> dict:
    """Trains one model in each way from each seed.

    A seed decides the first weights and the batches, which are the same in every way to train.

    Args:
        text: what to learn from, and what to be judged on.
        settings: of every run.
        ways: triples of a dtype, whether there are masters, and beta_2.
        seeds: of the runs in each way.

    Returns:
        The record: settings and versions, and a list of runs with `dtype`, `masters`, `beta_2`,
        `seed`, `moved`, the share of the weights that differ from the first ones, and
        `held_out_bits_per_byte`, which is `None` where it is not a finite number.
    """
    texts = [document.text for document in text.training]
    held_out = [document.text for document in text.held_out]
    vocabulary = train_vocabulary(texts, settings.vocabulary_size)
    rows, held_out_ids = encode(vocabulary, texts), encode(vocabulary, held_out)
    began, runs = time.perf_counter(), []
    for dtype, masters, beta_2 in ways:
        for seed in seeds:
            model = build_model(settings, dtype, masters, beta_2, seed)
            first = [np.asarray(variable.value) for variable in model.backbone.variables]
            batches = Batches(rows, settings.batch_size, settings.length, seed)
            model.fit(
                batches(0, settings.steps),
                steps_per_epoch=settings.steps,
                shuffle=False,
                verbose=0,
            )
            moved = [
                (np.asarray(variable.value) != start).ravel()
                for variable, start in zip(model.backbone.variables, first, strict=True)
            ]
            bits = document_bits(model, held_out_ids, settings.length, settings.length // 2)
            per_byte = round(bits_per_byte(bits, held_out), 4)
            runs.append(
                {
                    "dtype": dtype,
                    "masters": masters,
                    "beta_2": beta_2,
                    "seed": seed,
                    "moved": round(float(np.concatenate(moved).mean()), 4),
                    "held_out_bits_per_byte": per_byte if np.isfinite(per_byte) else None,
                }
            )
            print(runs[-1], f"{time.perf_counter() - began:.0f} s", flush=True)
    return {
        "settings": asdict(settings),
        "held_out_documents": len(held_out),
        "training_text": corpus.fingerprint(text.training),
        "held_out_text": corpus.fingerprint(text.held_out),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("keras", "jax", "sentencepiece")},
        "runs": runs,
    }


def main(arguments: list[str] | None = None):
    """Makes all runs and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=RECORD)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    options = parser.parse_args(arguments)
    settings = replace(Settings(), steps=options.steps)
    record = train_all(corpus.build_corpus(packages=()), settings)
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
