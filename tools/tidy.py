"""Removes blanks at the ends of lines, and ends every file with one line break.

    python tools/tidy.py FILE ...

It is a hook of pre-commit, so it ends with an error where it changed something. What programs write
(notebooks, JSON, pictures) stays as it is.
"""

import re
import sys
from pathlib import Path

# Of files that people write; "" is that of Makefile.
SUFFIXES = {".py", ".md", ".yml", ".toml", ".txt", ".cff", ".cfg", ".bib", ".css", ".js", ".sh", ""}


def tidied(text: str) -> str:
    """A text without blanks at the ends of its lines and without empty lines at its end.

    >>> tidied("one  \\n\\ntwo\\n\\n")
    'one\\n\\ntwo\\n'
    """
    text = re.sub(r"[ \t\r]+$", "", text, flags=re.MULTILINE).rstrip("\n")
    return f"{text}\n" if text else ""


def main(names: list[str]) -> None:
    """Tidies the files named, and names those that it changed."""
    changed = []
    for path in map(Path, names):
        if path.suffix not in SUFFIXES:
            continue
        before = path.read_bytes().decode()
        after = tidied(before)
        if after != before:
            path.write_bytes(after.encode())
            changed.append(f"Tidied {path}")
    sys.exit("\n".join(changed) or None)


if __name__ == "__main__":
    main(sys.argv[1:])
