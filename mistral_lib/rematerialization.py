"""Memory for one block instead of all (chapter 13, "Training a Mistral from nothing")."""

from collections.abc import Callable

import jax
import keras


def rematerialized(block: keras.layers.Layer) -> Callable:
    """A block that keeps its input alone, and is computed a second time in the backward pass.

    As `jax.checkpoint`; but on CPUs XLA finds that the second computation equals the first, and
    keeps the first's results after all. Here it begins from an input that waits for the gradient.

    Args:
        block: a `MistralDecoder` without dropout: the second pass would drop other values.

    Returns:
        A function of the block's call arguments. The gradient flows to the block's weights and its
        hidden states.
    """
    variables = block.variables

    def run(hidden_states, padding_mask=None, **arguments):
        def forward(weights, hidden_states, padding_mask):
            with keras.StatelessScope(list(zip(variables, weights, strict=True))):
                return block(hidden_states, padding_mask=padding_mask, **arguments)

        weights = [variable.value for variable in variables]
        return _computed_twice(forward)(weights, hidden_states, padding_mask)

    return run


def _computed_twice(function):
    """The function of (weights, x, mask), whose backward pass computes its inside again."""

    @jax.custom_vjp
    def run(weights, x, mask):
        return function(weights, x, mask)

    def backward(inputs, gradient):
        weights, x, mask = inputs
        x = _once_there(x, gradient)
        _, pull = jax.vjp(lambda weights, x: function(weights, x, mask), weights, x)
        return *pull(gradient), None

    run.defvjp(lambda *inputs: (run(*inputs), inputs), backward)
    return run


def _once_there(x, gradient):
    """`x`, which cannot be known before `gradient` is: XLA must not take an earlier result."""
    return x + 0 * gradient
