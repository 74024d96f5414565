"""mistral_lib/batches.py: every door of training looks at its data, before a step."""

import keras
import numpy as np
import pytest
from small_presets import small_causal_lm, small_tokenizer
from text_models import make_model

from mistral_lib import MistralBackbone, MistralCausalLM, MistralCausalLMPreprocessor, training_loss
from mistral_lib.batches import IGNORED_LABEL, check_labels, without_ignored

VOCABULARY = 20
RANDOM = np.random.default_rng(0)
IDS = RANDOM.integers(0, VOCABULARY, (4, 7))
LABELS = RANDOM.integers(0, VOCABULARY, (4, 7))
TEXTS = ["the window slides", "over the text"]


def causal_lm(**settings) -> MistralCausalLM:
    keras.utils.set_random_seed(0)
    model = MistralCausalLM(MistralBackbone(VOCABULARY, 1, 2, 8, 16, 1))
    accuracy = keras.metrics.SparseCategoricalAccuracy()
    model.compile(keras.optimizers.SGD(0.5), model.loss, weighted_metrics=[accuracy], **settings)
    return model


def inputs(ids=IDS):
    return {"token_ids": ids, "padding_mask": np.ones_like(ids)}


class Rows(keras.utils.PyDataset):
    """Batches of two rows; what is wrong is in the second."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return 2

    def __getitem__(self, index):
        rows = slice(2 * index, 2 * index + 2)
        return tuple(keras.tree.map_structure(lambda array: array[rows], self.arrays))


def generator(*arrays):
    data = Rows(*arrays)
    for index in range(len(data)):
        yield data[index]


def jax_arrays(x, y):
    return keras.tree.map_structure(keras.ops.convert_to_tensor, (x, y))


# Whatever takes inputs and labels. Each is tried with each kind of bad data.
GOOD = inputs(), LABELS
DOORS = {
    "fit": lambda model, x, y: model.fit(x, y, verbose=0),
    "evaluate": lambda model, x, y: model.evaluate(x, y, verbose=0),
    "train_on_batch": lambda model, x, y: model.train_on_batch(x, y),
    "test_on_batch": lambda model, x, y: model.test_on_batch(x, y),
    "validation_data": lambda model, x, y: model.fit(*GOOD, validation_data=(x, y), verbose=0),
    "fit JAX arrays": lambda model, x, y: model.fit(*jax_arrays(x, y), verbose=0),
    "fit a dataset": lambda model, x, y: model.fit(Rows(x, y), verbose=0),
    "evaluate a dataset": lambda model, x, y: model.evaluate(Rows(x, y), verbose=0),
    "validate on a dataset": lambda model, x, y: model.fit(
        *GOOD, validation_data=Rows(x, y), verbose=0
    ),
    "fit a generator": lambda model, x, y: model.fit(generator(x, y), verbose=0),
    "evaluate a generator": lambda model, x, y: model.evaluate(generator(x, y), verbose=0),
    "fit two steps at once": lambda model, x, y: (
        model.compile(keras.optimizers.SGD(0.0), model.loss, steps_per_execution=2),
        model.fit(Rows(x, y), verbose=0),
    ),
}


def with_one(array, value):
    array = array.copy()
    array[2, 3] = value
    return array


BAD = {
    "an id above": (
        inputs(with_one(IDS, VOCABULARY)),
        LABELS,
        "token_ids .* to 19 .* is 20",
    ),
    "an id below": (inputs(with_one(IDS, -1)), LABELS, "token_ids must be .* one is -1, in row "),
    "a label above": (
        inputs(),
        with_one(LABELS, VOCABULARY),
        "labels .* to 19 .* is 20",
    ),
    "a label below": (inputs(), with_one(LABELS, -1), "labels must be .* one is -1, in row "),
    "a label that is NaN": (inputs(), with_one(LABELS.astype("float32"), np.nan), "one is nan, in"),
    "a float label": (inputs(), with_one(LABELS.astype("float32"), 20), "one is 20.0, in row "),
}


@pytest.fixture(scope="module")
def shared():
    return causal_lm()


@pytest.mark.slow
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("door", DOORS)
def test_bad_data_is_refused_and_the_weights_stay(shared, door, bad):
    x, y, message = BAD[bad]
    shared.compile(keras.optimizers.SGD(0.0), shared.loss)
    before = [np.array(v.value) for v in shared.variables]
    with pytest.raises(ValueError, match=message):
        DOORS[door](shared, x, y)
    for variable, old in zip(shared.variables, before, strict=True):
        np.testing.assert_array_equal(variable.value, old)
    assert np.isfinite(shared.evaluate(*GOOD, verbose=0)).all()


def test_a_refused_batch_leaves_what_the_last_one_taught():
    """The second of two batches is refused; the model keeps the first, in whole and usable."""
    model, other = causal_lm(), causal_lm()
    x, y = inputs(), with_one(LABELS, 99)
    with pytest.raises(ValueError, match="one is 99, in row 0"):
        model.fit(generator(x, y), verbose=0)
    other.train_on_batch(inputs(IDS[:2]), LABELS[:2])
    for ours, theirs in zip(model.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_allclose(ours.value, theirs.value, atol=1e-6)


def test_an_iterator_that_fails_at_once_leaves_the_weights():
    model = causal_lm()

    def broken():
        yield inputs(IDS[:2]), LABELS[:2]  # for the shapes
        raise OSError("no more")

    class Failing(Rows):
        def __getitem__(self, index):
            if self.asked:
                raise OSError("no more")
            self.asked = True
            return super().__getitem__(index)

    for data in (broken(), Failing(inputs(), LABELS)):
        if isinstance(data, Failing):
            data.asked = False
        with pytest.raises(OSError, match="no more"):
            model.fit(data, verbose=0)
        assert np.isfinite(model.evaluate(*GOOD, verbose=0)).all()


# Labels of -100 ----------------------------------------------------------------------------------


IGNORED = np.where(RANDOM.uniform(size=LABELS.shape) < 0.4, IGNORED_LABEL, LABELS)
WEIGHTS = {
    "no weights": None,
    "a weight for each token": RANDOM.uniform(size=LABELS.shape).astype("float32"),
    "with a last axis": RANDOM.uniform(size=(*LABELS.shape, 1)).astype("float32"),
    "a weight for each row": RANDOM.uniform(size=len(LABELS)).astype("float32"),
}


def trained(y, weights, chunked, monkeypatch, **settings):
    monkeypatch.setattr(training_loss, "DEFER_FROM", 0 if chunked else 2**60)
    model = causal_lm(**settings)
    found = [
        model.fit(inputs(), y, sample_weight=weights, epochs=2, verbose=0).history["loss"],
        model.evaluate(inputs(), y, sample_weight=weights, verbose=0),
        model.train_on_batch(inputs(), y, weights),
        model.test_on_batch(inputs(), y, weights),
    ]
    return [*found, *(np.asarray(v.value) for v in model.trainable_variables)]


@pytest.mark.slow
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
@pytest.mark.parametrize("kind", WEIGHTS)
def test_minus_100_has_weight_0(kind, chunked, monkeypatch):
    """Exactly as a weight of 0 that the caller gives, at any label."""
    weights = WEIGHTS[kind]
    counts = IGNORED != IGNORED_LABEL
    full = np.ones(LABELS.shape, "float32") if weights is None else weights.reshape(len(LABELS), -1)
    ours = trained(IGNORED, weights, chunked, monkeypatch)
    theirs = trained(LABELS, np.where(counts, full, 0), chunked, monkeypatch)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
def test_nothing_but_minus_100_changes_nothing(chunked, monkeypatch):
    before = [np.array(v.value) for v in causal_lm().trainable_variables]
    losses, *_, embeddings = trained(
        np.full_like(LABELS, IGNORED_LABEL), None, chunked, monkeypatch
    )[:5]
    assert losses == [0, 0]
    np.testing.assert_array_equal(embeddings, before[0])


def test_the_losss_own_ignored_class_is_allowed():
    """Keras then divides by the number of labels that count; a class of its own stays Keras's."""
    for ignored in (IGNORED_LABEL, -1):
        model = causal_lm()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=ignored)
        model.compile("sgd", loss)
        y = np.where(IGNORED == IGNORED_LABEL, ignored, LABELS)
        losses = np.asarray(model.score(IDS, scoring_mode="loss", target_ids=LABELS))
        expected = losses[y != ignored].mean()
        np.testing.assert_allclose(model.evaluate(inputs(), y, verbose=0)[0], expected, rtol=1e-5)


