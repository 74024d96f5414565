"""mistral_lib/scoring.py: KerasHub's `score`, and text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import golden
from reference.keras_models import assign, our_variables
from text_models import make_model

from mistral_lib import MistralBackbone, MistralCausalLM


@pytest.fixture(scope="module")
def file():
    return golden.load("scores")


@pytest.fixture(scope="module")
def model(file):
    model = MistralCausalLM(MistralBackbone(**file.config))
    assign(our_variables(model.backbone), file.weights())
    return model


@pytest.fixture(scope="module")
def text_model():
    return make_model()


def test_equals_keras_hub(file, model):
    """Right-padded rows, past the window; where there is padding, nothing is compared."""
    real, targets = file.padding_mask, file.arrays["target_ids"]
    logits = model.score(file.token_ids, real)
    np.testing.assert_allclose(logits[real], file.arrays["logits"][real], atol=1e-4)
    losses = model.score(file.token_ids, real, "loss", target_ids=targets)
    np.testing.assert_allclose(losses[real], file.arrays["losses"][real], atol=1e-4)


def test_intercept_equals_keras_hub(file, model):
    """The function sees embeddings and every block, and what it returns goes on."""
    seen = []

    def double_block_0(hidden_states, index):
        seen.append((index, hidden_states.shape))
        return 2.0 * hidden_states if index == 0 else hidden_states

    got = model.score(file.token_ids, file.padding_mask, layer_intercept_fn=double_block_0)
    expected = file.arrays["intercepted_logits"]
    np.testing.assert_allclose(got[file.padding_mask], expected[file.padding_mask], atol=1e-4)
    shape = (*file.token_ids.shape, file.config["hidden_dim"])
    assert seen == [(index, shape) for index in range(-1, file.config["num_layers"])]


@pytest.mark.slow
def test_gradients_reach_the_embeddings(file, model):
    ids, targets = file.token_ids[:1], file.arrays["target_ids"][:1]

    def loss(offset):
        return model.score(
            ids,
            scoring_mode="loss",
            target_ids=targets,
            layer_intercept_fn=lambda x, index: x + offset if index == -1 else x,
        ).sum()

    direction = np.random.default_rng(0).normal(size=(*ids.shape, 32)).astype("float32")
    gradient = jax.grad(loss)(jnp.zeros_like(direction))
    step = 1e-2
    numeric = (loss(step * direction) - loss(-step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(numeric), rel=2e-2)


@pytest.mark.slow
def test_default_targets_are_the_next_tokens(model):
    ids = np.array([[1, 5, 9, 4], [7, 2, 0, 0]])
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
    losses = np.array(model.score(ids.tolist(), mask.tolist(), "loss"))
    log_probs = np.array(jax.nn.log_softmax(model.score(ids, mask)))
    expected = np.zeros((2, 4))
    for row, place in ((0, 0), (0, 1), (0, 2), (1, 0)):
        expected[row, place] = -log_probs[row, place, ids[row, place + 1]]
    np.testing.assert_allclose(losses, expected, atol=1e-5)


@pytest.mark.slow
def test_loss_is_the_negative_of_generates_log_probs(model):
    ids, log_probs = model.generate([3, 1, 4], max_new_tokens=12, return_log_probs=True)
    losses = np.array(model.score([ids], scoring_mode="loss"))[0]
    np.testing.assert_allclose(-losses[2:-1], log_probs, atol=1e-4)


@pytest.mark.slow
def test_text(text_model):
    texts = ["the window", "A query sees a key"]
    rows = text_model.preprocessor.prompt_ids(texts)
    losses = np.array(text_model.score(texts, scoring_mode="loss"))
    assert losses.shape == (2, max(map(len, rows)))
    for row, got in zip(rows, losses):
        expected = np.array(text_model.score([row], scoring_mode="loss"))[0]
        np.testing.assert_allclose(got[: len(row)], expected, atol=1e-5)
        assert not got[len(row) :].any()
    np.testing.assert_allclose(
        text_model.score("the window")[0], text_model.score([rows[0]])[0], atol=1e-5
    )


def test_a_target_of_minus_100_has_loss_0(model):
    ids, targets = [[1, 2, 3], [4, 5, 6]], np.array([[7, -100, 8], [-100, 9, 10]])
    losses = model.score(ids, scoring_mode="loss", target_ids=targets)
    counts = targets != -100
    expected = model.score(ids, scoring_mode="loss", target_ids=np.where(counts, targets, 11))
    np.testing.assert_array_equal(losses, np.where(counts, expected, 0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"token_ids": [[1]], "scoring_mode": "bits"}, "must be one of 'logits', 'loss'"),
        ({"token_ids": [1, 2]}, r"must both have the shape \(batch, length\)"),
        ({"token_ids": [[1, 99]]}, "token_ids must be from 0 to 60"),
        ({"token_ids": [[1, 2]], "padding_mask": [[1]]}, "shapes"),
        (
            {"token_ids": [[1, 2]], "scoring_mode": "loss", "target_ids": [[1, 99]]},
            "target_ids must be from 0 to 60",
        ),
        (
            {"token_ids": [[1, 2]], "scoring_mode": "loss", "target_ids": [[1, -1]]},
            "one is -1, in row 0",
        ),
        ({"token_ids": "text"}, "no preprocessor"),
        ({"token_ids": "text", "padding_mask": [[1]]}, "Leave out padding_mask"),
    ],
)
def test_wrong_calls(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model.score(**arguments)
