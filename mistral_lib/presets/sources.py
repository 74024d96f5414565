"""Where a preset's files come from (chapter 17, "Presets and checkpoints").

A preset is a folder on this machine, or a model on Hugging Face or Kaggle. The rest of the library
asks a source for files by their names, and does not know the difference.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mistral_lib.presets.json_files import read_json


class Source:
    """The files of one preset. A subclass says how to find them and what they are called."""

    def find(self, name: str) -> Path | None:
        """The file of that name, such as "config.json"; `None` if the preset has none."""
        raise NotImplementedError

    def get(self, name: str) -> Path:
        """The file of that name, or a FileNotFoundError."""
        file = self.find(name)
        if file is None:
            raise FileNotFoundError(f"{self} has no file {name}.")
        return file

    def json(self, name: str) -> dict[str, Any]:
        """The object in the JSON file of that name, which is read once. It is not to be changed.

        Raises: as `get` and `mistral_lib.presets.json_files.read_json`.
        """
        if name not in self._objects:
            self._objects[name] = read_json(self.get(name))
        return self._objects[name]

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
        # Hugging Face's cache has the files themselves two folders up, in blobs.
        in_cache = (
            folder.parent.name == "snapshots" and target.parent == folder.parents[1] / "blobs"
        )
        if not (target.is_relative_to(folder) or in_cache):
            raise ValueError(
                f"{file} leads out of its folder, to {target}, so it is not read. Put the file "
                "itself into the folder."
            )
        return file

    def __str__(self):
        return str(self.path)
