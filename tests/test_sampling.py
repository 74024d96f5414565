"""mistral_lib/generation/sampling.py: what is drawn, and from what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import golden
from reference.make_generation import SAMPLERS

from mistral_lib.generation.sampling import (
    Sampler,
    draw,
    filter_logits,
    make_sampler,
    token_log_probs,
)

PROBABILITIES = np.array([0.4, 0.05, 0.25, 0.2, 0.1])
LOGITS = jnp.log(jnp.array([PROBABILITIES], "float32"))


def kept(**steps):
    """Ids that stay, and their probabilities."""
    filtered = filter_logits(LOGITS, Sampler(**{"temperature": 1.0, **steps}))
    probabilities = np.array(jax.nn.softmax(filtered))[0]
    return {index: p for index, p in enumerate(probabilities) if p > 0}


def renormalised(*ids):
    total = PROBABILITIES[list(ids)].sum()
    return pytest.approx({index: PROBABILITIES[index] / total for index in ids}, rel=1e-5)


@pytest.mark.parametrize(("k", "ids"), [(1, [0]), (3, [0, 2, 3]), (5, range(5)), (10**6, range(5))])
def test_top_k(k, ids):
    assert kept(top_k=k) == renormalised(*ids)


@pytest.mark.parametrize(
    ("p", "ids"),
    [(0.01, [0]), (0.39, [0]), (0.41, [0, 2]), (0.84, [0, 2, 3]), (0.9, [0, 2, 3, 4])],
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(p, ids):
    assert kept(top_p=p) == renormalised(*ids)


def test_top_p_of_one_keeps_all():
    assert kept(top_p=1.0) == renormalised(*range(5))


def test_temperature_comes_first():
    """At temperature 0.5 the probabilities are squared, so fewer tokens reach top_p."""
    assert kept(top_p=0.5).keys() == {0, 2}
    assert kept(top_p=0.5, temperature=0.5).keys() == {0}
    squared = PROBABILITIES**2 / (PROBABILITIES**2).sum()
    assert list(kept(temperature=0.5).values()) == pytest.approx(squared, rel=1e-5)


def test_top_k_comes_before_top_p():
    """Among the top two, the first has 0.4 / 0.65 = 0.615; of all, only 0.4."""
    assert kept(top_k=2, top_p=0.6).keys() == {0}
    assert kept(top_p=0.6).keys() == {0, 2}


@pytest.mark.parametrize(("p", "ids"), [(0.01, range(5)), (0.2, [0, 2, 3, 4]), (0.6, [0, 2])])
def test_min_p_keeps_a_fraction_of_the_likeliest(p, ids):
    """A quarter of 0.4 is 0.1, which stays: the bound belongs to those that are kept."""
    assert kept(min_p=p) == renormalised(*ids)


def test_min_p_of_one_keeps_the_likeliest():
    assert kept(min_p=1.0).keys() == {0}


def test_repetition_penalty_makes_seen_tokens_less_likely_whatever_their_sign():
    logits = jnp.array([[2.0, -2.0, 2.0, -2.0, 0.0]])
    used = jnp.array([[True, True, False, False, True]])
    filtered = filter_logits(logits, Sampler(repetition_penalty=2.0), used)
    np.testing.assert_array_equal(filtered, [[1.0, -4.0, 2.0, -2.0, 0.0]])


@pytest.mark.parametrize("name", SAMPLERS)
def test_equals_the_processors_of_transformers(name):
    arrays = golden.load("generation_options").arrays
    expected = arrays[f"samplers/{name}"]
    used = np.zeros(expected.shape, bool)
    np.put_along_axis(used, arrays["token_ids"].astype(int), True, axis=1)
    sampler = make_sampler(**{"temperature": 1.0, **SAMPLERS[name]})
    got = np.array(filter_logits(jnp.array(arrays["logits"]), sampler, jnp.array(used)))
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(expected))
    assert 0 < np.isfinite(got).sum() <= got.size
    finite = np.isfinite(got)
    np.testing.assert_allclose(got[finite], expected[finite], rtol=1e-6)


def test_log_probs_are_those_of_the_model():
    logits = jnp.log(jnp.array([PROBABILITIES, PROBABILITIES[::-1]], "float32")) + 3.0
    got = token_log_probs(logits, jnp.array([2, 0]))
    np.testing.assert_allclose(got, np.log([0.25, 0.1]), rtol=1e-5)


def test_rows_are_filtered_apart():
    logits = jnp.concatenate([LOGITS, LOGITS[:, ::-1]])
    filtered = np.array(filter_logits(logits, Sampler(temperature=1.0, top_k=2)))
    np.testing.assert_array_equal(np.isfinite(filtered[0]), np.isfinite(filtered[1])[::-1])


def test_draws_follow_the_distribution():
    draws = 20_000
    keys = jax.random.split(jax.random.key(0), draws)
    tokens = draw(jnp.repeat(LOGITS, draws, axis=0), Sampler(temperature=1.0), keys)
    counts = np.bincount(tokens, minlength=5)
    expected = PROBABILITIES * draws
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 18.5  # 4 degrees of freedom: exceeded once in a thousand


def test_greedy_takes_the_likeliest_and_needs_no_luck():
    for seed in range(3):
        keys = jax.random.split(jax.random.key(seed), 1)
        assert draw(LOGITS, make_sampler(), keys)[0] == 0


def test_another_temperature_needs_no_compilation():
    traces = []

    @jax.jit
    def traced(logits, sampler, keys):
        traces.append(sampler)
        return draw(filter_logits(logits, sampler), sampler, keys)

    keys = jax.random.split(jax.random.key(0), 1)
    for temperature, top_p in ((0.5, 0.9), (1, 0.8), (2.5, 1)):  # an int or a float
        traced(LOGITS, make_sampler(temperature, top_p=top_p), keys)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("steps", "error", "message"),
    [
        ({"temperature": -1}, ValueError, "temperature must be at least 0"),
        ({"temperature": "hot"}, TypeError, "temperature must be a number"),
        ({"temperature": float("nan")}, ValueError, "temperature"),
        ({"temperature": 1, "top_k": 0}, ValueError, "top_k must be at least 1"),
        ({"temperature": 1, "top_k": 2.5}, TypeError, "top_k must be an integer"),
        ({"temperature": 1, "top_p": 0}, ValueError, "top_p must be above 0"),
        ({"temperature": 1, "top_p": 1.1}, ValueError, "top_p must be above 0 and at most 1"),
        ({"temperature": 1, "min_p": 1.5}, ValueError, "min_p must be above 0 and at most 1"),
        ({"repetition_penalty": 0}, ValueError, "repetition_penalty must be above 0"),
        ({"top_k": 5}, ValueError, "temperature must be above 0 where there is a top_k"),
        ({"min_p": 0.5}, ValueError, "temperature must be above 0 where there is a min_p"),
    ],
)
def test_wrong_parameters(steps, error, message):
    with pytest.raises(error, match=message):
        make_sampler(**steps)
