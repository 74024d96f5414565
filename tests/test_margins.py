"""Margins: the closest greedy choice, found where it was made."""

import numpy as np
import pytest

from mistral_lib import MistralCausalLM
from mistral_lib.teaching.facts import PROMPT
from mistral_lib.teaching.margins import smallest_margin


@pytest.fixture(scope="module")
def model():
    return MistralCausalLM.from_preset("mistral_tiny_en")


def by_single_steps(model, prompt, count):
    """The margins of new tokens, each from a reading of the text before it alone."""
    ids, margins = model.preprocessor.prompt_ids(prompt)[0], []
    for _ in range(count):
        token_ids = np.zeros((1, 64), "int32")
        token_ids[0, : len(ids)] = ids
        inputs = {"token_ids": token_ids, "padding_mask": np.arange(64)[None] < len(ids)}
        logits = model.predict(inputs, verbose=0)[0, len(ids) - 1]
        second, first = np.argsort(logits)[-2:]
        margins.append(logits[first] - logits[second])
        ids = [*ids, int(first)]
    return margins


@pytest.mark.slow
def test_the_margin_is_that_of_the_closest_step(model):
    margins = by_single_steps(model, PROMPT, 5)
    found = smallest_margin(model, PROMPT, max_new_tokens=5)
    assert found == pytest.approx(min(margins), abs=1e-3)
    assert found < max(margins) - 1


def test_the_end_token_is_a_choice_too(model):
    first = smallest_margin(model, PROMPT, max_new_tokens=1)
    assert smallest_margin(model, PROMPT, max_length=64) < first


def test_the_running_prompt_is_completed_clearly_with_its_early_name(model):
    assert smallest_margin(model, PROMPT, max_length=64) > 0.4
    text = model.generate(PROMPT, max_length=64, strip_prompt=True)
    assert text == "prefix* is not a string."


@pytest.mark.slow
def test_sampled_text_is_refused(model):
    with pytest.raises(ValueError, match="not the greedy one"):
        smallest_margin(model, PROMPT, max_length=64, temperature=3.0)
