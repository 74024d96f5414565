"""mistral_lib/rematerialization.py: gradients of a block that is computed twice."""

import jax
import keras
import numpy as np
import pytest

from mistral_lib.config import MistralConfig
from mistral_lib.layers.decoder import MistralDecoder
from mistral_lib.rematerialization import rematerialized


@pytest.fixture(scope="module")
def block():
    block = MistralDecoder(MistralConfig(10, 1, 2, 8, 16, 1, sliding_window=3))
    block.build((None, None, 8))
    random = np.random.default_rng(0)
    for weight in block.weights:
        weight.assign(random.normal(size=weight.shape))
    return block


X = np.random.default_rng(1).normal(size=(2, 5, 8)).astype("float32")
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], bool)


def test_the_output_is_the_blocks(block):
    found = rematerialized(block)(X, padding_mask=MASK, training=True)
    np.testing.assert_array_equal(found, block(X, padding_mask=MASK, training=True))


@pytest.mark.slow
def test_the_gradients_are_the_blocks(block):
    def gradient(run):
        def loss(weights, x):
            pairs = list(zip(block.variables, weights, strict=True))
            with keras.StatelessScope(pairs):
                return (run(x, padding_mask=MASK, training=True) ** 2).sum()

        return jax.jit(jax.grad(loss, (0, 1)))([v.value for v in block.variables], X)

    for one, two in zip(
        *(jax.tree.leaves(gradient(run)) for run in (block, rematerialized(block))), strict=True
    ):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4 * np.abs(one).max())


def test_the_block_is_computed_again_in_the_backward_pass(block):
    """Counted in the program: twice the products of the forward pass, and those of the gradient."""

    def products(run):
        text = str(jax.make_jaxpr(jax.grad(lambda x: run(x, training=True).sum()))(X))
        return text.count("dot_general")

    forward = str(jax.make_jaxpr(lambda x: block(x, training=True))(X)).count("dot_general")
    assert products(rematerialized(block)) >= products(block) + forward
