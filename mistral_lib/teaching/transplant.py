"""The reader's own parts inside a model of the library (used by chapters 3 to 12)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from unittest.mock import patch

import jax
import jax.numpy as jnp
import keras

from mistral_lib.generation.loops import Loops
from mistral_lib.keras_inside import is_traced, layers_inside
from mistral_lib.layers import attention as library
from mistral_lib.layers.decoder import MistralDecoder
from mistral_lib.layers.dense import masked_attention
from mistral_lib.layers.embedding import TokenEmbedding
from mistral_lib.layers.feedforward import SwiGLU
from mistral_lib.layers.rms_norm import RMSNorm
from mistral_lib.masks import attention_mask

# How each part is called. Those of attention work on one sequence, without the axis of the batch.
PARTS = {
    "embedding": "(token_ids (B, S), table (V, D)) -> (B, S, D)",
    "logits": "(hidden_states (B, S, D), kernel (D, V)) -> (B, S, V)",
    "projection": "(x (B, S, D), kernel (D, units)) -> (B, S, units)",
    "attention": "(query (S, h), key (S, h), value (S, h), mask (S, S)) -> (S, h)",
    "positions": "(x (S, h), positions (S,)) -> (S, h)",
    "heads": "(query (S, K, G, h), key (S, K, h), value (S, K, h), mask (S, S)) -> (S, K, G, h)",
    "mask": "(query_positions (S,), key_positions (S,), window, real (S,) or None) -> (S, S)",
    "norm": "(x (B, S, D), scale (D,), epsilon) -> (B, S, D)",
    "feedforward": "(x (B, S, D), gate (D, F), up (D, F), down (F, D)) -> (B, S, D)",
    "block": "(x (B, S, D), attention_norm, attention, feedforward_norm, feedforward) -> (B, S, D)",
}


@contextmanager
def transplanted(model: keras.Model, **parts: Callable) -> Iterator[None]:
    """Puts functions of the reader in the place of parts of a model, in all of its layers.

    `PARTS` says how each is called. `attention` and `positions` are called once for each head of
    each sequence, `heads` and `mask` once for each sequence, `projection` for the query, key, value
    and output of each layer; the last four arguments of `block` are functions of (B, S, D). A
    function may use NumPy as long as the model is called directly, `model(inputs)`. In `predict` it
    is compiled, so it has to be written in JAX, and it is called once in each layer for all
    sequences and heads together, by `jax.vmap`: a batch of many texts takes no longer to compile
    than one. `generate` attends over its cache, and uses neither `attention` nor `heads` nor
    `mask`.

    Args:
        model: a `MistralCausalLM` or a `MistralBackbone`.
        **parts: functions, by the names in `PARTS`.

    Raises:
        ValueError: no part has that name, a function returns another shape, or both `attention` and
            `heads` are given.
        RuntimeError: on leaving, if a function was never called: nothing was shown about it then.

    >>> from mistral_lib import MistralBackbone
    >>> backbone = MistralBackbone(10, 1, 2, 8, 16, 1)
    >>> inputs = {"token_ids": [[1, 2, 3]], "padding_mask": [[1, 1, 1]]}
    >>> with transplanted(backbone, norm=lambda x, scale, epsilon: 0 * x):
    ...     print(float(abs(backbone(inputs)).max()))
    0.0
    """
    if unknown := parts.keys() - PARTS.keys():
        raise ValueError(f"No part is called {min(unknown)!r}: there are {', '.join(PARTS)}.")
    if {"attention", "heads"} <= parts.keys():
        raise ValueError("attention is one head and heads are all of them: give one of the two.")
    counted = {name: _Part(name, function) for name, function in parts.items()}
    with ExitStack() as stack:
        for target, attribute, replacement in _replacements(model, counted):
            stack.enter_context(patch.object(target, attribute, replacement))
        if parts.keys() & {"attention", "heads", "mask"}:
            path = {"transplant": _attention_path(counted)}
            stack.enter_context(patch.dict(library.PATHS, path))
        _forget_compiled(model)
        stack.callback(_forget_compiled, model)
        yield
    for part in counted.values():
        if not part.calls:
            raise RuntimeError(
                f"{part.name} was never called. Call the model inside the `with` block."
            )


class _Part:
    """A function of the reader that counts its calls, and whose result is looked at."""

    def __init__(self, name: str, function: Callable):
        self.name, self.function, self.calls = name, function, 0

    def __call__(self, shape, dtype, *arguments):
        self.calls += 1
        result = jnp.asarray(self.function(*arguments))
        if result.shape != tuple(shape):
            raise ValueError(
                f"{self.name} returned the shape {result.shape}, expected {tuple(shape)}. It is "
                f"called as {PARTS[self.name]}."
            )
        return result.astype(dtype)


def _replacements(model, parts: dict[str, _Part]) -> Iterator[tuple[object, str, object]]:
    """What is patched: an object, the name of its attribute, and the new value."""
    if "positions" in parts:
        # The angles are the reader's business: positions travel in their place, in their shape.
        yield library, "rotary_angles", _positions_as_angles
        yield library, "rotate", _rotation(parts["positions"])
    calls = {
        RMSNorm: _norm_call if "norm" in parts else None,
        SwiGLU: _feedforward_call if "feedforward" in parts else None,
        MistralDecoder: _block_call if "block" in parts else None,
        TokenEmbedding: _embedding_call if parts.keys() & {"embedding", "logits"} else None,
    }
    backbone = getattr(model, "backbone", model)
    for layer in layers_inside(backbone):
        if make := calls.get(type(layer)):
            yield layer, "call", make(layer, parts)
        if isinstance(layer, library.MistralAttention) and "projection" in parts:
            for name in ("query", "key", "value", "attention_output"):
                projection = getattr(layer, name)
                yield projection, "call", _projection_call(projection, parts)
        if isinstance(layer, library.MistralAttention) and parts.keys() & {
            "attention",
            "heads",
            "mask",
        }:
            yield layer, "attention_path", "transplant"
    if hasattr(model, "_loops"):
        yield model, "_loops", Loops(backbone)


def _forget_compiled(model) -> None:
    """Keras keeps compiled programs, in which the other parts are."""
    for part in {id(m): m for m in (model, getattr(model, "backbone", model))}.values():
        part.train_function = part.test_function = part.predict_function = None


def _attention_path(parts: dict[str, _Part]) -> Callable:
    """Attention in the form of the library's paths, made of the reader's parts."""

    def attend(query, key, value, padding_mask, window):
        positions = jnp.arange(query.shape[1])
        real = None if padding_mask is None else jnp.asarray(padding_mask)
        if "mask" in parts:
            mask = partial(parts["mask"], (len(positions),) * 2, bool, positions, positions, window)
            masks = mask(None) if real is None else _each(mask, real)
        else:
            masks = attention_mask(positions, positions, window, real)
        masks = jnp.broadcast_to(masks, (len(query), *masks.shape[-2:]))  # (B, S, S)
        output = _attended(parts, query, key, value, masks)
        if real is None:
            return output
        # A padded query may see no key; the reader's softmax then gives NaN, which would spread.
        return jnp.where(real[:, :, None, None, None], output, 0)

    return attend


def _attended(parts, query, key, value, masks):
    """Attention (B, S, K, G, h) by the reader's heads, head, or neither."""
    if "heads" in parts:
        return _each(
            partial(parts["heads"], query.shape[1:], value.dtype), query, key, value, masks
        )
    if "attention" in parts:
        return _head_by_head(parts["attention"], query, key, value, masks)
    return masked_attention(query, key, value, masks)


