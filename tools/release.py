"""What a release needs: one version everywhere, and notes that say what is new in it.

    python tools/release.py 0.2.0            says what is missing before 0.2.0 can be released
    python tools/release.py 0.2.0 --notes    prints the section of CHANGELOG.md on 0.2.0

The workflow `release` calls both. Runs on the standard library alone.
"""

import argparse
import re
import sys
from collections.abc import Iterator

import house
import repository

VERSION = re.compile(r"\d+\.\d+\.\d+")
HEADING = re.compile(r"^## \[(?P<name>[^]]+)\](?P<dated> - \d{4}-\d{2}-\d{2})?$", re.MULTILINE)


def sections(changelog: str) -> dict[str, str]:
    """What a changelog says on each version, the newest first.

    Versions that have not been released have no date, and are left out, except "Unreleased".

    >>> sections("# Changelog\\n\\n## [Unreleased]\\n\\n## [0.1.0] - 2026-11-23\\n\\nThe first.\\n")
    {'Unreleased': '', '0.1.0': 'The first.'}
    """
    without_links = re.sub(r"^\[[^]]+\]: \S+$", "", changelog, flags=re.MULTILINE)
    found = [*HEADING.finditer(without_links)]
    ends = [match.start() for match in found[1:]] + [len(without_links)]
    return {
        match["name"]: without_links[match.end() : end].strip()
        for match, end in zip(found, ends, strict=True)
        if match["dated"] or match["name"] == "Unreleased"
    }


def unwrapped(text: str) -> str:
    """A text with each paragraph on one line, since GitHub keeps the line breaks of release notes.

    >>> unwrapped("### Added\\n\\n- A door\\n  to Keras.\\n- A key.")
    '### Added\\n\\n- A door to Keras.\\n- A key.'
    """
    return re.sub(r"(?<=\S)\n *(?=[^\s#*-])", " ", text)


def problems(version: str, texts: dict[str, str]) -> Iterator[str]:
    """What is missing before a version can be released.

    Args:
        version: such as "0.2.0".
        texts: the contents of every file, by name.
    """
    stated = house.PROJECT["version"]
    if not VERSION.fullmatch(version):
        yield f"The version must be three numbers, such as 0.2.0, but is {version!r}."
    if version != stated:
        yield f"The version is {version!r}, but pyproject.toml has {stated!r}. Raise it there."
    yield from repository.other_versions(texts, repository.slug(house.REPOSITORY), version)
    noted = sections(texts["CHANGELOG.md"])
    if not noted.get(version):
        yield f"CHANGELOG.md needs a section `## [{version}] - YYYY-MM-DD` that says what is new."
    if noted.get("Unreleased"):
        yield f"CHANGELOG.md lists changes under Unreleased. Move them to {version}."


def main(arguments: list[str] | None = None) -> None:
    """Prints what is missing, or the notes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("version", help="without a v, such as 0.2.0")
    parser.add_argument("--notes", action="store_true", help="print what CHANGELOG.md says on it")
    given = parser.parse_args(arguments)
    texts = repository.tracked_texts()
    if given.notes:
        print(unwrapped(sections(texts["CHANGELOG.md"])[given.version]))
    else:
        sys.exit("\n".join(problems(given.version, texts)) or None)


if __name__ == "__main__":
    main()
