"""What relies on how the hubs' clients store files (chapter 17, "Presets and checkpoints").

Each function says what it relies on, and in which versions that was seen. Its test fails with a
clear message if a new version changes that.
"""

import contextlib
import os
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants


def is_known_to_be_missing(model: str, name: str, commit: str) -> bool:
    """Whether the cache records that a commit of a model has no such file.

    Relies on `huggingface_hub._CACHED_NO_EXIST` (seen in huggingface_hub 1.27 to 2.4).
    """
    known = huggingface_hub.try_to_load_from_cache(model, name, revision=commit)
    return known is huggingface_hub._CACHED_NO_EXIST


def is_downloaded_at_once(model: str, commit: str) -> bool:
    """Whether a commit of a model was downloaded as a whole, as `hf download` does.

    A program that asks for files one by one also asks for some that do not exist, and the client
    records these in its cache.

    Relies on the folders `snapshots` and `.no_exist` in the cache of `huggingface_hub` (seen in
    huggingface_hub 0.34 to 2.4).
    """
    folder = _cached(model)
    return (folder / "snapshots" / commit).is_dir() and not (folder / ".no_exist" / commit).exists()


def cached_commit(model: str, revision: str) -> str | None:
    """The commit to which a branch or tag pointed when Hugging Face was last asked.

    Relies on the file `models--user--name/refs/…` in the cache of `huggingface_hub` (seen in
    huggingface_hub 1.27 to 2.4).
    """
    file = _ref(model, revision)
    return file.read_text(encoding="utf-8") if file.is_file() else None


def remember_commit(model: str, revision: str, commit: str) -> None:
    """Records a commit, so that `cached_commit` and the client find it without a network.

    The client records it too, but only when it requests a file by its branch, and the branch could
    move to another commit between two such requests.

    Relies on what `cached_commit` does (seen in huggingface_hub 1.27 to 2.4).
    """
    file = _ref(model, revision)
    if file.is_file() and file.read_text(encoding="utf-8") == commit:
        return
    with contextlib.suppress(OSError):  # the cache cannot be written
        file.parent.mkdir(parents=True, exist_ok=True)
        written = file.with_name(f"{file.name}.{os.getpid()}.tmp")
        written.write_text(commit, encoding="utf-8")
        written.replace(file)


def _ref(model: str, revision: str) -> Path:
    return _cached(model) / "refs" / revision


def _cached(model: str) -> Path:
    return Path(constants.HF_HUB_CACHE, "--".join(("models", *model.split("/"))))


def kaggle_models_folder() -> Path:
    """Where Kaggle's client keeps the models that it has downloaded, `user/model/…/version`.

    Relies on `kagglehub.config.get_cache_folder` and its folder `models` (seen in kagglehub 0.4 to
    1.0).
    """
    from kagglehub import config  # an optional dependency

    return Path(config.get_cache_folder(), "models")
