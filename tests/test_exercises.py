"""Exercises: solutions pass, stubs are untouched, known mistakes get the hint meant for them."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pytest

from mistral_lib.teaching.exercises import all_exercises, check, find, hint
from mistral_lib.teaching.exercises.kinds import (
    KINDS,
    Estimate,
    Explanation,
    Function,
    Line,
    Value,
)
from mistral_lib.teaching.exercises.report import difference, same

EXERCISES = {exercise.name: exercise for exercise in all_exercises()}
JUDGED = {name: e for name, e in EXERCISES.items() if not isinstance(e, Explanation)}
NOTEBOOKS = sorted(Path(__file__).parents[1].glob("book/*.ipynb"))


def known_mistakes(exercise):
    """Pairs (wrong answer, the sentence it must get)."""
    if isinstance(exercise, Function):
        return [(wrong, sentence) for sentence, wrong in exercise.mistakes.items()]
    if isinstance(exercise, Value | Line | Estimate):
        return list(exercise.mistakes)
    return [(arguments, "is still right") for arguments in exercise.harmless]


@pytest.mark.parametrize("name", JUDGED)
def test_the_solution_and_every_other_right_answer_pass(name):
    exercise = EXERCISES[name]
    answers = [exercise.solution, *getattr(exercise, "also_right", ())]
    for answer in answers:
        verdict = exercise.examine(answer)
        assert verdict.right is True, verdict.message
        assert verdict.message.startswith(f"{name}: right.")


@pytest.mark.parametrize("name", EXERCISES)
def test_an_untouched_stub_is_not_judged(name):
    exercise = EXERCISES[name]
    stubs = [...] + ([lambda *arguments: ...] if isinstance(exercise, Function) else [])
    for stub in stubs:
        verdict = exercise.examine(stub)
        assert verdict.right is None
        assert verdict.message == f"{name}: not tried yet."


@pytest.mark.parametrize("name", JUDGED)
def test_each_known_mistake_gets_the_sentence_meant_for_it(name):
    pairs = known_mistakes(EXERCISES[name])
    assert pairs, f"{name} knows no mistake by name"
    for wrong, sentence in pairs:
        verdict = EXERCISES[name].examine(wrong)
        assert verdict.right is False, f"accepted: {sentence}"
        assert sentence in verdict.message


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("nonsense", [None, "?", [], {}, object(), print, lambda: 1, -1.0])
def test_nonsense_never_raises_and_is_never_right(name, nonsense):
    assert EXERCISES[name].examine(nonsense).right is not True


@pytest.mark.parametrize("name", EXERCISES)
def test_the_card_is_filled_in(name):
    exercise = EXERCISES[name]
    assert exercise.kind in KINDS
    assert 1 <= exercise.minutes <= 30
    assert exercise.difficulty in (1, 2, 3)
    assert len(exercise.hints) == 3
    assert all(text.strip() for text in exercise.hints)
    assert name.count(".") == 1
    assert EXERCISES[name] is find(name)


def test_a_wrong_function_is_told_the_smallest_failing_case(capsys):
    check("masks.window", lambda q, k, w: np.tri(len(q), len(k), len(k) - len(q)) > 0)
    printed = capsys.readouterr().out
    # With W = 1 two tokens suffice to show that the window is missing.
    assert "Smallest failing case: ([0, 1], [0, 1], 1)" in printed
    assert "1 of 4 cells differ, the first at (1, 0): yours is True, expected False." in printed
    assert "is the causal mask: the window is not used." in printed


def test_a_wrong_shape_is_named_first(capsys):
    check("masks.window", lambda q, k, w: np.ones(len(k), bool))
    assert "Shape: yours is (1,), expected (1, 1)." in capsys.readouterr().out


def test_a_function_that_raises_is_reported(capsys):
    check("masks.window", lambda q, k, w: q[99])
    assert "Your answer raised IndexError" in capsys.readouterr().out


def test_a_forgotten_return_is_named(capsys):
    check("masks.window", lambda q, k, w: None)
    assert "is a `return` missing?" in capsys.readouterr().out


def test_an_estimate_names_how_far_off_it_is(capsys):
    check("masks.pairs", 12_000)
    assert "× too small." in capsys.readouterr().out
    check("masks.pairs", 32_768 * 4_096)  # without the corner: near enough
    assert "right. Exactly: 125,831,168 pairs." in capsys.readouterr().out


def test_breaking_input_must_be_possible():
    verdict = EXERCISES["masks.break_it"].examine((np.array([9]), np.arange(3), 2))
    assert verdict.right is False
    assert "last positions" in verdict.message


def test_hints_come_in_three_steps(capsys):
    hint("masks.window", 2)
    assert capsys.readouterr().out.startswith("masks.window, hint 2 of 3 (place): ")
    with pytest.raises(ValueError, match="take 1, 2 or 3"):
        hint("masks.window", 4)


def test_an_unknown_name_lists_those_that_exist():
    with pytest.raises(ValueError, match=r"masks\.window"):
        check("masks.widow", 1)
    with pytest.raises(ValueError, match=r"chapters are .*masks"):
        check("mask.window", 1)


def test_difference_sees_numbers_texts_and_ragged_lists():
    assert same([0.1 + 0.2], [0.3])
    assert not same([1.0], [1.1])
    assert same(" Causal", "causal")
    assert not same([[1], [2, 3]], [1, 2])
    assert "Expected: [1, 2, 3]" in difference([1, 2, 4], [1, 2, 3])
    assert difference(5, 4) == "Yours: 5. Expected: 4."


# The chapters: what stands in a notebook is what the registry holds.


def exercises_in(notebook):
    """For each exercise: name, header, the texts of its details, and the expression checked."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    texts = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    for index, (kind, text) in enumerate(texts):
        call = re.search(r'^check\("([\w.]+)", (.+)\)$', text, re.M) if kind == "code" else None
        if not call:
            continue
        name, expression = call.groups()
        before = next(t for k, t in reversed(texts[:index]) if k == "markdown")
        after = next(t for k, t in texts[index + 1 :] if k == "markdown")
        header = re.search(rf"^\*\*Exercise `{re.escape(name)}`\*\* · (.+)$", before, re.M)
        details = dict(re.findall(r"<summary>(.+?)</summary>\s*(.*?)\s*</details>", after, re.S))
        yield name, header and header[1], details, expression