def test_other_losses_take_what_they_like():
    model = causal_lm()
    model.compile("sgd", lambda y_true, y_pred: keras.ops.sum(y_pred) * 0 + keras.ops.sum(y_true))
    assert np.isfinite(model.train_on_batch(inputs(), with_one(LABELS, -7))).all()


def test_labels_by_hand():
    check_labels(np.array([[[0], [-100]]]), 1)
    check_labels(np.array([[-1, 3]]), 4, ignored={-1, -100})
    labels, weights = without_ignored(np.array([[[3], [-100]]]), np.array([0.5]))
    assert labels.tolist() == [[[3], [0]]]
    assert weights.tolist() == [[0.5, 0.0]]


# Text --------------------------------------------------------------------------------------------


TEXT_DOORS = {
    "train_on_batch": lambda model, texts: model.train_on_batch(texts),
    "test_on_batch": lambda model, texts: model.test_on_batch(texts),
    "predict_on_batch": lambda model, texts: model.predict_on_batch(texts),
    "fit": lambda model, texts: model.fit(texts, verbose=0),
    "evaluate": lambda model, texts: model.evaluate(texts, verbose=0),
    "predict": lambda model, texts: model.predict(texts, verbose=0),
    "validation_data": lambda model, texts: model.fit(texts, validation_data=texts, verbose=0),
    "(texts,)": lambda model, texts: model.fit(texts, validation_data=(texts,), verbose=0),
    "(texts, None)": lambda model, texts: model.fit(
        texts, validation_data=(texts, None), verbose=0
    ),
    "(arrays)": lambda model, texts: model.fit(
        texts,
        validation_data=model.preprocessor([texts] if isinstance(texts, str) else texts),
        verbose=0,
    ),
}


