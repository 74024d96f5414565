"""mistral_lib/presets/sources.py: folders, and what the hubs' clients answer."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import utils as errors

from mistral_lib.presets.registry import source_of
from mistral_lib.presets.sources import HuggingFaceModel, KaggleModel, LocalFolder, open_preset

# --- Which source --------------------------------------------------------------------------------


@pytest.fixture
def preset(tmp_path, monkeypatch):
    """A folder `preset` in the working directory, with one file."""
    folder = tmp_path / "preset"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


def test_folder_in_every_spelling(preset):
    spellings = ["preset", "./preset", "~/preset", "preset/", str(preset), preset, Path("preset")]
    for spelling in spellings:
        source = open_preset(spelling)
        assert isinstance(source, LocalFolder)
        assert source.find("config.json").samefile(preset / "config.json")
        assert source.get("config.json") == source.find("config.json")
        assert source.find("task.json") is None


def test_missing_file_names_folder_and_file(preset):
    with pytest.raises(FileNotFoundError, match=r"preset has no file task.json"):
        open_preset("preset").get("task.json")


@pytest.mark.parametrize("path", ["./missing", "/missing/x", "a\\b", "~/missing", Path("missing")])
def test_missing_folder(preset, path):
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*(missing|b)"):
        open_preset(path)


def test_a_file_is_no_preset(preset):
    with pytest.raises(NotADirectoryError, match=r"is a file; a preset is a folder.$"):
        open_preset("preset/config.json")
    Path("model.keras").write_text("")
    with pytest.raises(NotADirectoryError, match=r"Open it with keras.saving.load_model."):
        open_preset("model.keras")


def test_unknown_name(preset):
    with pytest.raises(ValueError, match=r"There is no preset 'mistral_tiny'. Did you mean"):
        open_preset("mistral_tiny")


@pytest.mark.parametrize("value", [None, 3, b"preset", ["preset"]])
def test_wrong_type(value):
    with pytest.raises(TypeError, match="A preset is a name, an address or a folder's path"):
        open_preset(value)


def test_built_in_names(preset):
    assert open_preset("mistral_tiny_en") == LocalFolder(Path(source_of("mistral_tiny_en")))
    handle = "keras/mistral/keras/mistral_7b_en/8"
    assert open_preset("mistral7b_base_en") == open_preset("mistral_7b_en") == KaggleModel(handle)
    os.rename("preset", "mistral_7b_en")  # as in KerasHub, a built-in name comes first
    assert open_preset("mistral_7b_en") == KaggleModel(handle)
    assert open_preset("./mistral_7b_en") == LocalFolder(Path("mistral_7b_en"))


@pytest.mark.parametrize("kind", ["absolute", "relative", "folder"])
def test_a_link_out_of_the_folder_is_not_followed(tmp_path, kind):
    (tmp_path / "preset").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/config.json").write_text("{}")
    name = "config.json"
    if kind == "folder":
        (tmp_path / "preset/assets").symlink_to(tmp_path / "secret")
        name = "assets/config.json"
    else:
        target = {"absolute": tmp_path / "secret", "relative": Path("../secret")}[kind]
        (tmp_path / "preset/config.json").symlink_to(target / "config.json")
    with pytest.raises(ValueError, match="leads out of its folder"):
        open_preset(tmp_path / "preset").find(name)


def test_links_that_stay_are_followed(tmp_path):
    """Inside a folder, to a folder, and in the cache of Hugging Face's client."""
    snapshot = tmp_path / "models--a--b/snapshots/123"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--a--b/blobs").mkdir()
    (tmp_path / "models--a--b/blobs/f00").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/f00")
    (snapshot / "assets").mkdir()
    (snapshot / "assets/a.spm").symlink_to("../../../blobs/f00")
    (snapshot / "again.json").symlink_to("config.json")
    (tmp_path / "link").symlink_to(snapshot)
    for folder in (snapshot, tmp_path / "link"):
        for name in ("config.json", "assets/a.spm", "again.json"):
            assert open_preset(folder).find(name) == folder / name
    (snapshot / "b.json").symlink_to("../../blobs/../../secret")
    (tmp_path / "secret").write_text("{}")
    with pytest.raises(ValueError, match="leads out of its folder"):
        open_preset(snapshot).find("b.json")


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("hf://keras/mistral_7b_en", HuggingFaceModel("keras/mistral_7b_en")),
        ("HF://a/b.c-d@v1.0", HuggingFaceModel("a/b.c-d", "v1.0")),
        ("hf://a/b@refs/pr/1", HuggingFaceModel("a/b", "refs/pr/1")),
        ("kaggle://a/b/keras/c", KaggleModel("a/b/keras/c")),
        ("kaggle://a/b/keras/c/12", KaggleModel("a/b/keras/c/12")),
    ],
)
def test_addresses(address, source):
    assert open_preset(address) == source
    assert str(source).lower() == address.lower()


@pytest.mark.parametrize(
    "address",
    [
        *("hf://", "hf://a", "hf://a/b/c", "hf://../b", "hf://a/b@", "hf://a/b@../c", "hf://a/b c"),
        *("kaggle://a/b/keras", "kaggle://a/b/keras/c/x", "kaggle://a/b/keras/c/1/2"),
        *("kaggle://a/b/../c", "s3://a/b", "https://huggingface.co/a/b", "://a"),
    ],
)
def test_malformed_addresses(address):
    with pytest.raises(ValueError, match=r"is no address of a preset. Expected hf://user/model"):
        open_preset(address)


