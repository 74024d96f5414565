"""From a name, an address or a folder to a source (chapter 17, "Presets and checkpoints")."""

import re
from pathlib import Path

from mistral_lib.checks import as_path
from mistral_lib.presets import registry
from mistral_lib.presets.atomic import finish
from mistral_lib.presets.hubs import HuggingFaceModel, KaggleModel
from mistral_lib.presets.sources import GGUF, LocalFolder, OneFile, Source

SCHEMES = "hf://user/model[/file.gguf][@revision] or kaggle://user/model/keras/variant[/version]"
PART = r"\w[\w.-]*"  # of an address, between slashes


def open_source(preset: str | Path) -> Source:
    """The source of a preset's files.

    Args:
        preset: a built-in name (see `registry.presets`), `hf://user/model[@revision]`,
            `kaggle://user/model/keras/variant[/version]`, a folder, or a GGUF file: its path, or
            `hf://user/model/file.gguf[@revision]`.

    Raises:
        TypeError: neither a str nor a path.
        FileNotFoundError: no such folder.
        ValueError: a name that is not built in, or a malformed address.

    >>> print(open_source("mistral_7b_en"))
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
    looks_like_path = any(mark in address for mark in ("/", "\\", "~", GGUF))
    if not (looks_like_path or address.startswith(".") or Path(address).exists()):
        raise ValueError(registry.unknown_name(preset))
    return _open_folder(Path(address))


def _open_folder(path: Path) -> Source:
    path = as_path(path)
    if path.suffix == GGUF and not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.is_file() and path.suffix == GGUF:
        path = path.resolve() if path.is_symlink() else path  # a link means its file
        return OneFile(LocalFolder(path.parent), path.name)
    if path.is_file():
        hint = " Open it with keras.saving.load_model." if path.suffix == ".keras" else ""
        if path.name.endswith(".lora.h5"):
            hint = " Load the adapter into its base model with backbone.load_lora_weights(file)."
        raise NotADirectoryError(f"{path} is a file; a preset is a folder, or a {GGUF} file.{hint}")
    if not path.is_dir():
        is_model = re.fullmatch(rf"{PART}/{PART}", path.as_posix())
        hint = f" A model on Hugging Face would be 'hf://{path.as_posix()}'." if is_model else ""
        raise FileNotFoundError(f"There is no folder {path}.{hint}")
    finish(path)
    return LocalFolder(path)


def _open_address(scheme: str, rest: str, preset: str) -> Source:
    file, revision = rf"((?:{PART}/)*{PART}\{GGUF})", rf"({PART}(?:/{PART})*)"
    if scheme == "hf" and (
        match := re.fullmatch(rf"({PART}/{PART})(?:/{file})?(?:@{revision})?", rest)
    ):
        model, name, commit = match.groups()
        source = HuggingFaceModel(model, commit)
        return source if name is None else OneFile(source, name)
    if scheme == "kaggle" and re.fullmatch(rf"{PART}/{PART}/{PART}/{PART}(/\d+)?", rest):
        return KaggleModel(rest)
    raise ValueError(f"{preset!r} is no address of a preset. Expected {SCHEMES}.")
