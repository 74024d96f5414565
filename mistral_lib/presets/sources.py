"""Where a preset's files come from (chapter 17, "Presets and checkpoints").

A preset is a folder on this machine, or a model on Hugging Face or Kaggle. The rest of the library
asks a source for files by their names, and does not know the difference.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from mistral_lib.presets import registry

SCHEMES = "hf://user/model[@revision] or kaggle://user/model/keras/variant[/version]"
PART = r"\w[\w.-]*"  # of an address, between slashes


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


@dataclass(frozen=True)
class LocalFolder(Source):
    """A preset in a folder."""

    path: Path

    def find(self, name):
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


def open_preset(preset: str | Path) -> Source:
    """The source of a preset's files.

    Args:
        preset: a built-in name (see `registry.presets`), `hf://user/model[@revision]`,
            `kaggle://user/model/keras/variant[/version]`, or a folder.

    Raises:
        TypeError: neither a str nor a path.
        FileNotFoundError: no such folder.
        ValueError: a name that is not built in, or a malformed address.

    >>> print(open_preset("mistral_7b_en"))
    kaggle://keras/mistral/keras/mistral_7b_en/8
    """
    if isinstance(preset, Path):
        return _open_folder(preset)
    if not isinstance(preset, str):
        raise TypeError(
            f"A preset is a name, an address or a folder's path, but is {preset!r} of type "
            f"{type(preset).__name__}."
        )
    address = registry.source_of(preset) or preset
    scheme, separator, rest = address.partition("://")
    if separator:
        return _open_address(scheme.lower(), rest, preset)
    looks_like_path = any(mark in address for mark in ("/", "\\", "~"))
    if not (looks_like_path or address.startswith(".") or Path(address).exists()):
        raise ValueError(registry.unknown_name(preset))
    return _open_folder(Path(address))


def _open_folder(path):
    path = path.expanduser()
    if path.is_file():
        hint = " Open it with keras.saving.load_model." if path.suffix == ".keras" else ""
        raise NotADirectoryError(f"{path} is a file; a preset is a folder.{hint}")
    if not path.is_dir():
        is_model = re.fullmatch(rf"{PART}/{PART}", path.as_posix())
        hint = f" A model on Hugging Face would be 'hf://{path.as_posix()}'." if is_model else ""
        raise FileNotFoundError(f"There is no folder {path}.{hint}")
    return LocalFolder(path)


def _open_address(scheme, rest, preset):
    from mistral_lib.presets.hubs import HuggingFaceModel, KaggleModel

    if scheme == "hf" and (
        match := re.fullmatch(rf"({PART}/{PART})(?:@({PART}(?:/{PART})*))?", rest)
    ):
        return HuggingFaceModel(*match.groups())
    if scheme == "kaggle" and re.fullmatch(rf"{PART}/{PART}/{PART}/{PART}(/\d+)?", rest):
        return KaggleModel(rest)
    raise ValueError(f"{preset!r} is no address of a preset. Expected {SCHEMES}.")
