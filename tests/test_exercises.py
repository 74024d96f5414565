"""Exercises: solutions pass, stubs are untouched, known mistakes get the hint meant for them."""

import dataclasses
import json
import math
import re
import warnings
from fractions import Fraction
from pathlib import Path
from random import Random

import jax.numpy as jnp
import numpy as np
import pytest
from exercise_cells import exercises_in, given_in

from mistral_lib.teaching.exercises import all_exercises, check, find, hint
from mistral_lib.teaching.exercises.answers import Unreadable, numbers
from mistral_lib.teaching.exercises.kinds import (
    KINDS,
    BreakingInput,
    Estimate,
    Experiment,
    Explanation,
    Function,
    Line,
    Timing,
)
from mistral_lib.teaching.exercises.report import difference, same
from mistral_lib.training_loss import token_losses

EXERCISES = {exercise.name: exercise for exercise in all_exercises()}
JUDGED = {name: e for name, e in EXERCISES.items() if not isinstance(e, Explanation)}
NOTEBOOKS = sorted(Path(__file__).parents[1].glob("book/*.ipynb"))


def known_mistakes(exercise):
    """Pairs (wrong answer, the sentence it must get)."""
    if isinstance(exercise, Function):
        return [(wrong, sentence) for sentence, wrong in exercise.mistakes.items()]
    return list(exercise.mistakes)


@pytest.mark.parametrize("name", JUDGED)
def test_the_solution_passes(name):
    exercise = EXERCISES[name]
    verdict = exercise.examine(exercise.solution)
    assert verdict.right is True, verdict.message
    assert verdict.message.startswith(f"{name}: right.")


@pytest.mark.parametrize("exercise", JUDGED.values(), ids=JUDGED)
def test_another_right_function_is_told_what_is_special_about_it(exercise):
    for sentence, function in getattr(exercise, "also", {}).items():
        assert exercise.examine(function).message == f"{exercise.name}: right. It {sentence}"


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
    assert EXERCISES[name].mistakes, f"{name} knows no mistake by name"
    if isinstance(EXERCISES[name], BreakingInput):
        return  # what is said of harmless input is in test_exercise_answers.py
    for wrong, sentence in known_mistakes(EXERCISES[name]):
        verdict = EXERCISES[name].examine(wrong)
        assert verdict.right is False, f"accepted: {sentence}"
        assert sentence in verdict.message
        assert not re.search(r"(\S+ × too \w+).*\1", verdict.message)


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
    assert "Smallest failing case: mine(np.array([0, 1]), np.array([0, 1]), 1)" in printed
    assert "1 of 4 cells differ, the first at (1, 0): yours is True, expected False." in printed
    assert "is the causal mask: the window is not used." in printed


def test_a_wrong_shape_is_named_first(capsys):
    check("masks.window", lambda q, k, w: np.ones(len(k), bool))
    assert "Shape: yours is (1,), expected (1, 1)." in capsys.readouterr().out


def test_a_wrong_shape_comes_before_a_smaller_case_with_wrong_numbers(capsys):
    def heads(x, kernel):  # the right shape where there are as many tokens as heads, or one of each
        return 1 + np.einsum("bsd,dnh->bsnh", x, kernel)

    check("on_ramp.einsum", heads)
    printed = capsys.readouterr().out
    assert "heads(np.array([[[1.0], [2.0]]]), np.array([[[1.0], [10.0], [100.0]]]))" in printed
    assert "Shape: yours is (1, 2, 3, 1), expected (1, 3, 2, 1)." in printed


def test_a_function_that_raises_is_reported_without_the_sentence_of_python(capsys):
    check("masks.window", lambda q, k, w: q[99])
    printed = capsys.readouterr().out
    assert (
        "mine(np.array([0]), np.array([0]), 1)\nIt stops there with an error (IndexError)"
        in printed
    )
    assert "out of bounds" not in printed


