"""How long a step takes at least (chapter 15, "The rolling cache", and 16, 18, 19 and 20).

Each weight is read once for all rows of the batch, and each row reads its own cache. So the time of
one step of decoding, for B rows, is at least

    max(2 × weights × B / rate, weight bytes / bandwidth)
      + B × max(attention's FLOPs / rate, cache bytes / bandwidth)

The two parts are added because they follow one another: a block's attention waits for its
projections. Inside a part, arithmetic and reading go on side by side, so the longer one counts.
Attention makes 2 FLOPs for the score and 2 for the weighted sum, for each query head, each number
of a head and each key that the query sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from mistral_lib.config import EMBEDDINGS, OUTPUT, MistralConfig, Weight
from mistral_lib.layers.quantizable import dtype_policy
from mistral_lib.presets.memory import bytes_of


@dataclass(frozen=True)
class Work:
    """What one part of a step has to do, for the whole batch."""

    flops: float
    bytes: float

    def seconds(self, rate: float, bandwidth: float) -> float:
        """The longer of two times: of the arithmetic, and of the reading.

        >>> Work(flops=6e9, bytes=8e9).seconds(rate=1e12, bandwidth=1e11)
        0.08
        """
        return max(self.flops / rate, self.bytes / bandwidth)


@dataclass(frozen=True)
class Step:
    """The work of one step: with the weights, and in attention over the cache."""

    weights: Work
    attention: Work

    def seconds(self, rate: float, bandwidth: float) -> float:
        """The least time of the step.

        Args:
            rate: FLOPs a second that the device reaches in a large product of matrices.
            bandwidth: bytes a second that it reads from its memory.

        >>> Step(Work(6e9, 8e9), Work(1e9, 2e9)).seconds(rate=1e12, bandwidth=1e11)
        0.1
        """
        parts = self.weights, self.attention
        return sum(part.seconds(rate, bandwidth) for part in parts)


def decoding_step(config: MistralConfig, rows: int, context: int, dtype: Any = "float32") -> Step:
    """The work of writing one token in each row.

    Args:
        config: the architecture.
        rows: of the batch, B.
        context: tokens that each row holds, the new one included. A layer with a window reads no
            more keys than the window is wide.
        dtype: the dtype policy, quantized or not: it decides the bytes of the weights; the cache
            has the dtype in which the policy computes.

    >>> mistral_7b = MistralConfig(32000, 32, 32, 4096, 14336, 8, sliding_window=4096)
    >>> step = decoding_step(mistral_7b, rows=1, context=4096, dtype="bfloat16")
    >>> f"{step.weights.bytes / 1e9:.1f} GB of weights, {step.attention.bytes / 1e9:.2f} of cache"
    '14.2 GB of weights, 0.54 of cache'
    >>> f"{1000 * step.seconds(rate=990e12, bandwidth=3.35e12):.1f} ms on an H100"
    '4.4 ms on an H100'
    """
    keys = rows * sum(keys_seen(config, context))
    return _step(config, rows, keys, keys, dtype)


def reading_step(config: MistralConfig, tokens: int, dtype: Any = "float32") -> Step:
    """The work of reading a prompt of one row at once, without logits.

    Keys and values are made on the way, and are counted as read once.

    >>> mistral_7b = MistralConfig(32000, 32, 32, 4096, 14336, 8, sliding_window=4096)
    >>> step = reading_step(mistral_7b, tokens=8192, dtype="bfloat16")
    >>> f"{step.weights.flops / 1e12:.0f} and {step.attention.flops / 1e12:.1f} TFLOP"
    '114 and 13.2 TFLOP'
    """
    windows = [config.window(layer) or tokens for layer in range(config.num_layers)]
    pairs = sum(_pairs(tokens, min(window, tokens)) for window in windows)
    return _step(config, tokens, pairs, tokens * config.num_layers, dtype, logits=False)


def checking_step(
    config: MistralConfig, rows: int, context: int, tokens: int, dtype: Any = "float32"
) -> Step:
    """The work of reading several tokens at once in each row, with logits for all of them.

    That is what a model does with the tokens of a draft. Weights and cache are read once, and the
    arithmetic is done for every token.

    Args:
        config: the architecture.
        rows: of the batch, B.
        context: tokens that each row holds; the last ones are read now, and a few keys more or less
            are not counted.
        tokens: how many are read at once in each row.
        dtype: the dtype policy, as for `decoding_step`.

    >>> mistral_7b = MistralConfig(32000, 32, 32, 4096, 14336, 8, sliding_window=4096)
    >>> one, five = (checking_step(mistral_7b, 1, 4096, n, "bfloat16") for n in (1, 5))
    >>> five.seconds(990e12, 3.35e12) == one.seconds(990e12, 3.35e12)  # both wait for memory
    True
    """
    once = decoding_step(config, rows, context, dtype)
    each = decoding_step(config, rows * tokens, context, dtype)
    return Step(each.weights, Work(each.attention.flops, once.attention.bytes))


def keys_seen(config: MistralConfig, context: int) -> list[int]:
    """How many keys the newest of `context` tokens sees in each layer.

    >>> config = MistralConfig(10, 2, 2, 8, 8, 1, sliding_window=[4, None])
    >>> keys_seen(config, 6)
    [4, 6]
    """
    windows = [config.window(layer) for layer in range(config.num_layers)]
    return [min(window or context, context) for window in windows]


def _pairs(tokens: int, window: int) -> int:
    """Pairs of a query and a key that it sees: 1 + 2 + … up to the window, then the window."""
    return window * (window + 1) // 2 + (tokens - window) * window


def _step(config, products, pairs, keys, dtype, logits=True) -> Step:
    policy = dtype_policy(dtype)

    def read(weight: Weight) -> bool:
        """Of an embedding a token reads one row; it is read whole where it makes the logits."""
        if weight.pattern == EMBEDDINGS:
            return config.tie_word_embeddings and logits
        return logits or weight.pattern != OUTPUT

    matrices = config.total(lambda w: read(w) * w.is_matrix * math.prod(w.shape))
    size = config.total(lambda w: read(w) * bytes_of(w, policy))
    heads, groups, head_dim = config.num_query_heads, config.num_key_value_heads, config.head_dim
    cached = 2 * groups * head_dim * jnp.dtype(policy.compute_dtype).itemsize
    return Step(
        Work(2 * matrices * products, size), Work(4 * heads * head_dim * pairs, keys * cached)
    )
