"""Which exercises a reader has solved, kept in one file on their machine (used by all chapters).

`check` adds the name of an exercise when it is solved in a notebook or in IPython. The file is
`~/.local/state/mistral_lib/solved.txt`, one name a line, and holds nothing else. The environment
variable `MISTRAL_LIB_PROGRESS` names another file; set to `off`, it turns this off. Tests and the
runner of the notebooks do not write, and nothing that `check` prints depends on the file.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

VARIABLE = "MISTRAL_LIB_PROGRESS"
OFF = "off"


def file() -> Path | None:
    """Where solved exercises are noted; `None` if that is turned off."""
    named = os.environ.get(VARIABLE)
    if named == OFF:
        return None
    if named:
        return Path(named).expanduser()
    state = os.environ.get("XDG_STATE_HOME")
    return Path(state or Path.home() / ".local" / "state") / "mistral_lib" / "solved.txt"


def note(name: str) -> None:
    """Adds an exercise to those that are solved, if a reader is at work.

    A file that cannot be written is left alone.
    """
    if not _somebody_is_reading() or name in solved():
        return
    with contextlib.suppress(OSError, RuntimeError):  # also without a home folder
        if path := file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as lines:
                lines.write(f"{name}\n")


def solved() -> set[str]:
    """The names of the exercises that are noted as solved; empty if there is no file."""
    with contextlib.suppress(OSError, RuntimeError):
        if path := file():
            return {*path.read_text(encoding="utf-8", errors="replace").split()}
    return set()


def _somebody_is_reading() -> bool:
    """Whether this is a notebook's kernel or IPython, which neither pytest nor a tool started."""
    if "PYTEST_VERSION" in os.environ:  # nbval's kernels inherit it
        return False
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None
