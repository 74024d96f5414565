"""Whether every machine writes the same text (used by all chapters).

Processors add in different orders, so logits differ in their last digits, and a greedy choice
between two tokens that are nearly level can fall either way. A chapter that prints what a model
wrote first asserts that no choice was close.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mistral_lib import MistralCausalLM
from mistral_lib.generation.prompts import read_prompts

PLACES = 64  # lengths are rounded up to a multiple of it, so that few programs are compiled


def smallest_margin(model: MistralCausalLM, prompt: str, **arguments: Any) -> float:
    """How far ahead the likeliest token was where the model's greedy choice was closest.

    Args:
        model: a model with a preprocessor.
        prompt: one text.
        **arguments: of `generate`, without those of sampling.

    Returns:
        The least difference, in logits, between the likeliest and the second likeliest token, over
        all tokens that the model adds to the prompt.

    >>> from mistral_lib.teaching.facts import PROMPT
    >>> model = MistralCausalLM.from_preset("mistral_tiny_en")
    >>> smallest_margin(model, PROMPT, max_length=64) > 0.3
    True
    """
    [prompt_ids] = read_prompts(prompt, model.preprocessor, model.backbone.vocabulary_size).rows
    ids = model.generate(prompt_ids, **arguments)
    places = -(-len(ids) // PLACES) * PLACES
    token_ids = np.zeros((1, places), "int32")
    token_ids[0, : len(ids)] = ids
    real = np.arange(places)[None] < len(ids)
    logits = model.predict({"token_ids": token_ids, "padding_mask": real}, verbose=0)[0]
    rows = logits[len(prompt_ids) - 1 : len(ids) - 1]  # those that the new tokens were chosen from
    second, first = np.sort(rows, axis=1)[:, -2:].T
    if not np.array_equal(rows.argmax(axis=1), ids[len(prompt_ids) :]):
        raise ValueError("The text is not the greedy one: leave out temperature, or set it to 0.")
    return float((first - second).min())
