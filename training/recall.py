"""How far small models carry a digit, from several seeds (chapter 8, "Reach and banding").

    python training/recall.py

trains four layers with windows of several kinds to name a digit that they read a while ago, and
writes how often each names it, by distance, into the record that the chapter reads. It takes some
minutes on two cores.
"""

import argparse
import json
import os
import platform
import time
from importlib import metadata
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

from mistral_lib.teaching import recall

NEAR, FAR = 7, recall.FURTHEST
MODELS = {  # windows, and the greatest distance at which the digit is asked for in training
    "asked at every distance": (8, FAR),
    "asked within the window": (8, NEAR),
    "last layer full": ([8, 8, 8, None], FAR),
    "last layer full, asked within the window": ([8, 8, 8, None], NEAR),
}
SEEDS = (0, 1, 2)


def train_all(models=MODELS, seeds=SEEDS, steps: int = 300) -> dict:
    """Trains every model from every seed.

    Returns:
        The record: steps, versions, and a list of runs with `model`, `windows`, `furthest`, `seed`
        and `recall`, the share of right answers at the distances from 0 on.
    """
    began, runs = time.perf_counter(), []
    for name, (windows, furthest) in models.items():
        for seed in seeds:
            found = recall.recall(recall.trained(windows, furthest, seed, steps))
            run = {"model": name, "windows": windows, "furthest": furthest, "seed": seed}
            runs.append(run | {"recall": found.round(4).tolist()})
            print(name, seed, found[[7, 14, 15, 22, 28, 29, 40]], flush=True)
    return {
        "steps": steps,
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("keras", "jax")},
        "seconds": round(time.perf_counter() - began),
        "runs": runs,
    }


def main(arguments: list[str] | None = None):
    """Trains all models and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=recall.RECORD)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args(arguments)
    record = train_all(steps=options.steps)
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
