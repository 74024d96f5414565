"""The task of two places: what is asked for, and what one head cannot write."""

import numpy as np
import pytest

from mistral_lib.teaching.two_places import NUMBERS, TOKENS, lost, texts, written


def test_the_marks_say_which_two_tokens_are_asked_for():
    tokens, wanted = texts(0, number=50)
    assert tokens.shape == (50, TOKENS, NUMBERS + 2)
    assert wanted.shape == (50, 2 * NUMBERS)
    for text, right in zip(tokens, wanted):
        first, second = text[:, NUMBERS:].argmax(axis=0)
        assert first != second
        assert text[:, NUMBERS:].sum() == 2
        assert np.array_equal(right, [*text[first, :NUMBERS], *text[second, :NUMBERS]])


def test_two_heads_can_write_all_of_it_by_construction():
    tokens, wanted = texts(1, number=20)
    width, heads = NUMBERS + 2, 2
    weights = {
        "query": np.full((heads, NUMBERS), 100.0),
        "key": np.zeros((width, heads, NUMBERS)),
        "value": np.zeros((width, heads, NUMBERS)),
        "output": np.zeros((heads, NUMBERS, 2 * NUMBERS)),
    }
    for head in range(heads):
        weights["key"][NUMBERS + head, head] = 1
        weights["value"][:NUMBERS, head] = np.eye(NUMBERS)
        weights["output"][head, :, head * NUMBERS : (head + 1) * NUMBERS] = np.eye(NUMBERS)
    assert np.allclose(written(weights, tokens), wanted, atol=1e-5)


def test_a_seed_decides_everything():
    twice, other = lost(1, 2, seeds=(3, 3)), lost(1, 2, seeds=(4,))
    assert twice[0] == pytest.approx(twice[1], abs=1e-5)
    assert abs(twice[0] - other[0]) > 1e-4


@pytest.mark.slow
def test_more_numbers_do_not_help_one_head_and_a_second_head_does():
    assert (lost(1, 8) > 0.35).all()
    assert (lost(1, 32) > 0.35).all()
    assert (lost(2, 4) < 0.05).all()
