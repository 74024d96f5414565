"""The shipped model with windows that it was not trained with (used by chapter 7)."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from mistral_lib import MistralCausalLM, MistralTokenizer
from mistral_lib.arrays import Array, Float32, Int
from mistral_lib.generation.compiled import CompiledFunction
from mistral_lib.masks import attention_mask
from mistral_lib.teaching import panel
from mistral_lib.teaching.estimates import Estimate, ratio
from mistral_lib.teaching.measures import log_chances
from mistral_lib.teaching.panel import Rows
from mistral_lib.teaching.transplant import transplanted

TOKENS = 256  # of a text, as many as of those that the shipped model was trained on


def long_texts(tokenizer: MistralTokenizer, half: str = "confirm") -> Rows:
    """Texts that are longer than the shipped model's window: two documents of the panel each.

    Each document of a half follows the one before it, the first the last one. At most 256 tokens
    are kept.

    Args:
        tokenizer: the shipped model's.
        half: "discover" or "confirm".

    >>> model = MistralCausalLM.from_preset("mistral_tiny_en")
    >>> texts = long_texts(model.preprocessor.tokenizer)
    >>> texts.token_ids.shape, texts.title
    ((26, 256), 'pairs of documents, confirm')
    """
    documents = panel.documents(tokenizer).half(half)
    before = [documents.items[-1], *documents.items]
    pairs = ["\n\n\n".join(pair) for pair in zip(before, documents.items)]
    rows = panel.own(tokenizer, pairs, title=f"pairs of {documents.title}")
    kept = {name: getattr(rows, name)[:, :TOKENS] for name in ("token_ids", "padding_mask")}
    return dataclasses.replace(rows, **kept)


@functools.lru_cache(16)
def _compiled(model):
    def run(rows, window):
        def mask(queries, keys, _, real):
            return attention_mask(queries, keys, window, real)

        with transplanted(model, mask=mask):
            logits = model(rows.inputs)
        return -log_chances(logits, rows) / math.log(2), jnp.argmax(logits, axis=-1)

    return CompiledFunction(run, model.backbone, donate=False)


def read_with(
    model: MistralCausalLM, rows: Rows, window: int
) -> tuple[Float32[np.ndarray, "B T"], Int[np.ndarray, "B S"]]:
    """What each token but the first costs, and the likeliest token after each, with some window.

    Compiled once for all windows.

    Args:
        model: the model; its own window is not used.
        rows: the texts.
        window: how many tokens a token sees, itself included.

    Returns:
        Bits (B, T), where T is S - 1 and padding costs nothing, and token ids (B, S).
    """
    bits, likeliest = _compiled(model)(rows, jnp.asarray(window))
    return np.asarray(bits), np.asarray(likeliest)


def beyond(rows: Rows, first: int = 128) -> Array:
    """Which predictions (B, T) are made at positions from `first` on.

    >>> model = MistralCausalLM.from_preset("mistral_tiny_en")
    >>> int(beyond(long_texts(model.preprocessor.tokenizer)).sum(axis=1).max())
    127
    """
    return rows.padding_mask[:, 1:] & (np.arange(rows.token_ids.shape[1] - 1) >= first)


def more_bits(
    bits: Float32[np.ndarray, "B T"],
    than: Float32[np.ndarray, "B T"],
    rows: Rows,
    tokenizer: MistralTokenizer,
) -> Estimate:
    """How many bits per byte one reading needs more than another, far into the texts.

    Args:
        bits: of `read_with`.
        than: of `read_with`, with another window.
        rows: the texts that were read.
        tokenizer: what their bytes are counted with.
    """
    counted = beyond(rows)
    texts = [row[1:][far] for row, far in zip(rows.token_ids, counted)]
    in_bytes = [len(tokenizer.decode(jax.device_get(ids)).encode()) for ids in texts]
    return ratio(((bits - than) * counted).sum(axis=1), np.array(in_bytes, float))
