"""Where a preset's files come from (chapter 17, "Presets and checkpoints").

A preset is a folder on this machine, or a model on Hugging Face or Kaggle. The rest of the library
asks a source for files by their names, and does not know the difference.
"""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mistral_lib.presets.json_files import read_json

GGUF = ".gguf"
MAX_LINKS = 8  # from one to the next


class Source:
    """The files of one preset. A subclass says how to find them and what they are called."""

    def find(self, name: str) -> Path | None:
        """The file of that name, such as "config.json"; `None` if the preset has none."""
        raise NotImplementedError

    def get(self, name: str) -> Path:
        """The file of that name, or a FileNotFoundError."""
        file = self.find(name)
        if file is None:
            raise self.missing(f"{self} has no file {name}.")
        return file

    def missing(self, message: str) -> OSError:
        """What to raise where a preset lacks what it needs; a hub may know another reason."""
        return FileNotFoundError(message)

    def json(self, name: str, largest: int | None = None) -> dict[str, Any]:
        """The object in the JSON file of that name, which is read once. It is not to be changed.

        Raises: as `get` and `mistral_lib.presets.json_files.read_json`.
        """
        if name not in self._objects:
            self._objects[name] = read_json(self.get(name), largest)
        return self._objects[name]

    def gguf_files(self) -> list[str]:
        """The names of the GGUF files in the preset."""
        return []

    def locate(self, name: str) -> str:
        """A file's place for messages, whether there is such a file or not."""
        return f"{self}/{name}"

    @cached_property
    def _objects(self) -> dict[str, dict[str, Any]]:
        return {}


@dataclass(frozen=True)
class LocalFolder(Source):
    """A preset in a folder."""

    path: Path

    def find(self, name: str) -> Path | None:
        file = self.path / name
        if not file.exists():
            return None
        target, folder = file.resolve(), self.path.resolve()
        if not (target.is_relative_to(folder) or _is_in_cache(file)):
            raise ValueError(
                f"{file} leads out of its folder, to {target}, so it is not read. Put the file "
                "itself into the folder."
            )
        return file

    def gguf_files(self) -> list[str]:
        return sorted(file.name for file in self.path.glob(f"*{GGUF}"))

    def __str__(self):
        return str(self.path)


@dataclass(frozen=True)
class OneFile(Source):
    """A preset that is one GGUF file, on this machine or in a model on a hub.

    Args:
        source: where the file is.
        name: the file's, which may be in a folder there.
    """

    source: Source
    name: str

    def find(self, name: str) -> Path | None:
        return self.source.find(name) if name == self.name else None

    def get(self, name: str) -> Path:
        return self.source.get(name) if name == self.name else super().get(name)

    def missing(self, message: str) -> OSError:
        return self.source.missing(message)

    def gguf_files(self) -> list[str]:
        return [self.name]

    def locate(self, name: str) -> str:
        return str(self)

    def __str__(self):
        return f"{self.source}/{self.name}"


def _is_in_cache(file: Path) -> bool:
    """Whether a file is a link to where the client of Hugging Face keeps the files themselves.

    That is `models--user--name/blobs`, which may itself be a link to another disk. The client makes
    such links in its cache, and versions before 0.23 made them in folders of the user's own.
    """
    for _ in range(MAX_LINKS):
        if not file.is_symlink():
            return False
        file = Path(os.path.normpath(file.parent.resolve() / os.readlink(file)))
        if file.parent.name == "blobs" and file.parents[1].name.startswith("models--"):
            return True
    return False
