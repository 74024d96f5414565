"""mistral_lib/generation/options.py: one check for `generate` and `stream`."""

import inspect

import numpy as np
import pytest

from mistral_lib.generation.generate import TextGeneration
from mistral_lib.generation.options import Options
from mistral_lib.generation.sampling import make_sampler


def test_options_are_brought_to_one_form():
    options = Options(stop_token_ids=np.array([2, 5]).tolist(), stop_strings="a", num_samples=None)
    assert options.stop_token_ids == (2, 5)
    assert options.stop_strings == ("a",)
    assert options.samples == 1
    assert Options().stop_token_ids == "auto"
    assert Options(stop_token_ids=None).stop_token_ids == ()
    assert Options(num_samples=3, sampler=make_sampler(1.0)).samples == 3
    assert isinstance(Options(num_beams=2, length_penalty=2).length_penalty, float)


def test_every_option_of_stream_is_one_of_generate_with_the_same_default():
    generate = inspect.signature(TextGeneration.generate).parameters
    stream = inspect.signature(TextGeneration.stream).parameters
    assert dict(stream).items() <= dict(generate).items()
    fields = set(Options.__dataclass_fields__)
    sampling = set(inspect.signature(make_sampler).parameters)
    of_the_call = {"self", "inputs", "strip_prompt", "batch_size", "verbose"}
    assert set(generate) - of_the_call - sampling - {"return_log_probs"} == fields - {
        "sampler",
        "log_probs",
    }
    for name in fields & set(generate):
        assert generate[name].default == Options.__dataclass_fields__[name].default


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"stop_token_ids": "end"}, ValueError, "stop_token_ids must be one of 'auto'"),
        ({"stop_token_ids": [-1]}, ValueError, "a stop token id must be at least 0"),
        ({"stop_strings": ["a", ""]}, ValueError, "A stop string must not be empty"),
        ({"num_samples": 0}, ValueError, "num_samples must be at least 1"),
        ({"num_samples": 2}, ValueError, "num_samples must be 1 at a temperature of 0, but is 2"),
        ({"num_beams": 0}, ValueError, "num_beams must be at least 1"),
        ({"num_beams": 2, "stop_strings": "a"}, ValueError, "where there is a stop_strings"),
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
