"""Builds the pages of the book with every warning an error, and prints where they are."""

import shutil
import subprocess
import sys
from pathlib import Path

import api_pages

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
PAGES = BUILD / "html"


def build(root: Path = ROOT) -> subprocess.CompletedProcess:
    """Runs Jupyter Book; `returncode` is 0 only without a warning, `stdout` holds what it said."""
    if (root / "book" / "api.md").exists():
        api_pages.write()
    jupyter_book = Path(sys.executable).parent / "jupyter-book"
    command = [jupyter_book, "build", ".", "-W", "-n", "--keep-going", "--quiet"]
    result = subprocess.run(
        command, cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if result.returncode:
        # Sphinx remembers the pages it has read and would not warn about them again.
        shutil.rmtree(root / "_build" / ".doctrees", ignore_errors=True)
    return result


def main() -> None:
    """Builds, and ends with the path of the first page or with the warnings."""
    print("Building the book", flush=True)
    result = build()
    if result.returncode:
        sys.exit(f"{result.stdout}\nmake: the book has warnings or errors; they stand above.")
    print(f"The book is at {PAGES / 'index.html'}. Browsers let the model run in its pages only")
    print("if they come from a server: make serve, and open http://localhost:8000.")


if __name__ == "__main__":
    main()