def test_a_function_of_other_arguments_is_told_which_are_asked_for(capsys):
    check("masks.window", lambda q, k: q)
    assert "Yours is a function of (q, k). A function of (queries, keys, window) is asked for." in (
        capsys.readouterr().out
    )


def test_a_forgotten_return_is_named(capsys):
    check("masks.window", lambda q, k, w: None)
    assert "is a `return` missing?" in capsys.readouterr().out


def test_a_function_may_change_its_arguments():
    def in_place(x, scale):
        x /= np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)
        x *= scale
        return x

    assert EXERCISES["rms_norm.write"].examine(in_place).right is True


def test_a_mistake_is_recognised_where_there_are_finite_numbers():
    """The future is seen, and without the maximum high scores give nan: the first is told."""

    def attend(query, key, value):
        weights = np.exp(query @ key.T / query.shape[1] ** 0.5)
        return weights / weights.sum(axis=1, keepdims=True) @ value

    assert "It sees the future" in EXERCISES["dense.attend"].examine(attend).message


def test_an_estimate_names_how_far_off_it_is(capsys):
    check("masks.pairs", 12_000)
    assert "12,000 is 10,500 × too small." in capsys.readouterr().out
    check("masks.pairs", 32_768 * 4_096)  # without the corner: near enough
    assert "right. Exactly: 125,831,168 pairs." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "answer", "unit"),
    [
        ("attention.cache", 131_072, "bytes, but KiB"),
        ("attention.cache", 0.125, "MiB, but KiB"),
        ("on_ramp.kernel", 58_720_256, "weights, but million weights"),
        ("cache.milliseconds", 0.00313, "seconds, but ms"),
        ("roofline.by_hand", (0.004, 0.02), "seconds, but ms"),
    ],
)
def test_a_right_number_in_another_unit_is_told_which(name, answer, unit):
    verdict = EXERCISES[name].examine(answer)
    assert verdict.right is False
    assert f"is right in {unit} are asked for." in verdict.message


def test_a_text_may_name_its_unit():
    assert EXERCISES["attention.cache"].examine("128 KiB").right is True
    assert EXERCISES["attention.cache"].examine("131,072 bytes").right is True
    assert EXERCISES["masks.pairs"].examine("126 million").right is True
    assert (
        EXERCISES["masks.pairs"]
        .examine("126 KiB")
        .message.endswith('Yours is the text "126 KiB". One number (pairs) is asked for.')
    )


def test_a_known_mistake_counts_though_an_estimate_may_be_rough():
    exercise = Estimate(
        name="x.y",
        kind="estimate",
        minutes=5,
        difficulty=1,
        solution=12.9,
        factor=1.1,
        unit="per cent",
        mistakes=((12.5, "that is a window."),),
        hints=("", "", ""),
    )
    assert exercise.examine(12.8).right is True
    assert "that is a window" in exercise.examine(12.5).message


def test_decimal_and_binary_units_are_told_apart():
    exercise = Estimate(
        name="x.y",
        kind="estimate",
        minutes=5,
        difficulty=1,
        solution=128,
        factor=1.05,
        unit="GiB",
        mistakes=(),
        hints=("", "", ""),
    )
    assert "is right in GB, but GiB are asked for." in exercise.examine(137.4).message
    assert exercise.examine("128 GiB").right is True


def test_another_line_is_quoted(capsys):
    check("masks.library", "line 4")
    assert "Line 4 is `total = weights.sum(" in capsys.readouterr().out
    exercise = Line(
        name="x.y",
        kind="read the library",
        minutes=1,
        difficulty=1,
        function=token_losses,  # its sixth line is empty
        line="@jax.checkpoint",
        wrong={},
        hints=("", "", ""),
    )
    assert "Line 6 is empty: the question is about another one." in exercise.examine(6).message