# --- What the clients answer ---------------------------------------------------------------------


def hub_error(cls, status):
    response = SimpleNamespace(status_code=status, headers={}, request=None)
    return cls("said the hub", response=response)


class MissingFile(errors.EntryNotFoundError):
    """What the versions of the client raise is a subclass of it, or it itself."""

    def __init__(self):
        pass


HUGGING_FACE = {
    "gated": (hub_error(errors.GatedRepoError, 403), PermissionError, "is gated: accept its terms"),
    "no model": (
        hub_error(errors.RepositoryNotFoundError, 401),
        FileNotFoundError,
        "does not exist, or is private",
    ),
    "no revision": (
        hub_error(errors.RevisionNotFoundError, 404),
        FileNotFoundError,
        "has no branch, tag or commit 'v9'",
    ),
    "no network": (
        errors.LocalEntryNotFoundError("offline"),
        ConnectionError,
        "cannot be reached, and config.json of hf://a/b@v9 was not downloaded before",
    ),
    "server": (hub_error(errors.HfHubHTTPError, 500), ConnectionError, "said the hub"),
    "timeout": (RuntimeError("read timed out"), ConnectionError, "read timed out"),
    "disk": (OSError(28, "No space left on device"), ConnectionError, "No space left on device"),
}


@pytest.fixture
def hugging_face(monkeypatch):
    """Makes the client answer with a path or raise."""

    def answer(outcome):
        def hf_hub_download(*args, **kwargs):
            assert (args, kwargs) == (("a/b", "config.json"), {"revision": "v9"})
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
        return open_preset("hf://a/b@v9")

    return answer


def test_hugging_face_file(hugging_face):
    assert hugging_face("/cache/config.json").find("config.json") == Path("/cache/config.json")
    source = hugging_face(MissingFile())
    assert source.find("config.json") is None
    with pytest.raises(FileNotFoundError, match=r"hf://a/b@v9 has no file config.json"):
        source.get("config.json")


def test_hugging_face_offline_knows_what_is_missing(hugging_face, monkeypatch):
    """A sharded preset has no model.weights.h5, and must open again without the network."""
    monkeypatch.setattr(
        huggingface_hub,
        "try_to_load_from_cache",
        lambda *args, **kwargs: huggingface_hub._CACHED_NO_EXIST,
    )
    assert hugging_face(errors.LocalEntryNotFoundError("offline")).find("config.json") is None


@pytest.mark.parametrize("case", HUGGING_FACE)
def test_hugging_face_refuses(hugging_face, case):
    outcome, error, message = HUGGING_FACE[case]
    with pytest.raises(error, match=message) as caught:
        hugging_face(outcome).find("config.json")
    assert type(caught.value) is error
    assert "hf://a/b" in str(caught.value)


@pytest.fixture
def kaggle(monkeypatch):
    def answer(outcome):
        def model_download(*args):
            assert args == ("a/b/keras/c/1", "config.json")
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setitem(
            sys.modules, "kagglehub", SimpleNamespace(model_download=model_download)
        )
        return open_preset("kaggle://a/b/keras/c/1")

    return answer


def kaggle_error(status):
    """As `kagglehub.exceptions.KaggleApiHTTPError`, which is an OSError with a response."""
    error = OSError(f"{status} Client Error")
    error.response = SimpleNamespace(status_code=status)
    return error


def test_kaggle_file(kaggle):
    assert kaggle("/cache/config.json").find("config.json") == Path("/cache/config.json")
    for missing in (
        kaggle_error(404),
        ValueError("'config.json' is not present in the model files"),
    ):
        assert kaggle(missing).find("config.json") is None
    with pytest.raises(FileNotFoundError, match=r"kaggle://a/b/keras/c/1 has no file config.json"):
        kaggle(kaggle_error(404)).get("config.json")


@pytest.mark.parametrize(
    ("outcome", "error", "message"),
    [
        (kaggle_error(403), PermissionError, "accept the model's terms"),
        (kaggle_error(401), PermissionError, "log in with kagglehub.login"),
        (kaggle_error(500), ConnectionError, "could not be downloaded: 500 Client Error"),
        (OSError("no route to host"), ConnectionError, "no route to host"),
        (ValueError("something else"), ValueError, "something else"),
    ],
)
def test_kaggle_refuses(kaggle, outcome, error, message):
    with pytest.raises(error, match=message) as caught:
        kaggle(outcome).find("config.json")
    assert type(caught.value) is error


def test_kaggle_needs_its_client(monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(ImportError, match=r"pip install 'mistral-lib\[kaggle\]'.*hf://keras/c\."):
        open_preset("kaggle://a/b/keras/c/1").find("config.json")


def test_real_errors_of_kagglehub_have_that_form():
    exceptions = pytest.importorskip("kagglehub.exceptions")
    response = SimpleNamespace(status_code=403)
    error = exceptions.KaggleApiHTTPError("403 Client Error", response=response)
    assert isinstance(error, OSError)
    assert error.response.status_code == 403
