"""The parts of the reader's package that no exercise of a notebook judges."""

import pytest

from mistral_lib.teaching.exercises.kinds import Function
from mistral_lib.teaching.own_parts import PARTS, Written

OWN = [part.exercise for part in PARTS if isinstance(part.exercise, Function)]


@pytest.mark.parametrize("exercise", OWN, ids=lambda exercise: exercise.name)
def test_the_solution_is_right_and_each_mistake_gets_its_sentence(exercise):
    assert exercise.examine(exercise.solution).right
    assert exercise.examine(lambda *arguments: ...).right is None
    for sentence, wrong in exercise.mistakes.items():
        verdict = exercise.examine(wrong)
        assert verdict.right is False
        assert sentence in verdict.message
        assert "object at" not in verdict.message


def test_parts_have_names_of_their_own_and_follow_the_book():
    names = [str(part) for part in PARTS]
    assert len(names) == len(set(names))
    assert [part.chapter for part in PARTS] == sorted(part.chapter for part in PARTS)
    assert {part.module for part in PARTS if part.judge is None} == {"model"}


def test_a_function_is_shown_as_it_was_written():
    assert repr(Written("lambda x: x + 1")) == "lambda x: x + 1"
