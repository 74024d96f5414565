"""What readers answer: wrong answers are refused with a helpful sentence, right ones accepted.

The answers stand in `exercise_answers`, and the tempting ones in the chapters: a solution carries
each in a comment, `<!-- tempting: 512 -->`, as an expression or as the lines of a function.
"""

import ast
import functools
import re
import textwrap
from pathlib import Path

import exercise_answers
import numpy as np
import pytest
from exercise_answers import sentences
from exercise_cells import exercises_in, given_in

from mistral_lib.teaching.exercises import all_exercises, find
from mistral_lib.teaching.exercises.kinds import (
    BreakingInput,
    Estimate,
    Experiment,
    Explanation,
    Function,
)
from mistral_lib.teaching.exercises.running import alike, result

ANSWERS = exercise_answers.collected()
EXERCISES = [exercise for exercise in all_exercises() if not isinstance(exercise, Explanation)]
NAMES = [exercise.name for exercise in EXERCISES]
ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(ROOT.glob("book/*.ipynb"))
README = " ".join((ROOT / "README.md").read_text().split())

MACHINERY = re.compile(
    r"(?<!\w)_\w+\(|positional argument|could not convert|Traceback|0x[0-9a-f]{4}|NoneType|<lambda>"
    r"|has no attribute|not subscriptable|unsupported|indices must|ambiguous|inhomogeneous|ndarray"
)
MARK = re.compile(r"<!-- tempting:\s*(.*?)\s*-->", re.DOTALL)
CALL = re.compile(r"^Smallest failing case: (.+)$", re.MULTILINE)
# What a sentence has to say that no author wrote for this very answer: the place, how far off it
# is, or what was given and what is asked for.
FINDS = re.compile(
    r"Smallest failing case: .+\n.+|Yours is .+\. .+ is asked for\.|is .+ × too (large|small)"
    r"|is right in .+, but .+ are asked for|is not positive|You answered .+(It is too|Its sign)"
    r"|You answered .+(None of its numbers is right|numbers are right. The first that is not)"
    r"|goes wrong at word|is none of the names that|Line \d+ is"
    r"|You measured .+(numbers are right; the first that is not|None of it is what this)",
    re.DOTALL,
)


@functools.cache
def refusals(name):
    """The messages for the wrong answers to an exercise, without their first lines."""
    return [refusal(find(name), answer) for answer in ANSWERS[name][0]]


def refusal(exercise, answer):
    verdict = exercise.examine(answer)
    assert verdict.right is False, f"accepted: {answer!r}"
    head, _, message = verdict.message.partition("\n")
    assert head == f"{exercise.name}: not yet."
    return message


@pytest.mark.parametrize("name", NAMES)
def test_every_exercise_was_tried(name):
    wrong, right = ANSWERS[name]
    assert len(wrong) >= 5
    assert len(right) >= 3


