"""mistral_lib/generation/stopping.py: where a text ends, however it comes in pieces."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabularies import trained_model

from mistral_lib import MistralTokenizer
from mistral_lib.generation.stopping import StopStrings, Transcript, check_stop_strings

LETTERS = st.text("ab#", max_size=12)


@settings(max_examples=300, deadline=None)
@given(st.lists(LETTERS, max_size=6), st.lists(st.text("ab#", min_size=1, max_size=4), max_size=3))
def test_pieces_join_to_the_text_before_the_first_stop_string(pieces, strings):
    text = "".join(pieces)
    # As each character comes: the stop string that is complete first ends the text.
    ends = [text.find(s) + len(s) for s in strings if s in text]
    expected = text
    if ends:
        first = min(ends)
        expected = text[: min(text.find(s) for s in strings if 0 <= text.find(s) <= first - len(s))]
    stop = StopStrings(strings)
    shown = ""
    for character in text:
        shown += stop.push(character)
        assert expected.startswith(shown)
    assert shown + stop.flush() == expected
    assert stop.found == bool(ends)


def test_nothing_of_a_stop_string_is_shown_before_it_is_known():
    stop = StopStrings(["</s>", "<end>"])
    assert [stop.push(piece) for piece in ("a<", "e", "n", "x<", "/s", ">b")] == [
        "a",
        "",
        "",
        "<enx",
        "",
        "",
    ]
    assert stop.found
    assert stop.push("more") + stop.flush() == ""


def test_transcript_ends_with_the_token_that_completes_the_string():
    tokenizer = MistralTokenizer(trained_model())
    ids = tokenizer.encode("the window slides", add_bos=False)
    for string in ("ndow", "w s", "e"):
        transcript = Transcript(tokenizer, stop_strings=[string])
        text = "".join(transcript.read(ids[:length]) for length in range(len(ids) + 1))
        assert text + transcript.flush() == "the window slides".partition(string)[0]
        assert transcript.stopped
        assert string in tokenizer.decode(ids[: transcript.length])
        assert string not in tokenizer.decode(ids[: transcript.length - 1])


def test_transcript_without_stop_strings_is_the_text():
    tokenizer = MistralTokenizer(trained_model())
    ids = tokenizer.encode("the ☃ slides", add_bos=False)
    transcript = Transcript(tokenizer)
    assert transcript.read(ids[:2]) + transcript.read(ids) + transcript.flush() == "the ☃ slides"
    assert (transcript.length, transcript.stopped) == (len(ids), False)


def test_ids_that_the_tokenizer_lacks_write_nothing():
    """Added tokens, such as the `<|im_end|>` of a fine-tuned checkpoint."""
    tokenizer = MistralTokenizer(trained_model())
    ids = tokenizer.encode("the window", add_bos=False)
    transcript = Transcript(tokenizer, prompt_ids=[300, 301])
    text = transcript.read([300, *ids[:2], 32000, *ids[2:], 32000]) + transcript.flush()
    assert text == "the window"
    assert transcript.length == len(ids) + 3


def test_what_is_no_stop_string():
    assert check_stop_strings(None) == ()
    assert check_stop_strings(["a", "b"]) == ("a", "b")
    with pytest.raises(ValueError, match="A stop string must not be empty"):
        check_stop_strings(["a", ""])
    with pytest.raises(TypeError, match="stop string 0 is int"):
        check_stop_strings([5])
