"""mistral_lib/causal_lm.py: logits, and training on text."""

import keras
import numpy as np
import pytest
from text_models import LENGTH, make_model
from vocabularies import SENTENCES

from mistral_lib import MistralBackbone, MistralCausalLM


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.mark.slow
def test_small_fixture():
    """The sizes of KerasHub's own test: ids (2, 8) of 10 give logits (2, 8, 10)."""
    model = MistralCausalLM(MistralBackbone(10, 2, 4, 8, 16, 2))
    inputs = {"token_ids": np.ones((2, 8), int), "padding_mask": np.ones((2, 8), int)}
    assert model(inputs).shape == (2, 8, 10)
    assert model.predict(inputs, verbose=0).shape == (2, 8, 10)
    model.fit(inputs, np.ones((2, 8), int), verbose=0)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_int64_arrays_bring_no_warning(method):
    """NumPy's integers are int64; from version 0.12 JAX warns where it has to narrow them."""
    model = MistralCausalLM(MistralBackbone(10, 2, 4, 8, 16, 2))
    ids = np.ones((2, 8), "int64")
    inputs = {"token_ids": ids, "padding_mask": ids}
    validation = {"validation_data": (inputs, ids)} if method == "fit" else {}
    getattr(model, method)(inputs, ids, verbose=0, **validation)


@pytest.mark.slow
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


@pytest.mark.slow
def test_fit_on_text_learns_it():
    model = make_model()
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=model.loss)
    history = model.fit(SENTENCES, epochs=30, verbose=0).history["loss"]
    assert history[-1] < 0.2 * history[0]
    prompt, rest = SENTENCES[0][:20], SENTENCES[0][20:36]
    assert model.generate(prompt).startswith(prompt + rest)


@pytest.mark.slow
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


@pytest.mark.slow
def test_validation_text():
    model = make_model()
    history = model.fit(SENTENCES, validation_data=SENTENCES[:1], verbose=0).history
    assert np.isfinite(history["val_loss"]).all()


def test_only_a_mistral_backbone():
    with pytest.raises(TypeError, match="backbone must be a MistralBackbone"):
        MistralCausalLM("mistral_tiny_en")


def test_keras_file(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.generate("the window") == model.generate("the window")
    assert loaded.preprocessor.sequence_length == LENGTH
