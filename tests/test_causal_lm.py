"""mistral_lib/causal_lm.py: logits, training on text, generate and stream."""

import jax.numpy as jnp
import keras
import numpy as np
import pytest
from vocabularies import SENTENCES, trained_model

from mistral_lib import (
    MistralBackbone,
    MistralCausalLM,
    MistralCausalLMPreprocessor,
    MistralTokenizer,
)

LENGTH = 24


def make_model(dtype=None, **kwargs):
    tokenizer = MistralTokenizer(trained_model())
    keras.utils.set_random_seed(0)
    backbone = MistralBackbone(
        tokenizer.vocabulary_size(), 2, 4, 32, 48, 2, sliding_window=7, dtype=dtype
    )
    for variable in backbone.variables:
        if len(variable.shape) > 1:
            variable.assign(np.random.default_rng(0).normal(0, 0.3, variable.shape))
    return MistralCausalLM(backbone, MistralCausalLMPreprocessor(tokenizer, LENGTH), **kwargs)


@pytest.fixture(scope="module")
def model():
    return make_model()


def test_small_fixture():
    """The sizes of KerasHub's own test: ids (2, 8) of 10 give logits (2, 8, 10)."""
    model = MistralCausalLM(MistralBackbone(10, 2, 4, 8, 16, 2))
    inputs = {"token_ids": np.ones((2, 8), int), "padding_mask": np.ones((2, 8), int)}
    assert model(inputs).shape == (2, 8, 10)
    assert model.predict(inputs, verbose=0).shape == (2, 8, 10)
    model.fit(inputs, np.ones((2, 8), int), verbose=0)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "mixed_bfloat16"])
def test_logits_are_float32(dtype):
    model = make_model(dtype)
    logits = model({"token_ids": [[1, 2, 3]], "padding_mask": [[1, 1, 1]]})
    assert logits.dtype == "float32"
    states = model.backbone({"token_ids": [[1, 2, 3]], "padding_mask": [[1, 1, 1]]})
    kernel = np.array(model.backbone.token_embedding.reverse_embeddings.value)
    kernel = kernel.astype(model.backbone.compute_dtype).astype("float64")
    expected = np.array(states, "float64") @ kernel
    np.testing.assert_allclose(logits, expected, atol=2e-5)  # sums not rounded to the dtype


def test_mixed_float16_scales_its_loss():
    model = make_model("mixed_float16")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


def test_fit_on_text_learns_it():
    model = make_model()
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=model.loss)
    history = model.fit(SENTENCES, epochs=30, verbose=0).history["loss"]
    assert history[-1] < 0.2 * history[0]
    prompt, rest = SENTENCES[0][:20], SENTENCES[0][20:36]
    assert model.generate(prompt).startswith(prompt + rest)


def test_text_equals_arrays(model):
    x, y, weights = model.preprocessor(SENTENCES)
    expected = model.evaluate(x, y, sample_weight=weights, verbose=0)
    np.testing.assert_allclose(model.evaluate(SENTENCES, verbose=0), expected, rtol=1e-5)
    np.testing.assert_allclose(
        model.predict(SENTENCES, verbose=0), model.predict(x, verbose=0), atol=1e-5
    )
    assert model.predict(SENTENCES[0], verbose=0).shape[:2] == (1, LENGTH)


def test_padding_does_not_count_in_the_loss(model):
    x, y, weights = model.preprocessor(SENTENCES)
    changed = np.where(weights, y, 5)
    assert (changed != y).any() or weights.all()
    got = model.evaluate(x, changed, sample_weight=weights, verbose=0)
    np.testing.assert_allclose(got, model.evaluate(x, y, sample_weight=weights, verbose=0))


def test_validation_text():
    model = make_model()
    history = model.fit(SENTENCES, validation_data=SENTENCES[:1], verbose=0).history
    assert np.isfinite(history["val_loss"]).all()


def test_text_in_text_out(model):
    text = model.generate("the window")
    assert isinstance(text, str)
    assert text.startswith("the window")
    both = model.generate(["the window", "A query sees a key"])
    assert isinstance(both, list)
    assert both[0] == text
    assert both[1].startswith("A query sees a key")


def test_strip_prompt(model):
    whole = model.generate("the window")
    assert "the window" + model.generate("the window", strip_prompt=True) == whole


def test_ids_in_ids_out(model):
    ids = model.preprocessor.generate_preprocess("the window")[0]
    out = model.generate(ids, max_length=LENGTH)
    assert out[: len(ids)] == ids
    assert model.preprocessor.tokenizer.decode(out) == model.generate("the window")
    assert model.generate(np.array([ids]), max_length=LENGTH) == [out]
    inputs = {"token_ids": np.array([ids]), "padding_mask": np.ones((1, len(ids)))}
    np.testing.assert_array_equal(model.generate(inputs, LENGTH)["token_ids"], [out])
    assert model.generate(ids, max_length=LENGTH, strip_prompt=True) == out[len(ids) :]