def _head_by_head(attend, query, key, value, masks):
    """Attention of query (B, S, K, G, h) over key and value (B, S, K, h), a head at a time."""
    B, S, K, G, h = query.shape
    queries = query.reshape(B, S, K * G, h)
    rows = [jnp.moveaxis(x, 2, 1) for x in (queries, key, value)]  # (B, heads, S, h)
    rows[1:] = [jnp.repeat(x, G, axis=1) for x in rows[1:]]
    rows.append(jnp.repeat(masks[:, None], K * G, axis=1))
    each = _each(
        partial(attend, (S, h), value.dtype), *(x.reshape(B * K * G, *x.shape[2:]) for x in rows)
    )
    return jnp.moveaxis(each.reshape(B, K, G, S, h), 3, 1)


def _each(function, *arrays):
    """What a function makes of each entry along the first axis: at once if it is compiled."""
    if is_traced(arrays[0]):
        return jax.vmap(function)(*arrays)
    return jnp.stack([function(*entries) for entries in zip(*arrays)])


def _positions_as_angles(positions, head_dim, *_):
    """The positions (..., S), repeated to the shape (..., S, h / 2) of angles."""
    positions = jnp.asarray(positions)[..., None]
    return jnp.broadcast_to(positions, (*positions.shape[:-1], head_dim // 2))


def _rotation(part: _Part) -> Callable:
    def rotate(x, positions):
        B, S, heads, h = x.shape
        rows = jnp.broadcast_to(positions[..., 0], (B, S))
        each = _each(
            partial(part, (S, h), x.dtype),
            jnp.moveaxis(x, 2, 1).reshape(B * heads, S, h),
            jnp.repeat(rows, heads, axis=0),
        )
        return jnp.moveaxis(each.reshape(B, heads, S, h), 1, 2)

    return rotate


def _projection_call(layer, parts):
    def call(inputs, training=None):
        x = jnp.asarray(inputs)
        shape = (*x.shape[:-1], layer.units)
        return parts["projection"](shape, layer.compute_dtype, x, jnp.asarray(layer.kernel))

    return call


def _norm_call(layer, parts):
    def call(hidden_states):
        arguments = jnp.asarray(hidden_states), jnp.asarray(layer.scale), layer.epsilon
        return parts["norm"](hidden_states.shape, layer.compute_dtype, *arguments)

    return call


def _feedforward_call(layer, parts):
    def call(hidden_states):
        x = jnp.asarray(hidden_states)
        kernels = [jnp.asarray(p.kernel) for p in (layer.gate, layer.up, layer.down)]
        return parts["feedforward"](x.shape, layer.compute_dtype, x, *kernels)

    return call


def _block_call(layer, parts):
    signature = inspect.signature(MistralDecoder.call)

    def call(hidden_states, *arguments, **keywords):
        bound = signature.bind(layer, hidden_states, *arguments, **keywords).arguments
        options = {k: v for k, v in bound.items() if k not in ("self", "hidden_states")}
        return parts["block"](
            hidden_states.shape,
            layer.compute_dtype,
            jnp.asarray(hidden_states),
            layer.self_attention_layernorm,
            lambda x: layer.self_attention(x, **options),
            layer.feedforward_layernorm,
            layer.feedforward,
        )

    return call


def _embedding_call(layer, parts):
    own = layer.call

    def call(inputs, reverse=False):
        inputs, table = jnp.asarray(inputs), jnp.asarray(layer.embeddings)
        if not reverse:
            if "embedding" not in parts:
                return own(inputs)
            shape = (*inputs.shape, layer.output_dim)
            return parts["embedding"](shape, layer.compute_dtype, inputs, table)
        if "logits" not in parts:
            return own(inputs, reverse=True)
        kernel = table.T if layer.tie_weights else jnp.asarray(layer.reverse_embeddings)
        shape = (*inputs.shape[:-1], layer.input_dim)
        return parts["logits"](shape, "float32", inputs, kernel)

    return call
