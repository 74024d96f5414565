"""mistral_lib/presets/formats.py: a format is told by what the files hold."""

import json
import re
import shutil
from pathlib import Path

import pytest
from reference import make_formats
from reference.make_formats import FOLDER
from small_presets import KERAS_HUB, small_tokenizer

from mistral_lib import MistralBackbone, MistralTokenizer
from mistral_lib.presets import keras_format, mistral_format, transformers_format
from mistral_lib.presets.formats import FORMATS, format_of
from mistral_lib.presets.sources import LocalFolder

NAMES = {
    "CONFIG_FILE",
    "TOKENIZER_FILE",
    "PREPROCESSOR_FILE",
    "read_config",
    "read_dtype",
    "read_tensors",
    "read_task",
    "read_tokenizer_config",
    "read_preprocessor_config",
    "find_vocabulary",
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_the_same_names(name):
    assert set(dir(FORMATS[name])) >= NAMES


@pytest.mark.parametrize(
    ("folder", "form"),
    [
        (KERAS_HUB["single"], keras_format),
        (KERAS_HUB["sharded"], keras_format),
        (FOLDER / "single", transformers_format),
        (FOLDER / "older", transformers_format),
        (FOLDER / "mistral_full", mistral_format),
    ],
)
def test_format_of(folder, form):
    assert format_of(LocalFolder(folder)) is form


def test_several_formats_in_one_folder(tmp_path):
    """As in Mistral's own repositories, which hold the same model twice."""
    folder = shutil.copytree(FOLDER / "single", tmp_path / "both")
    shutil.copytree(FOLDER / "mistral_full", folder, dirs_exist_ok=True)
    assert format_of(LocalFolder(folder)) is transformers_format
    content = json.loads((KERAS_HUB["single"] / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"model_type": "mistral"}))
    assert format_of(LocalFolder(folder)) is keras_format


def test_a_tokenizer_alone(tmp_path):
    small_tokenizer().save_to_preset(tmp_path / "keras")
    assert format_of(LocalFolder(tmp_path / "keras")) is keras_format
    (tmp_path / "other").mkdir()
    (tmp_path / "other/tokenizer.model").write_bytes(small_tokenizer().proto)
    assert MistralTokenizer.from_preset(tmp_path / "other").proto == small_tokenizer().proto


def test_nothing_that_is_known(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no file config\.json"):
        MistralBackbone.from_preset(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="only Mistral lives here"):
        MistralBackbone.from_preset(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gemma"}')
    with pytest.raises(ValueError, match="of the type 'gemma', but only Mistral lives here"):
        MistralBackbone.from_preset(tmp_path)


def test_table_in_the_readme():
    """Every format has a row; its methods exist; its peer is the one that the tests ran with."""
    tests = Path(__file__).parent
    table = (tests.parent / "README.md").read_text().split("## Formats")[1].split("##")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert [name for name in FORMATS if not any(row.startswith(f"| {name} ") for row in rows)] == []
    pins = (tests / "reference/requirements.txt").read_text() + make_formats.__doc__
    for row in rows:
        _, *methods, peer = (cell.strip() for cell in row.split("|")[1:-1])
        for method in re.findall(r"`(\w+)`", " ".join(methods)):
            assert hasattr(MistralBackbone, method), method
        name, version = re.match(r"(\S+) ([\d.]+\d)", peer).groups()
        assert f"{name}=={version}" in pins, row