def imports_of(notebook):
    """The import statements of a notebook, as one text."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    code = re.sub(r"^[%!].*$", "", code, flags=re.M)
    nodes = [n for n in ast.parse(code).body if isinstance(n, ast.Import | ast.ImportFrom)]
    return "\n".join(map(ast.unparse, nodes))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_prints_the_card_and_the_hints_of_its_exercises(notebook):
    for name, header, details, _ in exercises_in(notebook):
        exercise = find(name)
        stars = "★" * exercise.difficulty + "☆" * (3 - exercise.difficulty)
        assert header == f"{exercise.kind} · {exercise.minutes} minutes · {stars}", name
        for title, text in zip(("concept", "place", "code"), exercise.hints, strict=True):
            number = ("concept", "place", "code").index(title) + 1
            shown = details[f"Hint {number}: the {title}"]
            assert re.sub(r"[`\s]+", " ", shown).strip() == re.sub(r"[`\s]+", " ", text).strip()
        assert "Solution" in details, f"{name} has no solution in its chapter"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_solution_printed_in_a_chapter_passes(notebook):
    for name, _, details, expression in exercises_in(notebook):
        if isinstance(find(name), Explanation):
            continue
        code = "\n".join(re.findall(r"```python\n(.*?)```", details["Solution"], re.S))
        assert code, f"{name}: the solution shows no code"
        namespace = {}
        exec(imports_of(notebook) + "\n" + code, namespace)
        verdict = find(name).examine(eval(expression, namespace))
        assert verdict.right is True, verdict.message


def test_line_numbers_are_those_that_the_chapter_prints():
    """They are looked up in the source, so that they follow when the library changes."""
    seen = set()
    for notebook in NOTEBOOKS:
        source = "".join("".join(c["source"]) for c in json.loads(notebook.read_text())["cells"])
        for name, _, details, expression in exercises_in(notebook):
            exercise = find(name)
            if exercise.kind != "read the library" or expression != "my_line":
                continue
            seen.add(name)
            assert isinstance(exercise, Line), name
            printed = rf"show_source\([^)]*\b{exercise.function.__name__}, numbers=True\)"
            assert re.search(printed, source), f"{name}: its function is not printed"
            for number in re.findall(r"tempting answer is (?:line )?(\d+)", details["Solution"]):
                assert int(number) in dict(exercise.mistakes), f"{name}: line {number}"
    assert len(seen) > 10
