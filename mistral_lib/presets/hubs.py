"""Presets on Hugging Face and Kaggle (chapter 17, "Presets and checkpoints").

A file is downloaded when it is asked for, by the hub's own client, and kept in that client's cache.
Before the first file, the hub is asked which commit or version the address means. All files come
from that one, even if the model is changed meanwhile, and what the cache already knows of it needs
no network.
"""

import contextlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import huggingface_hub

from mistral_lib.presets.hub_caches import (
    cached_commit,
    is_downloaded_at_once,
    is_known_to_be_missing,
    kaggle_models_folder,
    remember_commit,
)
from mistral_lib.presets.sources import GGUF, Source

CONFIG_FILE = "config.json"  # in nearly every preset on a hub


class _Offline(ConnectionError):
    """There is no network, and a file is not in the cache."""


@dataclass(frozen=True)
class HuggingFaceModel(Source):
    """A preset on Hugging Face: `hf://user/model`, at a branch, tag or commit.

    Args:
        model: user and name.
        revision: branch, tag or commit; `None` is the main branch.

    >>> print(HuggingFaceModel("keras/mistral_7b_en", "main"))
    hf://keras/mistral_7b_en@main
    """

    model: str
    revision: str | None = None

    def find(self, name: str) -> Path | None:
        commit = self._commit
        if is_known_to_be_missing(self.model, name, commit):
            return None
        try:
            return self._download(name, commit)
        except _Offline:
            if not is_downloaded_at_once(self.model, commit):
                raise
            self._not_asked.add(name)  # and without a network it must be taken for missing
            return None

    def gguf_files(self) -> list[str]:
        try:
            names = huggingface_hub.HfApi().list_repo_files(self.model, revision=self._commit)
        except Exception:  # without a network, say; then a file must be named
            return []
        return [name for name in names if name.endswith(GGUF)]

    def missing(self, message: str) -> OSError:
        if not self._not_asked:
            return super().missing(message)
        return ConnectionError(
            f"{message} Hugging Face cannot be reached, and {', '.join(sorted(self._not_asked))} "
            "may not be in the cache. Check the network and HF_HUB_OFFLINE."
        )

    @cached_property
    def _not_asked(self) -> set[str]:
        """Names of files that are not in the cache, and that the hub may have."""
        return set()

    @cached_property
    def _commit(self) -> str:
        """What `revision` stands for now, or stood for when the hub was last reached."""
        revision = self.revision or "main"
        if re.fullmatch(r"[0-9a-f]{40}", revision):
            return revision
        commit = self._ask(revision) or cached_commit(self.model, revision)
        if commit is None:  # the client asks several times, and says what is wrong
            self._download(CONFIG_FILE, revision)
            commit = self._ask(revision) or cached_commit(self.model, revision)
        if commit is None:
            raise self._without_answer(CONFIG_FILE, None)
        remember_commit(self.model, revision, commit)
        return commit

    def _ask(self, revision: str) -> str | None:
        """The commit that the hub names for a branch or tag; `None` if it does not answer."""
        from huggingface_hub import errors  # with a client for HTTP: not before it is needed

        try:
            url = huggingface_hub.hf_hub_url(self.model, CONFIG_FILE, revision=revision)
            return huggingface_hub.get_hf_file_metadata(url).commit_hash
        except errors.EntryNotFoundError as error:  # the answer names the commit all the same
            answer = getattr(error, "response", None)
            return None if answer is None else answer.headers.get("X-Repo-Commit")
        except errors.RevisionNotFoundError as error:
            raise self._without_revision(revision) from error
        except Exception:  # of the client's HTTP library, which its versions change
            return None

    def _download(self, name: str, revision: str) -> Path | None:
        from huggingface_hub import errors

        try:
            return Path(huggingface_hub.hf_hub_download(self.model, name, revision=revision))
        except errors.LocalEntryNotFoundError as error:
            raise self._without_answer(name, error.__cause__) from error
        except errors.EntryNotFoundError:
            return None
        except errors.GatedRepoError as error:
            raise PermissionError(
                f"{self} is gated: accept its terms at https://huggingface.co/{self.model} and log "
                "in with `hf auth login`."
            ) from error
        except errors.RevisionNotFoundError as error:
            raise self._without_revision(revision) from error
        except errors.RepositoryNotFoundError as error:
            raise FileNotFoundError(
                f"{self} does not exist, or is private: check the name, or log in with "
                "`hf auth login`."
            ) from error
        except errors.HFValidationError as error:
            raise ValueError(f"{self} is no address of a model on Hugging Face: {error}") from error
        except Exception as error:  # of the client's HTTP library, which its versions change
            raise self._without_answer(name, error) from error

    def _without_revision(self, revision: str) -> FileNotFoundError:
        """What to raise where the hub does not know a branch, tag or commit."""
        if revision == (self.revision or "main"):
            return FileNotFoundError(
                f"{self}: the model has no branch, tag or commit {revision!r}."
            )
        return FileNotFoundError(
            f"{self}: the commit {revision} from which files were taken is gone, because the "
            "model's history was rewritten meanwhile. Nothing is lost: try again."
        )

    def _without_answer(self, name: str, error: BaseException | None) -> OSError:
        """What to raise where the hub gave neither the file nor a reason of its own."""
        status = _status(error)
        if status in (401, 403):
            return PermissionError(
                f"Hugging Face does not give out {self}: {_reason(error)} Check your access "
                "token, or log in with `hf auth login`."
            )
        if status is not None:
            return ConnectionError(
                f"Hugging Face cannot give out {name} of {self} now: {_reason(error)} Try "
                "again later."
            )
        if error is None or _is_offline(error):
            return _Offline(
                f"Hugging Face cannot be reached, and {name} of {self} was not downloaded before. "
                "Check the network and HF_HUB_OFFLINE, or give a folder."
            )
        return _failed_download(self, name, error)

    def __str__(self):
        return f"hf://{self.model}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class KaggleModel(Source):
    """A preset on Kaggle: `kaggle://user/model/keras/variant`, at a version.

    Args:
        handle: what follows `kaggle://`; without a version it means the newest.

    >>> print(KaggleModel("keras/mistral/keras/mistral_7b_en/8"))
    kaggle://keras/mistral/keras/mistral_7b_en/8
    """

    handle: str

    def find(self, name: str) -> Path | None:
        config = self._config
        if name == CONFIG_FILE:
            return config
        # A version never changes, so what it lacks can be remembered; the client does not do it.
        absent = config.parent / ".no_exist" / name
        if absent.exists():
            return None
        version = config.parent.name  # a number, but where Kaggle's notebooks mount models
        handle = f"{self._variant}/{version}" if version.isdigit() else self.handle
        file = self._download(handle, name)
        if file is None:
            with contextlib.suppress(OSError):  # Kaggle's notebooks mount models read-only
                absent.parent.mkdir(parents=True, exist_ok=True)
                absent.touch()
        return file

    @cached_property
    def _config(self) -> Path:
        """The config, in the folder of its version."""
        try:
            config = self._download(self.handle, CONFIG_FILE)
        except ConnectionError:
            config = self._newest_downloaded()
            if config is None:
                raise
        if config is None:
            raise FileNotFoundError(
                f"{self} does not exist, or has no {CONFIG_FILE}: check its name at "
                f"https://www.kaggle.com/models/{self._model}{self._other_version()}."
            )
        return config

    def _newest_downloaded(self) -> Path | None:
        """The config of the newest version in the cache, if none was asked for by number."""
        if self.handle != self._variant:
            return None
        files = (kaggle_models_folder() / self._variant).glob(f"*/{CONFIG_FILE}")
        names = [file.parent.name for file in files]
        newest = max((int(name) for name in names if name.isdigit()), default=None)
        if newest is None:
            return None
        return self._download(f"{self._variant}/{newest}", CONFIG_FILE)

    def _other_version(self) -> str:
        """For an error: that the model exists, and which version it has."""
        if self.handle != self._variant:
            with contextlib.suppress(OSError):
                newest = self._download(self._variant, CONFIG_FILE)
                if newest is not None:
                    return f". Its newest version is {newest.parent.name}"
        return ""

    def _download(self, handle: str, name: str) -> Path | None:
        try:
            import kagglehub  # an optional dependency
        except ImportError as error:
            raise ImportError(
                f"{self} needs kagglehub: pip install 'mistral-lib[kaggle]'. KerasHub's presets "
                f"are also on Hugging Face, as hf://keras/{self.handle.split('/')[3]}."
            ) from error
        try:
            return Path(kagglehub.model_download(handle, name))
        except ValueError as error:  # where models are mounted: Kaggle's notebooks, Colab
            if "is not present" not in str(error):
                raise
            return None
        except Exception as error:  # the client passes on those of its HTTP library
            status = _status(error)
            if status == 404:
                return None
            if status in (401, 403):
                raise PermissionError(
                    f"Kaggle does not give out {self}: accept the model's terms at "
                    f"https://www.kaggle.com/models/{self._model} and log in with "
                    "kagglehub.login(). It also answers so where a model is private or missing."
                ) from error
            if status is not None:
                raise ConnectionError(
                    f"Kaggle cannot give out {name} of {self} now: {_reason(error)} Try again "
                    "later."
                ) from error
            if _is_offline(error):
                raise ConnectionError(
                    f"Kaggle cannot be reached, and {name} of {self} was not downloaded before. "
                    "Check the network, or give a folder."
                ) from error
            raise _failed_download(self, name, error) from error

    @property
    def _variant(self) -> str:
        return "/".join(self.handle.split("/")[:4])

    @property
    def _model(self) -> str:
        return "/".join(self.handle.split("/")[:2])

    def __str__(self):
        return f"kaggle://{self.handle}"


def _status(error: BaseException | None) -> int | None:
    """The HTTP status of an answer that a client refused, if there was an answer."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _is_offline(error: BaseException) -> bool:
    """Whether no connection was made. The clients' HTTP libraries have each their own classes."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"ConnectError", "ConnectTimeout", "ConnectionError", "ProxyError"})


def _failed_download(source: Source, name: str, error: BaseException) -> OSError:
    """What to raise for a download that began and did not end."""
    if isinstance(error, OSError) and error.errno is not None:
        # Of this machine: no space left, a cache that cannot be written.
        return OSError(error.errno, f"{source}: {name} could not be stored: {error.strerror}")
    return ConnectionError(
        f"{source}: {name} could not be downloaded: {_reason(error)} Check the "
        "network and try again."
    )


def _reason(error: BaseException | None) -> str:
    """A client's message as one sentence on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300].rstrip(".:") + "."
