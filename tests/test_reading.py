"""mistral_lib/generation/reading.py: prompts in chunks, and only the rows that have tokens left."""

import numpy as np
import pytest
from decoding_models import PROMPTS, WINDOW, make_backbone, make_loop, prompt, write

from mistral_lib.generation.compiled import watch
from mistral_lib.generation.reading import PromptReader


@pytest.fixture(scope="module")
def backbone():
    return make_backbone()


@pytest.fixture(scope="module")
def loop(backbone):
    return make_loop(backbone)


@pytest.mark.parametrize("chunk_size", [1, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW])
def test_prefill_in_chunks(backbone, loop, chunk_size):
    in_chunks = make_loop(backbone, chunk_size=chunk_size)
    assert write(in_chunks, PROMPTS, [6] * 3) == write(loop, PROMPTS, [6] * 3)


def test_hidden_states_are_those_of_the_last_tokens(backbone):
    """Of three rows and two samples each, whatever the chunks."""
    reader = PromptReader(backbone, chunk_size=4)
    hidden, cache = reader.read(PROMPTS, max_length=40, num_samples=2)
    np.testing.assert_array_equal(cache.lengths, np.repeat([len(row) for row in PROMPTS], 2))
    for index, row in enumerate(PROMPTS):
        inputs = {"token_ids": np.array([row]), "padding_mask": np.ones((1, len(row)))}
        expected = np.array(backbone(inputs))[:, -1]
        np.testing.assert_allclose(hidden[2 * index : 2 * index + 2], [*expected] * 2, atol=1e-4)


def test_rows_that_have_ended_are_read_no_further(backbone, loop):
    """Rows of 3, 7 and 30 tokens in chunks of 4: 8 chunks for the last, of 3, 2, 1, 1, ... rows."""
    with watch() as calls:
        got = write(make_loop(backbone, chunk_size=4), PROMPTS, [6] * 3)
    chunks = [call.arguments[2] for call in calls if call.name == "read_chunk"]
    assert [chunk.shape for chunk in chunks] == [(3, 4), (2, 4), *[(1, 4)] * 6]
    assert got == write(loop, PROMPTS, [6] * 3)


def test_a_short_row_beside_three_longer_ones(backbone, loop):
    """Three of four rows go on reading, which is no power of two: the fourth reads nothing."""
    prompts = [PROMPTS[0], PROMPTS[2], prompt(20, 4), prompt(25, 5)]
    together = write(make_loop(backbone, chunk_size=4), prompts, [6] * 4)
    assert together == [write(loop, [row], [6])[0] for row in prompts]
