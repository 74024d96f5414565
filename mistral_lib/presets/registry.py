"""The presets that have a name (chapter 17, "Presets and checkpoints")."""

import difflib
from pathlib import Path

from mistral_lib.presets.json_files import read_json

DATA = Path(__file__).parent / "data"


def presets() -> dict[str, dict]:
    """The built-in presets: name to `{"metadata": {"description", "params", "path"}, …}`."""
    return {
        folder.name: {
            "metadata": {
                "description": "A small Mistral, trained on the text that comes with Python",
                "params": read_json(folder / "metadata.json")["parameter_count"],
                "path": "mistral",
            }
        }
        for folder in sorted(DATA.glob("*"))
    }


class PresetTable:
    """A read-only class attribute whose value is `presets()`, made anew each time."""

    def __get__(self, instance, owner):
        return presets()


def shipped_folder(name: str) -> Path | None:
    """The folder of a preset that ships with the library; `None` for any other name."""
    return DATA / name if name in presets() else None


def unknown_name(name: str) -> str:
    """What to say of a name that is not in the registry."""
    near = difflib.get_close_matches(name, presets(), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return (
        f"There is no preset named {name!r}.{hint} The built-in presets are "
        f"{', '.join(presets())}; for a folder, give its path."
    )
