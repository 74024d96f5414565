"""mistral_lib/presets/sources.py: which source a name, an address or a path means; folders."""

import os
from pathlib import Path

import pytest

from mistral_lib.presets.hubs import HuggingFaceModel, KaggleModel
from mistral_lib.presets.registry import source_of
from mistral_lib.presets.sources import LocalFolder, open_preset


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


def test_a_model_on_a_hub_without_its_scheme(preset):
    name = "mistralai/Mistral-7B-v0.3"
    with pytest.raises(FileNotFoundError, match=rf"no folder {name}\. A model .* 'hf://{name}'"):
        open_preset(name)
    for path in ("/a/b", "a/b/c", "~/b"):
        with pytest.raises(FileNotFoundError) as caught:
            open_preset(path)
        assert "Hugging Face" not in str(caught.value)


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
