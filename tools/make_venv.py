"""Makes an environment and installs requirements.txt into it; does nothing where that is done.

    python tools/make_venv.py                                     .venv, with the newest libraries
    python tools/make_venv.py --constraints versions/locked.txt   with the versions named there

`make` calls it before every other target, so the usual case has to be quick: a fingerprint of
what would be installed is kept in the environment, and nothing happens while it stays the same.
An environment keeps the constraints it was made with, until it is removed. Runs on the standard
library alone.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

NO_VENV = """\
make: {python} cannot make virtual environments: its module ensurepip is missing.
    Debian, Ubuntu    sudo apt-get install python3-venv
    elsewhere         make ... PYTHON=/path/to/another/python3"""


def fingerprint(constraints: str | None) -> str:
    """What the installation depends on: the requirements and how the package is put together."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    parts = {name: project[name] for name in ("build-system", "project")}
    for name in ("requirements.txt", constraints):
        parts[str(name)] = (ROOT / name).read_text() if name else None
    parts["place"] = str(ROOT)  # an environment does not survive being moved
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def works(*command: str | Path) -> bool:
    """Whether a command exists and ends well."""
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def python_of(folder: Path) -> Path:
    """The Python of an environment."""
    return folder / "bin" / "python"


def make_environment(folder: Path) -> None:
    """Makes an environment with a pip in it, or ends with a message that says how to get there."""
    print(f"Making {folder.name} with Python {sys.version.split()[0]}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    if works(sys.executable, "-c", "import ensurepip"):
        venv.create(folder, with_pip=True, symlinks=True)
        return
    # Debian splits ensurepip off; a pip outside the environment can install one into it.
    venv.create(folder, with_pip=False, symlinks=True)
    if not works(sys.executable, "-m", "pip", "--python", python_of(folder), "install", "pip"):
        shutil.rmtree(folder)
        sys.exit(NO_VENV.format(python=sys.executable))


def install(folder: Path, constraints: str | None, upgrade: bool) -> None:
    """Installs the requirements, or ends with what pip says against it."""
    limits = f", held to {constraints}" if constraints else ""
    print(f"Installing requirements.txt into {folder.name}{limits} (minutes, the first time)")
    sys.stdout.flush()
    command = [python_of(folder), "-m", "pip", "install", "--requirement", "requirements.txt"]
    command += ["--disable-pip-version-check", "--progress-bar=off"]
    command += ["--constraint", constraints] if constraints else []
    command += ["--upgrade", "--upgrade-strategy", "eager"] if upgrade else []
    installed = subprocess.run(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if installed.returncode:
        sys.exit(f"{installed.stdout}\nmake: installing failed; pip's messages above say why.")


def bring_up_to_date(folder: Path, constraints: str | None, upgrade: bool = False) -> None:
    """Makes an environment where none is, and installs what is missing.

    Args:
        folder: of the environment.
        constraints: a file of pip's constraints, from the repository's root; `None` for those that
            the environment has already, or none.
        upgrade: whether to look for newer versions although nothing has changed here.
    """
    stamp, kept = folder / "installed.sha256", folder / "constraints"
    if constraints is None and kept.exists():
        constraints = kept.read_text()
    wanted = fingerprint(constraints)
    if stamp.exists() and stamp.read_text() == wanted and not upgrade:
        return
    if not works(python_of(folder), "-m", "pip", "--version"):
        make_environment(folder)
    stamp.unlink(missing_ok=True)
    install(folder, constraints, upgrade)
    if constraints:
        kept.write_text(constraints)
    stamp.write_text(wanted)


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv", help="by default .venv")
    parser.add_argument("--constraints", help="a file of pip's constraints, from the root")
    parser.add_argument("--upgrade", action="store_true", help="look for newer versions")
    given = parser.parse_args(arguments)
    bring_up_to_date(given.folder, given.constraints, given.upgrade)


if __name__ == "__main__":
    main()
