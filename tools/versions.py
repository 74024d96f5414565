"""Runs tests and notebooks with several sets of versions, each in an environment of its own.

    python tools/versions.py                      all columns, some hours
    python tools/versions.py colab newest         these columns
    python tools/versions.py oldest --only tests  without the notebooks
    python tools/versions.py --lock               writes versions/locked.txt anew

A column is a Python and a file of pip's constraints: versions/oldest.txt is what pyproject.toml
allows at the least, colab.txt what Google Colab has, newest.txt whatever is new. The environments
are made in .venv-versions and kept for the next time; what pytest prints is kept in
_build/versions. Runs on the standard library alone.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".venv-versions"
LOGS = ROOT / "_build" / "versions"
COLUMNS = {"oldest": "3.11", "colab": "3.13", "newest": "3.13"}
LOCKED_PYTHON = "3.11"  # the oldest, since newer ones can install what it can, and not the reverse
SHOWN = ("keras", "jax", "numpy")
# As `make test` runs them, which a test compares.
PYTEST = "-m pytest --numprocesses auto --maxprocesses 4 --dist loadfile".split()
RUNS = {
    "tests": PYTEST,
    "notebooks": [
        *PYTEST,
        *"-p no:python --nbval --nbval-current-env --nbval-cell-timeout 300".split(),
        *"--nbval-sanitize-with tests/nbval_sanitize.cfg book".split(),
    ],
}


def constraints(column: str) -> str:
    """The file of a column's versions, from the repository's root."""
    return f"versions/{column}.txt"


def find_python(version: str) -> str:
    """The path of a Python of this version; ends with a message where there is none."""
    command = ["sh", "tools/find_python.sh", "", version]
    found = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if found.returncode:
        sys.exit(found.returncode)
    return found.stdout.strip()


def environment(column: str, version: str, upgrade: bool = False) -> Path:
    """Makes a column's environment or brings it up to date; gives its Python."""
    folder = ENVIRONMENTS / column
    command = [find_python(version), "tools/make_venv.py", "--folder", folder]
    if (ROOT / constraints(column)).exists():
        command += ["--constraints", constraints(column)]
    command += ["--upgrade"] if upgrade else []
    if subprocess.run(command, cwd=ROOT).returncode:
        sys.exit(f"versions: the environment of the column {column} could not be made.")
    return folder / "bin" / "python"


def last_line(output: str) -> str:
    """What pytest says in the end, without its frame and the time.

    >>> last_line("===== 2 failed, 5 passed, 9 warnings in 1.23s (0:00:01) =====")
    '2 failed, 5 passed'
    """
    found = re.findall(r"^=* ?(\d+ \w+.*) in [\d.]+s", output, re.MULTILINE)
    return re.sub(r", \d+ warnings?", "", found[-1]) if found else "did not come to an end"


def run(python: Path, column: str, kind: str) -> tuple[bool, str]:
    """Runs the tests or the notebooks; whether all is well, and the sentence for the summary."""
    print(f"{column}: {kind}", flush=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{column}-{kind}.txt"
    started = time.monotonic()
    with log.open("w") as file:
        code = subprocess.run(
            [python, *RUNS[kind]],
            cwd=ROOT,
            env={**os.environ, "MISTRAL_LIB_REQUIRE_ALL": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
        ).returncode
    output = log.read_text()
    if code:
        print(output, flush=True)
    minutes = (time.monotonic() - started) / 60
    return code == 0, f"{last_line(output)}, {minutes:.0f} minutes, {log.relative_to(ROOT)}"


def installed(python: Path) -> str:
    """The versions that a column turned out to have."""
    program = (
        "import sys, importlib.metadata as m; print('Python', sys.version.split()[0], "
        f"*(f'{{name}} {{m.version(name)}}' for name in {SHOWN}))"
    )
    return subprocess.check_output([python, "-c", program], cwd=ROOT, text=True).strip()


def run_column(column: str, kinds: list[str]) -> tuple[bool, list[str]]:
    """Makes a column's environment and runs it; whether all is well, and lines of the summary."""
    python = environment(column, COLUMNS[column], upgrade=column == "newest")
    results = {kind: run(python, column, kind) for kind in kinds}
    lines = [f"{column:8} {installed(python)}"]
    lines += [f"         {kind + ':':10} {text}" for kind, (_, text) in results.items()]
    return all(well for well, _ in results.values()), lines


def lock() -> None:
    """Writes versions/locked.txt: the newest versions that install on every Python we support."""
    path = ROOT / constraints("locked")
    path.unlink(missing_ok=True)
    python = environment("locked", LOCKED_PYTHON, upgrade=True)
    frozen = subprocess.check_output(
        [python, *"-m pip freeze --all --exclude pip --exclude-editable".split()],
        cwd=ROOT,
        text=True,
    )
    path.write_text(
        "# What `make setup LOCKED=1` installs. Written by `python tools/versions.py --lock`.\n"
        + frozen
    )


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("column", nargs="*", help=f"of {', '.join(COLUMNS)}; all by default")
    parser.add_argument("--only", choices=[*RUNS], help="one of the two; both by default")
    parser.add_argument("--lock", action="store_true", help="write versions/locked.txt")
    given = parser.parse_args(arguments)
    if given.lock:
        return lock()
    unknown = {*given.column} - {*COLUMNS}
    if unknown:
        parser.error(f"no such column: {', '.join(sorted(unknown))}. There are {[*COLUMNS]}.")
    kinds = [given.only] if given.only else [*RUNS]
    results = [run_column(column, kinds) for column in given.column or COLUMNS]
    print("\n".join(line for _, lines in results for line in lines))
    return sys.exit(not all(well for well, _ in results))


if __name__ == "__main__":
    main()
