"""Loading time and peak memory beside KerasHub and transformers, on one checkpoint of 0.92 GB.

    python benchmarks/loading.py [--size tiny] [--rounds 3]

writes `benchmarks/results/loading.json`. The model of `models.py` is saved in float32 in KerasHub's
layout and in that of transformers. Every load is a process of its own, which has imported its
library and then reads its anonymous memory (mapped files not counted) every few milliseconds.
The contenders take turns.
"""

import argparse
import datetime
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path

from contenders import MistralLib
from run import HERE, in_process, in_turn, machine, save_result
from worker import resident

RESULT = HERE / "results" / "loading.json"
CASES = {
    "KerasHub layout": ("keras", ("mistral_lib", "keras_hub")),
    "transformers layout": ("transformers", ("mistral_lib", "keras_hub", "transformers")),
}


def loader(contender: str):
    """A function of a folder that returns a model, its library imported."""
    if contender == "mistral_lib":
        from mistral_lib import MistralBackbone

        return lambda folder: MistralBackbone.from_preset(folder, dtype="float32")
    if contender == "keras_hub":
        from keras_hub.models import MistralBackbone

        return lambda folder: MistralBackbone.from_preset(folder, dtype="float32")
    import torch
    from transformers import MistralForCausalLM

    def load(folder):
        model = MistralForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sum()  # the file is mapped, and only read where it is used
        return model

    return load


def load_once(contender: str, folder: str) -> dict:
    """Seconds and bytes of one load, in this process."""
    load = loader(contender)
    before, peak, done = resident("RssAnon"), 0, threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(0.003):
            peak = max(peak, resident("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    model = load(folder)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return {"seconds": seconds, "peak_bytes": peak - before, "kept": type(model).__name__}


def save(size: str, folder: Path) -> int:
    """Writes both checkpoints, and returns the bytes of the weights."""
    backbone = MistralLib(size).backbone
    backbone.save_to_preset(folder / "keras")
    backbone.export_to_transformers(folder / "transformers")
    return 4 * backbone.count_params()


def measure(size: str, rounds: int, contenders: tuple[str, ...]) -> dict:
    """Medians of every case."""
    with tempfile.TemporaryDirectory() as folder:
        model_bytes = save(size, Path(folder))
        result = {"model_bytes": model_bytes, "cases": {}}
        for case, (layout, known) in CASES.items():
            names = [name for name in known if name in contenders]
            runs = {name: [] for name in names}
            for turn in range(rounds):
                for name in in_turn(names, turn):
                    checkpoint = str(Path(folder) / layout)
                    runs[name].append(in_process(__file__, name, "--load", name, checkpoint))
            result["cases"][case] = {
                name: {
                    "seconds": round(statistics.median(run["seconds"] for run in each), 3),
                    "peak_per_model_byte": round(
                        statistics.median(run["peak_bytes"] for run in each) / model_bytes, 3
                    ),
                }
                for name, each in runs.items()
            }
    return result


def main(arguments=None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--load", nargs=2, metavar=("CONTENDER", "FOLDER"), help="one load")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contenders", default="mistral_lib,keras_hub,transformers")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    if options.load:
        print(json.dumps(load_once(*options.load)))
        return
    result = {
        "date": str(datetime.date.today()),
        "size": options.size,
        "machine": machine(),
        **measure(options.size, options.rounds, tuple(options.contenders.split(","))),
    }
    save_result(result, options.output)


if __name__ == "__main__":
    main()