def test_lengths(model):
    ids = model.preprocessor.generate_preprocess("the window")[0]
    assert len(model.generate(ids, max_length=LENGTH, stop_token_ids=None)) == LENGTH
    assert len(model.generate(ids, stop_token_ids=None)) == LENGTH  # the preprocessor's
    new = model.generate(ids, max_new_tokens=3, stop_token_ids=None, strip_prompt=True)
    assert len(new) == 3


def test_stop_tokens(model):
    ids = model.preprocessor.generate_preprocess("the window")[0]
    free = model.generate(ids, stop_token_ids=None, strip_prompt=True)
    stopped = model.generate(ids, stop_token_ids=[free[2]], strip_prompt=True)
    assert stopped == free[: free.index(free[2]) + 1]


def test_the_end_token_stops_by_default():
    """A head whose column of the end token is largest everywhere writes it at once."""
    model = make_model()
    end = model.preprocessor.tokenizer.end_token_id
    head = model.backbone.token_embedding.reverse_embeddings
    scale = model.backbone.layer_norm.scale
    scale.assign(jnp.zeros_like(scale.value))  # all logits equal: the first id wins
    assert model.generate([1, 5], max_new_tokens=3, strip_prompt=True) == [0, 0, 0]
    scale.assign(jnp.ones_like(scale.value))
    states = model.backbone({"token_ids": [[1, 5]], "padding_mask": [[1, 1]]})[0, -1]
    kernel = np.array(head.value)
    kernel[:, end] = 100 * np.array(states)
    head.assign(kernel)
    assert model.generate([1, 5], max_new_tokens=3, strip_prompt=True) == [end]


@pytest.mark.parametrize(
    "steps", [{}, {"temperature": 1.0, "seed": 3}, {"temperature": 1.5, "top_p": 0.9, "seed": 4}]
)
@pytest.mark.parametrize("strip_prompt", [False, True])
def test_stream_joins_to_generate(model, steps, strip_prompt):
    arguments = {"strip_prompt": strip_prompt, "stop_token_ids": None, **steps}
    pieces = list(model.stream("the window", 64, **arguments))
    assert len(pieces) > 3
    assert "".join(pieces) == model.generate("the window", 64, **arguments)


def test_seed(model):
    def text(seed):
        return model.generate("the window", temperature=1.5, seed=seed)

    assert text(1) == text(1) != text(2)
    batch = model.generate(["the window"] * 2, temperature=1.5, seed=1)
    assert batch == [text(1), text(2)]
    assert model.generate(["A query", "the window"], temperature=1.5, seed=[9, 2])[1] == text(2)


@pytest.mark.parametrize(
    ("inputs", "arguments", "error", "message"),
    [
        ("", {}, None, None),  # the start token is a prompt
        ([], {}, ValueError, "empty"),
        ([1, 10**6], {}, ValueError, "the token id 1000000, but the vocabulary ends at 299"),
        ("the window " * 20, {}, ValueError, "prompts are never cut"),
        ("a", {"max_length": 5, "max_new_tokens": 5}, ValueError, "one of the two"),
        ("a", {"stop_token_ids": "end"}, ValueError, "stop_token_ids must be one of 'auto'"),
        ("a", {"stop_token_ids": ["x"]}, TypeError, "a stop token id must be an integer"),
        ("a", {"temperature": -1}, ValueError, "temperature"),
        ("a", {"seed": "x"}, TypeError, "seed must be an integer"),
        (3.5, {}, TypeError, "A prompt must be text"),
    ],
)
def test_wrong_calls(model, inputs, arguments, error, message):
    if error is None:
        assert isinstance(model.generate(inputs, **arguments), str)
    else:
        with pytest.raises(error, match=message):
            model.generate(inputs, **arguments)


def test_stream_takes_one_text_and_fails_at_the_call(model):
    with pytest.raises(TypeError, match="stream writes one text"):
        model.stream(["a", "b"])
    with pytest.raises(ValueError, match="max_length is 2"):
        model.stream("the window", 2)


def test_without_preprocessor(model):
    bare = MistralCausalLM(model.backbone)
    ids = model.preprocessor.generate_preprocess("the window")[0]
    assert bare.generate(ids, LENGTH) == model.generate(ids, LENGTH, stop_token_ids=None)
    with pytest.raises(ValueError, match="no preprocessor"):
        bare.generate("the window", 5)
    with pytest.raises(ValueError, match="Give max_length"):
        bare.generate(ids)


def test_only_a_mistral_backbone():
    with pytest.raises(TypeError, match="backbone must be a MistralBackbone"):
        MistralCausalLM("mistral_tiny_en")


def test_keras_file(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.generate("the window") == model.generate("the window")
    assert loaded.preprocessor.sequence_length == LENGTH
