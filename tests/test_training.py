"""The run that makes the small model: batches, measure, attention, vocabulary, resuming."""

import doctest
import json

import jax
import jax.numpy as jnp
import keras
import measure
import numpy as np
import pytest
import train_tiny
from batches import Batches
from hypothesis import given
from hypothesis import strategies as st
from short_blocks import short_blocks
from vocabulary import encode, train_vocabulary

from mistral_lib import MistralBackbone, MistralCausalLM, MistralTokenizer
from mistral_lib.layers.dense import dense_attention
from mistral_lib.teaching import corpus

pytestmark = pytest.mark.slow

WORDS = "window key query value head token layer mask slides over sees every next first".split()
SMALL = train_tiny.Settings(
    steps=6,
    batch_size=2,
    length=32,
    vocabulary_size=320,
    num_layers=1,
    num_query_heads=2,
    num_key_value_heads=1,
    hidden_dim=16,
    intermediate_dim=32,
    sliding_window=8,
    warmup_steps=2,
    evaluate_every=2,
)


def small_text():
    random = np.random.default_rng(0)
    documents = [
        corpus.Document(
            "stdlib", f"module.py:{i}", f"{i}: " + " ".join(random.choice(WORDS, 30)) + ".\n"
        )
        for i in range(150)
    ]
    return corpus.split(documents)


@pytest.fixture(scope="module")
def text():
    return small_text()


def rows(*lengths):
    """Documents whose tokens tell which document and which place they come from."""
    return [np.arange(length) + 1000 * i for i, length in enumerate(lengths)]


# Batches


def test_a_batch_is_a_function_of_the_step():
    documents = rows(*[40] * 30)
    one, two = Batches(documents, 2, 16, seed=5), Batches(documents, 2, 16, seed=5)
    later = two.batch(one.steps_per_epoch + 3)  # goes to the second epoch and back
    for step in reversed(range(4)):
        np.testing.assert_array_equal(one.batch(step), two.batch(step))
    np.testing.assert_array_equal(one.batch(one.steps_per_epoch + 3), later)
    assert (one.batch(0) != Batches(documents, 2, 16, seed=6).batch(0)).any()


def test_an_epoch_shows_nearly_every_token_once_and_the_next_one_in_another_order():
    batches = Batches(rows(*range(20, 80)), 2, 16)
    first, second = (
        [batches.batch(epoch * batches.steps_per_epoch + i)[:, :-1] for i in range(24)]
        for epoch in (0, 1)
    )
    epoch = np.concatenate([batches.batch(i)[:, :-1] for i in range(batches.steps_per_epoch)])
    assert len(np.unique(epoch)) == epoch.size  # nothing twice
    assert batches.num_tokens - epoch.size < 3 * 2 * 16  # no more left out than three batches
    assert (np.concatenate(first) != np.concatenate(second)).mean() > 0.9


def test_sequences_run_through_documents_and_labels_are_one_ahead():
    batches = Batches(rows(*[10] * 40), 2, 32)
    for inputs, labels in batches(0, 3):
        token_ids = inputs["token_ids"]
        np.testing.assert_array_equal(token_ids[:, 1:], labels[:, :-1])
        inside = token_ids % 1000 != 9  # all but the last token of a document
        assert (labels[inside] == token_ids[inside] + 1).all()
        assert (labels[~inside] % 1000 == 0).all()
        assert inputs["padding_mask"].all()


def test_too_little_text_is_refused():
    with pytest.raises(ValueError, match="50 tokens do not fill one batch of 4 x 16"):
        Batches(rows(50), 4, 16)


# Bits per byte


@given(st.integers(2, 200), st.integers(2, 40), st.data())
def test_every_token_but_the_first_is_predicted_once_with_enough_before_it(size, length, data):
    stride = data.draw(st.integers(1, length))
    document = np.arange(size)
    predicted = []
    for chunk in measure.cut(document, length, stride):
        assert len(chunk.token_ids) - 1 <= length
        answers = chunk.token_ids[-chunk.scored :]
        predicted.extend(answers)
        assert answers[0] - chunk.token_ids[0] >= min(answers[0], length - stride)
    assert predicted == list(range(1, size))


def test_document_bits_equal_a_plain_loop():
    keras.utils.set_random_seed(1)
    model = MistralCausalLM(MistralBackbone(50, 1, 2, 16, 32, 1, sliding_window=4))
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(random.normal(size=variable.shape) * 0.5)
    documents = [random.integers(0, 50, size) for size in (5, 2, 140)]
    expected = []
    for document in documents:
        inputs = {"token_ids": document[None, :-1], "padding_mask": np.ones((1, len(document) - 1))}
        chances = np.asarray(jax.nn.log_softmax(model(inputs)[0]), "float64")
        nats = -sum(chances[i, token] for i, token in enumerate(document[1:]))
        expected.append(nats / np.log(2))
    # One layer reaches W - 1 = 3 tokens back, so pieces with 3 tokens to spare lose nothing.
    found = measure.document_bits(model, documents, length=64, stride=61)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_gzip_counts_the_bits_of_all_texts_in_one_file():
    random = np.random.default_rng(0)
    text = "".join(map(chr, random.integers(97, 123, 2000)))
    assert np.log2(26) < measure.gzip_bits_per_byte([text]) < 5.2
    assert measure.gzip_bits_per_byte([text] * 8) < 1


def test_xz_has_read_the_primer():
    random = np.random.default_rng(0)
    texts = ["".join(map(chr, random.integers(97, 123, 200))) for _ in range(20)]
    alone = measure.xz_bits_per_byte(texts)
    primed = measure.xz_bits_per_byte(texts, primer=texts)
    assert alone > np.log2(26)
    assert primed < 0.25 * alone


