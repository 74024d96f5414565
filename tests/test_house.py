"""The house holds together: the map, the names, the addresses, the requirements, the README."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import nbformat
import pytest
import yaml
from PIL import Image

import chapter_map
import house
import links
import repository
from mistral_lib.presets import info

README = (house.ROOT / "README.md").read_text()
PYPROJECT = tomllib.loads((house.ROOT / "pyproject.toml").read_text())
MODULES = chapter_map.modules()
GITHUB, COLAB = "https://github.com", "https://colab.research.google.com/github"
TEXTS = repository.tracked_texts()
TRACKED = [path.relative_to(house.ROOT).as_posix() for path in house.tracked_files()]
TEACHING = [module for module in MODULES if module.parts[1] == "teaching"]
LIBRARY = [module for module in MODULES if module not in TEACHING]
# No chapter explains how arguments are checked, the command line, or what only notebooks use.
WITHOUT_CHAPTER = [
    *TEACHING,
    *(Path("mistral_lib", name) for name in ("checks.py", "inputs.py", "__main__.py")),
]


# The map -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [m for m in MODULES if m not in WITHOUT_CHAPTER], ids=str)
def test_module_names_its_chapter(module):
    first = chapter_map.first_paragraph(module)
    match = chapter_map.NAMED.search(first)
    assert match, f'{module} starts with {first!r}, without (chapter N, "Title")'
    assert chapter_map.CHAPTERS[int(match[1])] == match[2]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_module_has_its_test_file(module):
    assert (house.ROOT / chapter_map.tests_of(module)).exists()


def test_map_in_readme_is_current():
    assert chapter_map.table() in README, "run tools/chapter_map.py"


def test_map_in_introduction_is_current():
    cells = nbformat.read(house.BOOK / "intro.ipynb", 4).cells
    table = chapter_map.table(by_key=True)
    assert any(table in links.short(cell.source) for cell in cells)


def test_map_has_every_chapter_and_no_dead_link():
    table = chapter_map.table()
    assert len(chapter_map.CHAPTERS) == 20
    for chapter, title in chapter_map.CHAPTERS.items():
        assert table.count(f"{chapter}. {title}") == 1
    links = re.findall(r"\]\(([^:)]+)\)", table)
    assert len(links) == 20
    assert all((house.ROOT / link).exists() for link in links)


def test_map_in_introduction_says_in_few_words_what_each_chapter_teaches():
    table = chapter_map.table(by_key=True)
    assert len(chapter_map.TEACHES) == len(set(chapter_map.TEACHES)) == len(chapter_map.CHAPTERS)
    for said in chapter_map.TEACHES:
        assert f" | {said} |" in table
        assert len(said.split()) <= 16
        assert said.startswith(("how ", "what ", "which ", "why "))
        assert not said.endswith(".")


def test_notebook_titles_are_those_of_the_map():
    for path in house.notebook_paths():
        if path.stem[:2].isdigit():
            number = int(path.stem[:2])
            title = nbformat.read(path, 4).cells[0].source.partition("\n")[0]
            assert title == f"# {number}. {chapter_map.CHAPTERS[number]}"


def test_notebooks_come_in_the_order_of_reading():
    stems = [path.stem for path in house.notebook_paths()]
    front = [stem for stem in house.FRONT if stem in stems]
    assert stems[: len(front)] == front
    numbers = [house.chapter_number(path) for path in house.notebook_paths()][len(front) :]
    chapters = [number for number in numbers if number]
    assert chapters == sorted(chapters)
    assert not any(numbers[len(chapters) :])  # appendices come last


def test_contents_list_every_page_once():
    toc = yaml.safe_load((house.ROOT / "_toc.yml").read_text())
    chapters = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    pages = [*house.notebook_paths(), *house.BOOK.glob("*.md")]
    names = [path.relative_to(house.ROOT).with_suffix("").as_posix() for path in pages]
    assert sorted([toc["root"], *chapters]) == sorted(names)


def test_contents_follow_the_parts_of_the_map():
    toc = yaml.safe_load((house.ROOT / "_toc.yml").read_text())
    for part in toc["parts"]:
        numeral, _, caption = part["caption"].partition(" · ")
        if not caption:  # before the first part, and behind the last
            assert not any(Path(entry["file"]).stem[:2].isdigit() for entry in part["chapters"])
        else:
            titles = chapter_map.PARTS[caption]
            numbers = [int(Path(entry["file"]).stem[:2]) for entry in part["chapters"]]
            assert all(chapter_map.CHAPTERS[number] in titles for number in numbers)
            assert numbers == sorted(numbers)
            assert (
                numeral == ["I", "II", "III", "IV", "V", "VI"][[*chapter_map.PARTS].index(caption)]
            )


# The library -------------------------------------------------------------------------------------


def imports(module: Path) -> set[str]:
    """The packages that a module imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse((house.ROOT / module).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("module", LIBRARY, ids=str)
def test_only_teaching_draws(module):
    assert not imports(module) & {"matplotlib", "IPython"}


def test_library_imports_what_it_requires():
    required = {re.match(r"\w+", needed)[0] for needed in PYPROJECT["project"]["dependencies"]}
    # Imported where they are used, with a message that names the extra.
    extras = {"kagglehub", "gguf"}
    used = set().union(*map(imports, LIBRARY))
    assert used - sys.stdlib_module_names - {"mistral_lib"} <= required | extras


def test_public_names():
    import mistral_lib

    assert mistral_lib.__version__ == PYPROJECT["project"]["version"]
    assert mistral_lib.__all__ == sorted(mistral_lib.__all__)
    assert all(hasattr(mistral_lib, name) for name in mistral_lib.__all__)
    visible = {name for name in vars(mistral_lib) if not name.startswith("_")}
    parts = {"os", "sys", "keras"} | {Path(m).parts[1].removesuffix(".py") for m in MODULES}
    assert visible <= {*mistral_lib.__all__} | parts


def test_modules_stay_small():
    long = {m.as_posix(): len((house.ROOT / m).read_text().splitlines()) for m in MODULES}
    assert {name: lines for name, lines in long.items() if lines > 350} == {}


# make quick --------------------------------------------------------------------------------------


def is_slow(node: ast.AST) -> bool:
    """Whether pytest's mark `slow` is anywhere in a piece of code."""
    return any(isinstance(part, ast.Attribute) and part.attr == "slow" for part in ast.walk(node))


def quick_tests(path: Path) -> list[str]:
    """The tests of a file that `make quick` runs, with some of their parameters at least."""
    body = ast.parse((house.ROOT / path).read_text()).body
    if any(isinstance(part, ast.Assign) and is_slow(part) for part in body):
        return []
    tests = [part for part in body if getattr(part, "name", "").startswith("test_")]
    return [test.name for test in tests if not any(map(is_slow, test.decorator_list))]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_quick_looks_at_every_module(module):
    assert quick_tests(chapter_map.tests_of(module))


@pytest.mark.parametrize("name", ["pages", "build_book", "training", "lora_ranks", "benchmarks"])
def test_quick_leaves_pages_training_and_benchmarks_out(name):
    assert quick_tests(Path(f"tests/test_{name}.py")) == []


def test_quick_is_the_tests_without_those_marked_slow():
    assert '-m "not slow"' in make("quick").stdout
    assert "not slow" not in make("test").stdout


# The addresses -----------------------------------------------------------------------------------


def test_address_stands_in_one_place():
    kept = {path.relative_to(house.ROOT).as_posix() for path in repository.copies()}
    assert list(repository.problems(TEXTS, kept, repository.slug(house.REPOSITORY))) == []


def test_every_copy_follows_a_fork_and_comes_back():
    own, version = repository.slug(house.REPOSITORY), house.PROJECT["version"]
    for path in repository.copies():
        text = path.read_text()
        forked = repository.rewrite(text, own, "me/fork", "9.8.7")
        assert own not in forked, path
        assert repository.rewrite(forked, "me/fork", own, version) == text, path


def test_launch_buttons_use_the_address_and_the_tag():
    config = yaml.safe_load((house.ROOT / "_config.yml").read_text())
    assert config["repository"]["url"] == house.REPOSITORY
    assert config["repository"]["branch"] == house.TAG
    citation = yaml.safe_load((house.ROOT / "CITATION.cff").read_text())
    assert citation["repository-code"] == house.REPOSITORY
    assert citation["version"] == house.PROJECT["version"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("README.md", f"{COLAB}/me/fork/blob/v1/x.ipynb", "uses me/fork"),
        ("README.md", f"pip install git+{GITHUB}/me/fork", "uses me/fork"),
        ("other.py", f"see {GITHUB}/a/b/issues", "would not update"),
    ],
)
def test_a_stray_address_is_found(name, text, message):
    (problem,) = repository.problems({name: text}, {"README.md"}, "a/b")
    assert problem.startswith(name)
    assert message in problem


