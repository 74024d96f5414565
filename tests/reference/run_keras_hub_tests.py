"""Runs KerasHub's own tests of Mistral and of the samplers on this library's classes.

KerasHub's wheel has no tests, so this takes a checkout of its repository:

    git clone https://github.com/keras-team/keras-hub
    PYTHONPATH=. python tests/reference/run_keras_hub_tests.py keras-hub

How the classes are exchanged: the test files are copied to a temporary folder, where the lines
`from keras_hub.src.models.mistral.<module> import ...` become `from mistral_lib.models import ...`,
and `from keras_hub.src.samplers.<module> import ...` become `from mistral_lib.samplers import ...`.
Where this library has no class of that name, the line stays, and its tests are not counted. Nothing
else is changed: what the tests compare with, and KerasHub's `TestCase`, come from the
checkout. The environment needs Keras, JAX, TensorFlow, and what KerasHub itself needs.

It prints every test with its result, and ends with 1 if a test fails that is not in `LEFT_OUT`.
"""

import argparse
import importlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PASSED_WITH = "71453d08f59edc90d276e999319fc51e61cbf82c"  # of 2026-08-21

# Tests that are not counted: a part of the name, and why.
LEFT_OUT = {
    "test_all_presets": "needs the network and the 14 GB of each preset",
    "test_smallest_preset": "needs the network and the 14 GB of a preset",
    "test_explicit_head_dim": "names private attributes of KerasHub's layers",
}

# Where a class of KerasHub is imported from, and our module of the same names.
MODULES = {"models.mistral": "mistral_lib.models", "samplers": "mistral_lib.samplers"}


def exchange(source: str) -> str:
    """The text of a test file with our classes; its imports of classes that we lack stay."""
    for theirs, ours in MODULES.items():
        names = vars(importlib.import_module(ours))
        statement = rf"from keras_hub\.src\.{re.escape(theirs)}\.\w+ import ([\w, ]+|\([^)]+\))"

        def line(found, ours=ours, names=names):
            imported = re.findall(r"\w+", found[1])
            if all(name in names for name in imported):
                return f"from {ours} import {', '.join(imported)}"
            for name in imported:
                LEFT_OUT[f"{name}Test"] = f"{ours} has no {name}"
            return found[0]

        source = re.sub(statement, line, source)
    return source


def copy_tests(checkout: Path, folder: Path) -> None:
    """Copies the tests that concern us, with our classes in them."""
    for part in MODULES:
        tests = checkout / "keras_hub/src" / part.replace(".", "/")
        for path in sorted(tests.glob("*_test.py")):
            (folder / path.name).write_text(exchange(path.read_text()))


class Results:
    """A plugin of pytest that notes what becomes of each test."""

    def __init__(self):
        self.found: dict[str, tuple[str, str]] = {}

    def pytest_collection_modifyitems(self, items: list) -> None:
        kept = []
        for item in items:
            reasons = [why for name, why in LEFT_OUT.items() if name in item.nodeid]
            if "test_session" in item.nodeid:  # of TensorFlow's TestCase; it tests nothing
                continue
            if reasons:
                self.found[name_of(item.nodeid)] = ("left out", reasons[0])
            else:
                kept.append(item)
        items[:] = kept

    def pytest_collectreport(self, report) -> None:
        if report.failed:
            self.found[name_of(report.nodeid)] = ("failed", last_line(report.longreprtext))

    def pytest_runtest_logreport(self, report) -> None:
        name = name_of(report.nodeid)
        if report.skipped:
            self.found[name] = ("left out", str(report.longrepr[2]).removeprefix("Skipped: "))
        elif report.failed:
            self.found[name] = ("failed", last_line(report.longreprtext))
        elif report.when == "call":
            self.found[name] = ("passed", "")


def name_of(nodeid: str) -> str:
    """A test's name without folders."""
    return Path(nodeid.replace("::", " ")).name


def last_line(text: str) -> str:
    """The error's own line in the report of a test."""
    errors = [line[2:].strip() for line in text.splitlines() if line.startswith("E ")]
    return errors[0] if errors else text.strip().splitlines()[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="of github.com/keras-team/keras-hub")
    parser.add_argument("-k", default="", help="only tests whose names match, as in pytest")
    parser.add_argument("--verbose", action="store_true", help="show pytest's report too")
    options = parser.parse_args()
    os.environ["KERAS_BACKEND"] = "jax"
    sys.path.insert(0, str(options.checkout.resolve()))
    import pytest

    results = Results()
    with tempfile.TemporaryDirectory() as folder:
        copy_tests(options.checkout, Path(folder))
        settings = ["-c", str(options.checkout / "pyproject.toml"), "-p", "no:cacheprovider"]
        report = ["--tb=long"] if options.verbose else ["--no-header", "-qqqq", "--show-capture=no"]
        pytest.main([folder, f"--rootdir={folder}", *settings, *report, "-k", options.k], [results])
    for name, (result, why) in sorted(results.found.items()):
        print(f"{result:9}{name}{': ' if why else ''}{why}")
    counts = dict.fromkeys(("passed", "failed", "left out"), 0)
    for result, _ in results.found.values():
        counts[result] += 1
    command = ["git", "-C", str(options.checkout), "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    print(", ".join(f"{number} {kind}" for kind, number in counts.items()))
    print(f"KerasHub at {commit}; this file was passed with {PASSED_WITH}.")
    return bool(counts["failed"])


if __name__ == "__main__":
    sys.exit(main())
