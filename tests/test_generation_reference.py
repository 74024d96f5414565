"""Generation against golden files of transformers (chapter 15, "The rolling cache")."""

from functools import cache, partial

import jax
import numpy as np
import pytest
from reference import golden, make_reference
from reference.keras_models import assign, our_variables

from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.generation.cache import extend, new_cache

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4  # of logits whose two largest differ by 0.03 at least, wherever a token was chosen
WINDOW = make_reference.GENERATION["sliding_window"]
PROMPT_LENGTHS = make_reference.PROMPT_LENGTHS  # below, at and far above the window


@cache
def load():
    """The golden file and a model with its weights."""
    file = golden.load("generation")
    model = MistralCausalLM(MistralBackbone(**file.config))
    assign(our_variables(model.backbone), file.weights())
    return file, model


def texts():
    """Prompt and continuation of every length, as lists of ids."""
    return [load()[0].arrays[f"{length}/token_ids"].tolist() for length in PROMPT_LENGTHS]


def padded(rows, multiple=1):
    """Rows of ids as one array, as long as a multiple of a number, and which of it is real."""
    length = -(-max(map(len, rows)) // multiple) * multiple
    mask = np.arange(length) < np.array([len(row) for row in rows])[:, None]
    token_ids = np.zeros(mask.shape, "int32")
    token_ids[mask] = np.concatenate(rows)
    return token_ids, mask


def check_logits(rows):
    """Compares one array of logits for each text with what transformers computed uncached."""
    for row, length in zip(rows, PROMPT_LENGTHS):
        expected = load()[0].arrays[f"{length}/logits"]
        assert np.abs(row[: len(expected)] - expected).max() < TOLERANCE


@pytest.mark.parametrize("path", ["dense", "banded"])
def test_uncached_logits(path):
    _, model = load()
    token_ids, mask = padded(texts())
    model.backbone.attention_path = path
    try:
        check_logits(np.asarray(model({"token_ids": token_ids, "padding_mask": mask})))
    finally:
        model.backbone.attention_path = "auto"


@pytest.mark.parametrize("chunk", [1, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW])
def test_cached_logits_in_chunks(chunk):
    _, model = load()
    token_ids, mask = padded(texts(), multiple=chunk)
    read = jax.jit(partial(extend, model.backbone))
    state, pieces = new_cache(model.backbone, *token_ids.shape), []
    for start in range(0, token_ids.shape[1], chunk):
        piece = slice(start, start + chunk)
        hidden_states, state = read(state, token_ids[:, piece], mask[:, piece].sum(1))
        pieces.append(model.backbone.token_embedding(hidden_states, reverse=True))
    check_logits(np.concatenate(pieces, axis=1))


@pytest.mark.parametrize(
    "index", range(len(PROMPT_LENGTHS)), ids=[f"prompt_{n}" for n in PROMPT_LENGTHS]
)
def test_greedy_tokens_alone(index):
    _, model = load()
    text = texts()[index]
    prompt = text[: len(text) - make_reference.NEW_TOKENS]
    assert model.generate(prompt, max_new_tokens=make_reference.NEW_TOKENS) == text


def test_greedy_tokens_in_one_batch():
    _, model = load()
    prompts = [text[: len(text) - make_reference.NEW_TOKENS] for text in texts()]
    assert model.generate(prompts, max_new_tokens=make_reference.NEW_TOKENS) == texts()


@pytest.mark.parametrize("window", [WINDOW - 1, WINDOW + 1])
def test_another_window_writes_another_text(window):
    file, _ = load()
    wrong = MistralCausalLM(MistralBackbone(**file.config | {"sliding_window": window}))
    assign(our_variables(wrong.backbone), file.weights())
    prompts = [text[: len(text) - make_reference.NEW_TOKENS] for text in texts()]
    written = wrong.generate(prompts, max_new_tokens=make_reference.NEW_TOKENS)
    assert all(row != text for row, text in zip(written, texts()))
