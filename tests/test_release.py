"""A release: one version everywhere, notes from the changelog, and the workflow that makes it."""

import re

import pytest
import yaml

import house
import release
import repository

VERSION = house.PROJECT["version"]
OWN = repository.slug(house.REPOSITORY)
TEXTS = repository.tracked_texts()
CHANGELOG = TEXTS["CHANGELOG.md"]
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
WORKFLOWS = {name: text for name, text in TEXTS.items() if name.startswith(".github/workflows/")}
COLAB = "colab.research.google.com/github/"


# One version -------------------------------------------------------------------------------------


def test_everything_names_the_version_of_pyproject():
    assert list(repository.other_versions(TEXTS, OWN, VERSION)) == []


@pytest.mark.parametrize("path", house.notebook_paths(), ids=lambda path: path.stem)
def test_a_notebook_opens_and_installs_the_version(path):
    text = TEXTS[path.relative_to(house.ROOT).as_posix()]
    assert f"{COLAB}{OWN}/blob/v{VERSION}/book/{path.name}" in text
    assert f"git+{house.REPOSITORY}@v{VERSION}" in text


def test_the_readme_links_every_chapter_at_the_version():
    links = re.findall(rf"{COLAB}{OWN}/blob/(.*?)/book/", TEXTS["README.md"])
    chapters = [path for path in house.notebook_paths() if house.chapter_number(path)]
    assert links == [f"v{VERSION}"] * len(chapters)
    assert f"git+{house.REPOSITORY}@v{VERSION}" in TEXTS["README.md"]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("README.md", f"@v{VERSION}", "@v0.0.9", "links to v0.0.9"),
        ("README.md", f"@v{VERSION}", "", "without naming"),
        ("book/07_sliding_windows.ipynb", f"/blob/v{VERSION}", "/blob/main", "links to main"),
        ("book/07_sliding_windows.ipynb", f"@v{VERSION}", "@v0.0.9", "links to v0.0.9"),
        ("CITATION.cff", f"version: {VERSION}", "version: 0.0.9", "names the versions"),
        ("_config.yml", f"branch: v{VERSION}", "branch: v0.0.9", "names the versions"),
        ("mistral_lib/__init__.py", VERSION, "0.0.9", "names the versions"),
    ],
)
def test_another_version_is_found(name, old, new, message):
    assert old in TEXTS[name]
    changed = {**TEXTS, name: TEXTS[name].replace(old, new)}
    (problem,) = repository.other_versions(changed, OWN, VERSION)
    assert problem.startswith(name)
    assert message in problem


def test_a_new_version_in_pyproject_is_carried_everywhere():
    paths = {path.relative_to(house.ROOT).as_posix() for path in repository.copies()}
    changed = {
        name: repository.rewrite(text, OWN, OWN, "9.8.7") if name in paths else text
        for name, text in TEXTS.items()
    }
    assert list(repository.other_versions(changed, OWN, "9.8.7")) == []


# The changelog -----------------------------------------------------------------------------------


def test_the_changelog_keeps_its_form():
    names = [match["name"] for match in release.HEADING.finditer(CHANGELOG)]
    assert names == [*release.sections(CHANGELOG)], "a version without a date"
    assert names[0] == "Unreleased"
    numbers = [tuple(map(int, name.split("."))) for name in names[1:]]
    assert numbers == sorted(numbers, reverse=True)
    for text in release.sections(CHANGELOG).values():
        kinds = re.findall(r"^### (.*)$", text, re.MULTILINE)
        assert kinds == [kind for kind in KINDS if kind in kinds]
    assert re.findall(r"^\[([^]]+)\]: ", CHANGELOG, re.MULTILINE) == names


def test_the_version_has_notes():
    notes = release.sections(CHANGELOG)[VERSION]
    assert "- " in notes
    assert "## [" not in notes
    assert "](" not in notes, "a link that is relative leads nowhere in a release"


# What is missing ---------------------------------------------------------------------------------


@pytest.fixture
def ready(monkeypatch):
    """The texts of a repository that may release 9.8.7."""
    monkeypatch.setitem(house.PROJECT, "version", "9.8.7")
    texts = {name: repository.rewrite(text, OWN, OWN, "9.8.7") for name, text in TEXTS.items()}
    texts["CHANGELOG.md"] = "## [Unreleased]\n\n## [9.8.7] - 2030-01-01\n\n### Fixed\n\n- A hole.\n"
    return texts


def test_nothing_is_missing(ready):
    assert list(release.problems("9.8.7", ready)) == []


@pytest.mark.parametrize(
    ("version", "old", "new", "message"),
    [
        ("v9.8.7", "", "", "must be three numbers"),
        ("9.8.8", "", "", "pyproject.toml has '9.8.7'"),
        ("9.8.7", "## [9.8.7] - 2030-01-01", "## [9.8.7]", "needs a section"),
        ("9.8.7", "### Fixed\n\n- A hole.\n", "", "needs a section"),
        ("9.8.7", "## [Unreleased]\n", "## [Unreleased]\n\n- A door.\n", "under Unreleased"),
    ],
)
def test_what_is_missing_is_said(ready, version, old, new, message):
    ready["CHANGELOG.md"] = ready["CHANGELOG.md"].replace(old, new)
    assert any(message in problem for problem in release.problems(version, ready))


def test_notes_are_printed(capsys):
    release.main([VERSION, "--notes"])
    printed = capsys.readouterr().out
    assert printed.startswith("The first version.\n\n### Added\n\n- ")
    assert "\n  " not in printed


# The workflows -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_has_no_more_rights_than_it_needs(name):
    workflow = yaml.safe_load(WORKFLOWS[name])
    assert workflow["permissions"] == {"contents": "read"}
    more = {job for job, steps in workflow["jobs"].items() if "permissions" in steps}
    assert more == ({"publish"} if name.endswith("release.yml") else set())


def test_a_release_is_tested_first_and_may_do_nothing_but_publish():
    jobs = yaml.safe_load(WORKFLOWS[".github/workflows/release.yml"])["jobs"]
    tested = " ".join(step.get("run", "") for step in jobs["test"]["steps"])
    assert "tools/release.py" in tested
    assert ".ci/run" in tested
    assert jobs["publish"]["needs"] == "test"
    assert jobs["publish"]["permissions"] == {"contents": "write"}
    # What was typed into the form must never become part of a script.
    for job in jobs.values():
        assert not any("${{" in step.get("run", "") for step in job["steps"])
