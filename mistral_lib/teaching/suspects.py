"""Copies of the shipped model with one damaged layer each, for debugging (used by chapter 12)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mistral_lib import MistralCausalLM
from mistral_lib.checks import check_choice

PRESET = "mistral_tiny_en"
NAMES = ("A", "B", "C")


def load(name: str) -> MistralCausalLM:
    """The shipped model, one of whose layers is damaged as real converters and programs do it.

    All of them run, and their weights have the right shapes. Which layer it is, and how it is
    damaged, says only this module.

    Args:
        name: "A", "B" or "C".

    Raises:
        ValueError: no suspect has that name.

    >>> load("A").count_params()
    3148224
    """
    check_choice("name", name, NAMES)
    if name == "C":  # a query of block 0 sees one token less than it should
        return MistralCausalLM.from_preset(PRESET, sliding_window=[127, 128, 128, 128, 128, 128])
    model = MistralCausalLM.from_preset(PRESET)
    blocks = model.backbone.transformer_layers
    if name == "A":  # the value heads of block 4 are exchanged, and its key heads are not
        _reorder(blocks[4].self_attention.value, lambda heads: heads[:, ::-1])
    else:  # the keys of block 1 are in the order of interleaved pairs, and its queries are not
        _reorder(blocks[1].self_attention.key, _interleaved)
    return model


def _interleaved(heads):
    """Heads (D, K, h) from the half-split layout to that of neighbouring pairs."""
    halves = heads.reshape(*heads.shape[:2], 2, -1)
    return halves.swapaxes(2, 3).reshape(heads.shape)


def _reorder(projection, order: Callable[[np.ndarray], np.ndarray]) -> None:
    """Brings the columns of a key or value kernel, seen as (D, K, h), into another order."""
    kernel = np.array(projection.kernel.value)
    heads = kernel.reshape(len(kernel), 2, -1)
    projection.kernel.assign(order(heads).reshape(kernel.shape))
