"""Repeats: the same tokens twice, drawn alike on every machine."""

import re

import numpy as np
import pytest

from mistral_lib.teaching import repeats
from mistral_lib.tokenizer import MistralTokenizer

TOKENIZER = MistralTokenizer.from_preset("mistral_tiny_en")
SETS = {
    "sentences": repeats.sentences(TOKENIZER),
    "random repeats": repeats.random_repeats(TOKENIZER),
}


def pieces(ids) -> list[str]:
    return [TOKENIZER.id_to_token(int(i)) for i in ids]


@pytest.mark.parametrize("name", ["sentences", "random repeats"])
def test_repeats_come_twice(name):
    rows = SETS[name]
    for ids, real, period in zip(rows.token_ids, rows.padding_mask, rows.periods):
        assert ids[0] == TOKENIZER.start_token_id
        assert real.sum() == 2 * period + 1
        assert np.array_equal(ids[1 : period + 1], ids[period + 1 : 2 * period + 1])


def test_random_repeats_are_printable_pieces_each_once():
    rows = SETS["random repeats"]
    for ids, period in zip(rows.token_ids, rows.periods):
        sequence = ids[1 : period + 1]
        assert len({*sequence.tolist()}) == period
        assert all(re.fullmatch(r"[ -~]+", piece.replace("▁", " ")) for piece in pieces(sequence))


def test_random_repeats_are_the_same_everywhere():
    assert SETS["random repeats"].token_ids[0, 1:5].tolist() == [1115, 1181, 529, 1445]
    other = repeats.random_repeats(TOKENIZER, seed=1)
    assert not np.array_equal(other.token_ids, SETS["random repeats"].token_ids)
