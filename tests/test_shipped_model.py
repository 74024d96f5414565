"""The model that ships with the library: what it writes, how well it predicts, how far it sees."""

import json
import socket
from pathlib import Path

import keras
import measure
import numpy as np
import pytest
from vocabulary import encode

import mistral_lib
from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.presets.registry import DATA

pytestmark = pytest.mark.slow

RECORD = json.loads(
    (Path(mistral_lib.__file__).parent / "teaching/records/mistral_tiny_en.json").read_text()
)
WINDOW, LAYERS = 128, 6

# Written for this test, so that no corpus holds it.
TEXT = """Wait until every worker of the group has finished its task.

The call returns as soon as the last worker is done, or when the timeout has
passed. A worker that raised an exception counts as finished; its exception is
raised again in the thread that waits, after all the others are done. If the
group is empty, the method returns at once.

Args:
    timeout: The number of seconds to wait. If it is None, there is no limit.
    check: Whether to raise the exception of a worker that failed.

Returns:
    A list of the results, in the order in which the tasks were added.

Raises:
    TimeoutError: If a worker is still running when the timeout has passed.
"""

# What the model writes, and the smallest lead of the chosen token over the next best, in nats,
# that is needed for every machine to write the same.
SMALLEST_MARGIN = 0.05
GREEDY = {
    "Return the": " number of elements of the array.\n\nJAX implementation of :func:`numpy.ndarray",
    "Return True if the": (
        " input is a 2D array.\n\nParameters\n----------\na : array_like\n    Input array.\naxis :"
    ),
    "Return the name of": (" the file.\n\nIf the file is not found, the file is opened."),
}


@pytest.fixture(scope="module")
def model():
    return MistralCausalLM.from_preset("mistral_tiny_en", dtype="float32")


def logits_of(model, ids):
    inputs = {"token_ids": np.array([ids]), "padding_mask": np.ones((1, len(ids)), bool)}
    return np.asarray(model(inputs)[0], "float64")


def test_it_loads_and_writes_without_a_network(monkeypatch):
    def refuse(*arguments, **keywords):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    model = mistral_lib.models.MistralCausalLM.from_preset("mistral_tiny_en")
    assert model.generate("Return the", max_new_tokens=4).startswith("Return the ")


def test_it_is_small_and_stored_in_bfloat16():
    files = [path for path in (DATA / "mistral_tiny_en").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12_000_000
    stored = MistralBackbone.from_preset("mistral_tiny_en", dtype="auto")
    assert {v.dtype for v in stored.variables} == {"bfloat16"}


@pytest.mark.parametrize("prompt", GREEDY)
def test_greedy_text_is_the_same_everywhere(model, prompt):
    tokenizer = model.preprocessor.tokenizer
    start = len(tokenizer.encode(prompt, add_bos=True))
    ids = tokenizer.encode(prompt + GREEDY[prompt], add_bos=True)
    logits = np.sort(logits_of(model, ids))[start - 1 : -1]
    assert (logits[:, -1] - logits[:, -2]).min() > SMALLEST_MARGIN
    written = model.generate(prompt, max_new_tokens=len(ids) - start)
    assert written == prompt + GREEDY[prompt]


@pytest.mark.parametrize("name", ["value", "path", "model", "dtype", "data"])
def test_the_name_of_a_parameter_comes_back(model, name):
    prompt = (
        f"Check a {name} before it is used.\n\nArgs:\n    {name}: The {name} to check.\n\n"
        "Raises:\n    ValueError: If `"
    )
    tokenizer = model.preprocessor.tokenizer
    logits = logits_of(model, tokenizer.encode(prompt, add_bos=True))[-1]
    best, second = np.argsort(-logits)[:2]
    assert tokenizer.id_to_token(int(best)) == name
    assert logits[best] - logits[second] > 0.5


def test_bits_per_byte_of_a_text_that_it_has_not_seen(model):
    ids = encode(model.preprocessor.tokenizer.proto, [TEXT])
    bits = measure.document_bits(model, ids, length=256, stride=WINDOW)
    assert 1.0 < measure.bits_per_byte(bits, [TEXT]) < 1.25


def test_one_block_sees_128_tokens_and_no_more(model):
    block = keras.Model(
        model.backbone.input, model.backbone.get_layer("transformer_layer_0").output
    )
    ids = np.random.default_rng(0).integers(3, 2048, (1, 400))
    changed = ids.copy()
    changed[0, 50] = (ids[0, 50] + 1) % 2045 + 3
    outputs = [
        np.asarray(block({"token_ids": x, "padding_mask": np.ones_like(x)}))[0]
        for x in (ids, changed)
    ]
    moved = np.flatnonzero((outputs[0] != outputs[1]).any(axis=-1))
    np.testing.assert_array_equal(moved, np.arange(50, 50 + WINDOW))


def test_six_blocks_reach_762_tokens_and_no_further(model):
    reach = LAYERS * (WINDOW - 1)
    ids = np.random.default_rng(1).integers(3, 2048, reach + 60)
    changed = ids.copy()
    changed[10] = (ids[10] + 1) % 2045 + 3
    difference = np.abs(logits_of(model, ids) - logits_of(model, changed)).max(axis=-1)
    assert (difference[:10] == 0).all()
    assert (difference[10 : 10 + WINDOW] > 0).all()
    assert (difference[10 + WINDOW : 10 + 2 * WINDOW] > 0).any()  # two blocks carry it on
    assert (difference[10 + reach + 1 :] == 0).all()


def test_the_record_is_of_this_model(model):
    settings, backbone = RECORD["settings"], model.backbone
    for name in (
        "vocabulary_size num_layers num_query_heads num_key_value_heads hidden_dim "
        "intermediate_dim sliding_window"
    ).split():
        assert getattr(backbone, name) == settings[name], name
    assert (backbone.num_layers, backbone.sliding_window) == (LAYERS, WINDOW)
    assert RECORD["parameters"] == backbone.count_params()
    assert model.preprocessor.tokenizer.vocabulary_size() == settings["vocabulary_size"]
    assert RECORD["curve"][-1]["step"] == RECORD["steps_done"]


def test_the_record_says_that_it_predicts_better_than_xz():
    bits = RECORD["held_out_bits_per_byte"]["bfloat16_as_stored"]
    assert bits["all"] <= 1.5
    assert bits["all"] < RECORD["xz_bits_per_byte"]["primed_with_training_text"]
    assert bits["all"] == pytest.approx(
        RECORD["held_out_bits_per_byte"]["float32"]["all"], abs=0.01
    )


def test_the_record_keeps_fingerprints_and_no_text():
    def strings(value):
        if isinstance(value, dict):
            return [s for item in value.values() for s in strings(item)]
        if isinstance(value, list):
            return [s for item in value for s in strings(item)]
        return [value] if isinstance(value, str) else []

    for part in ("training", "held_out"):
        assert len(bytes.fromhex(RECORD["text"][part]["fingerprint"])) == 32
    assert max(map(len, strings(RECORD))) < 200