EXPERIMENT = Experiment(
    name="x.y",
    kind="run an experiment",
    minutes=5,
    difficulty=1,
    solution=((0.5, 2.0), "b"),
    within=0.02,
    claims={"a": "it grows.", "b": "it shrinks."},
    refusals={"a": "the second number would be larger."},
    others=(((0.5, 3.0), "that is the other half."),),
    hints=("", "", ""),
)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (((0.51, 1.99), "(B)"), "x.y: right. (b): it shrinks."),
        (((0.5, 2), "a"), "do not say (a): the second number would be larger."),
        (((0.5, 3.01), "b"), "You measured [0.5, 3.01]: that is the other half."),
        (((0.5, 2.5), "b"), "1 of 2 numbers are right; the first that is not is number 1"),
        (((7, 8), "b"), "None of it is what this experiment gives."),
        (((0.5, 2), "c"), 'Yours is a pair that ends with the text "c".'),
        (((0.5, 2, 3), "b"), "Yours is a pair that begins with a list of 3 numbers."),
        ("b", 'A pair of a list of 2 numbers and the letter of a claim, "a" or "b", is asked for.'),
        ((..., ...), "x.y: not tried yet."),
        (((0.5, 2), ...), "x.y: not tried yet."),
    ],
)
def test_an_experiment_needs_the_right_numbers_and_the_right_claim(answer, message):
    assert message in EXPERIMENT.examine(answer).message


def test_every_claim_of_an_experiment_has_its_answer():
    with pytest.raises(ValueError, match="has claims"):
        dataclasses.replace(EXPERIMENT, refusals={})


TIMING = Timing(
    name="x.z",
    kind="run an experiment",
    minutes=5,
    difficulty=1,
    solution=((1.0, 2.0), "2"),
    another=((1.0, 1.0), "1"),
    concludes=lambda seconds: None if (seconds < 0).any() else str(int(seconds[1] / seconds[0])),
    doubt="no time is less than nothing.",
    claims={"1": "it is as long.", "2": "it is twice as long."},
    refusals={"1": "the second is longer.", "2": "the second is not twice as long."},
    others=(((-1.0, -2.0), "those are losses."),),
    hints=("", "", ""),
)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (((3, 6), "2"), "x.z: right. (2): it is twice as long."),
        (((3, 4), 1), "x.z: right. (1): it is as long."),
        (((3, 4), "2"), "Your numbers do not say (2): the second is not twice as long."),
        (((-1, -2), "2"), "You measured [-1, -2]: those are losses."),
        (((-1, 3), "1"), "You measured [-1, 3]: no time is less than nothing."),
        (((np.nan, 3), "1"), "no time is less than nothing."),
        (((3, 4), "4"), 'ends with the text "4". A pair of a list of 2 numbers and a claim, "1"'),
        ((..., ...), "x.z: not tried yet."),
    ],
)
def test_times_are_judged_by_what_they_say_themselves(answer, message):
    assert message in TIMING.examine(answer).message


def test_a_timing_has_a_sentence_for_each_claim_and_its_solution_is_right():
    with pytest.raises(ValueError, match="each needs a refusal"):
        dataclasses.replace(TIMING, refusals={"1": "no."})
    with pytest.raises(ValueError, match="does not bear out"):
        dataclasses.replace(TIMING, solution=((1.0, 2.0), "1"))


def test_an_explanation_is_a_text_of_some_words():
    exercise = next(one for one in EXERCISES.values() if isinstance(one, Explanation))
    assert (
        exercise.examine("The mask was only tried on one size, and masks are small.").right is None
    )
    assert "Yours is one number. A text of three" in exercise.examine(3).message
    assert "Yours is a text of 2 words." in exercise.examine("No idea.").message
    assert exercise.examine("  ").message == f"{exercise.name}: not tried yet."


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


