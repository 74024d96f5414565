"""The environment is made once, anew when something changed, and never silently wrong."""

import subprocess
from pathlib import Path

import pytest

import house
import make_venv


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of what the installation depends on, with nothing installed."""
    for name in ("pyproject.toml", "requirements.txt"):
        (tmp_path / name).write_text((house.ROOT / name).read_text())
    monkeypatch.setattr(make_venv, "ROOT", tmp_path)
    monkeypatch.setattr(make_venv, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(make_venv, "PYTHON", tmp_path / ".venv/bin/python")
    monkeypatch.setattr(make_venv, "STAMP", tmp_path / ".venv/installed.sha256")
    return tmp_path


@pytest.fixture
def pip(project, monkeypatch):
    """Stands for pip: `calls` counts its runs, `code` is how it ends."""

    class Pip:
        calls, code = 0, 0

        def run(self, command, **options):
            self.calls += "requirements.txt" in command
            return subprocess.CompletedProcess(command, self.code, "no such package: keras")

    def make_environment():
        (project / ".venv").mkdir(exist_ok=True)

    stand_in = Pip()
    monkeypatch.setattr(subprocess, "run", stand_in.run)
    monkeypatch.setattr(make_venv, "make_environment", make_environment)
    make_environment()
    return stand_in


def test_nothing_is_installed_twice(pip):
    make_venv.main()
    make_venv.main()
    assert pip.calls == 1


@pytest.mark.parametrize(
    ("name", "old", "new", "calls"),
    [
        ("requirements.txt", "keras\n", "keras==3.15.0\n", 2),
        ("pyproject.toml", '"jax>=', '"jax>=0.', 2),
        ("pyproject.toml", "line-length = 100", "line-length = 99", 1),
    ],
)
def test_a_change_of_what_is_needed_installs_again(pip, project, name, old, new, calls):
    make_venv.main()
    text = (project / name).read_text()
    assert old in text
    (project / name).write_text(text.replace(old, new))
    make_venv.main()
    assert pip.calls == calls


def test_a_failed_installation_says_why_and_is_tried_again(pip, capsys):
    pip.code = 1
    with pytest.raises(SystemExit, match="no such package: keras"):
        make_venv.main()
    pip.code = 0
    make_venv.main()
    assert pip.calls == 2


def test_a_python_without_ensurepip_gets_a_remedy(project, monkeypatch):
    monkeypatch.setattr(make_venv, "works", lambda *command: False)
    with pytest.raises(SystemExit, match="apt-get install python3-venv"):
        make_venv.main()
    assert not Path(project, ".venv").exists()
