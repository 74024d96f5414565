"""The habits of working together: issue forms, the pull-request template, hooks, tidy files."""

import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
import yaml

import chapter_map
import house
import tidy

FORMS = {
    path.stem: yaml.safe_load(path.read_text())
    for path in (house.ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")
    if path.stem != "config"
}
HOOKS_FILE = yaml.safe_load((house.ROOT / ".pre-commit-config.yaml").read_text())
HOOKS = {hook["id"]: hook for repo in HOOKS_FILE["repos"] for hook in repo["hooks"]}
MAKEFILE = (house.ROOT / "Makefile").read_text()
CONTRIBUTING = (house.ROOT / "CONTRIBUTING.md").read_text()


# Forms -------------------------------------------------------------------------------------------


def fields(form: str) -> dict[str, dict]:
    """The fields of a form by their ids."""
    return {field["id"]: field for field in FORMS[form]["body"]}


@pytest.mark.parametrize("form", ["bug", "book"])
def test_a_form_is_one_that_github_shows(form):
    assert {"name", "description", "body"} <= FORMS[form].keys()
    assert len(fields(form)) == len(FORMS[form]["body"]), "two fields have one id"
    for field in FORMS[form]["body"]:
        assert field["type"] in ("input", "textarea", "dropdown")
        assert field["attributes"]["label"]
        assert (field["type"] == "dropdown") == ("options" in field["attributes"])


def test_the_form_on_the_book_has_every_chapter():
    options = fields("book")["chapter"]["attributes"]["options"]
    numbered = [option for option in options if option[0].isdigit()]
    assert numbered == [f"{n}. {title}" for n, title in chapter_map.CHAPTERS.items()]


def code_of(form: str) -> str:
    """The line that a form asks people to run."""
    text = fields(form)["versions"]["attributes"]["description"]
    return re.search(r"```\n(.*)\n```", text)[1]


def test_both_forms_ask_for_the_same_versions():
    assert code_of("bug") == f'python -c "{code_of("book")}"'


@pytest.mark.slow
def test_the_versions_are_printed(tmp_path):
    command = [sys.executable, "-c", code_of("book")]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for name in ("mistral_lib", "keras", "jax", "numpy", "python"):
        assert re.search(rf"^{name} \d+\.\d+", result.stdout, re.MULTILINE)
    assert "Device" in result.stdout


def test_the_other_templates_are_where_github_looks():
    config = yaml.safe_load((house.ROOT / ".github/ISSUE_TEMPLATE/config.yml").read_text())
    assert all({"name", "url", "about"} == link.keys() for link in config["contact_links"])
    template = (house.ROOT / ".github/pull_request_template.md").read_text()
    for target in re.findall(r"`make ([a-z]+)`", template):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)
    assert "CHANGELOG.md" in template


# Hooks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_runs_what_the_project_has(hook):
    python, *command = HOOKS[hook]["entry"].split()
    assert HOOKS[hook]["language"] == "system"
    assert python == re.search(r"^RUN = (.*)$", MAKEFILE, re.MULTILINE)[1]
    if command[0] == "-m":
        assert find_spec(command[1])
    else:
        assert (house.ROOT / command[0]).exists()


def test_hooks_need_no_network():
    assert {repo["repo"] for repo in HOOKS_FILE["repos"]} == {"local"}


def test_hooks_format_as_make_does():
    recipe = re.search(r"^format:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1]
    made = set(re.findall(r"\$\(RUFF\) (.*?) (?:\.|book/\*\.ipynb)$", recipe, re.MULTILINE))
    hooks = (hook["entry"] for hook in HOOKS.values() if "ruff" in hook["entry"])
    assert {entry.partition("ruff ")[2].replace(" --quiet", "") for entry in hooks} == {
        command.replace(" --quiet", "") for command in made
    }


def test_a_hook_for_notebooks_sees_each_of_them():
    names = [path.relative_to(house.ROOT).as_posix() for path in house.tracked_files()]
    notebooks = {path.relative_to(house.ROOT).as_posix() for path in house.notebook_paths()}
    patterns = {hook["files"] for hook in HOOKS.values() if "notebooks" in hook["id"]}
    for pattern in patterns:
        assert {name for name in names if re.search(pattern, name)} == notebooks


# Tidy files --------------------------------------------------------------------------------------


def test_every_file_is_tidy():
    written = [path for path in house.tracked_files() if path.suffix in tidy.SUFFIXES]
    assert {"Makefile", "README.md", "pyproject.toml"} <= {path.name for path in written}
    untidy = [path for path in written if tidy.tidied(path.read_text()) != path.read_text()]
    assert untidy == [], "run tools/tidy.py"


def test_what_is_untidy_is_rewritten_and_named(tmp_path):
    clean, untidy, data = (tmp_path / name for name in ("clean.py", "untidy.md", "data.json"))
    clean.write_text("x = 1\n")
    untidy.write_text("one  \r\ntwo\t\n\n\n")
    data.write_text("{} ")
    with pytest.raises(SystemExit, match=r"^Tidied \S*untidy.md$"):
        tidy.main([str(clean), str(untidy), str(data)])
    assert untidy.read_bytes() == b"one\ntwo\n"
    assert data.read_text() == "{} "
    with pytest.raises(SystemExit) as ended:
        tidy.main([str(clean), str(untidy), str(data)])
    assert ended.value.code is None


def test_contributing_names_the_habits():
    for words in ("make quick", "CHANGELOG.md", "pre-commit install", "release"):
        assert words in CONTRIBUTING
