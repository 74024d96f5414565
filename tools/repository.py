"""Writes the repository's address and the version to every place that needs a copy of them.

    python tools/repository.py                                    after a new version
    python tools/repository.py https://github.com/me/fork         for a fork

The address stands in pyproject.toml, as does the version. Launch buttons, links to Colab, set-up
cells and the citation need copies; `copies` lists their files, and `problems` finds any other.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import house

ADDRESS = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+)")
# What can only mean this repository, whatever its name: installed from, opened on Colab.
OWN_USES = re.compile(
    r"(?:git\+https://github\.com|colab\.research\.google\.com/github)/([\w.-]+/[\w-]+)"
)
# What names the version, beside links to its tag.
STATED = {
    "mistral_lib/__init__.py": r'^__version__ = "(.*)"$',
    "CITATION.cff": r"^version: (.*)$",
    "_config.yml": r"^  branch: v(.*)$",
}
TEXT = {".py", ".md", ".ipynb", ".toml", ".txt", ".yml", ".cff", ".sh", ".cfg", ".css", ".js"}


def slug(address: str) -> str:
    """The owner and name in an address.

    Raises:
        ValueError: if it is not the address of a repository on GitHub, where Colab looks.
    """
    match = ADDRESS.fullmatch(address.removesuffix("/").removesuffix(".git"))
    if not match:
        raise ValueError(
            f"The address is {address!r}, but has to look like https://github.com/owner/name."
        )
    return match[1]


def copies() -> list[Path]:
    """The files that this tool keeps up to date."""
    names = ["pyproject.toml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", *STATED]
    return [house.ROOT / name for name in names] + [
        *sorted(house.BOOK.glob("*.md")),
        *house.notebook_paths(),
    ]


def rewrite(text: str, old: str, new: str, version: str) -> str:
    """A text with another address and version.

    >>> rewrite("github.com/a/b/blob/v0.1.0", "a/b", "me/fork", "0.2.0")
    'github.com/me/fork/blob/v0.2.0'
    """
    text = re.sub(rf"(?<=/){re.escape(old)}(?![\w-])", new, text)
    text = re.sub(rf"({re.escape(new)}(?:/blob/|/tree/|@))v\d[\w.]*\d", rf"\g<1>v{version}", text)
    text = re.sub(r"(?m)^(  branch: )v\d\S*", rf"\g<1>v{version}", text)
    text = re.sub(r'(?m)^(__version__ = ")[^"]*', rf"\g<1>{version}", text)
    return re.sub(r"(?m)^(version: )\d\S*", rf"\g<1>{version}", text)


def problems(texts: dict[str, str], kept: set[str], own: str) -> Iterator[str]:
    """Finds copies of the address that differ from the one place, or that this tool would miss.

    Args:
        texts: the contents of every file, by name.
        kept: the names of the files that this tool keeps up to date.
        own: the owner and name that pyproject.toml gives.
    """
    for name, text in texts.items():
        for found in OWN_USES.findall(text):
            if found != own:
                yield f"{name} uses {found}, but the repository is {own}. Run `make repository`."
        if name not in kept and re.search(rf"/{re.escape(own)}(?![\w-])", text):
            yield f"{name} has a copy of the address that `make repository` would not update."


def other_versions(texts: dict[str, str], own: str, version: str) -> Iterator[str]:
    """Finds what does not name the version: links to another tag or to none, files that state it.

    Args:
        texts: the contents of every file, by name.
        own: the owner and name that pyproject.toml gives.
        version: the version that pyproject.toml gives.

    >>> texts = {**dict.fromkeys(STATED, ""), "README.md": "/a/b/blob/v0.1.0/x.ipynb"}
    >>> list(other_versions(texts, "a/b", "0.2.0"))[-1]
    'README.md links to v0.1.0 instead of v0.2.0. Run `make repository`.'
    """
    for name, pattern in STATED.items():
        found = re.findall(pattern, texts[name], re.MULTILINE)
        if found != [version]:
            yield f"{name} names the versions {found} instead of {version}. Run `make repository`."
    link = re.compile(rf"/{re.escape(own)}(?:/blob/|/tree/|@)([\w.-]*\w)")
    for name, text in texts.items():
        for found in sorted({*link.findall(text)} - {f"v{version}"}):
            yield f"{name} links to {found} instead of v{version}. Run `make repository`."
        if re.search(rf"git\+\S*/{re.escape(own)}(?![\w@-])", text):
            yield f"{name} installs the library without naming v{version}."


def tracked_texts() -> dict[str, str]:
    """The text files of the repository, by their names relative to its root."""
    chosen = (p for p in house.tracked_files() if p.suffix in TEXT or not p.suffix)
    return {path.relative_to(house.ROOT).as_posix(): path.read_text() for path in chosen}


def main() -> None:
    """Rewrites every copy, then lets the notebook tool write its own."""
    old = slug(house.REPOSITORY)
    try:
        new = slug(sys.argv[1]) if len(sys.argv) > 1 else old
    except ValueError as error:
        sys.exit(f"make: {error}")
    for path in copies():
        before = path.read_text()
        after = rewrite(before, old, new, house.PROJECT["version"])
        if after != before:
            path.write_text(after)
            print(f"Rewrote {path.relative_to(house.ROOT)}")
    # A new process, since the address was read when this one started.
    tool = Path(__file__).with_name("notebooks.py")
    sys.exit(subprocess.run([sys.executable, tool, "sync"]).returncode)


if __name__ == "__main__":
    main()
