"""Training batches equal KerasHub's; prompts are never cut."""

import json

import keras
import numpy as np
import pytest
from vocabularies import mistral_tokenizer, trained_model

from mistral_lib.preprocessor import MistralCausalLMPreprocessor
from mistral_lib.tokenizer import MistralTokenizer

TEXTS = ["The quick brown fox.", "", "It was a bright cold day in April"]
FOX = [415, 2936, 9060, 285, 1142, 28723]
APRIL = [661, 403, 264, 6833, 5256, 1370, 297]  # the text has more ids

# Recorded from keras-hub 0.32.0 on the vocabulary of v0.1:
# (sequence_length, add_start_token, add_end_token) -> token_ids and labels; 0 is padding.
KERAS_HUB = {
    (8, True, True): (
        [[1, *FOX, 2], [1, 2, 0, 0, 0, 0, 0, 0], [1, *APRIL]],
        [[*FOX, 2, 0], [2, 0, 0, 0, 0, 0, 0, 0], [*APRIL, 2]],
    ),
    (4, True, True): (
        [[1, 415, 2936, 9060], [1, 2, 0, 0], [1, 661, 403, 264]],
        [[415, 2936, 9060, 2], [2, 0, 0, 0], [661, 403, 264, 2]],
    ),
    (1, True, True): ([[1], [1], [1]], [[2], [2], [2]]),
    (6, False, False): (
        [FOX, [0] * 6, APRIL[:6]],
        [[*FOX[1:], 0], [0] * 6, APRIL[1:7]],
    ),
    (6, False, True): (
        [FOX, [2, 0, 0, 0, 0, 0], APRIL[:6]],
        [[*FOX[1:], 2], [0] * 6, [*APRIL[1:6], 2]],
    ),
    (6, True, False): (
        [[1, *FOX[:5]], [1, 0, 0, 0, 0, 0], [1, *APRIL[:5]]],
        [FOX, [0] * 6, APRIL[:6]],
    ),
}


def preprocessor(*arguments, **named):
    return MistralCausalLMPreprocessor(mistral_tokenizer("v1"), *arguments, **named)


@pytest.mark.parametrize("options", KERAS_HUB)
def test_training_batches_equal_keras_hub(options):
    token_ids, labels = KERAS_HUB[options]
    x, y, sample_weight = preprocessor(*options)(TEXTS)
    assert list(x) == ["token_ids", "padding_mask"]
    for array, expected, dtype in (
        (x["token_ids"], token_ids, "int32"),
        (x["padding_mask"], np.array(token_ids) != 0, "bool"),
        (y, labels, "int32"),
        (sample_weight, np.array(labels) != 0, "bool"),
    ):
        assert isinstance(array, np.ndarray)
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, expected)


@pytest.mark.peer
def test_live_keras_hub():
    keras_hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")
    peer = keras_hub.models.MistralTokenizer(mistral_tokenizer("v1").proto)
    for options in KERAS_HUB:
        theirs = keras_hub.models.MistralCausalLMPreprocessor(peer, *options)(TEXTS)
        ours = preprocessor(*options)(TEXTS)
        keras.tree.map_structure(np.testing.assert_array_equal, ours, theirs)


def test_one_text_gives_one_row():
    for ours, batch in zip(
        keras.tree.flatten(preprocessor(8)(TEXTS[0])),
        keras.tree.flatten(preprocessor(8)(TEXTS[:1])),
        strict=True,
    ):
        assert ours.shape == (8,)
        np.testing.assert_array_equal(ours, batch[0])


def test_kinds_of_batches():
    expected = preprocessor(8)(TEXTS)
    for texts in (tuple(TEXTS), np.array(TEXTS), np.array(TEXTS, object)):
        actual = preprocessor(8)(texts)
        keras.tree.map_structure(np.testing.assert_array_equal, actual, expected)
    x, y, sample_weight = preprocessor(8)([])
    assert x["token_ids"].shape == x["padding_mask"].shape == (0, 8)
    assert y.shape == sample_weight.shape == (0, 8)


def test_length_of_a_call_goes_first():
    x, y, _ = preprocessor(8)(TEXTS, sequence_length=np.int64(4))
    np.testing.assert_array_equal(x["token_ids"], KERAS_HUB[4, True, True][0])
    np.testing.assert_array_equal(y, KERAS_HUB[4, True, True][1])
    assert preprocessor()(TEXTS)[0]["token_ids"].shape == (3, 1024)


def test_flags_of_the_tokenizer_play_no_part():
    tokenizer = MistralTokenizer(mistral_tokenizer("v1").proto, add_bos=True, add_eos=True)
    ours = MistralCausalLMPreprocessor(tokenizer, 8)
    keras.tree.map_structure(np.testing.assert_array_equal, ours(TEXTS), preprocessor(8)(TEXTS))
    assert ours.prompt_ids(TEXTS) == preprocessor(8).prompt_ids(TEXTS)


