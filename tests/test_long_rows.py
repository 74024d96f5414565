"""mistral_lib/teaching/long_rows.py: documents at the ends of rows, and masks put into a model."""

import jax.numpy as jnp
import numpy as np
import pytest

from mistral_lib import MistralCausalLM
from mistral_lib.masks import can_see
from mistral_lib.teaching import long_rows, panel
from mistral_lib.teaching.interventions import read
from mistral_lib.teaching.measures import bits
from mistral_lib.teaching.transplant import transplanted


@pytest.fixture(scope="module")
def model():
    return MistralCausalLM.from_preset("mistral_tiny_en")


@pytest.fixture(scope="module")
def documents(model):
    few = np.arange(52) % 8 == 1  # of the half "confirm"
    return panel.documents(model.preprocessor.tokenizer).where(few)


def test_rows_begin_with_the_start_token_and_end_with_their_document(model, documents):
    tokenizer = model.preprocessor.tokenizer
    rows, own = long_rows.after_others(documents, tokenizer, 256)
    assert rows.title == "documents, after others"
    assert (rows.token_ids[:, 0] == tokenizer.start_token_id).all()
    for row, mine, text in zip(rows.token_ids, own, documents.items):
        assert tokenizer.decode(row[mine].tolist()) == text


def test_what_comes_before_is_that_of_the_documents_before():
    found = long_rows.before([[5, 6], [7], [8, 9]], length=4, start=1)
    np.testing.assert_array_equal(found, [[1, 7, 8, 9], [1, 9, 5, 6], [1, 5, 6, 7]])


def test_a_row_must_be_filled():
    with pytest.raises(ValueError, match="only 4 tokens"):
        long_rows.before([[5, 6], [7, 8]], length=9, start=1)


def test_only_the_documents_tokens_are_counted(documents):
    logits = np.zeros((*documents.token_ids.shape, 2048))
    whole = long_rows.own_bits(logits, documents, documents.padding_mask)
    np.testing.assert_allclose(whole, bits(logits, documents), rtol=1e-5)
    np.testing.assert_allclose(whole, 11 * (documents.padding_mask.sum(axis=1) - 1), rtol=1e-5)
    nothing = long_rows.own_bits(logits, documents, np.zeros_like(documents.padding_mask))
    np.testing.assert_array_equal(nothing, 0)


def test_an_edit_is_what_a_mask_does(model, documents):
    place = np.arange(documents.token_ids.shape[1])
    edited = read(model, documents, long_rows.only(can_see(place[:, None], place, 7)))

    def mask(queries, keys, window, real):
        return can_see(queries[:, None], keys, 7) & real

    with transplanted(model, mask=mask):
        masked = read(model, documents)
    real = documents.padding_mask
    np.testing.assert_allclose(edited[real], masked[real], atol=2e-4)


def test_a_query_that_sees_nothing_is_no_nan():
    weights = jnp.ones((1, 1, 2, 2)) / 2
    kept = long_rows.only(np.array([[False, False], [True, False]]))("weights", 0, weights)
    np.testing.assert_array_equal(kept[0, 0], [[0, 0], [1, 0]])
