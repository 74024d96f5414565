"""mistral_lib/presets/addresses.py: which source a name, an address or a path means."""

import os
from pathlib import Path

import pytest

from mistral_lib.presets.addresses import open_source
from mistral_lib.presets.hubs import HuggingFaceModel, KaggleModel
from mistral_lib.presets.registry import source_of
from mistral_lib.presets.sources import LocalFolder, OneFile


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
        source = open_source(spelling)
        assert isinstance(source, LocalFolder)
        assert source.find("config.json").samefile(preset / "config.json")
        assert source.get("config.json") == source.find("config.json")
        assert source.find("task.json") is None


def test_missing_file_names_folder_and_file(preset):
    with pytest.raises(FileNotFoundError, match=r"preset has no file task.json"):
        open_source("preset").get("task.json")


@pytest.mark.parametrize("path", ["./missing", "/missing/x", "a\\b", "~/missing", Path("missing")])
def test_missing_folder(preset, path):
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*(missing|b)"):
        open_source(path)


def test_a_model_on_a_hub_without_its_scheme(preset):
    name = "mistralai/Mistral-7B-v0.3"
    with pytest.raises(FileNotFoundError, match=rf"no folder {name}\. A model .* 'hf://{name}'"):
        open_source(name)
    for path in ("/a/b", "a/b/c", "~/b"):
        with pytest.raises(FileNotFoundError) as caught:
            open_source(path)
        assert "Hugging Face" not in str(caught.value)


def test_a_file_is_no_preset(preset):
    with pytest.raises(NotADirectoryError, match=r"a preset is a folder, or a \.gguf file\.$"):
        open_source("preset/config.json")
    Path("model.keras").write_text("")
    with pytest.raises(NotADirectoryError, match=r"Open it with keras.saving.load_model."):
        open_source("model.keras")


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("hf://a/b/c.gguf", OneFile(HuggingFaceModel("a/b"), "c.gguf")),
        ("hf://a/b/BF16/c-1.gguf@v1", OneFile(HuggingFaceModel("a/b", "v1"), "BF16/c-1.gguf")),
        ("hf://a/b.gguf", HuggingFaceModel("a/b.gguf")),
    ],
)
def test_gguf_files_of_hugging_face(address, source):
    assert open_source(address) == source


def test_gguf_files(preset):
    Path("a.gguf").write_text("")
    Path("preset/link.gguf").symlink_to(Path("a.gguf").absolute())
    for name in ("a.gguf", "./a.gguf", "~/a.gguf", Path("a.gguf"), "preset/link.gguf"):
        source = open_source(name)
        assert source.find("a.gguf").samefile("a.gguf")
        assert source.find("config.json") is None
        assert Path(str(source)).samefile("a.gguf")
    with pytest.raises(FileNotFoundError, match=r"^There is no file b\.gguf\.$"):
        open_source("b.gguf")
    with pytest.raises(FileNotFoundError, match=r"^There is no file preset/b\.gguf\.$"):
        open_source("preset/b.gguf")


def test_unknown_name(preset):
    with pytest.raises(ValueError, match=r"There is no preset 'mistral_tiny'. Did you mean"):
        open_source("mistral_tiny")


@pytest.mark.parametrize("value", [None, 3, b"preset", ["preset"]])
def test_wrong_type(value):
    with pytest.raises(TypeError, match="A preset is a name, an address or a folder's path"):
        open_source(value)


def test_built_in_names(preset):
    assert open_source("mistral_tiny_en") == LocalFolder(Path(source_of("mistral_tiny_en")))
    handle = "keras/mistral/keras/mistral_7b_en/8"
    assert open_source("mistral7b_base_en") == open_source("mistral_7b_en") == KaggleModel(handle)
    os.rename("preset", "mistral_7b_en")  # as in KerasHub, a built-in name comes first
    assert open_source("mistral_7b_en") == KaggleModel(handle)
    assert open_source("./mistral_7b_en") == LocalFolder(Path("mistral_7b_en"))


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
    assert open_source(address) == source
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
        open_source(address)
