"""What `check` notes of solved exercises, where, and when it does not."""

import types

import nbformat
import pytest

import notebooks
from mistral_lib.__main__ import main
from mistral_lib.teaching.exercises import all_exercises, check, progress
from mistral_lib.teaching.exercises.kinds import Explanation


@pytest.fixture
def reader(monkeypatch, tmp_path):
    """A notebook's kernel as a reader has it, and the file in which it notes what is solved."""
    monkeypatch.delenv("PYTEST_VERSION", raising=False)
    monkeypatch.setenv(progress.VARIABLE, str(tmp_path / "new" / "solved.txt"))
    shell = types.SimpleNamespace(get_ipython=lambda: "a kernel")
    monkeypatch.setitem(progress.sys.modules, "IPython", shell)
    return tmp_path / "new" / "solved.txt"


def test_a_solved_exercise_is_noted_once_and_nothing_else(reader, capsys):
    for answer in ([3, 4, 5, 6], [3, 4, 5, 6], [1], ...):
        check("masks.row", answer)
    check("masks.right_padding", 12)
    check("masks.row", "nonsense", seed=1)
    assert reader.read_text() == "masks.row\n"
    assert progress.solved() == {"masks.row"}


def test_what_is_printed_does_not_depend_on_it(reader, monkeypatch, capsys):
    check("masks.row", [3, 4, 5, 6])
    check("masks.row", [3, 4, 5, 6])
    monkeypatch.setenv(progress.VARIABLE, progress.OFF)
    check("masks.row", [3, 4, 5, 6])
    assert capsys.readouterr().out == 3 * "masks.row: right.\n"


@pytest.mark.parametrize("broken", ["a folder", "below a file", "no utf-8"])
def test_a_file_that_cannot_be_used_stops_nothing(reader, monkeypatch, capsys, broken):
    reader.parent.mkdir()
    if broken == "a folder":
        reader.mkdir()
    elif broken == "no utf-8":
        reader.write_bytes(b"\xff\xfe\n")
    else:
        (reader.parent / "file").write_text("")
        monkeypatch.setenv(progress.VARIABLE, str(reader.parent / "file" / "solved.txt"))
    check("masks.row", [3, 4, 5, 6])
    assert capsys.readouterr().out == "masks.row: right.\n"


def test_nothing_is_noted_by_tests_scripts_or_when_it_is_off(reader, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setenv("PYTEST_VERSION", "9")  # which nbval's kernels inherit
        check("masks.row", [3, 4, 5, 6])
    with monkeypatch.context() as patch:
        patch.delitem(progress.sys.modules, "IPython")
        check("masks.row", [3, 4, 5, 6])
    with monkeypatch.context() as patch:
        patch.setenv(progress.VARIABLE, progress.OFF)
        check("masks.row", [3, 4, 5, 6])
        assert progress.solved() == set()
    assert not reader.exists()


def test_pytest_tells_its_children():
    import os

    assert "PYTEST_VERSION" in os.environ


def test_the_place_follows_the_custom_of_the_system(monkeypatch, tmp_path):
    monkeypatch.delenv(progress.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert progress.file() == tmp_path / "mistral_lib" / "solved.txt"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert progress.file() == tmp_path / ".local" / "state" / "mistral_lib" / "solved.txt"


def test_the_runner_of_notebooks_turns_it_off(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("PYTEST_VERSION", raising=False)
    monkeypatch.setenv(progress.VARIABLE, "somewhere")
    monkeypatch.setattr(notebooks, "place_setup", lambda notebook: None)
    code = 'import os\nprint(os.environ["MISTRAL_LIB_PROGRESS"])'
    path = tmp_path / "small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), path)
    notebooks.run(path)
    assert nbformat.read(path, 4).cells[0].outputs[0].text == f"{progress.OFF}\n"


def test_progress_counts_what_is_judged(reader, monkeypatch, capsys):
    reader.parent.mkdir()
    reader.write_text("masks.row\nmasks.window\nmasks.gone\nmasks.row\n")
    assert main(["exercises", "progress"]) == 0
    printed = capsys.readouterr().out
    judged = [e for e in all_exercises() if not isinstance(e, Explanation)]
    of_it = sum(e.name.startswith("masks.") for e in judged)
    assert f" 7  Sliding windows and masks             2 of {of_it:2}\n" in printed
    assert f"2 of {len(judged)} exercises are solved." in printed
    assert f"notes what is solved in {reader}" in printed
    monkeypatch.setenv(progress.VARIABLE, progress.OFF)
    main(["exercises", "progress"])
    assert "0 of " in capsys.readouterr().out
