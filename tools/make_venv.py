"""Makes .venv and installs requirements.txt into it; does nothing where that is already done.

`make` calls it before every other target, so the usual case has to be quick: a fingerprint of
what would be installed is kept in .venv, and nothing happens while it stays the same. Runs on the
standard library alone.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed.sha256"

NO_VENV = """\
make: {python} cannot make virtual environments: its module ensurepip is missing.
    Debian, Ubuntu    sudo apt-get install python3-venv
    elsewhere         make ... PYTHON=/path/to/another/python3"""


def fingerprint() -> str:
    """What the installation depends on: the requirements and how the package is put together."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    parts = {name: project[name] for name in ("build-system", "project")}
    parts["requirements"] = (ROOT / "requirements.txt").read_text()
    parts["place"] = str(ROOT)  # an environment does not survive being moved
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def works(*command: str | Path) -> bool:
    """Whether a command exists and ends well."""
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def make_environment() -> None:
    """Makes .venv with a pip in it, or ends with a message that says how to get there."""
    print(f"Making .venv with Python {sys.version.split()[0]}", flush=True)
    shutil.rmtree(VENV, ignore_errors=True)
    if works(sys.executable, "-c", "import ensurepip"):
        venv.create(VENV, with_pip=True, symlinks=True)
        return
    # Debian splits ensurepip off; a pip outside the environment can install one into it.
    venv.create(VENV, with_pip=False, symlinks=True)
    if not works(sys.executable, "-m", "pip", "--python", PYTHON, "install", "pip"):
        shutil.rmtree(VENV)
        sys.exit(NO_VENV.format(python=sys.executable))


def main() -> None:
    """Brings .venv up to date."""
    wanted = fingerprint()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    if not works(PYTHON, "-m", "pip", "--version"):
        make_environment()
    print("Installing requirements.txt into .venv (minutes, the first time)", flush=True)
    pip = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off"]
    installed = subprocess.run(
        [*pip, "--requirement", "requirements.txt"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if installed.returncode:
        sys.exit(f"{installed.stdout}\nmake: installing failed; pip's messages above say why.")
    STAMP.write_text(wanted)


if __name__ == "__main__":
    main()
