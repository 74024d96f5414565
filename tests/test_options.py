"""mistral_lib/generation/options.py: one check for `generate` and `stream`."""

import inspect

import keras
import numpy as np
import pytest
from text_models import make_model

from mistral_lib.generation.generate import TextGeneration
from mistral_lib.generation.options import SAMPLERS, Options, check_stop_tokens
from mistral_lib.generation.sampling import make_sampler


def test_forms_of_options():
    assert check_stop_tokens([np.int64(2), 5], 10) == (2, 5)
    assert check_stop_tokens(None, 10) == ()
    assert check_stop_tokens("auto", 10) is None
    assert Options().samples == 1
    assert Options(num_samples=3, sampler=make_sampler(1.0)).samples == 3


def test_every_option_of_stream_is_one_of_generate_with_the_same_default():
    generate = inspect.signature(TextGeneration.generate).parameters
    stream = inspect.signature(TextGeneration.stream).parameters
    assert dict(stream).items() <= dict(generate).items()
    fields = set(Options.__dataclass_fields__)
    sampling = set(inspect.signature(make_sampler).parameters)
    of_the_call = {"self", "inputs", "strip_prompt", "batch_size", "verbose"}
    renamed = {"return_log_probs": "log_probs", "stop_token_ids": "stop_tokens"}
    options = set(generate) - of_the_call - sampling
    assert {renamed.get(name, name) for name in options} == fields - {"sampler"}
    for name in fields & set(generate) - {"stop_strings"}:
        assert generate[name].default == Options.__dataclass_fields__[name].default


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_samples": 0}, ValueError, "num_samples must be at least 1"),
        ({"num_samples": 2}, ValueError, "num_samples must be 1 at a temperature of 0, but is 2"),
        ({"num_beams": 0}, ValueError, "num_beams must be at least 1"),
        ({"num_beams": 2, "stop_strings": ("a",)}, ValueError, "where there is a stop_strings"),
        ({"num_beams": 2, "draft_model": object()}, ValueError, "where there is a draft_model"),
        ({"length_penalty": 2.0}, ValueError, "must be 1 where num_beams is 1, but is 2.0"),
        ({"length_penalty": "x"}, TypeError, "length_penalty must be a number, but is 'x'"),
        ({"num_draft_tokens": 0}, ValueError, "num_draft_tokens must be at least 1"),
        ({"log_probs": 1}, TypeError, "return_log_probs must be True or False"),
    ],
)
def test_what_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Options(**arguments)


def test_what_is_no_stop_token():
    with pytest.raises(ValueError, match="stop_token_ids must be one of 'auto'"):
        check_stop_tokens("end", 10)
    with pytest.raises(ValueError, match=r"stop_token_ids must be from 0 to 9 .* one is -1"):
        check_stop_tokens([-1], 10)


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_sampler_of_compile_is_the_default_of_generate(model, name):
    model.compile(sampler=name)
    expected = model.generate("the window", max_new_tokens=8, **SAMPLERS[name])
    assert model.generate("the window", max_new_tokens=8) == expected
    model.compile()
    for chosen in ({"temperature": 0}, {"temperature": 2.0}, {"num_beams": 2}):
        wanted = model.generate("the window", max_new_tokens=8, **chosen)
        model.compile(sampler=name)
        assert model.generate("the window", max_new_tokens=8, **chosen) == wanted
        model.compile()


def test_stream_knows_the_sampler_but_no_beams(model):
    model.compile(sampler="top_k")
    pieces = model.stream("the window", max_new_tokens=8)
    assert "".join(pieces) == model.generate("the window", max_new_tokens=8)
    model.compile(sampler="beam")
    with pytest.raises(ValueError, match=r"compile was given sampler='beam'. Pass a temperature"):
        model.stream("the window", max_new_tokens=8)
    model.compile()


def test_a_saved_model_keeps_its_sampler(model, tmp_path):
    model.compile(sampler="top_k")
    model.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    assert loaded.get_compile_config()["sampler"] == "top_k"
    model.compile()
    assert "sampler" not in model.get_compile_config()


@pytest.mark.parametrize("sampler", ["contrastive", "speculative", "Top_K", 5, object()])
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


def test_a_dictionary_says_how_long_the_text_may_be():
    """As in KerasHub, where there is no preprocessor."""
    model = make_model()
    model.preprocessor = None
    inputs = {"token_ids": [[1, 5, 7, 0, 0]], "padding_mask": [[1, 1, 1, 0, 0]]}
    result = model.generate(inputs)
    assert result["token_ids"].tolist() == [model.generate([1, 5, 7], max_length=5)]
    with pytest.raises(ValueError, match=r"max_length must be above 2, .* but is 2"):
        model.generate({"token_ids": [[1, 5]], "padding_mask": [[1, 1]]})
