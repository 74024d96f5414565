"""What each part is good for (chapters 9, 10, 11 and 13).

    python training/ablations.py norm post_norm gate learning_rate

trains small models that differ in one thing, from several seeds and at several learning rates, and
writes into the records that the chapters read how well each predicts held-out text. Without names
it answers every question, in the order of `--list`. That takes days on two cores. Stopped and
started again, it goes on where it was: runs that are in the records are not made again.
"""

import argparse
import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
from paired_run import train
from paired_text import Text, prepare_text
from variants import Settings

from mistral_lib.teaching.ablations import BASELINE, RECORDS, best_rate

SETTINGS = Settings()
SEEDS = (0, 1, 2)  # the first one at every rate that is tried, all at the best one
RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2, 1.28e-1)
FIRST_RATES = RATES[2:5]
ALL_THE_WAY = (*RATES[1:6], 3.2e-2, 1.28e-1)  # of the question on rates

# What each variant changes in the baseline's settings.
QUESTIONS: dict[str, dict[str, dict]] = {
    BASELINE: {BASELINE: {}},
    "norm": {"layer_norm": {"norm": "layer_norm"}, "no_norm": {"norm": "none"}},
    "post_norm": {
        "pre_norm_without_warmup": {"warmup": 0.0},
        "post_norm": {"placement": "post_norm"},
        "post_norm_without_warmup": {"placement": "post_norm", "warmup": 0.0},
    },
    "gate": {
        "silu": {"feedforward": "silu"},
        "relu": {"feedforward": "relu"},
    },
    "learning_rate": {BASELINE: {}},
    "positions": {"no_positions": {"positions": "none"}},
    "output_initialisation": {"scaled_outputs": {"scaled_outputs": True}},
    "weight_decay": {
        "everything": {"decayed": "everything"},
        "kernels": {"decayed": "kernels"},
        "nothing": {"decayed": "nothing"},
    },
    "batch_size": {"batch_4": {"batch_size": 4}, "batch_64": {"batch_size": 64}},
    "clipping": {"without_clipping": {"global_clipnorm": None}},
}


def next_runs(question: str, runs: list[dict]) -> list[tuple[float, int]]:
    """Which runs of a variant come next, as pairs of a learning rate and a seed.

    First three rates with one seed; then, as long as the best rate is the lowest or the highest of
    those tried, the next one beyond it; then more seeds at the best rate. So no variant is judged
    at a rate that suits another one better.

    Args:
        question: its name.
        runs: those that the variant has already.

    Returns:
        The pairs; none if the variant is complete.
    """
    done = {(run["learning_rate"], run["seed"]) for run in runs}

    def missing(rates: Iterable[float], seeds: Iterable[int]) -> list[tuple[float, int]]:
        wanted = [(rate, seed) for seed in seeds for rate in rates]
        return [pair for pair in wanted if pair not in done]

    if question == "learning_rate":
        return missing(ALL_THE_WAY, SEEDS)
    begun = sorted({*FIRST_RATES, *(run["learning_rate"] for run in runs)})
    if unfinished := missing(begun, SEEDS[:1]):
        return unfinished
    place = RATES.index(best_rate(runs))
    around = RATES[max(place - 1, 0) : place + 2]
    return missing(around, SEEDS[:1]) or missing([RATES[place]], SEEDS)


def known_runs(folder: Path, question: str, variant: str) -> list[dict]:
    """The recorded runs of a variant; the baseline's count wherever the baseline is a variant."""
    names = {BASELINE, question} if variant == BASELINE else {question}
    paths = [path for name in names if (path := folder / f"{name}.json").exists()]
    runs = [run for path in paths for run in json.loads(path.read_text())["runs"]]
    return [run for run in runs if run["variant"] == variant]


def open_record(path: Path, settings: Settings, text: dict) -> dict:
    """The record of a question, or a new one without runs.

    Raises:
        ValueError: the file is of other settings or another text.
    """
    shared = {k: v for k, v in asdict(settings).items() if k not in ("learning_rate", "seed")}
    head = {"settings": shared, "variants": QUESTIONS[path.stem], "text": text}
    head = json.loads(json.dumps(head))
    if not path.exists():
        return head | {"runs": []}
    found = json.loads(path.read_text())
    if wrong := [name for name in ("settings", "text") if found[name] != head[name]]:
        raise ValueError(
            f"{path} must be of the same settings and text as the new runs, but its "
            f"{' and '.join(wrong)} differ. Give --work the folder that its text lies in, or "
            "--records another folder."
        )
    return found | head


def write_record(path: Path, record: dict):
    """Writes a record, one run a line; a crash leaves the old one whole."""
    head = json.dumps({k: v for k, v in record.items() if k != "runs"}, indent=1)[:-2]
    runs = ",\n  ".join(json.dumps(run) for run in record["runs"])
    partial = path.with_suffix(".partial")
    partial.write_text(f'{head},\n "runs": [\n  {runs}\n ]\n}}\n')
    os.replace(partial, path)


def answer(question: str, folder: Path, settings: Settings, text: Text, work: Path):
    """Makes the runs that a question still needs, and adds each to its record."""
    path = folder / f"{question}.json"
    record = open_record(path, settings, text.description)
    for variant, changes in QUESTIONS[question].items():
        while pairs := next_runs(question, known_runs(folder, question, variant)):
            rate, seed = pairs[0]
            name = f"{question}-{variant}-{rate:g}-{seed}"
            print(f"{time.strftime('%d %b %H:%M')} {name}", flush=True)
            changed = replace(settings, **changes, learning_rate=rate, seed=seed)
            checkpoint = work / f"{name}.npz"
            run = train(changed, text, checkpoint)
            versions = {package: metadata.version(package) for package in ("keras", "jax")}
            about = {"variant": variant, "learning_rate": rate, "seed": seed}
            record["runs"].append(about | run | versions)
            write_record(path, record)
            checkpoint.unlink(missing_ok=True)
            print(f"{name}: {run['held_out_bits_per_byte']}, {run['cpu_seconds']} s", flush=True)
            jax.clear_caches()  # else the programs of two hundred models would stay in memory


def show_progress(folder: Path):
    """Prints how many runs each question has, and how many it needs at least."""
    for question, variants in QUESTIONS.items():
        known = [known_runs(folder, question, variant) for variant in variants]
        left = sum(len(next_runs(question, runs)) for runs in known)
        state = f"{left} or more to come" if left else "complete"
        print(f"{question:24}{sum(map(len, known)):4} runs, {state}")


def main(arguments: list[str] | None = None, settings: Settings = SETTINGS):
    """Makes the missing runs of the questions that are named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("questions", nargs="*", metavar="question", help=", ".join(QUESTIONS))
    parser.add_argument("--work", type=Path, default=Path("checkpoints/ablations"))
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--list", action="store_true", help="show what is done and end")
    options = parser.parse_args(arguments)
    if unknown := set(options.questions) - set(QUESTIONS):
        parser.error(f"question must be one of {', '.join(QUESTIONS)}, but is {min(unknown)}")
    if options.list:
        show_progress(options.records)
        return
    for folder in (options.work, options.records):
        folder.mkdir(parents=True, exist_ok=True)
    text = prepare_text(options.work / "text.npz", settings.vocabulary_size)
    for question in dict.fromkeys((BASELINE, *(options.questions or QUESTIONS))):
        answer(question, options.records, settings, text, options.work)


if __name__ == "__main__":
    main()
