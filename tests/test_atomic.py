"""mistral_lib/presets/atomic.py: a folder is replaced whole or not at all."""

import os
import subprocess
import sys

import pytest

from mistral_lib.presets import atomic
from mistral_lib.presets.atomic import replaced


def content(folder):
    return {str(f.relative_to(folder)): f.read_text() for f in folder.rglob("*") if f.is_file()}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "preset"
    (folder / "assets").mkdir(parents=True)
    (folder / "config").write_text("old")
    (folder / "assets/vocabulary").write_text("old")
    return folder


@pytest.fixture(params=["in one step", "in two"])
def either_way(request, monkeypatch):
    """With the system's exchange of names, and without it."""
    if request.param == "in two":
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)


def test_new_folder(tmp_path):
    with replaced(tmp_path / "a/b") as new:
        (new / "config").write_text("new")
        assert not (tmp_path / "a/b").exists()
    assert content(tmp_path) == {"a/b/config": "new"}


@pytest.mark.usefixtures("either_way")
def test_replaced(folder):
    with replaced(folder) as new:
        (new / "config").unlink()
        (new / "config").write_text("new")
        (new / "added").write_text("new")
        assert content(folder) == {"config": "old", "assets/vocabulary": "old"}
    assert content(folder) == {"config": "new", "added": "new", "assets/vocabulary": "old"}
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.usefixtures("either_way")
def test_exception_leaves_the_old(folder):
    def interrupted():
        with replaced(folder) as new:
            (new / "config").unlink()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert content(folder) == {"config": "old", "assets/vocabulary": "old"}
    assert list(folder.parent.iterdir()) == [folder]


def test_exchange_is_one_step_here(folder, tmp_path):
    """On Linux and macOS; otherwise a crash between two steps would leave no folder."""
    (tmp_path / "other").mkdir()
    assert atomic._exchange(tmp_path / "other", folder)
    assert content(tmp_path / "other") == {"config": "old", "assets/vocabulary": "old"}
    assert content(folder) == {}


def test_file_system_without_hard_links(folder, monkeypatch):
    def no_links(*args, **kwargs):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    with replaced(folder) as new:
        (new / "added").write_text("new")
    assert content(folder) == {"config": "old", "added": "new", "assets/vocabulary": "old"}


def test_link_to_a_folder_stays_a_link(folder, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(folder)
    with replaced(link) as new:
        (new / "added").write_text("new")
    assert link.is_symlink()
    assert (folder / "added").exists()


def test_links_inside_are_kept_as_links(folder, tmp_path):
    (tmp_path / "far").write_text("far")
    (folder / "near").symlink_to(tmp_path / "far")
    with replaced(folder):
        pass
    assert (folder / "near").is_symlink()
    assert (folder / "near").read_text() == "far"


# A process for each number of steps after which it is killed, until one comes to its end. The
# module is loaded by its path: the library with JAX in it should not be forked.
KILLED = """
import importlib.util, os, signal, sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("atomic", sys.argv[1])
atomic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(atomic)
folder = Path(sys.argv[2])
STEPS = ("open", "os.", "shutil.", "ctypes.")

def save(text, steps):
    left = steps

    def count(event, arguments):
        nonlocal left
        if event.startswith(STEPS):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    with atomic.replaced(folder) as new:
        for name in ("config", "weights"):
            (new / name).unlink(missing_ok=True)
            (new / name).write_text(text)

state, steps, finished = "old", 0, False
while not finished:
    text = f"new {steps}"
    child = os.fork()
    if child == 0:
        save(text, steps)
        os._exit(0)
    finished = os.waitpid(child, 0)[1] == 0
    found = {(folder / name).read_text() for name in ("config", "weights")}
    assert found in ({state}, {text}), (steps, found, state)
    state = found.pop()
    steps += 1
assert state == text
print(steps)
"""


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="needs fork")
def test_killed_at_every_step(tmp_path):
    folder = tmp_path / "preset"
    folder.mkdir()
    for name in ("config", "weights"):
        (folder / name).write_text("old")
    command = [sys.executable, "-c", KILLED, atomic.__file__, folder]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 20