@pytest.fixture(scope="module")
def writer():
    model = make_model()
    model.compile(keras.optimizers.SGD(0.0), model.loss)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("texts", [TEXTS, tuple(TEXTS), np.array(TEXTS), TEXTS[0]], ids=str)
@pytest.mark.parametrize("door", TEXT_DOORS)
def test_text_is_taken_at_every_door(writer, door, texts):
    result = TEXT_DOORS[door](writer, texts)
    if "predict" in door:
        x = writer.preprocessor([texts] if isinstance(texts, str) else list(texts))[0]
        np.testing.assert_allclose(result, writer(x), atol=1e-4)
    elif isinstance(result, keras.callbacks.History):
        assert np.isfinite(list(result.history.values())).all()
        assert ("val_loss" in result.history) == (door != "fit")
    else:
        assert np.isfinite(result).all()


@pytest.mark.parametrize("door", TEXT_DOORS)
def test_text_without_a_tokenizer_is_refused(shared, door):
    if door == "(arrays)":
        return
    with pytest.raises(ValueError, match="Text needs a tokenizer"):
        TEXT_DOORS[door](shared, TEXTS)


def test_a_tokenizer_larger_than_the_backbone_is_refused():
    preprocessor = MistralCausalLMPreprocessor(small_tokenizer(), 8)
    message = "The tokenizer has 300 ids, but the backbone's vocabulary_size is 20: "
    with pytest.raises(ValueError, match=message):
        MistralCausalLM(MistralBackbone(20, 1, 2, 8, 16, 1), preprocessor)
    model = small_causal_lm(preprocessor=None, vocabulary_size=20)
    with pytest.raises(ValueError, match=message):
        model.preprocessor = preprocessor
    assert model.preprocessor is None


def test_nothing_to_train_is_refused():
    model = causal_lm()
    model.trainable = False
    for call in (model.fit, model.train_on_batch):
        with pytest.raises(ValueError, match=r"every weight of this model is frozen.*enable_lora"):
            call(*GOOD)
    assert np.isfinite(model.evaluate(*GOOD, verbose=0)).all()


def test_weights_of_classes_are_refused():
    """Keras would weigh a row by the place of its largest id."""
    model = causal_lm()
    for train in (model.fit, model.train_on_batch):
        with pytest.raises(ValueError, match=r"class_weight must be None: .* sample_weight"):
            train(inputs(), LABELS, class_weight={0: 1.0, 1: 2.0})
