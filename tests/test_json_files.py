"""mistral_lib/presets/json_files.py: standard JSON objects, and nothing else."""

import os

import pytest

from mistral_lib.presets import hdf5, json_files, safetensors_files
from mistral_lib.presets.json_files import check_file, check_ids, read_json, write_json


def test_round_trip(tmp_path):
    content = {"a": 1, "b": {"c": [1.5, None, True, "é"]}}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content


def test_writing_does_not_reach_through_a_hard_link(tmp_path):
    write_json(tmp_path / "old.json", {"a": 1})
    os.link(tmp_path / "old.json", tmp_path / "new.json")
    write_json(tmp_path / "new.json", {"a": 2})
    assert read_json(tmp_path / "old.json") == {"a": 1}


def test_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "a.json", {"a": float("nan")})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1, "b": {"a": 1, "a": 2}}', "the key 'a' stands twice"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": [-Infinity]}', "-Infinity is no number"),
        (b'{"a": 1', "not valid JSON: Expecting ',' delimiter: line 1 column 8"),
        (b"", "not valid JSON: Expecting value"),
        (b"[1]", "must hold a JSON object, but holds a list"),
        (b"null", "must hold a JSON object, but holds a NoneType"),
        (b'{"a": "\xff"}', "not valid JSON: 'utf-8' codec"),
        (b'{"a": ' + b"[" * 100_000, "not valid JSON: maximum recursion"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON: Exceeds the limit"),
    ],
)
def test_refused(tmp_path, text, message):
    file = tmp_path / "config.json"
    file.write_bytes(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_json(file)
    assert str(file) in str(caught.value)


def test_too_large(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", {"a": "b" * 100})
    read_json(tmp_path / "a.json")
    monkeypatch.setattr(json_files, "LARGEST_FILE", 100)
    with pytest.raises(ValueError, match="has 116 bytes; a JSON file of a preset has at most 100"):
        read_json(tmp_path / "a.json")


def test_only_regular_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        check_file(tmp_path / "missing")
    with pytest.raises(ValueError, match="not a regular file"):
        check_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        read_json(tmp_path / "pipe")  # and does not wait for a writer
    (tmp_path / "zeros").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="not a regular file"):
        read_json(tmp_path / "zeros")


@pytest.mark.parametrize(
    ("value", "ids"), [(2, (2,)), ([2, 32000], (2, 32000)), (None, ()), ([], ()), (0, (0,))]
)
def test_ids(value, ids):
    assert check_ids(value, "a.json: eos_token_id") == ids


@pytest.mark.parametrize("value", ["2", -1, [True], [2.0], {"a": 2}, [[2]], 2**31])
def test_what_is_no_id(value):
    with pytest.raises(ValueError, match=r"a\.json: eos_token_id must be ids of tokens"):
        check_ids(value, "a.json: eos_token_id")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 14483464192\n"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.weights.h5"])
def test_git_lfs_pointer(tmp_path, name):
    """What `git clone` leaves in place of each large file."""
    file = tmp_path / name
    file.write_bytes(POINTER)
    read = {".json": read_json, ".safetensors": safetensors_files.list_tensors}
    with pytest.raises(ValueError, match="is a git-lfs pointer, not the file") as caught:
        read.get(file.suffix, hdf5.list_tensors)(file)
    assert str(caught.value).startswith(f"{file} is a git-lfs pointer")
    assert "git lfs pull" in str(caught.value)
