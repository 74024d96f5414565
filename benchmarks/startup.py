"""Start-up beside KerasHub and transformers: import, first token, and what new lengths compile.

    python benchmarks/startup.py [--size tiny] [--rounds 3]

writes `benchmarks/results/startup.json`. Every run is a process of its own, which imports its
library, opens the model of `models.py` from a file, continues a prompt by one token, and then
answers prompts of `LENGTHS` tokens with 16 tokens each, twice: the second time nothing is left to
compile. The contenders take turns.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from contenders import CONTENDERS
from loading import save
from run import HERE, in_process, in_turn, machine, save_result

RESULT = HERE / "results" / "startup.json"
LENGTHS = (100, 37, 410, 250, 600, 20, 900, 333, 150, 77, 520, 200, 701, 49, 460, 120)
NEW_TOKENS = 16


def answer(name: str, size: str, folder: str) -> dict:
    """Seconds of every stage, in this process."""
    layout = "transformers" if name == "transformers" else "keras"
    start = time.perf_counter()
    model = CONTENDERS[name].opened(size, Path(folder) / layout)
    opened = time.perf_counter()
    scale = 1 if size == "full" else 1 / 16

    def seconds(length, new):
        begin = time.perf_counter()
        model.generate(max(2, int(length * scale)), new)()
        return time.perf_counter() - begin

    first = seconds(LENGTHS[0], 1)
    rounds = [[round(seconds(length, NEW_TOKENS), 4) for length in LENGTHS] for _ in range(2)]
    return {"open": opened - start, "first": first, "cold": rounds[0], "warm": rounds[1]}


def import_seconds(module: str) -> float:
    """Wall-clock seconds of a process that imports one module, in this environment."""
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True, env=environment)
    return time.perf_counter() - start


def measure(size: str, rounds: int, names: list[str]) -> dict:
    """Medians of every stage of every contender."""
    imports = {"keras": [], "mistral_lib": []}
    for turn in range(4 * rounds + 1 if size == "full" else 1):
        for module in sorted(imports, reverse=turn % 2 == 1):
            imports[module].append(import_seconds(module))
    runs = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        save(size, Path(folder))
        for turn in range(rounds):
            for name in in_turn(names, turn):
                run = in_process(__file__, name, "--once", name, folder, "--size", size)
                runs[name].append(run)
    return {
        "import_seconds": {
            name: round(statistics.median(each), 3) for name, each in imports.items()
        },
        "contenders": {name: _medians(each) for name, each in runs.items()},
    }


def _medians(runs: list[dict]) -> dict:
    stages = {stage: statistics.median(run[stage] for run in runs) for stage in ("open", "first")}
    for lap in ("cold", "warm"):
        stages[lap] = [statistics.median(each) for each in zip(*(run[lap] for run in runs))]
    return {
        stage: [round(s, 3) for s in value] if isinstance(value, list) else round(value, 3)
        for stage, value in stages.items()
    }


def main(arguments=None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--once", nargs=2, metavar=("CONTENDER", "FOLDER"), help="one process")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contenders", default="mistral_lib,keras_hub,transformers")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    if options.once:
        name, folder = options.once
        print(json.dumps(answer(name, options.size, folder)))
        return
    names = options.contenders.split(",")
    result = {
        "date": str(datetime.date.today()),
        "size": options.size,
        "machine": machine(),
        "lengths": LENGTHS,
        **measure(options.size, options.rounds, names),
    }
    save_result(result, options.output)


if __name__ == "__main__":
    main()
