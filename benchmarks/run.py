"""Times this library beside KerasHub and transformers: `make bench`.

Every contender works in a process of its own, on the same random weights and tokens. Outputs are
compared first. Then the contenders take turns, so that a slow minute of the machine hits all of
them, and medians are kept. What the machine can do is measured in the same run.

    python benchmarks/run.py [--size tiny] [--only decode] [--rounds 3]

writes `benchmarks/results/cpu.json`; `table.py` makes a table of it. What a change has cost is
measured beside another checkout of this repository, its library and its benchmarks:

    MISTRAL_LIB_BEFORE=/path/to/it python benchmarks/run.py --contenders mistral_lib,before \
        --output benchmarks/results/before.json
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
PEERS = HERE.parent / ".venv-peers" / "bin" / "python"
RESULT = HERE / "results" / "cpu.json"
ALL = ("mistral_lib", "keras_hub", "transformers")
TOLERANCE = {"forward": 2e-4, "go_on": 2e-4, "train": 2e-3}  # of numbers near 1, losses near 10


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    Attributes:
        name: its name in the results.
        task: a method of the contenders.
        arguments: of the task, sizes in tokens for the full model.
        contenders: who takes part; the limits run beside them.
        rounds: how often everybody has a turn, unless the command line says otherwise.
        alone: a contender's process ends after its turn, so that its memory is free for the next.
    """

    name: str
    task: str
    arguments: dict
    contenders: tuple = ALL
    rounds: int = 3
    alone: bool = False


def decoding(total: int, contenders=ALL, rows: int = 1, rounds: int = 3) -> list[Workload]:
    """A generation that ends at `total` tokens, long and short: the difference is decoding."""
    return [
        Workload(
            f"decode_{total}_x{rows}_{new}",
            "generate",
            {"length": total - 64, "new": new, "rows": rows},
            contenders,
            rounds,
        )
        for new in (64, 2)
    ]


OURS = ("mistral_lib",)
BEFORE = "before"  # the library of the checkout that MISTRAL_LIB_BEFORE names
WORKLOADS = [
    *(Workload(f"prefill_{n}", "forward", {"length": n}) for n in (1024, 4096)),
    Workload("prefill_8192", "forward", {"length": 8192}, rounds=2),
    Workload("prefill_32768", "forward", {"length": 32768}, OURS, 2),
    *decoding(80),
    *decoding(1040),
    *decoding(4096, rounds=2),
    *decoding(80, OURS, rows=8),
    *(Workload(f"token_{n}", "go_on", {"length": n}, OURS, 9) for n in (1024, 4096, 32768)),
    Workload("train_full", "train", {"length": 2048, "lora": False}, rounds=2, alone=True),
    Workload("train_lora", "train", {"length": 2048, "lora": True}, rounds=2, alone=True),
]
LIMITS = {"prefill": "matmul", "train": "matmul", "decode": "read", "token": "read"}


@dataclass
class Worker:
    """A running contender."""

    name: str
    size: str
    process: subprocess.Popen = field(init=False)

    def __post_init__(self):
        ours = self.name in ("mistral_lib", BEFORE, "limits")
        python = Path(sys.executable) if ours else peers_python()
        root = Path(os.environ["MISTRAL_LIB_BEFORE"]) if self.name == BEFORE else HERE.parent
        contender = "mistral_lib" if self.name == BEFORE else self.name
        if not python.exists():
            raise SystemExit(f"{python} does not exist: `make bench` makes the peers' environment.")
        self.process = subprocess.Popen(
            [str(python), str(root / "benchmarks" / "worker.py"), contender, self.size],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(root)},
        )
        self.answer()

    def ask(self, **message) -> dict:
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with exit status {self.process.wait()}.")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def peers_python() -> Path:
    """The Python of the peers' environment: `make bench` makes it, or a variable names it."""
    return Path(os.environ.get("MISTRAL_LIB_PEERS", PEERS))


def in_turn(names: list[str], turn: int) -> list[str]:
    """The contenders in the order of one turn: each is first as often as the others."""
    first = turn % len(names)
    return names[first:] + names[:first]


def in_process(script: str, contender: str, *arguments: str) -> dict:
    """What a script prints last, as JSON, run in the environment of a contender."""
    python = sys.executable if contender == "mistral_lib" else str(peers_python())
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    output = subprocess.check_output([python, script, *arguments], text=True, env=environment)
    return json.loads(output.splitlines()[-1])


