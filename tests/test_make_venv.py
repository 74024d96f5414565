"""The environment is made once, anew when something changed, and never silently wrong."""

import subprocess
from pathlib import Path

import pytest

import house
import make_venv

LOCKED = "versions/locked.txt"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of what the installation depends on, with nothing installed."""
    (tmp_path / "versions").mkdir()
    for name in ("pyproject.toml", "requirements.txt", LOCKED):
        (tmp_path / name).write_text((house.ROOT / name).read_text())
    monkeypatch.setattr(make_venv, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def pip(project, monkeypatch):
    """Stands for pip: `commands` are its runs, `code` is how it ends."""

    class Pip:
        def __init__(self):
            self.commands, self.code = [], 0

        def run(self, command, **options):
            if "requirements.txt" in command:
                self.commands.append([str(part) for part in command])
            return subprocess.CompletedProcess(command, self.code, "no such package: keras")

    stand_in = Pip()
    monkeypatch.setattr(subprocess, "run", stand_in.run)
    monkeypatch.setattr(make_venv, "make_environment", lambda folder: folder.mkdir(exist_ok=True))
    make_venv.make_environment(project / ".venv")
    return stand_in


@pytest.fixture
def main(project):
    """The tool's main function, on the copy."""
    return lambda *arguments: make_venv.main(["--folder", str(project / ".venv"), *arguments])


def test_nothing_is_installed_twice(pip, main):
    main()
    main()
    assert len(pip.commands) == 1


@pytest.mark.parametrize(
    ("name", "old", "new", "calls"),
    [
        ("requirements.txt", "keras\n", "keras==3.15.0\n", 2),
        ("pyproject.toml", '"jax>=', '"jax>=0.', 2),
        ("pyproject.toml", "line-length = 100", "line-length = 99", 1),
        (LOCKED, "\nkeras==", "\nkeras==1", 1),
    ],
)
def test_a_change_of_what_is_needed_installs_again(pip, main, project, name, old, new, calls):
    main()
    text = (project / name).read_text()
    assert old in text
    (project / name).write_text(text.replace(old, new))
    main()
    assert len(pip.commands) == calls


def test_a_failed_installation_says_why_and_is_tried_again(pip, main):
    pip.code = 1
    with pytest.raises(SystemExit, match="no such package: keras"):
        main()
    pip.code = 0
    main()
    assert len(pip.commands) == 2


def test_a_locked_environment_stays_locked(pip, main, project):
    main("--constraints", LOCKED)
    main("--constraints", LOCKED)
    main()  # as every other target of make does
    assert len(pip.commands) == 1
    path = project / LOCKED
    path.write_text(path.read_text().replace("\nkeras==", "\nkeras==1"))
    main()
    assert len(pip.commands) == 2
    assert all(command[-2:] == ["--constraint", LOCKED] for command in pip.commands)


def test_an_environment_that_was_not_locked_can_be(pip, main):
    main()
    main("--constraints", LOCKED)
    assert [LOCKED in command for command in pip.commands] == [False, True]


def test_an_installation_that_failed_half_way_is_not_taken_for_the_one_before(pip, main, project):
    main()
    pip.code = 1
    with pytest.raises(SystemExit):
        main("--constraints", LOCKED)
    pip.code = 0
    main()
    assert len(pip.commands) == 3


def test_newer_versions_are_looked_for_on_demand(pip, main):
    main("--upgrade")
    main("--upgrade")
    assert ["eager" in command for command in pip.commands] == [True, True]


def test_a_python_without_ensurepip_gets_a_remedy(project, monkeypatch):
    monkeypatch.setattr(make_venv, "works", lambda *command: False)
    with pytest.raises(SystemExit, match="apt-get install python3-venv"):
        make_venv.main(["--folder", str(project / ".venv")])
    assert not Path(project, ".venv").exists()
