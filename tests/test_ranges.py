"""Numbers at the ends of what is accepted: they are right, or refused, and never NaN."""

import inspect

import numpy as np
import pytest

from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.generation.options import UNCHOSEN
from mistral_lib.generation.sampling import make_sampler

SIZES = (50, 1, 4, 16, 32, 2)


def make_model(value=None) -> MistralCausalLM:
    backbone = MistralBackbone(*SIZES)
    for index, variable in enumerate(backbone.variables):
        if len(variable.shape) > 1:
            variable.assign(np.random.default_rng(index).normal(0, 0.4, variable.shape))
    if value is not None:
        kernel = np.array(backbone.token_embedding.reverse_embeddings)
        kernel[0, 7] = value
        backbone.token_embedding.reverse_embeddings.assign(kernel)
    return MistralCausalLM(backbone)


@pytest.fixture(scope="module")
def model():
    return make_model()


def write(model, **options):
    fixed = {"max_new_tokens": 8, "stop_token_ids": None, "seed": 0}
    return model.generate([3, 1, 4], **{**fixed, **options})


# What a call with a number near an end is equal to.
GREEDY = {"temperature": 0}
DRAWN = {"temperature": 1.0}
SAME = [
    ({"temperature": 1e-30}, GREEDY),
    ({"temperature": 1e-40}, GREEDY),
    ({"temperature": 1e-320}, GREEDY),
    ({"temperature": 1e300}, {"temperature": 1e20}),
    ({**DRAWN, "top_p": 1e-45}, GREEDY),
    ({**DRAWN, "top_p": 1e-320}, GREEDY),
    ({**DRAWN, "top_p": 1 - 1e-12}, DRAWN),
    ({**DRAWN, "top_p": 1}, DRAWN),
    ({**DRAWN, "min_p": 1e-320}, DRAWN),
    ({**DRAWN, "min_p": 1}, GREEDY),
    ({**DRAWN, "min_p": 1 - 1e-12}, GREEDY),
    ({**DRAWN, "top_k": 2**31 - 1}, DRAWN),
    ({**DRAWN, "top_k": 1}, GREEDY),
    ({"num_beams": 200}, {"num_beams": 200, "length_penalty": 1}),
    ({"batch_size": 2**31 - 1}, GREEDY),
]


@pytest.mark.slow
@pytest.mark.parametrize(("options", "same"), SAME, ids=str)
def test_ends_of_the_options(model, options, same):
    assert write(model, **options) == write(model, **same)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temperature": 10**400}, ValueError, "temperature must be at least 0 and finite"),
        ({"repetition_penalty": 1e-40}, ValueError, "from 1e-06 to 1e.06, but is 1e-40"),
        ({"repetition_penalty": 1e30}, ValueError, "from 1e-06 to 1e.06, but is 1e.30"),
        ({"length_penalty": 40.0}, ValueError, "from -33 to 33 for up to 8 new tokens, but is 40"),
        ({"length_penalty": -1e30}, ValueError, "length_penalty must be from"),
        ({"length_penalty": 10**400}, ValueError, "length_penalty must be finite"),
        ({"max_new_tokens": 2**31 - 1}, ValueError, "at most 1,073,741,824 tokens, but could be"),
        ({"max_new_tokens": 2**31}, ValueError, r"max_new_tokens must be below 2\*\*31"),
        ({"num_beams": 10**8}, MemoryError, r"in 100,000,000 rows at once needs .* GiB, but only"),
        ({"num_samples": 10**9, **DRAWN}, MemoryError, "1,000,000,000 rows at once needs"),
        ({"num_draft_tokens": 2 * 10**9}, ValueError, "Lower .* num_draft_tokens"),
        ({"num_draft_tokens": 10**9}, MemoryError, "GiB, but only"),
        ({"seed": 2**31}, ValueError, r"seed must be below 2\*\*31"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
    ],
    ids=str,
)
def test_what_float32_or_the_memory_cannot_hold(model, options, error, message):
    if "length_penalty" in options:
        options = {"num_beams": 2, **options}
    if "num_draft_tokens" in options:
        options = {"draft_model": model, **options}
    with pytest.raises(error, match=message):
        write(model, **options)


