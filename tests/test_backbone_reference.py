"""The backbone against golden files of transformers and KerasHub (chapter 12, "The backbone")."""

import json
from functools import cache

import jax
import ml_dtypes
import numpy as np
import pytest
from reference import golden, make_reference, plain
from reference.keras_models import assign, compile_pass, our_variables

from mistral_lib import MistralBackbone
from mistral_lib.config import MistralConfig
from mistral_lib.layers.attention import choose_path
from mistral_lib.layers.decoder import MistralDecoder
from mistral_lib.layers.fused import fused_is_available
from mistral_lib.layers.rms_norm import RMSNorm

TOLERANCE = 1e-5  # of hidden states of size 1
GRADIENT_TOLERANCE = 1e-4  # of a gradient's largest entry
SENSITIVITY = 100 * TOLERANCE  # what a wrong model must differ by

NAMES = list(make_reference.CASES)
BANDED_NAMES = [name for name in NAMES if name.startswith("banded")]
BFLOAT16_NAMES = [name for name, case in make_reference.CASES.items() if case.bfloat16]
PATHS = ("dense", "banded")
# What these vary is decided before a path is taken.
DENSE_ONLY = {"rope_scaling", "theta", "epsilon", "tied", "window_longer"}
PASSES = [
    (name, path) for name in NAMES for path in PATHS if path == "dense" or name not in DENSE_ONLY
]
PEERS = ("transformers", "keras_hub")

load = cache(golden.load)


def make_backbone(config, weights, path="auto", dtype="float32"):
    backbone = MistralBackbone(**config, dtype=dtype)
    assign(our_variables(backbone), weights)
    backbone.attention_path = path
    return backbone


@cache
def compiled(config, path):
    """A backbone's variables and compiled pass; files of one configuration share them."""
    backbone = MistralBackbone(**json.loads(config))
    backbone.attention_path = path
    variables = our_variables(backbone)
    return variables, compile_pass(backbone, variables)


def run(file, path, inputs, cotangent):
    variables, compiled_pass = compiled(json.dumps(file.config), path)
    assign(variables, file.weights())
    return compiled_pass(inputs, cotangent)


@cache
def passed(name, path):
    """Hidden states and gradients of one file on one path."""
    file = load(name)
    return run(file, path, file.inputs, file.cotangent())


def distance(file, ours, peer):
    """Largest difference at a real token."""
    return np.abs(ours - file.arrays[f"{peer}/hidden_states"])[file.padding_mask].max()


# The files themselves


OF_GENERATION = ("generation", "generation_options", "scores")  # other tests read them


def test_files_are_those_the_script_writes():
    assert golden.names() == sorted([*make_reference.CASES, *OF_GENERATION])
    for seed, (name, case) in enumerate(make_reference.CASES.items()):
        file = load(name)
        assert file.config == make_reference.BASE | case.config
        assert (file.seed, file.gains) == (seed, case.gains)
        np.testing.assert_array_equal(file.padding_mask, case.padding_mask())


@pytest.mark.parametrize("name", NAMES)
def test_peers_agree_with_plain_float64(name):
    file = load(name)
    exact = plain.hidden_states(file.config, file.weights(), file.token_ids, file.padding_mask)
    for peer in PEERS:
        # At position 1,000 a float32 angle is exact to 6e-5, and both peers compute in float32.
        assert distance(file, exact, peer) < 3e-5
    assert 0.5 < exact[file.padding_mask].std() < 2  # the tolerances are for values of size 1


# Equality


@pytest.mark.slow
@pytest.mark.parametrize(("name", "path"), PASSES)
def test_hidden_states(name, path):
    ours, _ = passed(name, path)
    for peer in PEERS:
        assert distance(load(name), ours, peer) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("name", "path"), PASSES)
def test_gradients(name, path):
    _, ours = passed(name, path)
    theirs = load(name).gradients()
    assert ours.keys() == theirs.keys()
    for weight, expected in theirs.items():
        # With a window of 1, the gradient of queries and keys is zero, up to rounding.
        allowed = GRADIENT_TOLERANCE * np.abs(expected).max() or 1e-6
        assert np.abs(ours[weight] - expected).max() < allowed, weight


@pytest.mark.slow
@pytest.mark.parametrize(("name", "path"), [("grouped", "dense"), ("banded_long", "banded")])
def test_hidden_states_on_the_automatic_path(name, path):
    file = load(name)
    length = file.token_ids.shape[1]
    assert choose_path(length, "float32", golden.head_dim(file.config)) == path
    ours = np.asarray(make_backbone(file.config, file.weights())(file.inputs))
    for peer in PEERS:
        assert distance(file, ours, peer) < TOLERANCE


@pytest.mark.parametrize("path", PATHS)
def test_wholly_masked_rows_are_finite(path):
    """Padded queries that see no key at all, and a row of nothing but padding."""
    file = load("holes")
    padding_mask = file.padding_mask.copy()
    padding_mask[1] = False
    inputs = {"token_ids": file.token_ids, "padding_mask": padding_mask}
    everywhere = np.ones_like(file.cotangent())
    outputs, gradients = run(file, path, inputs, everywhere)
    assert np.isfinite(outputs).all()
    for weight, gradient in gradients.items():
        assert np.isfinite(gradient).all(), weight


def bfloat16_error(file, ours):
    """Root mean square distance from float64 on the same rounded weights."""
    error = np.asarray(ours, "float64") - file.arrays["float64_of_bfloat16"]
    return np.sqrt(np.mean(error[file.padding_mask] ** 2))


