"""mistral_lib/presets/sources.py: files by their names, and JSON files read once.

And mistral_lib/teaching/sources.py: what a chapter shows of a file.
"""

import shutil
from pathlib import Path

import pytest

from mistral_lib.layers.projection import Projection
from mistral_lib.presets.sources import LocalFolder
from mistral_lib.teaching import sources
from mistral_lib.teaching.sources import line_number, show_source


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
        LocalFolder(tmp_path / "preset").find(name)


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
            assert LocalFolder(folder).find(name) == folder / name
    (snapshot / "b.json").symlink_to("../../blobs/../../secret")
    (tmp_path / "secret").write_text("{}")
    with pytest.raises(ValueError, match="leads out of its folder"):
        LocalFolder(snapshot).find("b.json")


def test_the_links_of_hugging_face(tmp_path):
    """Into the cache, from a folder of the user's own or a subfolder; blobs may be elsewhere."""
    model = tmp_path / "hub/models--a--b"
    blobs, disk = model / "blobs", tmp_path / "disk"
    disk.mkdir()
    (disk / "f00").write_text("{}")
    for inner in ("snapshots/1", "snapshots/1/merged", "snapshots/1/merged/twice"):
        folder = model / inner
        folder.mkdir(parents=True)
        up = "../" * (inner.count("/") + 1)
        (folder / "config.json").symlink_to(f"{up}blobs/f00")
    local = tmp_path / "local"
    local.mkdir()
    (local / "config.json").symlink_to(blobs / "f00")
    for moved in (False, True):
        if moved:
            shutil.rmtree(blobs)
            blobs.symlink_to(disk)
        else:
            shutil.copytree(disk, blobs)
        for folder in (local, *model.glob("snapshots/**/"), tmp_path / "again"):
            file = LocalFolder(folder).find("config.json")
            assert file is None or file.read_text() == "{}"
            assert (file is None) == (folder.name in ("snapshots", "again"))
    # Only into a cache, and only to where it keeps files.
    for number, target in enumerate(["disk/f00", "hub/models--a--b/snapshots/1/config.json"]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "config.json").symlink_to(tmp_path / target)
    with pytest.raises(ValueError, match="leads out of its folder"):
        LocalFolder(tmp_path / "0").find("config.json")
    LocalFolder(tmp_path / "1").find("config.json")  # from link to link
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop/a").symlink_to("b")
    (tmp_path / "loop/b").symlink_to("a")
    assert LocalFolder(tmp_path / "loop").find("a") is None


def test_a_json_file_is_read_once(tmp_path):
    (tmp_path / "config.json").write_text('{"a": 1}')
    source = LocalFolder(tmp_path)
    content = source.json("config.json")
    (tmp_path / "config.json").write_text('{"a": 2}')
    assert source.json("config.json") is content
    assert LocalFolder(tmp_path).json("config.json") == {"a": 2}
    assert LocalFolder(tmp_path) == source
    with pytest.raises(FileNotFoundError, match=r"has no file task\.json"):
        source.json("task.json")


def test_a_chapter_shows_no_words_to_the_checker_of_types(capsys):
    show_source(Projection.enable_lora)
    head = capsys.readouterr().out.splitlines()[0]
    assert head == "def enable_lora(self, rank: int, lora_alpha: float | None = None) -> None:"


def test_the_number_of_a_line_is_the_one_that_is_printed(capsys):
    show_source(Projection.enable_lora, numbers=True)
    printed = capsys.readouterr().out
    number = line_number(Projection.enable_lora, "common =")
    assert f"\n{number}     common = " in printed
    with pytest.raises(ValueError, match=r"must be in one line of .*enable_lora, but is in 0"):
        line_number(Projection.enable_lora, "no such line")
    with pytest.raises(ValueError, match="but is in 2"):
        line_number(Projection.enable_lora, "add_weight")


def test_notebooks_show_code_as_code(monkeypatch):
    shown = []
    monkeypatch.setattr(sources, "get_ipython", lambda: "a notebook")
    monkeypatch.setattr(sources, "display", lambda data, raw: shown.append((data, raw)))
    show_source(Projection.call, numbers=True)
    ((data, raw),) = shown
    assert raw
    first, *lines, last = data["text/markdown"].splitlines()
    assert (first, last) == ("```python", "```")
    assert lines == data["text/plain"].splitlines()
    assert lines[0].startswith("def call(")
    assert lines[-1].startswith("12 ")
