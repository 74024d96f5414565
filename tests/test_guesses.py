"""A guess stands beside the result, and leaves no trace where there is none."""

import numpy as np
import pytest

from mistral_lib.teaching.guesses import beside


@pytest.mark.parametrize("guess", [0.5, "key", None, [1, 2], np.zeros(2)])
def test_a_guess_is_shown(guess):
    assert beside(guess, "0.96") == f"0.96   (your guess: {guess})"


def test_no_guess_adds_nothing():
    assert beside(..., 3) == "3"
