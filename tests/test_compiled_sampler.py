"""mistral_lib/generation/compiled_sampler.py: the sampler of `compile`."""

import jax.numpy as jnp
import keras
import numpy as np
import pytest
from text_models import make_model

from mistral_lib import samplers
from mistral_lib.generation.compiled import watch
from mistral_lib.generation.compiled_sampler import as_options

KNOWN = ("greedy", "random", "top_k", "top_p", "beam")


@pytest.fixture(scope="module")
def model():
    return make_model()


class Second(samplers.Sampler):
    """Takes the second likeliest token."""

    def get_next_token(self, probabilities):
        return jnp.argsort(probabilities, axis=-1)[:, -2]


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
def test_the_sampler_of_compile_is_the_default_of_generate(model, name):
    chosen = as_options(samplers.get(name))
    model.compile(sampler=name)
    expected = model.generate("the window", max_new_tokens=8, seed=3, **chosen)
    assert model.generate("the window", max_new_tokens=8, seed=3) == expected
    for chosen in ({"temperature": 0}, {"temperature": 2.0, "seed": 1}, {"num_beams": 2}):
        model.compile()
        wanted = model.generate("the window", max_new_tokens=8, **chosen)
        model.compile(sampler=name)
        assert model.generate("the window", max_new_tokens=8, **chosen) == wanted


@pytest.mark.parametrize("sampler", ["top_k", samplers.TopPSampler(p=0.9, k=40, seed=1)])
def test_random_samplers_move_on_unless_a_seed_is_given(model, sampler):
    model.compile(sampler=sampler)
    assert len({model.generate("the", max_new_tokens=12) for _ in range(4)}) > 1
    assert len({model.generate("the", max_new_tokens=12, seed=7) for _ in range(3)}) == 1
    assert len({"".join(model.stream("the", max_new_tokens=12)) for _ in range(4)}) > 1


def test_without_a_seed_a_temperature_draws_anew_and_keras_can_repeat_it(model):
    def three():
        return [model.generate("the", max_new_tokens=12, temperature=2.0) for _ in range(3)]

    keras.utils.set_random_seed(1)
    first = three()
    assert len(set(first)) > 1
    keras.utils.set_random_seed(1)
    assert three() == first


def test_one_seed_gives_one_series_of_texts(model):
    series = []
    for _ in range(2):
        model.compile(sampler=samplers.TopKSampler(k=20, seed=4))
        series.append([model.generate("the", max_new_tokens=10) for _ in range(3)])
    assert series[0] == series[1]
    assert len(set(series[0])) > 1


def test_stream_knows_the_sampler_but_no_beams(model):
    model.compile(sampler="top_k")
    pieces = model.stream("the window", max_new_tokens=8, seed=1)
    assert "".join(pieces) == model.generate("the window", max_new_tokens=8, seed=1)
    model.compile(sampler="beam")
    with pytest.raises(ValueError, match=r"compile is a search with beams. Pass a temperature"):
        model.stream("the window", max_new_tokens=8)
    model.compile()


@pytest.mark.slow
def test_what_the_loop_of_generate_can_do_compiles_nothing_else(model):
    """An object of ours costs no speed: it runs the program that the same arguments run."""
    model.generate("the window", max_new_tokens=8, temperature=0.7, top_k=4)
    model.compile(sampler=samplers.TopKSampler(k=3, temperature=0.6))
    with watch() as calls:
        model.generate("the window", max_new_tokens=8)
    assert [call.name for call in calls] == ["read_chunk", "choose", "run_steps"]
    assert not any(call.compiled for call in calls)
    model.compile()


def test_compiling_again_makes_loops_stale(model):
    sampler = Second()
    sampler.rank = 2
    sampler.get_next_token = lambda p: jnp.argsort(p, axis=-1)[:, -sampler.rank]
    model.compile(sampler=sampler)
    second = model.generate("the window", max_new_tokens=6)
    sampler.rank = 1
    assert model.generate("the window", max_new_tokens=6) == second
    model.compile(sampler=sampler)
    assert model.generate("the window", max_new_tokens=6) != second
    model.compile(sampler="greedy")
    assert model.generate_function is None
    greedy = model.generate("the window", max_new_tokens=6)
    assert model.generate_function is not None
    model.compile(sampler=sampler)
    assert model.generate("the window", max_new_tokens=6) == greedy  # rank 1 is greedy
    model.compile()


def test_a_saved_model_keeps_its_sampler(model, tmp_path):
    model.compile(sampler="top_k")
    model.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    assert loaded.get_compile_config()["sampler"] == "top_k"
    model.compile(sampler=samplers.TopKSampler(k=3))
    model.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    assert loaded.sampler.k == 3
    model.compile()
    assert "sampler" not in model.get_compile_config()


@pytest.mark.parametrize("sampler", ["speculative", "Top_K", 5, object()])
def test_another_sampler_is_refused_and_changes_nothing(model, sampler):
    optimizer = model.optimizer
    with pytest.raises(ValueError, match=r"sampler must be one of 'greedy'.*call generate with"):
        model.compile(sampler=sampler)
    assert model.optimizer is optimizer


def test_compile_without_arguments_is_the_constructors(model):
    made = make_model()
    model.compile(sampler="greedy")
    configs = [each.optimizer.get_config() for each in (model, made)]
    assert {**configs[0], "name": ""} == {**configs[1], "name": ""}
    assert type(model.loss) is type(made.loss)
    assert model.loss.get_config() == made.loss.get_config()
    assert np.isfinite(model.fit(["the window"], verbose=0).history["loss"]).all()
    assert set(model.evaluate(["the window"], verbose=0, return_dict=True)) == set(
        made.evaluate(["the window"], verbose=0, return_dict=True)
    )


def test_what_is_no_argument_of_generate():
    assert as_options(samplers.TopPSampler(k=7)) is None
    assert as_options(samplers.BeamSampler(temperature=2.0)) is None
    assert as_options(samplers.BeamSampler(return_all_beams=True)) is None
    assert as_options(samplers.BeamSampler(num_beams=1)) == {"temperature": 0.0}
    assert as_options(Second()) is None
