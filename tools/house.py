"""Facts about this repository that several tools need, each read from its one place."""

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
TAG = f"v{PROJECT['version']}"
FRONT = ("intro", "on_ramp")  # the notebooks before chapter 1


def notebook_paths() -> list[Path]:
    """Every notebook of the book, in the order of the chapters."""
    return sorted(BOOK.glob("*.ipynb"), key=lambda path: (path.stem not in FRONT, path.stem))


def chapter_number(path: Path) -> int:
    """The number of a chapter's notebook; 0 for those before the chapters and after them."""
    return int(path.stem[:2]) if path.stem[:2].isdigit() else 0


def colab_link(path: str) -> str:
    """Where Colab opens a notebook of this repository; `path` starts at the repository's root."""
    slug = REPOSITORY.removeprefix("https://github.com/")
    return f"https://colab.research.google.com/github/{slug}/blob/{TAG}/{path}"


def tracked_files() -> list[Path]:
    """Every file that git tracks or would track; without git, every file outside hidden folders."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        names = [name for name in listed.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):  # a downloaded archive
        found = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        names = [path for path in found if not re.match(r"\.|_build|.*__pycache__", str(path))]
    return [ROOT / name for name in names if (ROOT / name).is_file()]