@pytest.mark.parametrize(
    "address", ["me/fork", "https://example.org/me/fork", "https://github.com/me"]
)
def test_an_address_that_colab_cannot_open_is_refused(address):
    with pytest.raises(ValueError, match="has to look like https"):
        repository.slug(address)


def test_no_file_names_a_machine():
    # Written in two parts so that this file does not find itself.
    places = re.compile(
        "|".join(rf"(?<![\w.])/{p}" for p in ("work/", "root/", "home/", "tmp/bash"))
    )
    outside = {"tests/test_house.py"}
    found = {name: places.findall(text) for name, text in TEXTS.items() if name not in outside}
    assert {name: hits for name, hits in found.items() if hits} == {}


# What is installed -------------------------------------------------------------------------------


def names(requirements: list[str]) -> set[str]:
    """The packages that a list of requirements names."""
    found = {re.match(r"[\w.-]+", line)[0].lower() for line in requirements}
    return found - {"mistral-lib"}


def test_requirements_are_those_of_the_package():
    lines = (house.ROOT / "requirements.txt").read_text().splitlines()
    stripped = [line.partition("#")[0].strip() for line in lines]
    own, *listed = [line for line in stripped if line]
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    assert own == f"-e .[{','.join(extras)}]"
    assert names(listed) == names([*project["dependencies"], *chain(*extras.values())])
    assert "jupyter-book<2" in listed


