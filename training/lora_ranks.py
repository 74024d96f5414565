"""What the rank of a LoRA buys (chapter 14, "LoRA").

    python training/lora_ranks.py

teaches the shipped model to write telegrams, once for each rank and choice of layers, and with all
weights trained; and writes into the record that the chapter reads how well each predicts held-out
docstrings as telegrams and as they are. It takes some minutes on two cores that have nothing else
to do. Runs that the record has already, of the same text and settings, are not made again.
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

from mistral_lib import MistralCausalLM
from mistral_lib.teaching import corpus, telegrams

# In the package, so that the chapter finds it wherever the library is installed.
RECORD = Path(corpus.__file__).parent / "records" / "lora_ranks.json"
FEW = ("query", "value")
ALL = ("query", "key", "value", "attention_output", "gate", "up", "down")


@dataclass(frozen=True)
class Settings:
    """One run. The defaults are those of the chapter; `rank` 0 trains every weight, without LoRA.

    As many examples are read as there are steps of a batch; `seed` draws and orders them.
    """

    rank: int = 8
    targets: tuple[str, ...] = ALL
    learning_rate: float = 5e-3
    steps: int = 60
    batch_size: int = 16
    length: int = 80
    seed: int = 0


VARIED = ("rank", "targets", "learning_rate", "seed")
RUNS = (
    *(Settings(rank=rank) for rank in (1, 2, 4, 8, 16, 64)),
    *(Settings(rank=rank, targets=FEW) for rank in (1, 8, 64)),
    *(Settings(rank=64, targets=targets, learning_rate=5e-3 / 4) for targets in (ALL, FEW)),
    *(Settings(rank=8, seed=seed) for seed in (1, 2)),
    *(Settings(rank=0, learning_rate=rate) for rate in (3e-4, 1e-3, 3e-3)),
)


def training_rows(examples: list[telegrams.Example], settings: Settings, preprocessor):
    """The rows of a run, in the order in which it reads them.

    Raises:
        ValueError: there are fewer examples than the run reads.
    """
    count = settings.steps * settings.batch_size
    if count > len(examples):
        raise ValueError(
            f"{settings.steps} steps of {settings.batch_size} need {count} examples; there are "
            f"{len(examples)}. Take fewer steps or more text."
        )
    order = np.random.default_rng(settings.seed).permutation(len(examples))[:count]
    pairs = [(examples[i].question, examples[i].answer) for i in order]
    return telegrams.answer_rows(preprocessor, pairs, settings.length)


def prepare(settings: Settings) -> MistralCausalLM:
    """The shipped model with the LoRA and the optimizer of a run."""
    keras.utils.set_random_seed(settings.seed)
    model = MistralCausalLM.from_preset("mistral_tiny_en", dtype="float32")
    if settings.rank:
        model.backbone.enable_lora(settings.rank, settings.targets)
    model.compile(optimizer=keras.optimizers.Adam(settings.learning_rate), loss=model.loss)
    return model


def judge(model: MistralCausalLM, examples: list[telegrams.Example], length: int) -> dict:
    """Bits per byte of held-out answers, as telegrams and as they were written."""
    return {
        style: round(
            telegrams.bits_per_byte(
                model,
                telegrams.answer_rows(
                    model.preprocessor, [(e.question, getattr(e, style)) for e in examples], length
                ),
                [getattr(e, style) for e in examples],
            ),
            4,
        )
        for style in ("answer", "plain")
    }


def sweep(
    text: corpus.Corpus, runs: tuple[Settings, ...] = RUNS, known: dict | None = None
) -> dict:
    """Trains every run from the shipped weights and judges it.

    Args:
        text: the examples' source; the held-out part judges.
        runs: settings, which differ in the fields `VARIED` alone.
        known: an earlier record, from which runs of the same text and settings are taken.

    Returns:
        The record: what is common to all runs, `before`, the costs of the shipped model, and the
        list `runs` with the fields `VARIED`, `trained`, the number of trained numbers, and the
        costs `answer` (as a telegram) and `plain`.
    """
    examples = telegrams.find_examples(text.training)
    held_out = telegrams.find_examples(text.held_out)
    shared = {k: v for k, v in asdict(runs[0]).items() if k not in VARIED}
    common = {
        "settings": shared,
        "examples": len(examples),
        "held_out_examples": len(held_out),
        "training_text": corpus.fingerprint(text.training),
        "held_out_text": corpus.fingerprint(text.held_out),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("keras", "jax", "sentencepiece")},
    }
    usable = known is not None and known.items() >= common.items()
    made = {_key(run): run for run in known["runs"]} if usable else {}
    base = MistralCausalLM.from_preset("mistral_tiny_en", dtype="float32")
    began, found = time.perf_counter(), []
    for settings in runs:
        varied = {name: getattr(settings, name) for name in VARIED}
        run = made.get(_key(varied))
        if run is None:
            model = prepare(settings)
            x, y, weights = training_rows(examples, settings, model.preprocessor)
            model.fit(x, y, settings.batch_size, sample_weight=weights, shuffle=False, verbose=0)
            trained = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
            run = varied | {"trained": trained} | judge(model, held_out, settings.length)
            print(run, f"{time.perf_counter() - began:.0f} s", flush=True)
        found.append(run)
    return common | {"before": judge(base, held_out, runs[0].length), "runs": found}


def _key(run: dict) -> str:
    return json.dumps([run[name] for name in VARIED])


def main(arguments: list[str] | None = None):
    """Makes all runs and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=RECORD)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    options = parser.parse_args(arguments)
    runs = tuple(replace(run, steps=options.steps) for run in RUNS)
    known = json.loads(options.out.read_text()) if options.out.exists() else None
    record = sweep(corpus.build_corpus(packages=()), runs, known)
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
