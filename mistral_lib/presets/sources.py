"""Where a preset's files come from (chapter 17, "Presets and checkpoints")."""

from dataclasses import dataclass
from pathlib import Path

from mistral_lib.presets import registry


@dataclass(frozen=True)
class LocalFolder:
    """A preset in a folder of this machine."""

    path: Path

    def find(self, name: str) -> Path | None:
        """The file of that name, such as "config.json"; `None` if the preset has none."""
        file = self.path / name
        return file if file.exists() else None

    def get(self, name: str) -> Path:
        """The file of that name, or a FileNotFoundError."""
        file = self.find(name)
        if file is None:
            raise FileNotFoundError(f"{self} has no file {name}.")
        return file

    @property
    def name(self) -> str:
        """A short name for progress bars."""
        return self.path.resolve().name

    def __str__(self):
        return f"The preset {self.path}"


def open_preset(preset: str | Path) -> LocalFolder:
    """The files of a preset.

    Args:
        preset: a built-in name (see `registry.presets`), or the path of a folder.

    Raises:
        TypeError: neither a str nor a path.
        FileNotFoundError: no folder at this path.
        ValueError: no such built-in name; the message suggests the nearest.
    """
    if not isinstance(preset, str | Path):
        raise TypeError(
            f"A preset is a name or the path of a folder, but is a {type(preset).__name__}."
        )
    name = str(preset)
    folder = registry.shipped_folder(name)
    if folder is None:
        folder = Path(preset).expanduser()
        if not folder.exists() and isinstance(preset, str) and not set(preset) & set("/\\.~"):
            raise ValueError(registry.unknown_name(name))
    if not folder.is_dir():
        found = "is a file" if folder.is_file() else "does not exist"
        raise FileNotFoundError(f"{folder} {found}; a preset is a folder with a config.json.")
    return LocalFolder(folder)