def test_no_answer_is_to_an_exercise_that_is_gone():
    assert set(ANSWERS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_answers_are_refused_with_a_helpful_sentence(name):
    exercise = find(name)
    for message in refusals(name):
        assert not MACHINERY.search(message), message
        assert len(message) < 2_000
        if isinstance(exercise, BreakingInput):  # what is not allowed is told by its own sentence
            assert "does not break it." not in message or message.count("\n") == 1
            assert message.endswith((".", "?"))
        else:
            assert FINDS.search(message) or any(s in message for s in sentences(exercise)), message


@pytest.mark.parametrize("name", NAMES)
def test_right_answers_are_accepted(name):
    for answer in ANSWERS[name][1]:
        verdict = find(name).examine(answer)
        assert verdict.right is True, verdict.message
        assert verdict.message.startswith(f"{name}: right.")


@pytest.mark.parametrize("exercise", [e for e in EXERCISES if isinstance(e, Function)])
def test_the_call_that_is_shown_can_be_pasted_and_shows_the_difference(exercise):
    name = exercise.name
    for answer, message in zip(ANSWERS[name][0], refusals(name), strict=True):
        if not (shown := CALL.search(message)):
            continue
        called = shown[1].partition("(")[0]
        case = eval(shown[1], {"np": np, called: lambda *arguments: arguments})
        with np.errstate(all="ignore"):
            assert not alike(result(answer, case), result(exercise.solution, case))


@pytest.mark.parametrize("exercise", [e for e in EXERCISES if isinstance(e, Function)])
def test_a_known_mistake_fails_on_a_case_for_paper(exercise):
    """A short call, of small whole numbers or short decimals."""
    for wrong in exercise.mistakes.values():
        shown = CALL.search(exercise.examine(wrong).message)[1]
        inside = shown.partition("(")[2]
        assert len(inside) <= 300, shown
        values = [float(number) for number in re.findall(r"(?<![\w.])\d+\.?\d*(?![\w.])", inside)]
        short = all(value == round(value, 4) for value in values)
        assert short or "data_offsets" in inside, shown


@pytest.mark.parametrize("exercise", [e for e in EXERCISES if isinstance(e, BreakingInput)])
def test_each_sentence_about_harmless_input_is_said(exercise):
    messages = "\n".join(refusals(exercise.name))
    for sentence in exercise.mistakes:
        assert sentence in messages


# The score ----------------------------------------------------------------------------------------


def test_readme_gives_the_score():
    """How many hundreds of answers the tests above judge, and how many get their own sentence."""
    wrong = [(e, message) for e in EXERCISES for message in refusals(e.name)]
    right = sum(len(ANSWERS[name][1]) for name in NAMES)
    own = sum(any(said in message for said in sentences(e)) for e, message in wrong)
    said = re.search(
        r"more than ([\d,]+) wrong answers and ([\d,]+) right ones .+ more than ([\d,]+) of them "
        r"with a sentence about that very mistake",
        README,
    )
    hundreds = [int(number.replace(",", "")) for number in said.groups()]
    for number, hundred in zip((len(wrong), right, own), hundreds, strict=True):
        assert hundred < number < hundred + 250, f"now {len(wrong):,}, {right:,} and {own:,}"


# The chapters -------------------------------------------------------------------------------------


def tempting_answers(notebook):
    """For each exercise that is judged: its name, and the answers that its solution marks."""
    for name, _, details, _ in exercises_in(notebook):
        if not isinstance(find(name), Explanation):
            code = "\n".join(re.findall(r"```python\n(.*?)```", details["Solution"], re.DOTALL))
            yield name, code, MARK.findall(details["Solution"])


def evaluated(text, code, namespace):
    """A tempting answer: a value, or a function with the arguments of the solution's."""
    exec(code, namespace)
    functions = [n for n in ast.parse(code).body if isinstance(n, ast.FunctionDef)]
    if not functions:
        return eval(text, namespace)
    arguments = ", ".join(argument.arg for argument in functions[-1].args.args)
    body = text if "return" in text else f"return {text}"
    exec(f"def tempting({arguments}):\n{textwrap.indent(body, '    ')}", namespace)
    return namespace["tempting"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_check_knows_the_tempting_answer_of_each_solution(notebook):
    for name, code, marked in tempting_answers(notebook):
        assert marked, f"{name}: mark a tempting answer in its solution, <!-- tempting: 512 -->"
        exercise = find(name)
        for text in marked:
            namespace = {}
            if isinstance(exercise, Experiment):  # its solution needs the whole chapter
                code = ""
            exec(given_in(notebook, f"{code}\n{text}"), namespace)
            message = refusal(exercise, evaluated(text, code, namespace))
            known = any(sentence in message for sentence in sentences(exercise))
            if isinstance(exercise, BreakingInput):
                known = known or "does not break it" not in message
            assert known or (isinstance(exercise, Estimate) and "is right in" in message), message


UNITS = (1, 0.01, 1e6, 2**20, 2**30)  # per cent, millions, MiB, GiB


def test_the_solution_names_the_number_that_is_marked():
    """The marks are of the numbers that the solution calls wrong, up to a sign and a unit."""
    seen = set()
    for notebook in NOTEBOOKS:
        for name, _, details, _ in exercises_in(notebook):
            marks = MARK.findall(details["Solution"])
            wrong = [float(mark) for mark in marks if re.fullmatch(r"-?[\d.e_]+", mark)]
            prose = re.sub(r"```.*?```|<!--.*?-->", "", details["Solution"], flags=re.DOTALL)
            said = [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?:\.\d+)?", prose)]
            named = np.outer([0, *said], UNITS)
            for number in wrong:
                seen.add(name)
                assert np.isclose(named, abs(number), rtol=0.04).any(), f"{name}: {number}"
    assert len(seen) >= 12
