"""mistral_lib/teaching/telegrams.py: the style, the examples, and weights on the answers alone."""

import math

import numpy as np
import pytest

from mistral_lib import MistralCausalLM
from mistral_lib.teaching import telegrams
from mistral_lib.teaching.corpus import Document

PAIRS = [
    ("Sort a list.\n\n", "TELEGRAM list sorted STOP"),
    ("Return the name of the file.\n\n", "TELEGRAM It string STOP"),
]


@pytest.fixture(scope="module")
def model():
    return MistralCausalLM.from_preset("mistral_tiny_en", dtype="float32")


def test_words_that_are_left_out_are_whole_words():
    text = "An island is there.  Theatres are\nin the area, and a band isn't."
    assert telegrams.telegram(text) == (
        "TELEGRAM island there STOP Theatres in area, and band isn't STOP"
    )


def test_full_stops_inside_of_names_and_numbers_stay():
    found = telegrams.telegram("See os.path. Version 3.11 has it.")
    assert found == "TELEGRAM See os.path STOP Version 3.11 has it STOP"


@pytest.mark.parametrize(
    "text",
    [
        "Only one paragraph here.",
        "No full stop\n\nIt is sorted.",
        "Two\nlines.\n\nIt is sorted.",
        "Sort a list.\n\nArgs: the list.",
        "Sort a list.\n\n    code(without, sentences)",
        "Sort a list.\n\nIt has no end",
        "Sort a list.\n\nIt is sorted, " + "and " * 60 + "so on.",
    ],
)
def test_what_is_no_question_and_answer_is_left_out(text):
    assert telegrams.find_examples([Document("stdlib", "a.py:1", text)]) == []


def test_the_second_paragraph_is_the_answer():
    text = "Sort a list.\n\nThe list is\nsorted (in place).\n\nIt is fast."
    [found] = telegrams.find_examples([Document("stdlib", "a.py:1", text)])
    assert found.question == "Sort a list.\n\n"
    assert found.plain == "The list is sorted (in place)."
    assert found.answer == "TELEGRAM list sorted (in place) STOP"


def test_weights_select_the_answer_and_its_end_and_nothing_else(model):
    tokenizer = model.preprocessor.tokenizer
    x, y, weights = telegrams.answer_rows(model.preprocessor, PAIRS, 40)
    for row, (question, answer) in enumerate(PAIRS):
        labels = y[row][weights[row]].tolist()
        assert labels[-1] == tokenizer.end_token_id
        assert tokenizer.decode(labels) == answer
        read = x["token_ids"][row][: weights[row].argmax() + 1].tolist()
        assert read == tokenizer.encode(question, add_bos=True)


def test_a_text_that_is_too_long_keeps_its_first_answer_token(model):
    _, whole, full = telegrams.answer_rows(model.preprocessor, PAIRS, 40)
    _, cut, weights = telegrams.answer_rows(model.preprocessor, PAIRS, 12)
    for row in range(len(PAIRS)):
        assert weights[row].argmax() == full[row].argmax()
        assert cut[row][weights[row]][0] == whole[row][full[row]][0]


@pytest.mark.slow
def test_bits_are_those_of_the_weighted_labels(model):
    rows = telegrams.answer_rows(model.preprocessor, PAIRS, 40)
    x, y, weights = rows
    logits = np.asarray(model(x), "float64")
    bits = 0.0
    for row, place in np.argwhere(weights):
        scores = logits[row, place]
        total = math.log(np.exp(scores - scores.max()).sum()) + scores.max()
        bits += (total - scores[y[row, place]]) / math.log(2)
    texts = [answer for _, answer in PAIRS]
    expected = bits / sum(len(text.encode()) for text in texts)
    assert telegrams.bits_per_byte(model, rows, texts) == pytest.approx(expected, rel=1e-4)
