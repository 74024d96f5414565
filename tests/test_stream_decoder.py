"""mistral_lib/generation/stream_decoder.py: pieces join to the text decoded all at once."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabularies import TEXTS, mistral_tokenizer, tekken, trained_model

from mistral_lib.generation.stream_decoder import StreamDecoder
from mistral_lib.tokenizer import MistralTokenizer


@functools.cache
def tokenizer(name):
    if name in ("v1", "v3"):
        return mistral_tokenizer(name)
    if name == "tekken":
        return tekken("240911")
    if name == "bytes last":
        return MistralTokenizer(bytes_last(trained_model(normalization_rule_name="identity")))
    return MistralTokenizer(trained_model(**TRAINED[name]))


def bytes_last(proto):
    """The model with the byte pieces behind the others, then the lead byte 0xE2, then the space."""
    pieces, position = [], 0
    while proto[position] == 0x0A:  # a piece, whose size is in the next byte
        end = position + 2 + proto[position + 1]
        pieces.append(proto[position:end])
        position = end
    ends = [b"<0x", b"<0xE2>", "\n\x03▁\x15".encode()]
    return (
        b"".join(sorted(pieces, key=lambda piece: [end in piece for end in ends[::-1]]))
        + (proto[position:])
    )


TRAINED = {
    # The trainer's default drops all spaces at the start of a text, not one.
    "merging spaces": {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3},
    "no space in front": {"add_dummy_prefix": False, "remove_extra_whitespaces": False},
}
NAMES = ["v1", "v3", "bytes last", *TRAINED]
ALL = [*NAMES, "tekken"]


@functools.cache
def id_lists(name):
    """Ids as likely to be bytes of UTF-8, spaces, control tokens and padding as to be text."""
    vocabulary = tokenizer(name)
    byte = vocabulary.token_to_id("Ā" if name == "tekken" else "<0x00>")
    pieces = vocabulary.get_vocabulary()
    character = st.characters(codec="utf-8").map(
        lambda character: [byte + value for value in character.encode()]
    )
    one_of = st.one_of(
        st.sampled_from([0x20, 0x41, 0x82, 0xAC, 0xC2, 0xE2, 0xED, 0xF0, 0x9F, 0xFF]).map(
            lambda value: [byte + value]
        ),
        character,
        character.map(lambda ids: ids[:-1]),
        st.tuples(character, st.sampled_from([0, 1, 2, 3])).map(
            lambda drawn: [drawn[0][0], drawn[1], *drawn[0][1:]]
        ),
        st.sampled_from([i for i, piece in enumerate(pieces) if not piece.strip("▁Ġ")]).map(
            lambda id: [id]
        ),
        st.sampled_from([0, 1, 2, 3]).map(lambda id: [id]),
        st.integers(0, len(pieces) - 1).map(lambda id: [id]),
    )
    return st.lists(one_of, max_size=8).map(lambda parts: list(itertools.chain(*parts)))


def blocks(ids, cuts):
    """`ids` cut at the places `cuts`, which may repeat: blocks may be empty."""
    places = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    return [ids[begin:end] for begin, end in itertools.pairwise(places)]


CUTS = st.lists(st.integers(0, 12), max_size=6)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_pieces_join_to_the_text(name, data):
    ids = data.draw(id_lists(name))
    decoder = StreamDecoder(tokenizer(name))
    pieces = [decoder.push(block) for block in blocks(ids, data.draw(CUTS))]
    assert "".join([*pieces, decoder.flush()]) == tokenizer(name).decode(ids)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_pieces_continue_the_prompt(name, data):
    prompt, ids = data.draw(id_lists(name)), data.draw(id_lists(name))
    of_prompt = StreamDecoder(tokenizer(name))
    before = of_prompt.push(prompt)  # all but the bytes of an unfinished character
    decoder = StreamDecoder(tokenizer(name), prompt)
    pieces = [decoder.push(block) for block in blocks(ids, data.draw(CUTS))]
    assert before + "".join([*pieces, decoder.flush()]) == tokenizer(name).decode(prompt + ids)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_only_unfinished_characters_are_held_back(name, data):
    ids = data.draw(id_lists(name))
    decoder, written = StreamDecoder(tokenizer(name)), ""
    for n, id in enumerate(ids, start=1):
        written += decoder.push([id])
        whole = tokenizer(name).decode(ids[:n])
        # What was written stays; what is missing shows as U+FFFD, one for each byte.
        assert whole.startswith(written)
        missing = whole[len(written) :]
        assert missing == "\ufffd" * len(missing)
        assert len(missing) <= 3


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_tekken_holds_back_no_more_than_unfinished_tokens(data):
    """A token may end inside a character, and the next may complete it and begin another."""
    ids = data.draw(id_lists("tekken"))
    ours, written = tokenizer("tekken"), ""
    decoder = StreamDecoder(ours)
    for n, id in enumerate(ids, start=1):
        written += decoder.push([id])
        whole = ours.decode(ids[:n])
        assert whole.startswith(written)
        if not whole.endswith("\ufffd"):
            assert whole == written


@pytest.mark.parametrize("name", ["v1", "v3", "tekken"])
@pytest.mark.parametrize("text", TEXTS)
def test_every_character_comes_at_once(name, text):
    text, vocabulary = TEXTS[text], tokenizer(name)
    decoder = StreamDecoder(vocabulary)
    pieces = [decoder.push([id]) for id in vocabulary.encode(text, add_bos=True, add_eos=True)]
    assert "".join(pieces) == text  # nothing was left to flush
    assert decoder.flush() == ""
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def test_pieces_of_a_snowman():
    vocabulary = tokenizer("v1")
    byte = vocabulary.token_to_id("<0x00>")
    decoder = StreamDecoder(vocabulary)
    assert [decoder.push([byte + value]) for value in b"\xe2\x98\x83\xe2"] == ["", "", "☃", ""]
    assert decoder.push([byte + 0x41]) == "\ufffdA"  # the last byte can no longer be completed
    assert decoder.push([byte + 0xF0, byte + 0x9F, byte + 0x91]) == ""
    assert decoder.flush() == "\ufffd\ufffd\ufffd"


def test_the_first_piece_after_a_prompt_keeps_its_space():
    vocabulary = tokenizer("v1")
    the, quick = vocabulary.encode("The quick")
    assert StreamDecoder(vocabulary, [1, the]).push([quick]) == " quick"
    assert StreamDecoder(vocabulary, [1]).push([quick]) == "quick"
    assert StreamDecoder(vocabulary).push([the, quick]) == "The quick"


def test_only_the_first_space_of_a_text_is_dropped():
    vocabulary = tokenizer("v1")
    space, the, end = vocabulary.token_to_id("▁"), 415, vocabulary.end_token_id
    for ids, text in (
        ([the, the], "The The"),
        ([space, the], " The"),
        ([end, the], "The"),
        ([space, end, the], " The"),
        ([end, space, end, end, the, the], " The The"),
    ):
        for size in (1, 2, 3):
            decoder = StreamDecoder(vocabulary)
            pieces = [decoder.push(ids[at : at + size]) for at in range(0, len(ids), size)]
            assert "".join(pieces) == text == vocabulary.decode(ids)


def test_a_character_that_the_prompt_began_belongs_to_the_first_piece():
    vocabulary = tokenizer("v1")
    byte = vocabulary.token_to_id("<0x00>")
    decoder = StreamDecoder(vocabulary, [1, byte + 0xE2, byte + 0x98])
    assert decoder.push([byte + 0x83]) == "☃"


def test_padding_inside_a_character():
    vocabulary = tokenizer("v1")
    byte = vocabulary.token_to_id("<0x00>")
    first, *rest = (byte + value for value in "☃".encode())
    for padding, text in ((vocabulary.pad_token_id, "☃"), (vocabulary.end_token_id, "\ufffd" * 3)):
        ids = [first, padding, *rest]
        decoder = StreamDecoder(vocabulary)
        assert "".join(decoder.push([id]) for id in ids) == vocabulary.decode(ids) == text


def test_arrays_of_ids():
    vocabulary = tokenizer("v1")
    ids = np.array(vocabulary.encode("The snowman 👋"), "int32")
    decoder = StreamDecoder(vocabulary, ids[:1])
    assert decoder.push(ids[1:-1]) + decoder.push(tuple(ids[-1:])) == " snowman 👋"


@pytest.mark.parametrize(
    ("ids", "error"), [([32000], ValueError), ([-1], ValueError), ([1.0], TypeError)]
)
def test_bad_ids_leave_the_decoder_as_it_was(ids, error):
    vocabulary = tokenizer("v1")
    byte = vocabulary.token_to_id("<0x00>")
    decoder = StreamDecoder(vocabulary)
    decoder.push([byte + 0xE2, byte + 0x98])
    with pytest.raises(error, match="Token id"):
        decoder.push([*ids, 415, 415, 415])
    assert decoder.push([byte + 0x83]) == "☃"


def test_nothing_comes_after_flush():
    decoder = StreamDecoder(tokenizer("v1"))
    decoder.flush()
    with pytest.raises(RuntimeError, match="was flushed"):
        decoder.push([415])


@pytest.mark.parametrize("ids", [[415, 2936], [3, 0, 0xE2 + 3], [1, 2], [28705], [0xE2 + 3] * 2])
def test_the_cost_of_a_block_does_not_grow(ids, monkeypatch):
    vocabulary = tokenizer("v1")
    decoder = StreamDecoder(vocabulary)
    decoded = []
    decode = MistralTokenizer.decode

    def counting_decode(self, ids):
        decoded.append(len(ids))
        return decode(self, ids)

    monkeypatch.setattr(MistralTokenizer, "decode", counting_decode)
    pieces = [decoder.push(ids) for _ in range(500)]
    assert max(decoded) <= len(ids) + 1 + 3  # the context and the bytes held back
    assert len(decoded) <= 2 * 500
    assert "".join([*pieces, decoder.flush()]) == decode(vocabulary, ids * 500)