def save_result(result: dict, output: Path) -> None:
    """Writes a result where `table.py` finds it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n")


def measure(workload: Workload, size: str, rounds: int | None) -> dict:
    """One row of the results."""
    scale = 1 if size == "full" else 1 / 64
    arguments = {
        name: max(4, int(value * scale)) if name == "length" else value
        for name, value in workload.arguments.items()
    }
    task = dict.fromkeys(workload.contenders, (workload.task, arguments))
    task["limits"] = (LIMITS[workload.name.partition("_")[0]], {})
    results = {name: {"seconds": [], "rates": []} for name in task}
    workers = {}

    def prepared(name):
        """The contender's process, its task prepared."""
        if name not in workers:
            workers[name] = Worker(name, size)
            first = workers[name].ask(task=task[name][0], arguments=task[name][1])
            results[name]["first"] = first
            log(f"  {name}: first run {first['prepare_seconds'] + first['seconds']:.1f} s")
        return workers[name]

    def compare_first():
        compare(workload, {name: results[name]["first"]["numbers"] for name in workload.contenders})

    try:
        if not workload.alone:
            for name in task:
                prepared(name)
            compare_first()
        for turn in range(rounds or workload.rounds):
            for name in in_turn(list(task), turn):
                answer = prepared(name).ask(run=True)
                results[name]["seconds"].append(answer["seconds"])
                results[name]["rates"].append(answer["numbers"][0])
                results[name]["extra_bytes"] = answer["extra_bytes"]
                if workload.alone:
                    workers.pop(name).close()
        if workload.alone:
            compare_first()
    finally:
        for worker in workers.values():
            worker.close()
    limit = results.pop("limits")
    return {
        "arguments": arguments,
        "limit": {"kind": task["limits"][0], "rate": statistics.median(limit["rates"])},
        "contenders": {name: summary(result) for name, result in results.items()},
    }


def summary(result: dict) -> dict:
    """What is kept of one contender's runs."""
    seconds = result["seconds"]
    return {
        "seconds": round(statistics.median(seconds), 4),
        "spread": [round(min(seconds), 4), round(max(seconds), 4)],
        "first_seconds": round(result["first"]["prepare_seconds"] + result["first"]["seconds"], 3),
        "extra_bytes": result["extra_bytes"],
    }


def compare(workload: Workload, numbers: dict) -> None:
    """Ends the run if two contenders do not compute the same."""
    (base, expected), *others = numbers.items()
    for name, found in others:
        if workload.task == "generate":
            # Rounding may decide between two tokens of random weights: then the texts part.
            same = sum(1 for _ in _until_different(expected, found))
            log(f"  {name} and {base} agree on {same} of {len(expected)} tokens")
            if not same:
                raise SystemExit(f"{workload.name}: {name} and {base} write different tokens.")
            continue
        error = float(np.abs(np.subtract(expected, found)).max())
        log(f"  {name} and {base} differ by at most {error:.1e}")
        if not error < TOLERANCE[workload.task] * max(1.0, np.abs(expected).max()):
            raise SystemExit(f"{workload.name}: {name} and {base} differ by {error}.")


def _until_different(first, second):
    for a, b in zip(first, second):
        if a != b:
            return
        yield a


def machine() -> dict:
    """What the results were measured on."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next(
            line.partition(":")[2].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        )
    packages = "jax keras keras-hub transformers torch peft".split()
    code = (
        "import json, sys\nfrom importlib import metadata\nfound = {}\n"
        "for name in sys.argv[1:]:\n    try: found[name] = metadata.version(name)\n"
        "    except metadata.PackageNotFoundError: pass\nprint(json.dumps(found))"
    )
    versions = {
        label: json.loads(subprocess.check_output([str(python), "-c", code, *packages], text=True))
        for label, python in (("mistral_lib", Path(sys.executable)), ("peers", peers_python()))
        if python.exists()
    }
    return {"cpu": cpu, "cores": os.cpu_count(), "versions": versions}


def log(text: str) -> None:
    """Progress, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def main(arguments=None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--only", default="", help="workloads whose name begins so")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--contenders", default=",".join(ALL), help="a comma between two")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    result = {"date": str(datetime.date.today()), "size": options.size, "workloads": {}}
    if options.output.exists():  # a run of some workloads keeps the others
        known = json.loads(options.output.read_text())
        if known["size"] == options.size:
            result["workloads"] = known["workloads"]
    result["machine"] = machine()
    taking_part = set(options.contenders.split(","))
    for workload in WORKLOADS:
        if workload.name.startswith(options.only):
            log(workload.name)
            known = (*workload.contenders, BEFORE)
            present = tuple(name for name in known if name in taking_part)
            workload = Workload(**{**vars(workload), "contenders": present})
            row = measure(workload, options.size, options.rounds)
            result["workloads"][workload.name] = row
            log(f"  {json.dumps({n: c['seconds'] for n, c in row['contenders'].items()})}")
            save_result(result, options.output)


if __name__ == "__main__":
    main()
