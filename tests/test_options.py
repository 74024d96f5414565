"""mistral_lib/generation/options.py: one check for `generate` and `stream`."""

import inspect

import numpy as np
import pytest

from mistral_lib import samplers
from mistral_lib.generation.generate import TextGeneration
from mistral_lib.generation.options import UNCHOSEN, Options, check_stop_tokens
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
    assert {renamed.get(name, name) for name in options} == fields - {"sampler", "own_sampler"}
    for name in fields & set(generate) - {"stop_strings", *UNCHOSEN}:
        assert generate[name].default == Options.__dataclass_fields__[name].default


def test_every_argument_that_chooses_tokens_is_none_by_default():
    chooses = {*inspect.signature(make_sampler).parameters, "num_beams", "length_penalty"}
    assert set(UNCHOSEN) == chooses
    for function in (TextGeneration.generate, TextGeneration.stream):
        parameters = inspect.signature(function).parameters
        assert all(parameters[name].default is None for name in chooses & set(parameters))
        assert parameters["seed"].default is None


def of_call(sampler, **arguments):
    call = {"stop_token_ids": None, "stop_strings": None, "seed": None}
    return Options.of_call(10, sampler, **{**call, **arguments})


@pytest.mark.parametrize(
    "chosen",
    [
        {"temperature": 0},
        {"temperature": 0.5},
        {"temperature": 0.5, "top_k": 2},
        {"repetition_penalty": 1.5},
        {"num_beams": 2},
        {"num_beams": 1},
        {"num_beams": 3, "length_penalty": 0.5},
    ],
)
@pytest.mark.parametrize("compiled", ["greedy", "top_k", "top_p", "random", "beam", "contrastive"])
def test_an_explicit_choice_replaces_the_sampler_of_compile(compiled, chosen):
    assert of_call(samplers.get(compiled), **chosen) == of_call(None, **chosen)


def test_without_a_choice_the_sampler_of_compile_chooses():
    assert of_call(None) == of_call(samplers.GreedySampler()) == Options(stop_tokens=())
    top_k = of_call(samplers.TopKSampler(k=3, temperature=0.5, seed=0))
    assert top_k.sampler == make_sampler(0.5, top_k=3)
    assert of_call(samplers.BeamSampler(num_beams=3)).num_beams == 3
    contrastive = samplers.ContrastiveSampler()
    assert of_call(contrastive).own_sampler is contrastive
    assert of_call(contrastive, seed=3).seed == 3


def test_seeds_move_on_unless_one_is_given():
    sampler = samplers.TopKSampler(seed=1)
    seeds = [of_call(sampler).seed for _ in range(3)]
    assert len(set(seeds)) == 3
    again = samplers.TopKSampler(seed=1)
    assert [of_call(again).seed for _ in range(3)] == seeds
    assert of_call(sampler, seed=5).seed == 5


def test_a_replaced_model_has_only_the_sampler_of_compile():
    sampler = samplers.TopKSampler()
    assert of_call(sampler, by_object=True).own_sampler is sampler
    with pytest.raises(ValueError, match=r"only the sampler of compile .* has temperature. Leave"):
        of_call(sampler, by_object=True, temperature=1.0)


def test_an_object_needs_no_temperature_but_takes_no_draft():
    contrastive = samplers.ContrastiveSampler()
    assert of_call(contrastive, num_samples=2).samples == 2
    with pytest.raises(
        ValueError, match=r"draft_model goes with .* but .* is a ContrastiveSampler"
    ):
        of_call(contrastive, draft_model=object())


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
