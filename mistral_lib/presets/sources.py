"""Where a preset's files come from (chapter 17, "Presets and checkpoints").

A preset is a folder on this machine, or a model on Hugging Face or Kaggle, of which each file is
downloaded when it is asked for and kept in the hub's own cache.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from mistral_lib.presets import registry

SCHEMES = "hf://user/model[@revision] or kaggle://user/model/keras/variant[/version]"


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


@dataclass(frozen=True)
class HuggingFaceModel(Source):
    """A preset on Hugging Face: `hf://user/model`, at a branch, tag or commit."""

    model: str
    revision: str | None = None

    def find(self, name):
        import huggingface_hub
        from huggingface_hub import utils as errors

        try:
            return Path(huggingface_hub.hf_hub_download(self.model, name, revision=self.revision))
        except errors.LocalEntryNotFoundError as error:
            known = huggingface_hub.try_to_load_from_cache(self.model, name, revision=self.revision)
            if known is huggingface_hub._CACHED_NO_EXIST:  # the hub said so before
                return None
            raise ConnectionError(
                f"Hugging Face cannot be reached, and {name} of {self} was not downloaded before. "
                "Check the network and HF_HUB_OFFLINE, or give a folder."
            ) from error
        except errors.EntryNotFoundError:
            return None
        except errors.GatedRepoError as error:
            raise PermissionError(
                f"{self} is gated: accept its terms at https://huggingface.co/{self.model} and log "
                "in with `hf auth login`."
            ) from error
        except errors.RevisionNotFoundError as error:
            raise FileNotFoundError(
                f"{self}: the model has no branch, tag or commit {self.revision!r}."
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise FileNotFoundError(
                f"{self} does not exist, or is private: check the name, or log in with "
                "`hf auth login`."
            ) from error
        except Exception as error:  # of the client's HTTP library, which its versions change
            raise ConnectionError(f"{self}: {name} could not be downloaded: {error}") from error

    def __str__(self):
        return f"hf://{self.model}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class KaggleModel(Source):
    """A preset on Kaggle: `kaggle://user/model/keras/variant`, at a version."""

    handle: str

    def find(self, name):
        try:
            import kagglehub
        except ImportError as error:
            raise ImportError(
                f"{self} needs kagglehub: pip install 'mistral-lib[kaggle]'. KerasHub's presets "
                f"are also on Hugging Face, as hf://keras/{self.handle.split('/')[3]}."
            ) from error
        try:
            return Path(kagglehub.model_download(self.handle, name))
        except OSError as error:  # requests' errors are OSErrors
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status == 404:
                return None
            if status in (401, 403):
                raise PermissionError(
                    f"Kaggle does not give out {self}: accept the model's terms on its page, and "
                    "log in with kagglehub.login()."
                ) from error
            raise ConnectionError(f"{self}: {name} could not be downloaded: {error}") from error
        except ValueError as error:  # where Kaggle mounts its models, as in its notebooks
            if "is not present" not in str(error):
                raise
            return None

    def __str__(self):
        return f"kaggle://{self.handle}"


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
        raise FileNotFoundError(f"There is no folder {path}.")
    return LocalFolder(path)


def _open_address(scheme, rest, preset):
    part = r"\w[\w.-]*"
    if scheme == "hf" and (
        match := re.fullmatch(rf"({part}/{part})(?:@({part}(?:/{part})*))?", rest)
    ):
        return HuggingFaceModel(*match.groups())
    if scheme == "kaggle" and re.fullmatch(rf"{part}/{part}/{part}/{part}(/\d+)?", rest):
        return KaggleModel(rest)
    raise ValueError(f"{preset!r} is no address of a preset. Expected {SCHEMES}.")
