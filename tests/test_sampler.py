"""mistral_lib/samplers/sampler.py: KerasHub's protocol, alone with a function `next`."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from mistral_lib import samplers

LOGITS = jnp.log(jnp.array([0.4, 0.3, 0.2, 0.1]))


def chain(prompt, cache, index):
    """The token after t is t + 1; the cache counts the calls."""
    last = prompt[:, index - 1]
    return jax.nn.one_hot(last + 1, 10) * 1e9, jnp.zeros((len(prompt), 3)), cache + 1


def always(prompt, cache, index):
    return jnp.tile(LOGITS, (len(prompt), 1)), None, cache


def test_the_loop_begins_at_its_index_and_keeps_what_the_mask_shows():
    prompt = jnp.array([[1, 0, 0, 0, 0], [4, 9, 7, 0, 0]])
    mask = jnp.array([[1, 0, 0, 0, 0], [1, 1, 1, 0, 0]])
    written = samplers.GreedySampler()(chain, prompt, jnp.array(0), index=1, mask=mask)
    assert written.tolist() == [[1, 2, 3, 4, 5], [4, 9, 7, 8, 9]]


def test_the_loop_ends_when_every_row_has_stopped():
    prompt, mask = jnp.array([[1, 0, 0, 0, 0], [3, 0, 0, 0, 0]]), jnp.eye(5, dtype=bool)[:1]
    written = samplers.GreedySampler()(
        chain, prompt, jnp.array(0), index=1, mask=jnp.tile(mask, (2, 1)), stop_token_ids=(3, 4)
    )
    assert written.tolist() == [[1, 2, 3, 0, 0], [3, 4, 5, 0, 0]]  # the prompt's own 3 is none


def drawn(sampler, number=4000):
    """How often each token is drawn."""
    prompt = jnp.zeros((number, 2), "int32")
    tokens = sampler(always, prompt, index=1)[:, 1]
    return np.bincount(tokens, minlength=4) / number


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (samplers.RandomSampler(seed=1), [0.4, 0.3, 0.2, 0.1]),
        (samplers.RandomSampler(seed=1, temperature=0.5), np.array([16, 9, 4, 1]) / 30),
        (samplers.TopKSampler(k=2, seed=1), [4 / 7, 3 / 7, 0, 0]),
        (samplers.TopKSampler(k=9, seed=1), [0.4, 0.3, 0.2, 0.1]),
        (samplers.TopPSampler(p=0.1, seed=1), [1, 0, 0, 0]),
        (samplers.TopPSampler(p=0.6, seed=1), [4 / 7, 3 / 7, 0, 0]),
        (samplers.TopPSampler(p=0.9, k=2, seed=1), [4 / 7, 3 / 7, 0, 0]),
        (samplers.GreedySampler(temperature=3.0), [1, 0, 0, 0]),
    ],
)
def test_what_is_drawn(sampler, expected):
    np.testing.assert_allclose(drawn(sampler), expected, atol=0.03)
    again = type(sampler).from_config(sampler.get_config())
    assert again.get_config() == sampler.get_config()


def test_seeds_move_on_and_repeat():
    sampler, again = samplers.RandomSampler(seed=7), samplers.RandomSampler(seed=7)
    prompt = jnp.zeros((1, 40), "int32")
    first, second = sampler(always, prompt), sampler(always, prompt)
    assert first.tolist() != second.tolist()
    assert [again(always, prompt).tolist() for _ in range(2)] == [first.tolist(), second.tolist()]
    assert samplers.RandomSampler(seed=7).next_seed() == samplers.RandomSampler(seed=7).next_seed()
    assert len({sampler.next_seed() for _ in range(5)}) == 5
    assert all(0 <= sampler.next_seed() < 2**31 for _ in range(20))


def test_unseeded_samplers_follow_keras():
    keras.utils.set_random_seed(3)
    seeds = [samplers.RandomSampler().next_seed() for _ in range(2)]
    keras.utils.set_random_seed(3)
    assert [samplers.RandomSampler().next_seed() for _ in range(2)] == seeds
    assert seeds[0] != seeds[1]


def test_the_loop_reads_the_weights_of_the_model_it_is_in():
    """Inside a compiled function, where variables are arguments and not what they hold."""
    layer = keras.layers.Dense(10, use_bias=False)
    layer.build((None, 10))
    layer.kernel.assign(jnp.roll(jnp.eye(10), 1, axis=1))

    def next(prompt, cache, index):
        return layer(jax.nn.one_hot(prompt[:, index - 1], 10)) * 1e9, None, cache

    def write(kernel, prompt):
        with keras.StatelessScope([(layer.kernel, kernel)]):
            return samplers.GreedySampler()(next, prompt, index=1, model=layer)

    prompt = jnp.array([[1, 0, 0, 0]])
    assert jax.jit(write)(layer.kernel.value, prompt).tolist() == [[1, 2, 3, 4]]
    assert jax.jit(write)(jnp.roll(jnp.eye(10), 2, axis=1), prompt).tolist() == [[1, 3, 5, 7]]


def test_a_subclass_must_choose():
    with pytest.raises(NotImplementedError, match="Sampler must define get_next_token"):
        samplers.Sampler()(always, jnp.zeros((1, 3), "int32"))
