"""mistral_lib/generation/full_cache.py: KerasHub's steps, and what replaces them."""

from unittest.mock import patch

import jax.numpy as jnp
import numpy as np
import pytest
from reference import golden
from reference.keras_models import assign, our_variables
from reference.make_reference import GENERATION, GENERATION_SEED
from reference.make_samplers import FILE, SAMPLERS, STOP, forbidding, make_prompts

from mistral_lib import MistralBackbone, MistralCausalLM, samplers

KERAS_HUB = dict(np.load(FILE))


def make_model(**config):
    backbone = MistralBackbone(**GENERATION | config)
    assign(our_variables(backbone), golden.random_weights(GENERATION, GENERATION_SEED))
    return MistralCausalLM(backbone)


@pytest.fixture(scope="module")
def model():
    return make_model()


def make_sampler(name):
    if name == "forbidding":
        return forbidding(samplers.Sampler)()
    kind, arguments = SAMPLERS[name]
    return getattr(samplers, kind)(**arguments)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [None, (STOP,)], ids=["whole", "stopped"])
@pytest.mark.parametrize("name", [*SAMPLERS, "forbidding"])
def test_the_same_tokens_as_keras_hub(model, name, stop):
    """From the same weights and seeds, in a first call and in a second one."""
    model.compile(sampler=make_sampler(name))
    for call in range(2):
        written = model.make_generate_function()(make_prompts(), stop_token_ids=stop)
        key = f"{name}/{'stopped' if stop else 'whole'}/{call}"
        mask = KERAS_HUB[f"{key}/mask"]
        np.testing.assert_array_equal(written["padding_mask"], mask)
        ids = np.where(mask, written["token_ids"], 0)
        np.testing.assert_array_equal(ids, np.where(mask, KERAS_HUB[key], 0))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["greedy", "beam", "contrastive", "forbidding"])
def test_generate_writes_the_same(model, name):
    """By its own loop where it can; a search with beams of its own ends differently."""
    model.compile(sampler=make_sampler(name))
    written = model.generate(make_prompts(), stop_token_ids=None)
    np.testing.assert_array_equal(written["token_ids"], KERAS_HUB[f"{name}/whole/0"])
    assert written["padding_mask"].all()


@pytest.mark.parametrize("window", [3, None, [3, None]])
@pytest.mark.parametrize(("chunk", "length"), [(1, 6), (5, 10), (40, 40)])
def test_logits_with_a_cache_are_those_without(window, chunk, length):
    if isinstance(window, list):
        window = [window[i % 2] for i in range(GENERATION["num_layers"])]
    model = make_model(sliding_window=window)
    ids = np.random.default_rng(0).integers(0, GENERATION["vocabulary_size"], (2, length))
    expected = model({"token_ids": ids, "padding_mask": np.ones_like(ids)})
    _, cache = model._build_cache(jnp.array(ids) * 0 + 1)  # what is stale must not be seen
    logits = []
    for begin in range(0, length, chunk):
        part, states, cache = model.call_with_cache(ids[:, begin : begin + chunk], cache, begin)
        logits.append(part)
    assert states.shape == (2, chunk, model.backbone.hidden_dim)
    np.testing.assert_allclose(np.concatenate(logits, axis=1), expected, atol=2e-5)


def test_the_function_is_made_once_and_compile_drops_it(model):
    model.compile(sampler="greedy")
    assert model.generate_function is None
    first = model.make_generate_function()
    assert model.make_generate_function() is model.generate_function is first
    model.compile(sampler="greedy")
    assert model.generate_function is None


def favour(token, call_with_cache):
    """`call_with_cache`, but one token is the likeliest everywhere."""

    def call(*arguments):
        logits, hidden_states, cache = call_with_cache(*arguments)
        return logits.at[:, :, token].set(1e9), hidden_states, cache

    return call


@pytest.mark.slow
def test_another_call_with_cache_is_called():
    """KerasHub's way to look at, or to change, every step."""
    model = make_model()
    expected = model.generate([[1, 2, 3], [4]], max_new_tokens=4)
    with patch.object(model, "call_with_cache", favour(7, model.call_with_cache)):
        assert model.generate([[1, 2, 3], [4]], max_new_tokens=4) == [
            [1, 2, 3, 7, 7, 7, 7],
            [4, 7, 7, 7, 7],
        ]
        stopped = model.generate([[1, 2, 3], [4]], max_new_tokens=4, stop_token_ids=[7])
        assert stopped == [[1, 2, 3, 7], [4, 7]]
        with pytest.raises(ValueError, match="only the sampler of compile can choose tokens"):
            model.generate([1], max_new_tokens=4, temperature=1.0)
    assert model.generate([[1, 2, 3], [4]], max_new_tokens=4) == expected


@pytest.mark.slow
def test_a_subclass_may_write_in_its_own_way():
    class Echo(MistralCausalLM):
        def generate_step(self, inputs, stop_token_ids=None):
            last = inputs["token_ids"][:, :1]
            token_ids = jnp.where(inputs["padding_mask"], inputs["token_ids"], last)
            return {"token_ids": token_ids, "padding_mask": jnp.ones(token_ids.shape, bool)}

    model = Echo(MistralBackbone(10, 1, 2, 8, 16, 1))
    assert model.generate([[1, 2], [3]], max_new_tokens=2) == [[1, 2, 1, 1], [3, 3, 3]]


@pytest.mark.slow
def test_weights_that_change_are_read(model):
    changed = make_model()
    changed.compile(sampler=make_sampler("beam"))
    changed.make_generate_function()(make_prompts())
    for variable in changed.backbone.variables:
        variable.assign(variable.value[::-1])
    after = changed.make_generate_function()(make_prompts())
    assert (np.asarray(after["token_ids"]) != KERAS_HUB["beam/whole/0"]).any()
    changed.generate_function = None
    afresh = changed.make_generate_function()(make_prompts())
    np.testing.assert_array_equal(after["token_ids"], afresh["token_ids"])


def test_what_a_sampler_must_return(model):
    model.compile(sampler=samplers.BeamSampler(return_all_beams=True))
    with pytest.raises(
        ValueError, match=r"must return .* shape \(2, 20\), but BeamSampler returned"
    ):
        model.generate(make_prompts())
    model.compile()
