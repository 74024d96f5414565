"""Turning one key head onto another: exact where the two say the same in other coordinates."""

import jax.numpy as jnp
import numpy as np
import pytest

from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.teaching.interventions import read
from mistral_lib.teaching.merging import as_pairs, key_turn, turned_average, value_turn
from mistral_lib.teaching.panel import Documents

H, K, D, h = 4, 2, 12, 6


def rotation(seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(h, h)))[0]


def test_the_turn_of_values_is_found_and_is_a_rotation():
    first = np.random.default_rng(0).normal(size=(30, h))
    turn = value_turn(first, first @ rotation(1).T)
    assert np.allclose(turn, rotation(1), atol=1e-6)
    noisy = value_turn(first, np.random.default_rng(2).normal(size=(30, h)))
    assert np.allclose(noisy @ noisy.T, np.eye(h), atol=1e-6)


def test_the_turn_of_keys_is_found_pair_by_pair():
    random = np.random.default_rng(0)
    second, angles = random.normal(size=(30, h)), np.array([0.3, -2.0, 1.0])
    turned = as_pairs(second) * np.exp(1j * angles)
    first = np.concatenate([turned.real, turned.imag], axis=1)
    assert np.allclose(key_turn(first, second), np.exp(1j * angles), atol=1e-6)


@pytest.fixture
def model():
    """A model whose second key head is the first one in other coordinates."""
    model = MistralCausalLM(MistralBackbone(20, 1, H, D, 8, K, head_dim=h))
    random = np.random.default_rng(5)
    for variable in model.variables:
        variable.assign(random.normal(size=variable.shape) * 0.5)
    attention = model.backbone.transformer_layers[0].self_attention
    for projection in (attention.key, attention.value):
        kernel = np.array(projection.kernel).reshape(D, K, h)
        if projection is attention.key:
            turned = as_pairs(kernel[:, 0]) * jnp.exp(1j * jnp.array([0.5, -1.0, 2.0]))
            kernel[:, 1] = np.concatenate([turned.real, turned.imag], axis=-1)
        else:
            kernel[:, 1] = kernel[:, 0] @ rotation(3)
        projection.kernel.assign(kernel.reshape(D, K * h))
    return model


def rows(seed):
    ids = np.random.default_rng(seed).integers(1, 20, size=(3, 9))
    return Documents(
        "texts", ("",) * 3, np.ones(3, bool), ids, np.ones((3, 9), bool), np.ones(3, int)
    )


def test_heads_that_say_the_same_are_merged_without_loss(model):
    found, judged = turned_average(model, rows(0)), rows(1)
    before = read(model, judged)
    assert np.allclose(read(model, judged, found), before, atol=1e-4)

    def plain_average(site, layer, x):
        return (
            jnp.broadcast_to(x.mean(axis=2, keepdims=True), x.shape)
            if site in ("key", "value")
            else x
        )

    assert abs(read(model, judged, plain_average) - before).max() > 0.1
