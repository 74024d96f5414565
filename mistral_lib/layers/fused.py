"""Attention in one GPU kernel (chapter 19, "GPU runs")."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mistral_lib.arrays import Array, Bool, Float
from mistral_lib.devices import compute_capability
from mistral_lib.layers.banded import banded_attention


def fused_is_available(dtype: DTypeLike, head_dim: int) -> bool:
    """Whether this machine's GPU has cuDNN's attention kernel for this dtype and head size.

    It needs float16 or bfloat16, a GPU of compute capability 8.0 (Ampere) or newer, and a head size
    that is a multiple of 8 and at most 128 (256 from compute capability 9.0 on).

    >>> fused_is_available("float32", 128)
    False
    """
    if jax.default_backend() != "gpu" or jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float16):
        return False
    capability = compute_capability()
    if capability is None or capability < 8:
        return False
    return head_dim % 8 == 0 and head_dim <= (256 if capability >= 9 else 128)


@partial(jax.jit, static_argnames=("window", "implementation"))
def fused_attention(
    query: Float[Array, "B S K G h"],
    key: Float[Array, "B S K h"],
    value: Float[Array, "B S K h"],
    padding_mask: Bool[Array, "B S"] | None = None,
    window: int | None = None,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "B S K G h"]:
    """Causal attention by `jax.nn.dot_product_attention`, which never stores a score.

    The kernel takes a length for each row instead of a mask. A batch whose padding is not all on
    the right therefore takes the banded path, chosen when it runs.

    Args:
        query: float16 or bfloat16 array (B, S, K, G, h).
        key: array (B, S, K, h) of the same dtype.
        value: array (B, S, K, h) of the same dtype.
        padding_mask: bool array (B, S), true for real tokens; `None` if all are.
        window: number of tokens that a query sees, its own included; `None` for all.
        implementation: "cudnn", or "xla" to run the same call where there is no GPU.

    Returns:
        A float array (B, S, K, G, h): zero for padded queries.
    """
    shape = query.shape

    def even(array):
        # JAX differentiates cuDNN's kernel at even lengths only. No query sees what comes later.
        return jnp.pad(array, [(0, 0), (0, shape[1] % 2), *[(0, 0)] * (array.ndim - 2)])

    def attend(lengths):
        output = jax.nn.dot_product_attention(
            even(query.reshape(*shape[:2], -1, shape[-1])),
            even(key),
            even(value),
            is_causal=True,
            query_seq_lengths=lengths,
            key_value_seq_lengths=lengths,
            # JAX counts the tokens to the left of the query's own.
            local_window_size=None if window is None else (window - 1, 0),
            implementation=implementation,
        )
        return output[:, : shape[1]].reshape(shape)

    if padding_mask is None:
        return attend(None)
    lengths = padding_mask.sum(axis=1, dtype="int32")
    right_padded = padding_mask == (jnp.arange(shape[1]) < lengths[:, None])
    output = jax.lax.cond(
        right_padded.all(),
        # A softmax over no key has no gradient: a wholly padded row keeps its first.
        lambda: attend(jnp.maximum(lengths, 1)),
        lambda: banded_attention(query, key, value, padding_mask, window),
    )
    return jnp.where(padding_mask[:, :, None, None, None], output, 0)