def test_prompts():
    assert preprocessor().prompt_ids(TEXTS[:2]) == [[1, *FOX], [1]]
    assert preprocessor().prompt_ids(TEXTS[0]) == [[1, *FOX]]
    bare = preprocessor(add_start_token=False)
    assert bare.prompt_ids(np.array(TEXTS[:2])) == [FOX, []]
    assert preprocessor().prompt_ids([]) == []


def test_padded_prompts():
    """As KerasHub's, but for prompts that are too long, which are never cut."""
    arrays = preprocessor(9).generate_preprocess(TEXTS[:2])
    assert arrays["token_ids"].tolist() == [[1, *FOX, 0, 0], [1] + [0] * 8]
    assert arrays["padding_mask"].tolist() == [[True] * 7 + [False] * 2, [True] + [False] * 8]
    assert arrays["token_ids"].dtype == "int32"
    one = preprocessor(9).generate_preprocess(TEXTS[0])
    assert one["token_ids"].tolist() == [1, *FOX, 0, 0]
    assert one["padding_mask"].shape == (9,)
    assert preprocessor(9).generate_preprocess([])["token_ids"].shape == (0, 9)


def test_prompts_are_never_cut():
    long = "fox " * 3000
    (ids,) = preprocessor(4).prompt_ids(long)
    assert mistral_tokenizer("v1").decode(ids) == long
    assert preprocessor().generate_preprocess([TEXTS[0]], 7)["token_ids"].tolist() == [[1, *FOX]]
    with pytest.raises(ValueError, match="prompt has 7 ids, and sequence_length allows 6"):
        preprocessor().generate_preprocess(["", TEXTS[0]], sequence_length=6)


def test_postprocess_reverses_preprocess():
    ours = preprocessor()
    assert ours.generate_postprocess(ours.prompt_ids(TEXTS)) == TEXTS
    assert ours.generate_postprocess(ours.generate_preprocess(TEXTS)) == TEXTS
    assert ours.generate_postprocess(ours.generate_preprocess(TEXTS[0])) == TEXTS[0]
    padded = ours(TEXTS)[0]["token_ids"]
    assert ours.generate_postprocess(padded) == TEXTS
    assert ours.generate_postprocess([[1, *FOX, 2], []]) == [TEXTS[0], ""]
    with pytest.raises(ValueError, match="Token id 32000 at position 1"):
        ours.generate_postprocess([[1, 32000]])


def test_postprocess_reads_what_the_mask_shows():
    row = {"token_ids": [1, *FOX, 415], "padding_mask": [1] * 7 + [0]}
    assert preprocessor().generate_postprocess(row) == TEXTS[0]


@pytest.mark.parametrize(("name", "given"), [("y", [1]), ("sample_weight", np.ones(3))])
def test_labels_are_not_taken(name, given):
    with pytest.raises(ValueError, match=f"makes {name} from x: leave {name} out"):
        preprocessor()(TEXTS, **{name: given})


@pytest.mark.parametrize("length", [0, -1, 1.5, "8", True, None])
def test_bad_lengths(length):
    error = ValueError if type(length) is int else TypeError
    with pytest.raises(error, match=rf"sequence_length must be .*but is {length!r}"):
        preprocessor(length)
    if length is not None:
        for call in (preprocessor(), preprocessor().generate_preprocess):
            with pytest.raises(error, match="sequence_length must be"):
                call(TEXTS, sequence_length=length)


@pytest.mark.parametrize("text", [None, 5, {"text": "a"}, ["a", None], [["a"]]])
def test_what_is_no_text_is_refused(text):
    for call in (preprocessor(), preprocessor().generate_preprocess):
        with pytest.raises(TypeError, match="Expected a str"):
            call(text)


def test_bad_arguments():
    with pytest.raises(TypeError, match=r"tokenizer must be a MistralTokenizer or a .*, got str"):
        MistralCausalLMPreprocessor("mistral_tiny_en")
    for name in ("add_start_token", "add_end_token"):
        with pytest.raises(TypeError, match=f"{name} must be True or False, but is 1"):
            preprocessor(**{name: 1})


def test_config_round_trip():
    ours = MistralCausalLMPreprocessor(MistralTokenizer(trained_model()), 9, add_end_token=False)
    stored = json.dumps(keras.saving.serialize_keras_object(ours))
    assert json.loads(stored)["registered_name"] == "mistral_lib>MistralCausalLMPreprocessor"
    again = keras.saving.deserialize_keras_object(json.loads(stored))
    assert again.get_config() == ours.get_config()
    text = ["the window slides"]
    keras.tree.map_structure(np.testing.assert_array_equal, again(text), ours(text))
    config = {**ours.get_config(), "tokenizer": ours.tokenizer}
    assert MistralCausalLMPreprocessor.from_config(config).tokenizer is ours.tokenizer
