"""The backbone against transformers and KerasHub themselves, where they are installed.

The golden files hold a few configurations; here hypothesis draws others. To run these tests:

    python3.11 -m venv .venv-peers
    .venv-peers/bin/pip install -r tests/reference/requirements.txt -e '.[test,plots]'
    .venv-peers/bin/python -m pytest tests/test_live_parity.py
"""

from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import golden, peers
from reference.keras_models import assign, compile_pass, our_variables

from mistral_lib import MistralBackbone

pytestmark = [pytest.mark.peer, pytest.mark.slow]

TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4


def needs(*modules):
    missing = [module for module in modules if find_spec(module) is None]
    return pytest.mark.skipif(bool(missing), reason=f"peer not installed: {', '.join(missing)}")


@st.composite
def drawn_models(draw):
    """A configuration, a padding mask of at least one token a row, and a seed."""
    num_key_value_heads = draw(st.sampled_from([1, 2, 3]))
    num_query_heads = num_key_value_heads * draw(st.integers(1, 3))
    head_dim = draw(st.sampled_from([2, 6, 8]))
    length = draw(st.sampled_from([1, 2, 9, 40, 300]))
    config = {
        "vocabulary_size": 37,
        "num_layers": draw(st.integers(1, 3)),
        "num_query_heads": num_query_heads,
        "num_key_value_heads": num_key_value_heads,
        "head_dim": head_dim,
        "hidden_dim": draw(st.sampled_from([num_query_heads * head_dim, 20])),
        "intermediate_dim": draw(st.sampled_from([16, 40])),
        "rope_max_wavelength": draw(st.sampled_from([100.0, 1e4, 1e6])),
        "rope_scaling_factor": draw(st.sampled_from([1.0, 2.0, 8.0])),
        "layer_norm_epsilon": draw(st.sampled_from([1e-6, 1e-5, 1e-2])),
        "sliding_window": draw(st.none() | st.integers(1, length + 1)),
        "tie_word_embeddings": draw(st.booleans()),
    }
    padding_mask = np.zeros((2, length), "bool")
    for row in padding_mask:
        end, skipped = draw(st.integers(1, length)), draw(st.integers(0, 3))
        row[min(skipped, end - 1) : end] = True  # padded on the right, and some on the left
    return config, padding_mask, draw(st.integers(0, 1000))


def check(model, path, peer_pass, tolerance=TOLERANCE):
    """Compares hidden states and gradients with a peer's."""
    config, padding_mask, seed = model
    weights = golden.random_weights(config, seed)
    token_ids = golden.random_token_ids(padding_mask.shape, config["vocabulary_size"], seed)
    cotangent = golden.random_cotangent(padding_mask, config["vocabulary_size"], seed)
    backbone = MistralBackbone(**config)
    backbone.attention_path = path
    variables = our_variables(backbone)
    assign(variables, weights)
    inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
    ours, our_gradients = compile_pass(backbone, variables)(inputs, cotangent)
    theirs, gradients = peer_pass(config, weights, token_ids, padding_mask, cotangent)
    assert np.abs(ours - theirs)[padding_mask].max() < tolerance
    for name, expected in gradients.items():
        # With a window of 1, the gradient of queries and keys is zero up to rounding.
        allowed = max(GRADIENT_TOLERANCE * np.abs(expected).max(), 1e-7)
        assert np.abs(our_gradients[name] - expected).max() < allowed, name


def by_transformers(config, weights, *batch):
    return peers.transformers_pass(peers.transformers_model(config, weights), *batch)


@needs("torch", "transformers")
@settings(max_examples=20, deadline=None, derandomize=True)
@given(model=drawn_models(), path=st.sampled_from(["auto", "dense", "banded"]))
def test_equals_transformers(model, path):
    check(model, path, by_transformers)


@st.composite
def drawn_scalings(draw):
    """A model that reads two whole rows, mostly beyond the original length of its scaling."""
    config, mask, seed = draw(drawn_models())
    scaling = {
        "rope_type": draw(st.sampled_from(["yarn", "dynamic", "llama3"])),
        "factor": draw(st.sampled_from([1.0, 2.0, 16.0])),
        "original_max_position_embeddings": draw(st.sampled_from([5, 30, 64])),
    }
    if scaling["rope_type"] == "llama3":
        scaling |= {"low_freq_factor": 1.0, "high_freq_factor": draw(st.sampled_from([1.5, 4.0]))}
    if scaling["rope_type"] == "yarn":
        choices = {
            "beta_fast": st.sampled_from([4.0, 32.0]),
            "mscale": st.sampled_from([0.0, 0.7, 1.0]),
            "mscale_all_dim": st.sampled_from([0.0, 0.5, 1.0]),
            "attention_factor": st.just(1.2),
            "truncate": st.booleans(),
            "llama_4_scaling_beta": st.just(0.1),
        }
        scaling |= draw(st.fixed_dictionaries({}, optional=choices))
    sizes = {"head_dim": max(config["head_dim"], 4), "rope_scaling_factor": 1.0}
    return {**config, **sizes, "rope_scaling": scaling}, np.ones_like(mask), seed


@needs("torch", "transformers")
@settings(max_examples=30, deadline=None, derandomize=True)
@given(model=drawn_scalings())
def test_scalings_equal_transformers(model):
    # Both raise the base of "dynamic" to a power in float32, which shows at position 300.
    check(model, "auto", by_transformers, tolerance=3 * TOLERANCE)


@needs("keras_hub")
@settings(max_examples=20, deadline=None, derandomize=True)
@given(model=drawn_models(), path=st.sampled_from(["auto", "dense", "banded"]))
def test_equals_keras_hub(model, path):
    check(
        model,
        path,
        lambda config, weights, *batch: peers.keras_hub_pass(
            config, peers.keras_hub_model(config, weights), *batch
        ),
    )


@needs("torch", "transformers", "keras_hub")
def test_golden_files_are_what_the_peers_compute_now():
    """Committed files, made again in two configurations; a new version may have changed."""
    from reference import make_reference

    for name in ("grouped", "holes"):
        seed = list(make_reference.CASES).index(name)
        made = make_reference.make_backbone_case(name, make_reference.CASES[name], seed)
        committed = golden.load(name)
        assert made.arrays.keys() == committed.arrays.keys()
        for key, array in made.arrays.items():
            if key.endswith("hidden_states"):
                assert np.abs(array - committed.arrays[key]).max() < TOLERANCE
