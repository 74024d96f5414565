"""mistral_lib/inputs.py: one definition of text and of token ids."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from mistral_lib.inputs import standardize_inputs

IDS = [[1, 2, 3], [4, 5, 0]]
MASK = [[1, 1, 1], [1, 1, 0]]


@pytest.mark.parametrize(
    "kind", [lambda x: x, tuple, np.array, jnp.array, lambda x: np.array(x, "uint8")]
)
def test_arrays_and_lists_pass(kind):
    found = standardize_inputs({"token_ids": kind(IDS), "padding_mask": kind(MASK)}, 6)
    assert list(found) == ["token_ids", "padding_mask"]
    np.testing.assert_array_equal(found["token_ids"], IDS)
    np.testing.assert_array_equal(found["padding_mask"], MASK)


def test_arrays_are_not_copied():
    ids = jnp.array(IDS)
    assert standardize_inputs({"token_ids": ids, "padding_mask": MASK})["token_ids"] is ids


def test_what_is_no_dictionary_passes_through():
    dataset = iter([])
    assert standardize_inputs(dataset) is dataset


def test_symbols_and_traced_arrays_pass():
    symbol = keras.Input((None,), dtype="int32")
    found = standardize_inputs({"token_ids": symbol, "padding_mask": symbol}, 6)
    assert found["token_ids"] is symbol
    jax.make_jaxpr(lambda ids: standardize_inputs({"token_ids": ids, "padding_mask": ids}, 1))(
        np.array(IDS)
    )


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"token_ids": IDS}, ValueError, "must have the keys .*padding_mask.* but have"),
        ({"token_ids": IDS, "mask": MASK}, ValueError, "must have the keys"),
        (
            {"token_ids": IDS, "padding_mask": MASK, "segment_ids": IDS},
            ValueError,
            "must have the keys",
        ),
        (
            {"token_ids": [[1, 2], [1]], "padding_mask": MASK},
            ValueError,
            "token_ids has rows of different lengths. Pad them on the right",
        ),
        (
            {"token_ids": IDS, "padding_mask": [[1, 1, 1], [1, 1]]},
            ValueError,
            "padding_mask has rows of different lengths",
        ),
        (
            {"token_ids": IDS, "padding_mask": [MASK]},
            ValueError,
            r"but have the shapes \(2, 3\) and \(1, 2, 3\)",
        ),
        (
            {"token_ids": IDS, "padding_mask": [[1, 1, 1]]},
            ValueError,
            r"the shapes \(2, 3\) and \(1, 3\)",
        ),
        ({"token_ids": [1, 2], "padding_mask": [1, 1]}, ValueError, r"\(batch, length\)"),
        ({"token_ids": IDS, "padding_mask": None}, ValueError, r"\(2, 3\) and \(\)"),
        ({"token_ids": 1, "padding_mask": 1}, ValueError, r"\(batch, length\)"),
        ({"token_ids": [[]], "padding_mask": [[]]}, ValueError, "at least one token a row"),
        ({"token_ids": np.ones((2, 3)), "padding_mask": MASK}, TypeError, "must be integers"),
        ({"token_ids": [["a"]], "padding_mask": [[1]]}, TypeError, "must be integers"),
        ({"token_ids": np.ones((2, 3), bool), "padding_mask": MASK}, TypeError, "integers"),
        (
            {"token_ids": [[1, 2, 6]], "padding_mask": [[1, 1, 1]]},
            ValueError,
            "must be from 0 to 5 .*vocabulary_size is 6.* one is 6",
        ),
        ({"token_ids": [[1, -1, 3]], "padding_mask": [[1, 1, 1]]}, ValueError, "one is -1"),
    ],
)
def test_wrong_inputs_are_named(inputs, error, message):
    with pytest.raises(error, match=message):
        standardize_inputs(inputs, 6)


def test_without_a_vocabulary_size_any_id_passes():
    standardize_inputs({"token_ids": [[99]], "padding_mask": [[1]]})