# How answers are read and compared ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ([1, 2], [1, 2]),
        ((np.int8(1), jnp.asarray(2)), [1, 2]),
        (jnp.bfloat16(1004), 1004),
        ("1/2", 0.5),
        ("-3 / 8", -0.375),
        ("7,241,732,096", 7_241_732_096),
        ("line 5", 5),
        ("(4, 8)", [4, 8]),
        (["1/5", 1], [0.2, 1]),
        (Fraction(1, 2), 0.5),
        (2**64, 2.0**64),
        (range(3), [0, 1, 2]),
        (np.float16(3), 3),
        (True, True),
    ],
)
def test_numbers_are_read_in_every_form(answer, expected):
    found = numbers(answer)
    assert found.shape == np.shape(expected)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "None"),
        ({1}, "a set"),
        ({}, "a dictionary"),
        ("many", 'the text "many"'),
        ("1/0", 'the text "1/0"'),
        ([[1], [2, 3]], "a list that cannot be read as numbers"),
        ([1, None], "a list with None in it"),
        (print, "a function"),
        (object(), "an object"),
        (10**400, "one number"),
        (np.array([1j]), "an array with a complex in it"),
    ],
)
def test_what_holds_no_numbers_is_named(answer, said):
    with pytest.raises(Unreadable) as raised:
        numbers(answer)
    assert str(raised.value) == said


def test_answers_are_compared_as_float32_allows():
    assert same([0.1 + 0.2], [0.3])
    assert same(np.float32(1 / 3), 1 / 3)
    assert same(14.9993, 15)
    assert same([True, False], [1, 0]) is False
    assert same([1, 0], [True, False])
    assert not same([1.0], [1.1])
    assert not same(7_241_732_095, 7_241_732_096)
    assert not same(math.nan, 1.0)


def test_a_difference_of_one_cell_that_is_hardly_off_is_shown():
    got, expected = np.array([1.0, 2.002]), np.array([1, 2])
    assert "1 of 2 cells differ, the first at 1: yours is 2.002" in difference(got, expected)
    assert difference(np.array(5), np.array(4)) == "Yours: 5. Expected: 4."
    assert "inf - inf" in difference(np.array([math.nan]), np.array([1.0]))


class Awkward:
    """Whatever is done with it fails."""

    def __array__(self, *arguments, **options):
        raise RuntimeError

    __len__ = __iter__ = __float__ = __repr__ = __str__ = __call__ = __array__


AWKWARD = [
    *(None, True, -1.0, math.nan, math.inf, 1e308, 10**400, 1j, b"x", Fraction(1, 7)),
    *("", "?", "1/0", "1e400", "\ud800", "x" * 5000, "5 parsecs", "[,", [], [[]], (), {}, {1}),
    *([1.7], [None], [[1], [2, 3]], (..., ...), range(3), (x for x in "ab"), object(), Awkward()),
    *(Awkward, np, print, np.add, lambda: 1, lambda *a: a, lambda *a: Awkward(), lambda *a: 1 / 0),
    *(np.array([]), np.zeros((0, 2)), np.ones((2, 2, 2)), np.array([None]), np.array("a")),
    *(np.zeros(2, [("a", int)]), np.datetime64(1, "s"), np.int8(-128), jnp.zeros((2, 2))),
    *([["decoder_9", 1]], [[1, 2], [3, 4]], [np.inf] * 3, [1e200, 1e-300], 2**40, (3, [2**40])),
]


@pytest.mark.parametrize("name", EXERCISES)
def test_no_answer_raises_or_warns_or_is_right_by_chance(name):
    exercise = EXERCISES[name]
    answers = list(AWKWARD)
    if isinstance(exercise, BreakingInput):  # things of every kind in each place
        random = Random(0)
        count = len(exercise.readers)
        answers += [tuple(random.choice(AWKWARD) for _ in range(count)) for _ in range(100)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for answer in answers:
            verdict = exercise.examine(answer)
            assert verdict.right is not True or isinstance(exercise, BreakingInput)
            assert len(verdict.message) < 2_000


# The chapters: what stands in a notebook is what the registry holds.


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
        if isinstance(find(name), Explanation | Experiment):  # experiments need the whole chapter
            continue
        code = "\n".join(re.findall(r"```python\n(.*?)```", details["Solution"], re.S))
        assert code, f"{name}: the solution shows no code"
        namespace = {}
        exec(given_in(notebook, code) + "\n" + code, namespace)
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
    assert len(seen) > 3
