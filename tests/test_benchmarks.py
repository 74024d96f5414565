"""The benchmarks run, on a tiny model: every task, the comparison, the table, every script."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

import house

BENCHMARKS = house.ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import contenders  # noqa: E402
import models  # noqa: E402
import run  # noqa: E402
import steps  # noqa: E402
import table  # noqa: E402

from mistral_lib import MistralBackbone, without_weights  # noqa: E402

pytestmark = pytest.mark.slow


def script(name, *arguments):
    command = [sys.executable, str(BENCHMARKS / name), "--size", "tiny", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=house.ROOT)
    assert result.returncode == 0, result.stderr
    return result


@pytest.mark.parametrize("size", models.SIZES)
def test_the_shapes_are_those_of_a_backbone(size):
    with without_weights():
        backbone = MistralBackbone(**models.SIZES[size])
    shapes = models.shapes(models.SIZES[size])
    assert sum(map(np.prod, shapes.values())) == backbone.count_params()


def test_every_task_of_this_library():
    ours = contenders.MistralLib("tiny")
    numbers = {task: ours.forward(length)() for task, length in (("short", 4), ("long", 300))}
    assert all(np.isfinite(each).all() and len(each) == 16 for each in numbers.values())
    written = ours.generate(length=20, new=5, rows=2)()
    assert len(written) == 5
    first, second = (ours.train(length=16, lora=False)() for _ in range(2))
    assert second < first, "no training happened"
    ours.train(length=16, lora=True)()


def test_the_limits_are_rates():
    limits = contenders.Limits("tiny")
    assert limits.matmul()()[0] > 1e6
    assert limits.read()()[0] > 1e6


def test_different_outputs_end_the_run():
    forward = run.Workload("prefill", "forward", {})
    run.compare(forward, {"a": [1.0, 2.0], "b": [1.0, 2.00001]})
    with pytest.raises(SystemExit, match="b and a differ"):
        run.compare(forward, {"a": [1.0, 2.0], "b": [1.0, 2.01]})
    generate = run.Workload("decode", "generate", {})
    run.compare(generate, {"a": [1.0, 2.0], "b": [1.0, 3.0]})
    with pytest.raises(SystemExit, match="different tokens"):
        run.compare(generate, {"a": [1.0, 2.0], "b": [2.0, 2.0]})


def test_outputs_are_compared_before_anything_is_timed(monkeypatch):
    timed = []

    class Fake:
        def __init__(self, name, size):
            self.name = name

        def ask(self, run=False, **_):
            timed.extend([self.name] * run)
            numbers = [9.0 if self.name == "keras_hub" else 0.0]
            return {"prepare_seconds": 0, "seconds": 1, "extra_bytes": 0, "numbers": numbers}

        def close(self):
            pass

    monkeypatch.setattr(run, "Worker", Fake)
    forward = run.Workload("prefill", "forward", {}, ("mistral_lib", "keras_hub"))
    with pytest.raises(SystemExit, match="keras_hub and mistral_lib differ"):
        run.measure(forward, "tiny", 1)
    assert not timed


def test_a_run_and_its_table(tmp_path):
    output = tmp_path / "cpu.json"
    ours = ("--rounds", "1", "--contenders", "mistral_lib", "--output", str(output))
    script("run.py", *ours, "--only", "prefill_1024")
    script("run.py", *ours, "--only", "token_1024")
    script("run.py", *ours, "--only", "train_lora")
    result = json.loads(output.read_text())
    assert list(result["workloads"]) == ["prefill_1024", "token_1024", "train_lora"]
    made = table.speed(result)
    assert "| forward, 1,024 tokens | – | – |" in made
    assert "LoRA training" in made
    assert re.search(r"a token after 1,024 \| – \| – \| \d+ %", made)


def test_beside_another_checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("MISTRAL_LIB_BEFORE", str(house.ROOT))
    output = tmp_path / "before.json"
    both = ("--contenders", "mistral_lib,before", "--output", str(output))
    script("run.py", *both, "--rounds", "1", "--only", "prefill_1024")
    (row,) = json.loads(output.read_text())["workloads"].values()
    assert list(row["contenders"]) == ["mistral_lib", "before"]


def test_whatever_two_versions_do_can_be_compared():
    tasks = {workload.task for workload in run.WORKLOADS}
    assert tasks == {*run.TOLERANCE, "generate"}  # tokens are equal, or nearly all of them


def test_the_table_divides_by_our_time():
    def work(**seconds):
        return {
            "arguments": {"length": 16, "rows": 1},
            "limit": {"kind": "read", "rate": 1e9},
            "contenders": {n: {"seconds": s, "extra_bytes": 10 * s} for n, s in seconds.items()},
        }

    result = {
        "size": "tiny",
        "date": "today",
        "machine": {"cpu": "one", "cores": 2, "versions": {"mistral_lib": {}, "peers": {}}},
        "workloads": {
            "prefill_1024": work(mistral_lib=2.0, keras_hub=5.0, transformers=3.0),
            "decode_80_x1_64": work(mistral_lib=3.0, keras_hub=9.0),
            "decode_80_x1_2": work(mistral_lib=1.0, keras_hub=4.0),
        },
    }
    made = table.speed(result)
    assert "| forward, 1,024 tokens | 2.5 × | 1.5 × |" in made
    assert "| decode to 80 tokens | 2.5 × | – |" in made
    assert len([line for line in made.splitlines() if line.startswith("| ")]) == 3


def test_loading(tmp_path):
    output = tmp_path / "loading.json"
    script("loading.py", "--rounds", "1", "--contenders", "mistral_lib", "--output", str(output))
    cases = json.loads(output.read_text())["cases"]
    assert list(cases) == ["KerasHub layout", "transformers layout"]
    assert all(case["mistral_lib"]["seconds"] > 0 for case in cases.values())


def test_startup(tmp_path):
    output = tmp_path / "startup.json"
    script("startup.py", "--rounds", "1", "--contenders", "mistral_lib", "--output", str(output))
    result = json.loads(output.read_text())
    ours = result["contenders"]["mistral_lib"]
    assert len(ours["cold"]) == len(ours["warm"]) == len(result["lengths"]) == 16
    assert sum(ours["warm"]) < sum(ours["cold"]) + ours["first"], "nothing was compiled"
    assert "| the same prompts again |" in table.startup(result)


def test_the_start_up_table_divides_by_our_time():
    row = {"open": 1.0, "first": 1.0, "cold": [2.0, 3.0], "warm": [0.5, 0.5]}
    slow = {"open": 4.0, "first": 2.0, "cold": [10.0, 10.0], "warm": [1.0, 1.0]}
    result = {
        "import_seconds": {"keras": 2.0, "mistral_lib": 2.2},
        "contenders": {"mistral_lib": row, "keras_hub": slow},
        "lengths": [5, 6],
        "date": "today",
        "machine": {"cpu": "one", "cores": 2, "versions": {"mistral_lib": {}, "peers": {}}},
    }
    made = table.startup(result)
    assert "| work | beside KerasHub |" in made
    assert "| open the file, and the first token | 3.0 × |" in made
    assert "| 2 prompts of as many lengths | 4.0 × |" in made
    assert "| the same prompts again | 2.0 × |" in made
    assert "takes 1.10 × the time" in made
    assert "| compiling for the first 1 lengths | 6.0 × |" in made
    assert "| compiling for the next 1 | 3.6 × |" in made


def test_the_gpu_script_on_a_cpu(tmp_path):
    output = tmp_path / "gpu.json"
    script("gpu.py", "--output", str(output))
    result = json.loads(output.read_text())
    assert list(result["decoding"]) == ["bfloat16", "int8", "int4"]
    sizes = [row["weight_bytes"] for row in result["decoding"].values()]
    assert sizes == sorted(sizes, reverse=True)
    assert result["prefill"]["share_of_matmul_rate"] > 0


def test_the_steps(tmp_path):
    output = tmp_path / "steps.json"
    script("steps.py", "--turns", "1", "--output", str(output))
    made = table.gains(json.loads(output.read_text()))
    assert len(made.splitlines()) == 2 + len(steps.STEPS) + 2 + 2


@pytest.mark.parametrize(("path", "tables"), list(zip(table.PAGES, (5, 1))))
def test_the_committed_tables_are_those_of_the_committed_results(path, tables):
    text = path.read_text()
    assert table.page(text) == text, "run benchmarks/table.py"
    assert sum(f"<!-- {name} -->\n| " in text for name in table.TABLES) == tables
