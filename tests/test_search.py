"""mistral_lib/samplers/search.py: beams and contrastive search, alone with a function `next`."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mistral_lib import samplers
from mistral_lib.samplers.search import similarity

SIZE = 4
TABLE = jax.random.normal(jax.random.key(0), (SIZE, SIZE)) * 2
STATES = jax.random.normal(jax.random.key(1), (SIZE, 3))


def by_table(prompt, cache, index):
    """Logits and hidden state depend on the token before."""
    last = prompt[:, index - 1]
    return TABLE[last], STATES[last], cache


def score(row):
    steps = jax.nn.log_softmax(TABLE)[jnp.array(row[:-1]), jnp.array(row[1:])]
    return float(steps.sum())


def test_enough_beams_find_the_likeliest_text():
    prompt = jnp.array([[1, 0, 0, 0], [2, 0, 0, 0]])
    texts, scores = samplers.BeamSampler(num_beams=16, return_all_beams=True)(
        by_table, prompt, index=1
    )
    assert texts.shape == (2, 16, 4)
    for first, found, values in zip((1, 2), texts.tolist(), scores.tolist()):
        every = [[first, *rest] for rest in itertools.product(range(SIZE), repeat=3)]
        every.sort(key=score, reverse=True)
        assert found[:5] == every[:5]
        np.testing.assert_allclose(values[:5], [score(row) for row in every[:5]], atol=1e-5)
    best = samplers.BeamSampler(num_beams=16)(by_table, prompt, index=1)
    assert best.tolist() == texts[:, 0].tolist()


def test_one_beam_is_greedy():
    prompt = jnp.array([[1, 0, 0, 0, 0]])
    greedy = samplers.GreedySampler()(by_table, prompt, index=1)
    one = samplers.BeamSampler(num_beams=1)(by_table, prompt, index=1)
    likely = samplers.ContrastiveSampler(k=3, alpha=0.0)(
        by_table, prompt, index=1, hidden_states=jnp.ones((1, 5, 3))
    )
    assert one.tolist() == greedy.tolist() == likely.tolist()


def contrastive_by_loops(row, width, k, alpha):
    row, states = list(row), [STATES[token] for token in row]
    while len(row) < width:
        probabilities = jax.nn.softmax(TABLE[row[-1]])
        scores = {}
        for token in np.argsort(-probabilities)[:k].tolist():
            cosines = [
                float(
                    state @ STATES[token] / jnp.linalg.norm(state) / jnp.linalg.norm(STATES[token])
                )
                for state in states
            ]
            scores[token] = (1 - alpha) * float(probabilities[token]) - alpha * max(cosines)
        row.append(max(scores, key=scores.get))
        states.append(STATES[row[-1]])
    return row


@pytest.mark.parametrize(("k", "alpha"), [(2, 0.6), (4, 0.3), (9, 0.9)])
def test_contrastive_search_equals_loops(k, alpha):
    prompt = jnp.array([[1, 3, 0, 0, 0, 0], [2, 2, 0, 0, 0, 0]])
    hidden = STATES[prompt]
    written = samplers.ContrastiveSampler(k, alpha)(
        by_table, prompt, cache=prompt * 0, index=2, hidden_states=hidden
    )
    expected = [contrastive_by_loops(row[:2], 6, min(k, SIZE), alpha) for row in prompt.tolist()]
    assert written.tolist() == expected


def test_similarity_is_a_cosine():
    assert similarity(jnp.array([[[3.0, 4.0]]]), jnp.array([[[6.0, 8.0]]])).tolist() == [[[1.0]]]
    assert np.isfinite(similarity(jnp.zeros((1, 2, 3)), jnp.ones((1, 1, 3)))).all()


def test_contrastive_search_needs_hidden_states():
    with pytest.raises(ValueError, match="hidden_states must be those of the prompt"):
        samplers.ContrastiveSampler()(by_table, jnp.zeros((1, 3), "int32"))


def test_stop_tokens_end_a_search():
    prompt = jnp.array([[1, 0, 0, 0, 0]])
    for sampler in (samplers.BeamSampler(num_beams=2), samplers.ContrastiveSampler(k=2)):
        written = sampler(
            by_table,
            prompt,
            index=1,
            mask=prompt > 0,
            stop_token_ids=range(SIZE),
            hidden_states=STATES[prompt],
        )
        assert written[0, 2:].tolist() == [0, 0, 0]
        assert sampler.from_config(sampler.get_config()).get_config() == sampler.get_config()
