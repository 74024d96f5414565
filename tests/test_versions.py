"""The columns of versions are what they say, and run what `make test` runs."""

import importlib.metadata
import re
import shlex
import subprocess
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import house
import notebooks
import versions

EXTRAS = chain(*house.PROJECT["optional-dependencies"].values())
NEEDED = [Requirement(line) for line in [*house.PROJECT["dependencies"], *EXTRAS]]
NEEDED = {canonicalize_name(r.name): r for r in NEEDED if r.name != "mistral-lib"}
FILES = [*versions.COLUMNS, "locked"]
WORKFLOWS = sorted((house.ROOT / ".github/workflows").glob("*.yml"))


def constraints(column: str) -> dict[str, SpecifierSet]:
    """The versions that a column's file names, by package."""
    text = (house.ROOT / versions.constraints(column)).read_text()
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    found = [Requirement(line) for line in lines if line]
    return {canonicalize_name(requirement.name): requirement.specifier for requirement in found}


def exact(specifier: SpecifierSet) -> Version:
    """The one version that is allowed."""
    (only,) = specifier
    assert only.operator == "=="
    return Version(only.version)


def test_oldest_is_what_pyproject_allows_at_the_least():
    lowest = {
        name: next(Version(p.version) for p in requirement.specifier if p.operator == ">=")
        for name, requirement in NEEDED.items()
    }
    pinned = constraints("oldest")
    assert {name: exact(pinned[name]) for name in lowest} == lowest


def test_oldest_runs_on_the_oldest_python():
    assert house.PROJECT["requires-python"] == f">={versions.COLUMNS['oldest']}"
    assert versions.COLUMNS["oldest"] == versions.LOCKED_PYTHON


@pytest.mark.parametrize("column", FILES)
def test_every_version_is_one_that_pyproject_allows(column):
    for name, specifier in constraints(column).items():
        if name in NEEDED:
            for part in specifier:
                assert NEEDED[name].specifier.contains(part.version), name


def test_locked_names_everything():
    locked = constraints("locked")
    assert {*NEEDED} <= {*locked}
    assert all(exact(specifier) for specifier in locked.values())


def test_colab_is_left_with_its_own_keras():
    colab = {name: str(exact(constraints("colab")[name])) for name in ("keras", "jax", "numpy")}
    assert colab == {"keras": "3.13.2", "jax": "0.7.2", "numpy": "2.1.3"}


def test_the_set_up_cell_brings_what_colab_lacks():
    """It installs without looking for what its packages need, so that nothing else changes."""
    brought = {
        canonicalize_name(Requirement(name).name)
        for name in re.search(r'needed = "(.*)"', notebooks.setup_source())[1].split()
    }
    needed = {canonicalize_name(Requirement(line).name) for line in house.PROJECT["dependencies"]}
    for name in brought:
        requirements = map(Requirement, importlib.metadata.requires(name) or [])
        needed |= {canonicalize_name(r.name) for r in requirements if r.marker is None}
    assert needed <= brought | {*constraints("colab")}


def test_columns_run_what_make_test_runs():
    make = ["make", "--dry-run", "test", "RUN=PYTHON"]
    planned = subprocess.run(make, cwd=house.ROOT, capture_output=True, text=True).stdout
    lines = planned.replace("\\\n", " ").splitlines()
    runs = [shlex.split(line) for line in lines if "-m pytest" in line]
    assert runs == [["PYTHON", *arguments] for arguments in versions.RUNS.values()]


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("= 5 failed, 162 passed, 3 warnings in 265.61s (0:04:25) =\n", "5 failed, 162 passed"),
        ("....\n12 passed, 2 skipped, 1 warning in 3.20s\n", "12 passed, 2 skipped"),
        ("INTERNALERROR> something\n", "did not come to an end"),
    ],
)
def test_the_summary_says_how_pytest_ended(printed, said):
    assert versions.last_line(printed) == said


@pytest.fixture
def columns(tmp_path, monkeypatch):
    """Columns whose environments and tests only pretend; `codes` are how the tests end."""
    codes = {}

    def run(command, stdout=None, **options):
        column = Path(command[0]).parts[-3]
        kind = "notebooks" if "--nbval" in command else "tests"
        assert options["env"]["MISTRAL_LIB_REQUIRE_ALL"] == "1"
        code = codes.get((column, kind), 0)
        stdout.write("== 1 failed in 1.0s ==" if code else "== 7 passed in 1.0s ==")
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(versions, "ROOT", tmp_path)
    monkeypatch.setattr(versions, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(
        versions, "environment", lambda column, *_, **__: tmp_path / column / "bin" / "python"
    )
    monkeypatch.setattr(versions, "installed", lambda python: "Python 3.13.0 keras 3.13.2")
    monkeypatch.setattr(versions.subprocess, "run", run)
    return codes


def test_all_columns_run_and_are_summed_up(columns, capsys):
    with pytest.raises(SystemExit) as end:
        versions.main([])
    assert not end.value.code
    summary = capsys.readouterr().out
    for column in versions.COLUMNS:
        assert re.search(rf"^{column} +Python", summary, re.MULTILINE)
    assert summary.count("tests:     7 passed") == summary.count("notebooks: 7 passed") == 3


def test_a_failure_goes_on_with_the_next_column_and_ends_badly(columns, capsys):
    columns["colab", "tests"] = 1
    with pytest.raises(SystemExit) as end:
        versions.main(["colab", "newest", "--only", "tests"])
    assert end.value.code
    summary = capsys.readouterr().out
    assert "tests:     1 failed" in summary
    assert "tests:     7 passed" in summary
    assert "notebooks" not in summary


def test_an_unknown_column_is_refused(capsys):
    with pytest.raises(SystemExit):
        versions.main(["latest"])
    assert "no such column: latest" in capsys.readouterr().err


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_may_only_read(path):
    workflow = yaml.safe_load(path.read_text())
    if "release" not in path.stem:
        assert workflow["permissions"] == {"contents": "read"}


def test_the_weekly_workflow_runs_every_column():
    workflow = yaml.safe_load((house.ROOT / ".github/workflows/versions.yml").read_text())
    (job,) = workflow["jobs"].values()
    runs = {entry["column"]: entry["python"] for entry in job["strategy"]["matrix"]["include"]}
    assert runs == versions.COLUMNS
    assert {"schedule", "workflow_dispatch"} == {*workflow[True]}  # YAML reads `on` so
    assert "make versions COLUMNS=${{ matrix.column }}" in job["steps"][-1]["run"]


def test_pull_requests_run_on_every_python():
    workflow = yaml.safe_load((house.ROOT / ".github/workflows/ci.yml").read_text())
    classifiers = re.findall(r"Python :: (3\.\d+)", str(house.PROJECT["classifiers"]))
    assert workflow["jobs"]["ubuntu"]["strategy"]["matrix"]["python"] == classifiers
