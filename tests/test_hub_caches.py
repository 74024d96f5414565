"""mistral_lib/presets/hub_caches.py: what the hubs' clients do not document is still as it was.

A failure here means that a new version of a client has changed something that the library relies
on. The messages name the function of `hub_caches.py` to mend.
"""

import huggingface_hub
import kagglehub
import pytest

from mistral_lib.presets import hub_caches


def hub_changed(function: str, what: str) -> str:
    return (
        f"huggingface_hub {huggingface_hub.__version__} and kagglehub {kagglehub.__version__}: "
        f"{what}. Mend mistral_lib.presets.hub_caches.{function}."
    )


@pytest.fixture
def model_cache(tmp_path, monkeypatch):
    """The folder of the model a/b in an empty cache of Hugging Face's client."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path / "models--a--b"


COMMIT = "c0" * 20


def test_is_known_to_be_missing(model_cache):
    assert not hub_caches.is_known_to_be_missing("a/b", "task.json", COMMIT)
    (model_cache / ".no_exist" / COMMIT).mkdir(parents=True)
    (model_cache / ".no_exist" / COMMIT / "task.json").touch()
    message = hub_changed("is_known_to_be_missing", "what a model lacks is remembered elsewhere")
    assert hub_caches.is_known_to_be_missing("a/b", "task.json", COMMIT), message
    assert not hub_caches.is_known_to_be_missing("a/b", "config.json", COMMIT)


@pytest.mark.parametrize("revision", ["main", "refs/pr/1"])
def test_commits_are_remembered(model_cache, revision):
    """Where the client looks for them: `tests/test_hubs.py` has the client write them, too."""
    assert hub_caches.cached_commit("a/b", revision) is None
    for commit in ("a1" * 20, COMMIT, COMMIT):
        hub_caches.remember_commit("a/b", revision, commit)
        assert hub_caches.cached_commit("a/b", revision) == commit
    (model_cache / "snapshots" / COMMIT).mkdir(parents=True)
    file = model_cache / "snapshots" / COMMIT / "config.json"
    file.touch()
    found = huggingface_hub.try_to_load_from_cache("a/b", "config.json", revision=revision)
    message = hub_changed("remember_commit", "the client does not find the commit of a branch")
    assert found == str(file), message
    assert len(list(model_cache.rglob("refs/**/*.tmp"))) == 0


def test_a_cache_that_cannot_be_written(model_cache):
    (model_cache).write_text("no folder")
    hub_caches.remember_commit("a/b", "main", COMMIT)
    assert hub_caches.cached_commit("a/b", "main") is None


def test_kaggle_models_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    assert hub_caches.kaggle_models_folder() == tmp_path / "models", hub_changed(
        "kaggle_models_folder", "models are kept in another folder"
    )
