"""Rotary scalings and layers with windows of their own, against golden files of transformers.

The texts are almost four times as long as the original length of the scalings.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import golden, make_rope
from reference.keras_models import assign, compile_pass, our_variables

from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.generation.cache import extend
from mistral_lib.generation.reading import PromptReader, logits_of
from mistral_lib.layers import attention, fused, rotary

NAMES = list(make_rope.CASES)
ORIGINAL, LENGTH, PROMPT = make_rope.ORIGINAL, make_rope.LENGTH, make_rope.PROMPT
TOLERANCE = 1e-5  # of the largest logit
SENSITIVITY = 100 * TOLERANCE


@cache
def load(name):
    return golden.load(name, make_rope.FOLDER)


def make_backbone(name, **changes):
    file = load(name)
    backbone = MistralBackbone(**{**file.config, **changes})
    assign(our_variables(backbone), file.weights())
    return backbone


@cache
def backbone_of(name):
    return make_backbone(name)


def logits(backbone, token_ids, padding_mask=None):
    mask = np.ones(token_ids.shape, bool) if padding_mask is None else padding_mask
    hidden = jax.jit(backbone)({"token_ids": token_ids, "padding_mask": mask})
    return np.asarray(backbone.token_embedding(hidden, reverse=True))


def distance(ours, theirs):
    """The largest difference, as a part of the largest logit."""
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def wrong_by(name, **changes):
    file = load(name)
    ours = logits(make_backbone(name, **changes), file.token_ids)
    return distance(ours[:, make_rope.KEPT], file.arrays["logits"])


def test_files_are_those_the_script_writes():
    assert {path.stem for path in make_rope.FOLDER.glob("*.npz")} == set(NAMES)
    for name, case in make_rope.CASES.items():
        assert load(name).config == make_rope.BASE | case
    assert min(make_rope.KEPT[-8:]) > 3 * ORIGINAL


PATHS = [(name, "dense") for name in NAMES]
PATHS += [(name, path) for name in ("ministral3", "layers") for path in ("banded", "fused")]


@pytest.mark.parametrize(("name", "path"), PATHS)
def test_logits(monkeypatch, name, path):
    if path == "fused":  # the same call without a GPU
        monkeypatch.setattr(attention, "fused_is_available", lambda *_: True)
        monkeypatch.setitem(attention.PATHS, "fused", by_xla)
    backbone = make_backbone(name)
    for layer in backbone.transformer_layers:
        layer.self_attention.attention_path = path
    file = load(name)
    ours = logits(backbone, file.token_ids)
    assert distance(ours[:, make_rope.KEPT], file.arrays["logits"]) < TOLERANCE


def by_xla(*arguments):
    return fused.fused_attention(*arguments, implementation="xla")


@pytest.mark.parametrize("name", make_rope.WITH_GRADIENTS)
def test_gradients(name):
    file, backbone = load(name), make_backbone(name)
    _, ours = compile_pass(backbone, our_variables(backbone))(file.inputs, file.cotangent())
    assert ours.keys() == file.gradients().keys()
    for weight, expected in file.gradients().items():
        assert np.abs(ours[weight] - expected).max() < 1e-4 * np.abs(expected).max(), weight


@pytest.mark.parametrize("name", NAMES)
def test_logits_with_a_cache(name):
    """A prompt at once or in chunks, then a token at a time: as `generate` of transformers."""
    file, backbone = load(name), backbone_of(name)
    step = jax.jit(lambda cache, ids: extend(backbone, cache, ids))
    prompt = file.token_ids[0, :PROMPT].tolist()
    for chunk_size in (512, 16):
        hidden, cache = PromptReader(backbone, chunk_size).read([prompt], LENGTH)
        steps = [logits_of(backbone, hidden[:, None])]
        for token in file.arrays["written"][0, :-1]:
            hidden, cache = step(cache, jnp.full((1, 1), int(token)))
            steps.append(logits_of(backbone, hidden))
        ours = np.concatenate(steps, axis=1)[:, ::5]
        assert distance(ours, file.arrays["steps"]) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dynamic", "ministral3", "layers"])
def test_greedy_tokens(name):
    """In a batch with other rows, with a draft or without, tokens are those of transformers."""
    file, model = load(name), MistralCausalLM(backbone_of(name))
    ids, expected = file.token_ids[0].tolist(), file.arrays["written"][0].tolist()
    prompts = [ids[:3], ids[:PROMPT], ids[:90]]
    for options in ({}, {"draft_model": model, "num_draft_tokens": 3}):
        texts = model.generate(
            prompts, max_new_tokens=LENGTH - PROMPT, stop_token_ids=None, **options
        )
        assert texts[1][PROMPT:] == expected


# Rows of a batch


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dynamic", "ministral3"])
def test_a_row_is_the_same_alone_and_in_a_batch(name):
    """Short and long rows, padded on the left or on the right with any tokens."""
    backbone, ids = backbone_of(name), load(name).token_ids[0]
    lengths, length = [LENGTH, 70, ORIGINAL, 5], LENGTH
    rows, masks = np.full((8, length), 7), np.zeros((8, length), bool)
    for row, size in enumerate(lengths):
        for index, place in ((row, slice(0, size)), (row + 4, slice(length - size, length))):
            rows[index, place], masks[index, place] = ids[:size], True
    together = logits(backbone, rows, masks)
    assert np.isfinite(together).all()
    for row, size in enumerate(lengths):
        alone = logits(backbone, ids[None, :size])[0]
        for index in (row, row + 4):
            assert distance(together[index][masks[index]], alone) < 3 * TOLERANCE


@pytest.mark.slow
def test_the_scores_of_a_text_follow_its_own_length():
    model, ids = MistralCausalLM(backbone_of("dynamic")), load("dynamic").token_ids
    mask = np.arange(LENGTH) < np.array([[LENGTH], [50]])
    losses = model.score(np.repeat(ids, 2, axis=0), mask, scoring_mode="loss")
    alone = model.score(ids[:, :50], scoring_mode="loss")
    np.testing.assert_allclose(losses[1, :50], alone[0], atol=1e-4)
    assert np.abs(losses[0, :49] - alone[0, :49]).max() > 1e-2


def test_rematerialized_blocks_know_the_lengths():
    backbone, file = make_backbone("dynamic"), load("dynamic")
    inputs = {"token_ids": file.token_ids, "padding_mask": np.arange(LENGTH)[None] < 60}
    plain = backbone(inputs, training=True)
    backbone.rematerialize = True
    np.testing.assert_allclose(backbone(inputs, training=True), plain, atol=1e-5)


# Sensitivity: a golden file that a wrong model passes proves nothing


def without(name, *settings, **changes):
    scaling = load(name).config["rope_scaling"]
    kept = {key: value for key, value in scaling.items() if key not in settings}
    return {"rope_scaling": {**kept, **changes}}


WRONG_SETTINGS = [
    ("yarn", {"rope_scaling": None}),
    ("yarn", without("yarn", factor=8.0)),
    ("yarn", without("yarn", original_max_position_embeddings=64)),
    ("yarn", without("yarn", attention_factor=1.0)),
    ("yarn", without("yarn", truncate=False)),
    ("yarn_mscale", without("yarn_mscale", "beta_fast")),
    ("yarn_mscale", without("yarn_mscale", "mscale_all_dim")),
    ("yarn_mscale", without("yarn_mscale", "mscale")),
    ("yarn_mscale", without("yarn_mscale", truncate=True)),
    ("yarn_attention_factor", without("yarn_attention_factor", "attention_factor")),
    ("yarn_attention_factor", without("yarn_attention_factor", "beta_slow")),
    ("dynamic", {"rope_scaling": None}),
    ("dynamic", without("dynamic", factor=2.0)),
    ("dynamic", without("dynamic", original_max_position_embeddings=36)),
    ("llama3", {"rope_scaling": None}),
    ("llama3", without("llama3", low_freq_factor=1.5)),
    ("llama3", without("llama3", high_freq_factor=3.0)),
    ("ministral3", without("ministral3", "llama_4_scaling_beta")),
    ("ministral3", without("ministral3", llama_4_scaling_beta=0.12)),
    ("layers", {"sliding_window": [None, 6, None, 6]}),
    ("layers", {"sliding_window": [None, 5, 6, None]}),
    ("layers", {"sliding_window": 6}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "changes"), WRONG_SETTINGS)
def test_a_wrong_setting_is_noticed(name, changes):
    assert wrong_by(name, **changes) > SENSITIVITY


# Mistakes of other programs (chapter 5 shows them too)


def factor_of_yarn_alone(scaling):
    """vLLM issue 48621: `mscale` and `mscale_all_dim` are ignored, 27 % off at a factor of 16."""
    return 0.1 * np.log(scaling.factor) + 1


def numerator_alone(scaling):
    """As a program that reads `mscale` and forgets `mscale_all_dim`."""
    return 0.1 * (scaling.mscale or 1) * np.log(scaling.factor) + 1


def once(scaling):
    """The factor multiplies queries and not keys."""
    return rotary_attention_factor(scaling) ** 0.5


rotary_attention_factor, rotary_query_scale = rotary.attention_factor, rotary.query_scale


@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        ("ministral3", factor_of_yarn_alone),
        ("yarn_mscale", factor_of_yarn_alone),
        ("yarn_attention_factor", factor_of_yarn_alone),
        ("ministral3", numerator_alone),
        ("yarn_mscale", numerator_alone),
        ("yarn", once),
    ],
)
def test_a_wrong_attention_factor_is_noticed(monkeypatch, name, mistake):
    monkeypatch.setattr(rotary, "attention_factor", mistake)
    assert wrong_by(name) > SENSITIVITY


def lost(positions, scaling):
    """vLLM issue 48621: the factor of the query is looked for in another place, and not found."""


def off_by_one(positions, scaling):
    """Llama 4's own formula, which counts tokens: the position plus one."""
    return rotary_query_scale(positions + 1, scaling)


def by_the_whole_text(positions, scaling):
    """A factor of the text's length instead of the query's position."""
    return rotary_query_scale(jnp.full_like(positions, positions.max()), scaling)


def without_rounding_down(positions, scaling):
    passed = positions / scaling.original_max_position_embeddings
    return 1 + scaling.llama_4_scaling_beta * jnp.log1p(passed)


@pytest.mark.parametrize("mistake", [lost, off_by_one, by_the_whole_text, without_rounding_down])
def test_a_wrong_factor_of_the_query_is_noticed(monkeypatch, mistake):
    monkeypatch.setattr(attention, "query_scale", mistake)
    assert wrong_by("ministral3") > SENSITIVITY