@pytest.mark.slow
@pytest.mark.parametrize("path", [*PATHS, *["fused"] * fused_is_available("bfloat16", 8)])
@pytest.mark.parametrize("name", BFLOAT16_NAMES)
def test_bfloat16_is_no_farther_from_float64_than_peers(name, path):
    file = load(name)
    rounded = {key: array.astype(ml_dtypes.bfloat16) for key, array in file.weights().items()}
    backbone = make_backbone(file.config, rounded, path, dtype="bfloat16")
    ours = bfloat16_error(file, jax.jit(backbone)(file.inputs))
    for peer in PEERS:
        theirs = bfloat16_error(file, file.bfloat16(f"{peer}/bfloat16"))
        # Thousands of roundings: another order of additions moves their mean by a few percent.
        assert ours <= 1.05 * theirs


# Orders of construction


@pytest.mark.slow
@pytest.mark.parametrize("name", ["banded", "banded_long"])
def test_short_call_first_then_far_beyond_the_window(name):
    file = load(name)
    window = file.config["sliding_window"]
    backbone = make_backbone(file.config, file.weights())  # symbolic (None, None) first
    short = {key: array[:, :window] for key, array in file.inputs.items()}
    start = backbone.predict(short, verbose=0)
    whole = backbone.predict(file.inputs, verbose=0)
    for peer in PEERS:
        theirs = file.arrays[f"{peer}/hidden_states"]
        assert np.abs(start - theirs[:, :window]).max() < TOLERANCE
        assert distance(file, whole, peer) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_blocks_called_with_arrays_before_anything_symbolic(path):
    """The same blocks without the functional model, called at S = W, then far above."""
    file = load("banded")
    config, weights = file.config, file.weights()
    blocks = [
        MistralDecoder(MistralConfig(**config), index) for index in range(config["num_layers"])
    ]
    final_norm = RMSNorm()
    source = make_backbone(config, weights)

    def run(length):
        x, mask = weights["embeddings"][file.token_ids[:, :length]], file.padding_mask[:, :length]
        for index, block in enumerate(blocks):
            x = block(x, padding_mask=mask)
            block.set_weights(source.get_layer(f"transformer_layer_{index}").get_weights())
            block.self_attention.attention_path = path
        result = np.asarray(final_norm(x))
        final_norm.scale.assign(weights["final_norm"])
        return result

    run(config["sliding_window"])
    for peer in PEERS:
        assert distance(file, run(None), peer) < TOLERANCE


# Sensitivity: a golden file that a wrong model passes proves nothing


def interleaved(weights, config):
    """Weights with which half-split rotation does what interleaved rotation would."""
    size = golden.head_dim(config)
    order = np.concatenate([np.arange(0, size, 2), np.arange(1, size, 2)])
    return weights | permuted_heads(
        weights, ("query", "key"), size, lambda heads: heads[..., order]
    )


def swapped_key_value_heads(weights, config):
    size = golden.head_dim(config)
    return weights | permuted_heads(weights, ("key", "value"), size, lambda heads: heads[:, ::-1])


def permuted_heads(weights, kinds, size, permute):
    return {
        name: permute(array.reshape(len(array), -1, size)).reshape(array.shape)
        for name, array in weights.items()
        if name.split(".")[-1] in kinds
    }


WRONG_CONFIGS = [
    ("grouped", {"sliding_window": 5}),
    ("grouped", {"sliding_window": 7}),
    ("grouped", {"sliding_window": None}),
    ("window_1", {"sliding_window": 2}),
    ("window_2", {"sliding_window": 1}),
    ("window_2", {"sliding_window": 3}),
    ("holes", {"sliding_window": 5}),
    ("holes", {"sliding_window": 7}),
    ("banded", {"sliding_window": 15}),
    ("banded", {"sliding_window": 17}),
    ("banded_long", {"sliding_window": 63}),
    ("banded_long", {"sliding_window": 65}),
    ("theta", {"rope_max_wavelength": 10000}),
    ("rope_scaling", {"rope_scaling_factor": 1.0}),
    ("rope_scaling", {"rope_scaling_factor": 0.25}),
    ("epsilon", {"layer_norm_epsilon": 1e-6}),
    ("epsilon", {"layer_norm_epsilon": 1.1e-5}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "change"), WRONG_CONFIGS)
def test_wrong_configuration_is_noticed(name, change):
    file = load(name)
    path = "banded" if name in BANDED_NAMES else "dense"
    wrong = make_backbone(file.config | change, file.weights(), path)(file.inputs)
    for peer in PEERS:
        assert distance(file, np.asarray(wrong), peer) > SENSITIVITY


@pytest.mark.slow
@pytest.mark.parametrize("mistake", [interleaved, swapped_key_value_heads])
@pytest.mark.parametrize("name", ["grouped", "banded"])
def test_wrong_order_of_features_or_heads_is_noticed(name, mistake):
    file = load(name)
    weights = mistake(file.weights(), file.config)
    wrong = make_backbone(file.config, weights, "dense")(file.inputs)
    for peer in PEERS:
        assert distance(file, np.asarray(wrong), peer) > SENSITIVITY


@pytest.mark.parametrize("name", ["grouped", "left_padding", "holes"])
def test_seen_padding_is_noticed(name):
    file = load(name)
    everything = {"token_ids": file.token_ids, "padding_mask": np.ones_like(file.padding_mask)}
    wrong = np.asarray(make_backbone(file.config, file.weights())(everything))
    # Padding on the right is in no real token's past, so there the mask changes nothing.
    noticed = distance(file, wrong, "keras_hub") > SENSITIVITY
    assert noticed == (name != "grouped")
