"""The loss in chunks: Keras's numbers under `fit` and `evaluate`, without all logits in memory."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from mistral_lib import MistralBackbone, MistralCausalLM, training_loss
from mistral_lib.training_loss import token_losses

SIZES = {
    "vocabulary_size": 50,
    "num_layers": 1,
    "num_query_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 16,
    "num_key_value_heads": 1,
}
RANDOM = np.random.default_rng(0)
IDS = RANDOM.integers(0, 50, (4, 9))
DATA = (
    {"token_ids": IDS[:, :-1], "padding_mask": np.ones((4, 8), bool)},
    IDS[:, 1:],
    RANDOM.uniform(size=(4, 8)).astype("float32"),
)


def accuracy():
    return keras.metrics.SparseCategoricalAccuracy()


def make_model(defers, monkeypatch, rank=None, **compiled):
    monkeypatch.setattr(training_loss, "DEFER_FROM", 0 if defers else 2**60)
    monkeypatch.setattr(training_loss, "CHUNK_BYTES", 5 * 50 * 4)  # five tokens of 16
    keras.utils.set_random_seed(0)
    model = MistralCausalLM(MistralBackbone(**SIZES, **compiled.pop("backbone", {})))
    if rank:
        model.backbone.enable_lora(rank)
    settings = {
        "optimizer": keras.optimizers.SGD(0.1),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "weighted_metrics": [accuracy()],
    }
    model.compile(**{**settings, **compiled})
    return model


def after_training(model):
    x, y, weights = DATA
    history = model.fit(x, y, sample_weight=weights, batch_size=2, epochs=2, verbose=0).history
    evaluated = model.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
    return history, evaluated, [np.asarray(v.value) for v in model.trainable_variables]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rank": 2},
        {"backbone": {"tie_word_embeddings": True}},
        {"weighted_metrics": []},
        {"metrics": [accuracy()], "weighted_metrics": [accuracy()]},
        {
            "loss": keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="mean_with_sample_weight"
            )
        },
        {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")},
        {"backbone": {"dtype": "mixed_bfloat16"}},
    ],
    ids="usual lora tied no-metric two-metrics mean sum mixed_bfloat16".split(),
)
def test_fit_and_evaluate_give_kerass_numbers(monkeypatch, settings):
    seen = []
    monkeypatch.setattr(
        training_loss,
        "token_losses",
        lambda *arrays: seen.append(1) or token_losses(*arrays, chunk_bytes=5 * 50 * 4),
    )
    deferred = after_training(make_model(True, monkeypatch, **settings))
    assert seen, "the loss was not taken in chunks"
    seen.clear()
    usual = after_training(make_model(False, monkeypatch, **settings))
    assert not seen
    tolerance = 1e-2 if "dtype" in settings.get("backbone", {}) else 1e-5
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        deferred,
        usual,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "mse", "weighted_metrics": []},
        {"loss_weights": [2.0]},
        {"metrics": ["accuracy"]},
        {"metrics": [lambda y_true, y_pred: jnp.zeros(())]},
        {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)},
    ],
    ids="mse loss-weights accuracy lambda ignore-class".split(),
)
def test_anything_else_is_left_to_keras(monkeypatch, settings):
    monkeypatch.setattr(training_loss, "token_losses", None)  # calling it would fail
    model = make_model(True, monkeypatch, **settings)
    x, y, _ = DATA
    if settings.get("loss") == "mse":
        y = np.eye(50)[y]
    model.train_on_batch(x, y)


@pytest.mark.slow
def test_small_batches_are_left_to_keras(monkeypatch):
    model = make_model(True, monkeypatch)
    monkeypatch.setattr(training_loss, "DEFER_FROM", 4 * 4 * 8 * 50 + 1)
    monkeypatch.setattr(training_loss, "token_losses", None)
    model.train_on_batch(*DATA[:2])


@pytest.mark.slow
def test_calls_and_predict_give_logits(monkeypatch):
    model = make_model(True, monkeypatch)
    model.fit(*DATA[:2], verbose=0)
    assert model(DATA[0]).shape == (4, 8, 50)
    assert model(DATA[0], training=True).shape == (4, 8, 50)
    assert model.predict(DATA[0], verbose=0).shape == (4, 8, 50)


@pytest.mark.slow
def test_labels_may_have_a_last_axis(monkeypatch):
    losses = []
    for labels in (DATA[1], DATA[1][..., None]):
        model = make_model(True, monkeypatch, weighted_metrics=[], metrics=[accuracy()])
        losses.append(model.train_on_batch(DATA[0], labels))
    np.testing.assert_allclose(*losses, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 3, 7, 100])
def test_values_and_gradients_of_every_chunking(rows):
    backbone = MistralBackbone(**SIZES)
    embedding = backbone.token_embedding
    states = RANDOM.normal(size=(2, 7, 8)).astype("float32")
    labels = RANDOM.integers(0, 50, (2, 7))
    weights = RANDOM.uniform(size=(2, 7))

    def chunked(states):
        return token_losses(embedding, states, labels, chunk_bytes=rows * 50 * 4)

    def whole(states):
        logits = embedding(states, reverse=True)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1)
        return -chosen[..., 0], logits.argmax(axis=-1)

    for ours, theirs in zip(chunked(states), whole(states), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    ours, theirs = (
        jax.grad(lambda s, f=f: (weights * f(s)[0]).sum())(states) for f in (chunked, whole)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_step_holds_one_chunk_of_logits():
    with keras.StatelessScope():
        embedding = MistralBackbone(**{**SIZES, "vocabulary_size": 4096}).token_embedding
    states, labels = jnp.ones((1, 512, 8)), jnp.zeros((1, 512), "int32")
    matrices = [v.value for v in embedding.variables]

    def loss(matrices, states):
        with keras.StatelessScope(list(zip(embedding.variables, matrices, strict=True))):
            return token_losses(embedding, states, labels, chunk_bytes=32 * 4096 * 4)[0].sum()

    step = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(matrices, states).compile()
    logits_bytes = 512 * 4096 * 4
    weights_bytes = sum(matrix.nbytes for matrix in matrices)
    # A few arrays of one chunk (a 16th of the logits each), and the gradient being summed up.
    assert step.memory_analysis().temp_size_in_bytes < logits_bytes / 3 + weights_bytes


# What `compile` is given -------------------------------------------------------------------------


SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
NAMED = {
    "its name": "sparse_categorical_crossentropy",
    "its class's name": "SparseCategoricalCrossentropy",
    "short": "ce",
    "long": "crossentropy",
    "its function": keras.losses.sparse_categorical_crossentropy,
    "its class": keras.losses.SparseCategoricalCrossentropy,
    "in a list": ["sparse_categorical_crossentropy"],
}


@pytest.mark.slow
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
@pytest.mark.parametrize("name", NAMED)
def test_a_crossentropy_by_name_is_one_of_logits(monkeypatch, name, chunked):
    metrics = {"weighted_metrics": [], "metrics": ["sparse_categorical_crossentropy"]}
    model = make_model(chunked, monkeypatch, loss=NAMED[name], **metrics)
    expected = make_model(False, monkeypatch, weighted_metrics=[])
    x, y, _ = DATA
    loss, metric = model.evaluate(x, y, verbose=0)
    assert loss == pytest.approx(expected.evaluate(x, y, verbose=0), rel=1e-5)
    assert metric == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(
    "kind",
    [
        keras.losses.SparseCategoricalCrossentropy,
        keras.losses.CategoricalCrossentropy,
        keras.losses.BinaryCrossentropy,
    ],
)
def test_a_loss_of_probabilities_is_refused(monkeypatch, kind):
    model = make_model(False, monkeypatch)
    message = rf"returns logits, but {kind.__name__} .*from_logits=False.*from_logits=True"
    before = model.loss, model.optimizer
    with pytest.raises(ValueError, match=message):
        model.compile("adam", kind())
    with pytest.raises(ValueError, match=message):
        model.compile("adam", [kind(from_logits=False)])
    with pytest.raises(ValueError, match=message):
        model.compile("adam", SPARSE, metrics=[getattr(keras.metrics, kind.__name__)()])
    assert (model.loss, model.optimizer) == before


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["accuracy", "acc", "sparse_categorical_accuracy"])
def test_other_metrics_and_losses_keep_their_names(monkeypatch, metric):
    model = make_model(False, monkeypatch, metrics=[metric], weighted_metrics=[])
    assert set(model.evaluate(*DATA[:2], verbose=0, return_dict=True)) == {"loss", metric}
    model.compile("adam", "mse")
    assert model.loss == "mse"


def test_a_saved_model_is_compiled_again(monkeypatch, tmp_path):
    model = make_model(False, monkeypatch, loss="sparse_categorical_crossentropy")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, keras.optimizers.SGD)
    assert loaded.evaluate(*DATA[:2], verbose=0) == pytest.approx(
        model.evaluate(*DATA[:2], verbose=0), rel=1e-5
    )
