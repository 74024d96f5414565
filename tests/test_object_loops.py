"""mistral_lib/generation/object_loops.py: samplers that are objects, in the loop of `generate`."""

import contextlib
from importlib.util import find_spec

import jax.numpy as jnp
import keras
import numpy as np
import pytest
from text_models import make_model

from mistral_lib import samplers
from mistral_lib.generation.compiled import watch
from mistral_lib.generation.object_loops import has_own_loop, seeded


class Second(samplers.Sampler):
    """Takes the second likeliest token."""

    def get_next_token(self, probabilities):
        return jnp.argsort(probabilities, axis=-1)[:, -2]


class Unlikely(samplers.RandomSampler):
    """Draws in proportion to the square root of the probabilities."""

    def get_next_token(self, probabilities):
        return super().get_next_token(probabilities**0.5)


class Last:
    """No `Sampler`, but called like one: repeats the prompt's last token."""

    def __call__(self, next, prompt, index=0, mask=None, **others):
        logits, _, _ = next(prompt, others["cache"], index)
        assert logits.shape[0] == prompt.shape[0]
        lengths = mask.sum(axis=1, keepdims=True)
        return jnp.where(mask, prompt, jnp.take_along_axis(prompt, lengths - 1, axis=1))


@pytest.fixture(scope="module")
def model():
    model = make_model()
    yield model
    model.compile()


def test_a_subclass_chooses_in_the_loop_of_generate(model):
    model.compile(sampler=Second())
    ids = model.preprocessor.prompt_ids(["the window", "A query"])
    options = {"max_new_tokens": 6, "stop_token_ids": None}
    with watch() as calls:
        written = model.generate(ids, **options)
    assert [call.name for call in calls] == ["read_chunk", "choose", "run_steps"]
    for prompt, row in zip(ids, written, strict=True):
        assert row[: len(prompt)] == prompt
        ranked = np.argsort(model.score([row])[0], axis=-1)
        assert ranked[len(prompt) - 1 : -1, -2].tolist() == row[len(prompt) :]
    texts = model.generate(["the window", "A query"], **options)
    assert "".join(model.stream("the window", **options)) == texts[0]
    with watch() as calls:
        row, log_probs = model.generate(ids[0], **options, return_log_probs=True)
    logits = np.array(model.score([row[:-1]])[0, len(ids[0]) - 1 :], "float64")
    expected = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    chosen = expected[np.arange(6), row[len(ids[0]) :]]
    np.testing.assert_allclose(log_probs, chosen, atol=1e-4)
    stopped = model.generate(ids[0], max_new_tokens=6, stop_token_ids=[row[len(ids[0]) + 1]])
    assert stopped == row[: len(ids[0]) + 2]


def test_draws_move_on_and_a_seed_repeats_them(model):
    sampler = Unlikely(seed=3)
    model.compile(sampler=sampler)
    first = [model.generate("the", max_new_tokens=9) for _ in range(3)]
    assert len(set(first)) == 3
    seeded_texts = {model.generate("the", max_new_tokens=9, seed=5) for _ in range(3)}
    streamed = "".join(model.stream("the", max_new_tokens=9, seed=5))
    assert seeded_texts == {streamed}
    fourth = model.generate("the", max_new_tokens=9)
    model.compile(sampler=Unlikely(seed=3))
    again = [model.generate("the", max_new_tokens=9) for _ in range(4)]
    assert again == [*first, fourth]  # calls with a seed leave the series alone
    assert len(set(model.generate("the", max_new_tokens=9, num_samples=3))) > 1
    with pytest.raises(TypeError, match="seed of a sampler object must be an integer"):
        model.generate("the", max_new_tokens=9, seed=[1])


def test_any_function_with_the_call_arguments_of_a_sampler(model):
    model.compile(sampler=Last())
    ids = model.preprocessor.prompt_ids(["the window", "A query"])
    expected = [row + [row[-1]] * 5 for row in ids]
    assert model.generate(ids, max_new_tokens=5) == expected
    assert model.generate(ids, max_length=len(ids[0]) + 2)[0] == expected[0][: len(ids[0]) + 2]
    streamed = "".join(model.stream("the window", max_new_tokens=5, stop_strings="w"))
    assert streamed == model.generate("the window", max_new_tokens=5, stop_strings="w")
    with pytest.raises(ValueError, match="return_log_probs must be False with a sampler"):
        model.generate(ids, max_new_tokens=5, return_log_probs=True)


def test_which_objects_have_their_own_loop():
    class Through(samplers.Sampler):
        def run_loop(self, cond, body, **options):
            return super().run_loop(cond, body, **options)

    assert not any(map(has_own_loop, (Second(), Unlikely(), samplers.TopPSampler(k=3))))
    assert all(map(has_own_loop, (Last(), Through(), samplers.BeamSampler(), len)))


def test_seeds_are_put_back_after_an_error():
    sampler = Unlikely(seed=3)
    before = np.array(sampler.seed_generator.state.value)
    with contextlib.suppress(KeyboardInterrupt), seeded(sampler, 7):
        assert np.array(sampler.seed_generator.state.value).tolist() == [7, 0]
        raise KeyboardInterrupt
    np.testing.assert_array_equal(sampler.seed_generator.state.value, before)


def test_logits_that_are_not_finite_are_told():
    model = make_model()
    model.compile(sampler=Second())
    model.backbone.layer_norm.scale.assign(model.backbone.layer_norm.scale.value * np.nan)
    with pytest.raises(ValueError, match="logits must be finite"):
        model.generate("the window", max_new_tokens=3)


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.skipif(find_spec("keras_hub") is None, reason="keras-hub is not installed")
@pytest.mark.parametrize("name", ["greedy", "top_p", "beam", "contrastive"])
def test_objects_of_keras_hub(model, name):
    """Every one of them writes what ours of the same name writes."""
    keras_hub = pytest.importorskip("keras_hub")
    written = []
    for package in (samplers, keras_hub.samplers):
        sampler = package.get(name)
        model.compile(sampler=sampler)
        for variable in sampler.variables:
            variable.assign(np.array([4, 0], "uint32"))
        written.append(
            model.make_generate_function()(
                model.preprocessor.generate_preprocess(["the window", "A query"]), [2]
            )
        )
        assert isinstance(model.generate("the window", max_new_tokens=5), str)
    keras.tree.map_structure(np.testing.assert_array_equal, *written)
