"""mistral_lib/generation/options.py: one check for `generate` and `stream`."""

import inspect

import numpy as np
import pytest

from mistral_lib.generation.generate import TextGeneration
from mistral_lib.generation.options import Options, check_stop_tokens
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
