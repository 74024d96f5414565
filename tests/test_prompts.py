"""mistral_lib/generation/prompts.py: every form of prompt, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from mistral_lib.generation.jobs import Continuation
from mistral_lib.generation.options import Options
from mistral_lib.generation.prompts import new_token_limits, read_prompts, results, row_seeds


def rows_of(inputs):
    return read_prompts(inputs, None, vocabulary_size=10).rows


def given_back(prompts, new, **options):
    """What `generate` returns for new tokens."""
    done = [Continuation(tokens, None, None) for tokens in new]
    return results(prompts, Options(**options), done, strip_prompt=False, tokenizer=None)


@pytest.mark.parametrize(
    "inputs",
    [
        [1, 2, 3],
        (1, 2, 3),
        np.array([1, 2, 3]),
        jnp.array([1, 2, 3]),
        [np.int64(1), np.int32(2), 3],
    ],
)
def test_one_row_comes_back_as_one_row(inputs):
    prompts = read_prompts(inputs, None, 10)
    assert prompts.rows == [[1, 2, 3]]
    assert given_back(prompts, [[4]]) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "inputs",
    [
        [[1, 2], [3, 4]],
        np.array([[1, 2], [3, 4]]),
        [np.array([1, 2]), np.array([3, 4])],
        [jnp.array([1, 2]), [3, 4]],
    ],
)
def test_rows_come_back_as_rows(inputs):
    prompts = read_prompts(inputs, None, 10)
    assert prompts.rows == [[1, 2], [3, 4]]
    assert given_back(prompts, [[1], [2]]) == [[1, 2, 1], [3, 4, 2]]


def test_dictionary():
    inputs = {"token_ids": [[1, 2, 3], [4, 0, 0]], "padding_mask": [[1, 1, 1], [1, 0, 0]]}
    prompts = read_prompts(inputs, None, 10)
    assert prompts.rows == [[1, 2, 3], [4]]
    assert prompts.room() == [0, 2]
    limited = given_back(prompts, [[], [3]], max_new_tokens=1)
    np.testing.assert_array_equal(limited["token_ids"], [[1, 2, 3], [4, 3, 0]])
    np.testing.assert_array_equal(limited["padding_mask"], [[1, 1, 1], [1, 1, 0]])
    to_width = given_back(prompts, [[5], [3]])  # the first row had no room
    np.testing.assert_array_equal(to_width["token_ids"], [[1, 2, 3], [4, 3, 0]])
    wide = {name: np.pad(array, ((0, 0), (0, 2))) for name, array in inputs.items()}
    assert given_back(read_prompts(wide, None, 10), [[5], [3]])["token_ids"].shape == (2, 5)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ([], ValueError, "Prompt 0 must hold at least one token|must hold at least one prompt"),
        ([[1], []], ValueError, "Prompt 1 must hold at least one token, but is empty"),
        ([[1], [2, 10]], ValueError, "must be from 0 to 9 .*, but one is 10, in row 1"),
        ([-1], ValueError, "must be from 0 to 9 .*, but one is -1"),
        ([1.5], TypeError, "must be an integer"),
        ([[1, "a"]], TypeError, "must be an integer"),
        ([[1, 2], 3], TypeError, "a row of token ids must be a list|A row of token ids must"),
        (None, TypeError, "A prompt must be text"),
        (7, TypeError, "A prompt must be text"),
        ("text", ValueError, "no preprocessor"),
        (["a", "b"], ValueError, "no preprocessor"),
        ({"token_ids": [[1]]}, ValueError, "padding_mask"),
        ({"token_ids": [[1, 2]], "padding_mask": [[0, 1]]}, ValueError, "on the right"),
        ({"token_ids": [[1, 2]], "padding_mask": [[1]]}, ValueError, "shape"),
    ],
)
def test_what_is_refused(inputs, error, message):
    with pytest.raises(error, match=message):
        rows_of(inputs)


def test_limits():
    rows = [[1, 2, 3], [1]]
    assert new_token_limits(rows, max_length=5, max_new_tokens=None) == [2, 4]
    assert new_token_limits(rows, max_length=None, max_new_tokens=7) == [7, 7]
    with pytest.raises(ValueError, match=r"max_length must be above 3, .* but is 3"):
        new_token_limits(rows, max_length=3, max_new_tokens=None)
    for limit, found in ((5, "both are"), (None, "neither is")):
        with pytest.raises(ValueError, match=f"must be given, but {found}"):
            new_token_limits(rows, max_length=limit, max_new_tokens=limit)
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1"):
        new_token_limits(rows, max_length=None, max_new_tokens=0)


def test_seeds():
    assert row_seeds(3, 2) == [3, 4]
    assert row_seeds(np.array([9, 2]), 2) == [9, 2]
    with pytest.raises(ValueError, match="2 of them for 2 rows, but has 3 entries"):
        row_seeds([1, 2, 3], 2)
    with pytest.raises(ValueError, match="at least 0"):
        row_seeds(-1, 1)
    with pytest.raises(ValueError, match="below 2"):
        row_seeds(2**31, 2)
    with pytest.raises(TypeError, match="seed must be an integer"):
        row_seeds("1", 1)


def test_no_seed_is_another_each_time():
    first, second = row_seeds(None, 3), row_seeds(None, 3)
    assert first == [first[0], first[0] + 1, first[0] + 2]
    assert first != second
