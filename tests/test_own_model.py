"""The model that judges the reader's is the library's, and finds where another one differs."""

import numpy as np
import pytest

from mistral_lib.teaching import own_model
from mistral_lib.teaching.exercises.running import NotTried


def test_a_window_that_is_wrong_is_told_by_the_position():
    model = own_model.shipped()

    def wide(ids):
        kept, model.settings["sliding_window"] = model.settings["sliding_window"], 129
        try:
            return own_model.streams(ids)
        finally:
            model.settings["sliding_window"] = kept

    said = own_model.complaint("streams", wide)
    assert said == (
        "Station 1 is the first that differs, at position 128: look at block 0. The first 128 are "
        "right, so look at the window."
    )


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "is a `return` missing?"),
        ("logits", "It returns the text"),
        (np.zeros(3), "Shape: yours is (3,), expected (140, 2048)."),
        (np.full((140, 2048), np.nan), "Position 0 is the first that differs."),
    ],
)
def test_what_is_no_array_of_logits_is_named(answer, said):
    assert said in own_model.complaint("read", lambda ids: answer)


def test_dots_are_no_answer():
    with pytest.raises(NotTried):
        own_model.complaint("read", lambda ids: ...)


def test_limits_are_ratios():
    assert own_model._ratio("time", 2, 3.0, 2.0)[1] is None
    what, advice = own_model._ratio("time", 2, 5.0, 2.0)
    assert what == "time: 2.5 × the reference's (at most 2)"
    assert "whole arrays" in advice


def test_texts_are_compared_token_for_token():
    assert own_model._text([1, 5, 2], [1, 5, 2]) is None
    assert own_model._text([1, 5, 2], [1, 6, 2]) == "token 1 is 5, the library's 6"
    assert "yours has 2 tokens" in own_model._text(np.array([1, 5]), [1, 5, 2])