def test_every_number_of_generate_is_tried():
    tried = {name for options, *_ in SAME for name in options} | {
        *("repetition_penalty", "length_penalty", "max_new_tokens", "num_samples", "seed"),
        *("num_draft_tokens", "max_length"),  # max_length is max_new_tokens and the prompt's
    }
    no_numbers = {"self", "inputs", "stop_token_ids", "strip_prompt", "stop_strings", "draft_model"}
    no_numbers |= {"return_log_probs", "verbose"}
    assert set(inspect.signature(MistralCausalLM.generate).parameters) == tried | no_numbers
    assert UNCHOSEN.keys() <= tried


def test_a_model_at_the_ends_of_its_arguments_is_finite():
    """Those that are refused are in the next test."""
    for name, ends in {
        "rope_max_wavelength": (1e-12, 1e30),
        "rope_scaling_factor": (1e-12, 1e30),
        "layer_norm_epsilon": (1e-30, 1e30),
        "dropout": (0, 0.999),
    }.items():
        for end in ends:
            backbone = MistralBackbone(*SIZES, **{name: end})
            inputs = {"token_ids": [[1, 2, 3]], "padding_mask": [[1, 1, 1]]}
            assert np.isfinite(backbone(inputs, training=True)).all(), (name, end)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rope_max_wavelength", 1e-40),
        ("rope_max_wavelength", 1e300),
        ("rope_max_wavelength", 10**400),
        ("rope_scaling_factor", 1e-40),
        ("rope_scaling_factor", 1e300),
        ("layer_norm_epsilon", 1e-46),
        ("layer_norm_epsilon", 1e39),
        ("dropout", 1e-46),
        ("dropout", 1 - 1e-12),
    ],
)
def test_what_the_constructor_refuses(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be (from|above)"):
        MistralBackbone(*SIZES, **{name: value})


@pytest.mark.parametrize("alpha", [1e-40, 2.0**31, 1e30, 10**400])
def test_what_lora_refuses(alpha):
    with pytest.raises(ValueError, match="lora_alpha must be"):
        MistralBackbone(*SIZES).enable_lora(2, lora_alpha=alpha)


@pytest.mark.parametrize("quantization", [None, "int4/16"])
@pytest.mark.parametrize("factor", [300.0, np.nan])
def test_merging_what_float16_cannot_hold_changes_nothing(quantization, factor):
    backbone = MistralBackbone(*SIZES, dtype="float16")
    if quantization:
        backbone.quantize(quantization)
    backbone.enable_lora(2, "down")
    for variable in backbone.trainable_variables:
        variable.assign(np.full(variable.shape, factor))
    before = [np.array(variable.value) for variable in backbone.variables]
    with pytest.raises(
        ValueError, match="cannot be merged: in float16 the kernel would not be fin"
    ):
        backbone.merge_lora(dequantize=True)
    assert backbone.quantization == quantization
    for variable, old in zip(backbone.variables, before, strict=True):
        np.testing.assert_array_equal(variable.value, old)


WAYS = {
    "greedy": {},
    "drawn": DRAWN,
    "drawn among few": {**DRAWN, "top_k": 3},
    "with a penalty": {"repetition_penalty": 1.5},
    "several": {**DRAWN, "num_samples": 2},
    "beams": {"num_beams": 3},
    "with stop tokens": {"stop_token_ids": [0]},
}


@pytest.mark.slow
@pytest.mark.parametrize("way", [*WAYS, "with a draft", "with a draft, drawn", "as a draft"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_named(model, way, value):
    broken = make_model(value)
    options = WAYS.get(way, DRAWN if "drawn" in way else {})
    if way == "as a draft":
        broken, options = model, {"draft_model": broken}
    elif "draft" in way:
        options = {**options, "draft_model": model}
    with pytest.raises(ValueError, match="The logits must be finite numbers, but are NaN or inf"):
        write(broken, **options)


def test_a_healthy_row_does_not_hide_a_broken_one():
    """Token 7's embedding is NaN; only one prompt holds it."""
    model = make_model()
    table = np.array(model.backbone.token_embedding.embeddings)
    table[7] = np.nan
    model.backbone.token_embedding.embeddings.assign(table)
    with pytest.raises(ValueError, match="The logits must be finite numbers"):
        model.generate([[1, 2], [7, 2], [3, 4]], max_new_tokens=1)


def test_all_of_the_probability_is_no_filter():
    assert make_sampler(1.0, top_p=1).top_p == np.inf
    assert make_sampler(1.0, top_p=1e-45).top_p == np.finfo("float32").tiny
