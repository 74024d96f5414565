"""Exercises with new numbers: a hundred seeds of each, and the book's own numbers."""

import re

import numpy as np
import pytest

from mistral_lib.teaching import exercises
from mistral_lib.teaching.exercises import FRESH, check, find, question
from mistral_lib.teaching.exercises.fresh import alike
from mistral_lib.teaching.exercises.kinds import Estimate, Value

SEEDS = range(100)


@pytest.mark.parametrize("name", FRESH)
def test_the_numbers_of_the_book_give_the_answer_of_the_book(name):
    fresh, exercise = FRESH[name], find(name)
    assert isinstance(exercise, Value | Estimate)
    answer = np.asarray(fresh.answer(**fresh.book), float)
    assert np.allclose(answer, np.asarray(exercise.solution, float), rtol=2e-3)
    (tempting, said), *_ = fresh.mistakes(**fresh.book)
    assert exercise.examine(tempting).right is False
    assert said in fresh.at(exercise, fresh.book).examine(tempting).message
    assert find(name) is exercise  # a card is never changed


@pytest.mark.parametrize("name", FRESH)
def test_a_hundred_seeds(name):
    fresh, exercise, seen = FRESH[name], find(name), set()
    for seed in SEEDS:
        numbers = fresh.drawn(exercise, seed)
        assert numbers == fresh.drawn(exercise, seed)
        assert numbers != fresh.book
        asked = fresh.at(exercise, numbers)
        answer = fresh.answer(**numbers)
        assert np.isfinite(np.asarray(answer, float)).all()
        assert asked.examine(answer).right is True, (seed, numbers)
        # Rounded as a reader would; a list may be an array.
        rounded = np.vectorize(lambda number: float(f"{number:.6g}"))(np.asarray(answer, float))
        assert asked.examine(rounded).right is True, (seed, numbers)
        (tempting, said), *others = fresh.mistakes(**numbers)
        message = asked.examine(tempting).message
        assert f"{name}: not yet." in message, (seed, numbers)
        assert said in message, (seed, numbers)
        told = [sentence for _, sentence in asked.mistakes]
        for wrong, _ in others:
            if not alike(exercise, wrong, answer):
                message = asked.examine(wrong).message
                assert any(sentence in message for sentence in told), (seed, numbers, wrong)
        seen.add(fresh.text.format(**numbers))
    assert len(seen) >= 10 or len(fresh.ranges) == 1


@pytest.mark.parametrize("name", FRESH)
def test_a_question_shows_its_numbers_and_is_plain_text(name):
    fresh = FRESH[name]
    text = fresh.text.format(**fresh.book)
    assert text.rstrip().endswith((".", "?", ")")) or "\n    " in text
    assert not re.search(r"[{}$]|\*\*[A-Z]", text)
    assert "?" in text or "Write" in text or "Estimate" in text
    for key in fresh.ranges:
        assert f"{{{key}" in fresh.text, f"{key} is not in the question"


def test_there_are_as_many_as_were_promised():
    assert len(FRESH) >= 25


def test_question_and_check_belong_together(capsys):
    question("attention.cache", seed=7)
    asked = capsys.readouterr().out
    assert asked.startswith("attention.cache, seed 7:\nA model has ")
    numbers = FRESH["attention.cache"].drawn(find("attention.cache"), 7)
    check("attention.cache", FRESH["attention.cache"].answer(**numbers), seed=7)
    assert "attention.cache: right. Exactly: " in capsys.readouterr().out
    question("attention.cache")
    assert "32 layers, each with 32 query heads and 8 heads" in capsys.readouterr().out


def test_an_exercise_without_other_numbers_says_so(capsys):
    question("masks.window", seed=3)
    check("masks.window", np.ones, seed=3)
    said = "masks.window has no other numbers: its question is the one in the chapter.\n"
    assert capsys.readouterr().out == 2 * said
    with pytest.raises(ValueError, match=r"masks\.window"):
        question("masks.widow", seed=1)


def test_an_untouched_stub_of_a_seed_is_not_judged(capsys):
    check("masks.row", ..., seed=3)
    assert capsys.readouterr().out == "masks.row: not tried yet.\n"


def test_every_name_is_an_exercise():
    names = {exercise.name for exercise in exercises.all_exercises()}
    assert set(FRESH) <= names
