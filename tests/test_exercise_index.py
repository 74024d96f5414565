"""The index of exercises is the one that the notebooks and the cards make."""

import re

import nbformat
import pytest

import exercise_index
import links
from house import BOOK, notebook_paths
from mistral_lib.teaching.exercises import all_exercises, find

PAGE = links.short(exercise_index.PAGE.read_text())
ROW = re.compile(r"^\| \[\]\(exercise:([\w.]+)\) \| ([^|]+) \| (\d+) \| ([★☆]+) \|$", re.MULTILINE)


def test_page_is_current():
    assert exercise_index.page() == PAGE, "run tools/exercise_index.py"


def test_every_exercise_is_listed_once():
    listed = [name for name, *_ in ROW.findall(PAGE)]
    assert sorted(listed) == sorted(exercise.name for exercise in all_exercises())


def test_an_exercise_stands_in_one_notebook_only():
    found = [exercise_index.title_and_exercises(path)[1] for path in notebook_paths()]
    names = [exercise.name for exercises in found for exercise in exercises]
    assert len(names) == len(set(names))


def test_sections_follow_the_book_and_link_to_their_notebooks():
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    files = []
    for text in sections:
        (link,) = re.findall(r"\[Open the chapter\]\((\S+)\)", text)
        files.append(link)
        title, exercises = exercise_index.title_and_exercises(BOOK / link)
        assert text.partition("\n")[0] == title
        assert [name for name, *_ in ROW.findall(text)] == [e.name for e in exercises]
    order = [path.name for path in notebook_paths()]
    assert files == [name for name in order if name in files]


def test_the_card_is_that_of_the_exercise():
    for name, kind, minutes, stars in ROW.findall(PAGE):
        exercise = find(name)
        assert (exercise.kind, exercise.minutes) == (kind, int(minutes))
        assert (stars.count("★"), len(stars)) == (exercise.difficulty, 3)


def test_the_sums_at_the_top_are_those_of_the_rows():
    rows = [find(name) for name, *_ in ROW.findall(PAGE)]
    total, estimates, hours = map(int, re.findall(r"\d+", PAGE.partition("hours")[0]))
    assert total == len(rows)
    assert estimates == sum(row.kind == "estimate" for row in rows)
    assert abs(hours - sum(row.minutes for row in rows) / 60) <= 0.5


def test_the_score_by_chapter_adds_up_to_what_is_said():
    rows = re.findall(r"^\| [^|]+ \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", PAGE, re.MULTILINE)
    sums = [sum(int(cell.replace(",", "")) for cell in column) for column in zip(*rows)]
    said = re.search(r"All of ([\d,]+) wrong .+?([\d,]+) of them.+?([\d,]+) right", PAGE, re.DOTALL)
    assert sums == [int(number.replace(",", "")) for number in said.groups()]
    assert sums[0] > sums[1] > sums[2] / 2 > 0


@pytest.fixture
def write(tmp_path):
    def write(*cells):
        nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), tmp_path / "x.ipynb")
        return tmp_path / "x.ipynb"

    return write


def test_order_is_that_of_the_notebook_and_repeats_count_once(write):
    path = write(
        nbformat.v4.new_markdown_cell('# 7. Masks\n\ncheck("masks.library", ...)'),
        nbformat.v4.new_code_cell('mine = ...\n\ncheck("masks.window", mine)'),
        nbformat.v4.new_code_cell('check("masks.row", 1)\ncheck("masks.window", 2)'),
    )
    title, found = exercise_index.title_and_exercises(path)
    assert title == "7. Masks"
    assert [exercise.name for exercise in found] == ["masks.window", "masks.row"]


def test_an_exercise_that_has_no_card_is_named(write):
    path = write(nbformat.v4.new_code_cell('check("masks.widow", ...)'))
    with pytest.raises(ValueError, match=r"masks\.widow"):
        exercise_index.title_and_exercises(path)
