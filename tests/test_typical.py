"""mistral_lib/teaching/typical.py: what stays is nearest to the entropy, and the loop takes it."""

from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.generation import decoding
from mistral_lib.generation.sampling import filter_logits
from mistral_lib.teaching.typical import typical


def by_loops(probabilities, typical_p):
    """The nearest to the entropy, then the next, until together they reach the share."""
    entropy = -sum(p * np.log(p) for p in probabilities if p > 0)
    left, kept = [i for i, p in enumerate(probabilities) if p > 0], []
    while sum(probabilities[i] for i in kept) < typical_p and left:
        best = min(left, key=lambda i: abs(-np.log(probabilities[i]) - entropy))
        left.remove(best)
        kept.append(best)
    return np.isin(np.arange(len(probabilities)), kept)


@pytest.mark.parametrize("typical_p", [0.05, 0.3, 0.6, 0.9])
def test_it_equals_loops_row_by_row(typical_p):
    logits = np.random.default_rng(0).normal(0, 2, (4, 5, 12)).astype("float32")
    logits[..., 3] = -np.inf  # left out by a step before
    kept = np.isfinite(typical(jnp.array(logits), typical_p))
    chances = np.array(jax.nn.softmax(logits))
    for place in np.ndindex(4, 5):
        assert kept[place].tolist() == by_loops(chances[place], typical_p).tolist()
    assert not kept[..., 3].any()


def test_all_stay_with_a_share_of_one():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.2]))
    assert np.isfinite(typical(logits, 1.1)).all()


@pytest.mark.slow
def test_in_the_place_of_the_librarys_filter_it_decides_what_is_written():
    """With a tiny share one token is left at each step, so a drawn text is always the same."""
    backbone = MistralBackbone(10, 1, 2, 8, 16, 1)

    def typically(logits, sampler, used_tokens=None):
        return typical(filter_logits(logits, sampler, used_tokens), 1e-6)

    def texts(model):
        return [
            model.generate([1, 2, 3], max_new_tokens=8, temperature=1.0, seed=s) for s in (0, 1)
        ]

    one, other = texts(MistralCausalLM(backbone))
    assert one != other
    with patch.object(decoding, "filter_logits", typically):
        one, other = texts(MistralCausalLM(backbone))
    assert one == other