def make(*arguments: str) -> subprocess.CompletedProcess:
    """What make would do, without doing it."""
    command = ["make", "--dry-run", *arguments]
    return subprocess.run(command, cwd=house.ROOT, capture_output=True, text=True)


def test_every_target_that_the_pages_name_exists():
    pages = README + TEXTS["CONTRIBUTING.md"] + TEXTS["book/api.md"]
    targets = set(re.findall(r"(?:`|^    )make ([a-z]+)", pages, re.MULTILINE))
    assert targets >= {"book", "test"}
    for target in targets:
        result = make(target)
        assert result.returncode == 0, result.stderr


def test_help_lists_every_target():
    makefile = (house.ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    described = re.findall(r"^([a-z]+):.*## \S", makefile, re.MULTILINE)
    assert sorted(phony) == sorted(described)
    command = ["make", "--no-print-directory"]  # which a make around this test would turn on
    shown = subprocess.run(command, cwd=house.ROOT, capture_output=True, text=True).stdout
    assert [line.split()[0] for line in shown.splitlines()] == ["make"] * len(phony)


@pytest.mark.slow
def test_the_wheel_holds_the_whole_library_and_nothing_else(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    kept = [name for name in TRACKED if re.match(r"mistral_lib/|[^/]*$", name)]
    for name in kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(house.ROOT / name, tmp_path / name)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    command = [sys.executable, "-c", build]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert "mistral_lib/py.typed" in held
    assert held == {name for name in kept if name.startswith("mistral_lib/")}


def find_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs tools/find_python.sh outside the repository, where there is no .venv."""
    command = ["/bin/sh", house.ROOT / "tools/find_python.sh", *arguments]
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True)


def fake_python(path: Path, version: tuple[int, int]) -> Path:
    """A program that answers like a Python of some version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    works = 0 if (3, 11) <= version <= (3, 13) else 1
    path.write_text(f'#!/bin/sh\ncase "$2" in *exit*) exit {works};; *) echo "{path}";; esac\n')
    path.chmod(0o755)
    return path


def test_python_is_found_on_the_path(tmp_path):
    fake_python(tmp_path / "python3", (3, 9))
    newer = fake_python(tmp_path / "python3.12", (3, 12))
    assert find_python("", PATH=str(tmp_path), HOME="/").stdout.strip() == str(newer)


def test_python_is_found_where_pyenv_puts_it(tmp_path):
    kept = fake_python(tmp_path / ".pyenv/versions/3.13.1/bin/python3", (3, 13))
    found = find_python("", PATH="", HOME=str(tmp_path)).stdout.strip()
    system = ("/usr/", "/opt/", "/Library/")
    assert found == str(kept) or found.startswith(system)


def test_a_python_that_is_too_old_is_refused_by_name(tmp_path):
    old = fake_python(tmp_path / "python3", (3, 10))
    result = find_python(str(old), PATH=os.environ["PATH"], HOME="/")
    assert result.returncode == 1
    assert str(old) in result.stderr
    assert "3.11, 3.12 or 3.13" in result.stderr


# The README --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_readme_example_runs_offline(block, tmp_path):
    """An example that would download a checkpoint runs on the shipped model."""
    block = re.sub(r"hf://[\w./-]+", "mistral_tiny_en", block)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "https_proxy": "http://127.0.0.1:9"}
    result = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


def test_readme_says_how_much_memory_its_example_takes():
    """As `python -m mistral_lib info` does; a Keras before 3.14 has no int4."""
    described = info.describe_preset("mistral_0.3_instruct_7b_en").partition("Memory\n")[2]
    said = {
        "weights": "| memory of the weights |",
        "cache of one token": "| and of each token in the cache |",
    }
    for line in described.splitlines():
        title, *sizes = re.split(r"  +", line.strip())
        if title in said:
            assert f"{said.pop(title)} {' | '.join(sizes)} |" in README
    assert not said


def test_readme_links_exist():
    links = re.findall(r"\]\(([^)#]+)\)|(?:src|href)=\"([^\"]+)\"", README)
    local = [a or b for a, b in links if not (a or b).startswith("https://")]
    assert local
    assert [link for link in local if not (house.ROOT / link).exists()] == []


def test_pictures_are_those_the_script_draws():
    import draw_images

    for name, contents in draw_images.images().items():
        assert (house.BOOK / "_static" / name).read_text() == contents, "run tools/draw_images.py"
    assert Image.open(house.BOOK / "_static" / "card.png").size == draw_images.card().size
