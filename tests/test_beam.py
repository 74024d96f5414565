"""mistral_lib/generation/beam.py: the search of transformers, token for token."""

from functools import cache

import jax
import numpy as np
import pytest
from reference import golden
from reference.keras_models import assign, our_variables
from reference.make_generation import SEARCHES
from reference.make_reference import NEW_TOKENS, PROMPT_LENGTHS

from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.generation.compiled import watch


@cache
def load():
    """The golden file and a model with its weights; the window is 8."""
    file = golden.load("generation_options")
    model = MistralCausalLM(MistralBackbone(**file.config))
    assign(our_variables(model.backbone), file.weights())
    return file.arrays, model


def prompts():
    arrays = golden.load("generation").arrays
    return [arrays[f"{n}/token_ids"].tolist()[:n] for n in PROMPT_LENGTHS]


def options_of(name, length):
    stop_tokens = load()[0][f"{name}/{length}/stop_tokens"].tolist()
    return {"max_new_tokens": NEW_TOKENS, "stop_token_ids": stop_tokens} | SEARCHES[name][0]


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHES)
def test_equals_transformers(name):
    """Prompts below, at and far above the window; greedy with a penalty is in the file too."""
    arrays, model = load()
    for prompt, length in zip(prompts(), PROMPT_LENGTHS):
        got = model.generate(prompt, strip_prompt=True, **options_of(name, length))
        assert got == arrays[f"{name}/{length}/tokens"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["4_beams_stopped", "short_favoured", "4_beams"])
def test_score_is_that_of_transformers(name):
    """The sum of the log-probabilities that are returned, divided as the length penalty says."""
    arrays, model = load()
    power = SEARCHES[name][0].get("length_penalty", 1.0)
    for prompt, length in zip(prompts(), PROMPT_LENGTHS):
        ids, log_probs = model.generate(
            prompt, strip_prompt=True, return_log_probs=True, **options_of(name, length)
        )
        assert len(ids) == len(log_probs)
        score = sum(log_probs) / len(ids) ** power
        assert score == pytest.approx(float(arrays[f"{name}/{length}/score"]), rel=1e-4)


@pytest.mark.slow
def test_a_prompt_does_not_depend_on_its_neighbours():
    arrays, model = load()
    batch = model.generate(prompts(), max_new_tokens=NEW_TOKENS, num_beams=4, strip_prompt=True)
    assert batch == [arrays[f"4_beams/{n}/tokens"].tolist() for n in PROMPT_LENGTHS]
    # max_length gives the rows different limits.
    together = model.generate(prompts(), max_length=60, num_beams=2)
    assert together == [model.generate(p, max_length=60, num_beams=2) for p in prompts()]


@pytest.mark.slow
def test_blocks_of_steps_equal_one_run():
    arrays, model = load()
    got = model.generate(
        prompts(), max_new_tokens=NEW_TOKENS, num_beams=4, strip_prompt=True, verbose=True
    )
    assert got == [arrays[f"4_beams/{n}/tokens"].tolist() for n in PROMPT_LENGTHS]


@pytest.mark.slow
def test_all_texts_of_two_tokens_are_tried():
    """With as many beams as tokens, two steps find the likeliest of all 61 x 61 texts."""
    _, model = load()
    size = model.backbone.vocabulary_size
    prompt = prompts()[1]
    rows = np.array([[*prompt, token] for token in range(size)])
    inputs = {"token_ids": rows, "padding_mask": np.ones_like(rows)}
    log_probs = np.array(jax.nn.log_softmax(model(inputs)))
    pairs = log_probs[0, -2][:, None] + log_probs[:, -1]  # first token, second token
    expected = np.unravel_index(pairs.argmax(), pairs.shape)
    got = model.generate(prompt, max_new_tokens=2, num_beams=size, strip_prompt=True)
    assert tuple(got) == expected


@pytest.mark.slow
def test_another_length_or_penalty_compiles_nothing():
    _, model = load()
    model.generate(prompts()[0], max_new_tokens=NEW_TOKENS, num_beams=2)
    with watch() as calls:
        model.generate(prompts()[0], max_new_tokens=NEW_TOKENS - 5, num_beams=2, length_penalty=0.5)
    assert [call.name for call in calls] == ["read_chunk", "choose", "run_steps"]
    assert not any(call.compiled for call in calls)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_beams": 0}, "num_beams must be at least 1"),
        ({"num_beams": 2, "temperature": 1.0}, "num_beams must be 1 where there is a temperature"),
        ({"num_beams": 2, "num_samples": 1}, "num_beams must be 1 where there is a num_samples"),
        ({"num_beams": 2, "length_penalty": float("inf")}, "length_penalty must be finite"),
        ({"length_penalty": 2.0}, "num_beams is 1"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        load()[1].generate([1, 2], max_new_tokens=2, **arguments)