def test_examples_in_docstrings():
    assert doctest.testmod(measure, extraglobs={"np": np}) == (0, 2)


# Attention and vocabulary


@pytest.mark.parametrize(("length", "window"), [(1, 1), (65, None), (130, 1), (200, 128)])
def test_short_blocks_equal_dense_attention(length, window):
    random = np.random.default_rng(length)
    query = jnp.asarray(random.normal(size=(2, length, 2, 3, 8)), "float32")
    key, value = (jnp.asarray(random.normal(size=(2, length, 2, 8)), "float32") for _ in "kv")
    mask = jnp.asarray(random.random((2, length)) < 0.8)

    def both(attention):
        def total(query, key, value):
            output = attention(query, key, value, mask, window)
            return jnp.sum(jnp.sin(output)), output

        return jax.grad(total, argnums=(0, 1, 2), has_aux=True)(query, key, value)

    for found, expected in zip(
        jax.tree.leaves(both(short_blocks)), jax.tree.leaves(both(dense_attention))
    ):
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_the_vocabulary_gives_every_text_back(text):
    texts = [document.text for document in text.training]
    vocabulary = train_vocabulary(texts, 320)
    assert vocabulary == train_vocabulary(texts, 320)
    tokenizer = MistralTokenizer(vocabulary)
    assert tokenizer.vocabulary_size() == 320
    sample = "  def f(a):\n        return 12345  # naïve ☃\n\n\n end "
    ids = tokenizer.encode(sample)
    assert tokenizer.decode(ids) == sample
    assert tokenizer.decode(encode(vocabulary, [sample])[0].tolist()) == sample
    newline = tokenizer.token_to_id("\n")
    assert ids.count(newline) == 4
    pieces = [tokenizer.id_to_token(i) for i in ids]
    assert all(digit in pieces for digit in "2345")  # digits stand alone
    first, last = encode(vocabulary, [sample])[0][[0, -1]]
    assert (first, last) == (tokenizer.start_token_id, tokenizer.end_token_id)


# The run


def state_of(model):
    return [np.asarray(v.value) for v in (*model.variables, *model.optimizer.variables)]


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(text, tmp_path):
    whole, _, whole_state = train_tiny.train(SMALL, text, tmp_path / "whole")
    _, _, halfway = train_tiny.train(SMALL, text, tmp_path / "parts", stop_at=4)
    assert halfway["step"] == 4
    resumed, _, resumed_state = train_tiny.train(SMALL, text, tmp_path / "parts")
    assert resumed_state["curve"] == whole_state["curve"]
    for one, other in zip(state_of(whole), state_of(resumed), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_checkpoint_of_another_run_is_refused(text, tmp_path):
    train_tiny.train(SMALL, text, tmp_path, stop_at=2)
    other = train_tiny.Settings(**{**vars(SMALL), "seed": 1, "steps": 8})
    with pytest.raises(ValueError, match="another run: seed, steps differ"):
        train_tiny.train(other, text, tmp_path)


def test_norm_scales_do_not_decay_and_the_attention_path_is_the_short_one():
    model = train_tiny.build_model(SMALL)
    decayed = {
        v.path.split("/")[-1]
        for v in model.trainable_variables
        if model.optimizer._use_weight_decay(v)
    }
    assert decayed == {"embeddings", "reverse_embeddings", "kernel"}
    if jax.default_backend() == "cpu":
        assert model.backbone.attention_path == "short_blocks"


def test_the_whole_script_on_a_small_text(text, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(corpus, "build_corpus", lambda packages: text)
    options = {**vars(SMALL), "steps": 40, "peak_learning_rate": 0.02, "evaluate_every": 20}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    train_tiny.main([*arguments, f"--out={tmp_path}"])

    written = (tmp_path / "record.json").read_text()
    record = json.loads(written)
    assert record["settings"] == options
    assert (record["steps_done"], record["tokens_seen"]) == (40, 40 * 2 * 32)
    assert record["text"]["training"]["fingerprint"] == corpus.fingerprint(text.training)
    assert record["text"]["held_out"]["documents"] == len(text.held_out)
    assert [point["step"] for point in record["curve"]] == [20, 40]
    assert record["curve"][1]["loss"] < 0.9 * record["curve"][0]["loss"]
    assert record["gzip_bits_per_byte"] > record["xz_bits_per_byte"]["primed_with_training_text"]
    bits = record["held_out_bits_per_byte"]
    uniform = (
        np.log2(320) * record["text"]["held_out"]["tokens"] / record["text"]["held_out"]["bytes"]
    )
    assert bits["float32"]["all"] == bits["float32"]["standard_library"] < 0.8 * uniform
    assert bits["bfloat16_as_stored"]["all"] == pytest.approx(bits["float32"]["all"], rel=0.02)
    assert not any(d.text[5:60] in written for d in (*text.training, *text.held_out))

    shipped = MistralCausalLM.from_preset(tmp_path / "mistral_tiny_en", dtype="float32")
    assert shipped.backbone.sliding_window == SMALL.sliding_window
    assert shipped.preprocessor.sequence_length == SMALL.length
    for variable in shipped.backbone.variables:
        rounded = jnp.asarray(variable.value, "bfloat16").astype("float32")
        np.testing.assert_array_equal(variable.value, rounded)
    texts = [document.text for document in text.held_out]
    ids = encode(shipped.preprocessor.tokenizer.proto, texts)
    found = measure.document_bits(shipped, ids, SMALL.length, SMALL.sliding_window)
    assert round(measure.bits_per_byte(found, texts), 4) == bits["bfloat16_as_stored"]["all"]
