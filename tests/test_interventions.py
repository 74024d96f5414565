"""Edited passes: equal to the model where nothing is edited, and to other weights where it is."""

import dataclasses

import numpy as np
import pytest

from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.teaching import interventions, panel
from mistral_lib.teaching.interventions import (
    activations,
    each_head,
    lens,
    read,
    replace,
    scale,
    silence,
    sweep,
)
from mistral_lib.teaching.transplant import transplanted
from mistral_lib.tokenizer import MistralTokenizer

L, H, K, D, F, V = 3, 4, 2, 16, 24, 20
SIZES = dict(num_query_heads=H, hidden_dim=D, intermediate_dim=F, num_key_value_heads=K)


def made(seed=0, **changes) -> MistralCausalLM:
    """A small model whose weights are large enough for every mistake to show."""
    changes = {"sliding_window": [3, None, 2], **changes}
    model = MistralCausalLM(MistralBackbone(V, L, **SIZES, **changes))
    random = np.random.default_rng(seed)
    for variable in model.variables:
        variable.assign(random.normal(size=variable.shape) / 2)
    return model


@pytest.fixture(scope="module")
def model():
    return made()


def rows(random=0) -> panel.Prompts:
    """Two texts, one of them padded, that end at position 4 and go on with one piece."""
    ids = np.random.default_rng(random).integers(1, V, (2, 6)).astype("int32")
    real = np.array([[True] * 6, [True] * 5 + [False]])
    ends, answers, partners = np.array([4, 3]), ids[[0, 1], [5, 4]][:, None], np.array([[7], [8]])
    nothing = np.array([-1, -1])
    return panel.Prompts(
        "made up", ("a", "b"), np.array([True, False]), ids, real,
        ends, answers, partners, nothing, np.array([1, 1]),
    )  # fmt: skip


ROWS = rows()
REAL = ROWS.padding_mask
BARE = np.zeros((L, 1, 1))


def direct(model, rows=ROWS):
    """The logits of the model itself, called directly."""
    return np.asarray(model(rows.inputs))


def same(one, other, tolerance=1e-5):
    """Whether the logits of real tokens are equal, to a part of the largest."""
    return abs(one - other)[REAL].max() < tolerance * abs(other[REAL]).max()


def unchanged(site, layer, x):
    return x


def twin(model, change) -> np.ndarray:
    """The logits of a copy of the model, after a change of its weights."""
    copy = made()
    copy.set_weights(model.get_weights())
    change(copy.backbone)
    return direct(copy)


def test_an_unedited_pass_is_the_model(model):
    assert same(read(model, ROWS), direct(model))
    assert same(read(model, ROWS, unchanged), direct(model))


@pytest.mark.parametrize(
    "changes",
    [
        dict(tie_word_embeddings=True),
        dict(rope_scaling_factor=2.0, head_dim=6),
        dict(rope_scaling={"rope_type": "dynamic", "factor": 2.0,
                           "original_max_position_embeddings": 3}),
    ],
    ids=["tied", "scaled", "dynamic"],
)  # fmt: skip
@pytest.mark.slow
def test_an_unedited_pass_is_the_model_under_other_settings(changes):
    other = made(**changes)
    assert same(read(other, ROWS, unchanged), direct(other))


def test_padding_is_honoured(model):
    other = dataclasses.replace(ROWS, token_ids=np.where(REAL, ROWS.token_ids, V - 1))
    assert np.array_equal(read(model, ROWS, unchanged)[REAL], read(model, other, unchanged)[REAL])


@pytest.mark.slow
def test_a_silenced_head_is_one_without_output_kernel(model):
    found = sweep(model, ROWS, silence, each_head(model), lambda logits, _: logits)
    assert found.shape == (L * H, *ROWS.token_ids.shape, V)
    for number, logits in enumerate(found):

        def mute(backbone, number=number):
            kernel = backbone.transformer_layers[number // H].self_attention.attention_output.kernel
            rows = np.array(kernel.value)
            rows[number % H * 4 : number % H * 4 + 4] = 0
            kernel.assign(rows)

        expected = twin(model, mute)
        assert same(logits, expected)
        assert not same(expected, direct(model), 1e-2)


def test_a_head_silenced_at_some_positions_changes_nothing_before_them(model):
    off = np.zeros((L, 1, 6, H), bool)
    off[0, :, 3, 1] = True
    found, before = read(model, ROWS, silence(off)), read(model, ROWS)
    assert abs(found - before)[:, :3].max() < 1e-5 < abs(found - before)[:, 3].max()


def test_a_network_scaled_by_zero_is_one_without_down_kernel(model):
    def mute(backbone):
        network = backbone.transformer_layers[1].feedforward
        network.down.kernel.assign(0 * network.down.kernel)

    factors = np.ones((L, 2), "float32")
    factors[1, 1] = 0
    assert same(read(model, ROWS, scale(factors)), twin(model, mute))


def test_a_unit_that_is_silenced_is_one_without_its_row_of_the_down_kernel(model):
    def mute(backbone):
        kernel = backbone.transformer_layers[1].feedforward.down.kernel
        rows = np.array(kernel.value)
        rows[5] = 0
        kernel.assign(rows)

    def silent(where):
        def edit(site, layer, x):
            off = site == where and layer == 1
            return x.at[..., 5].set(0) if off else x

        return edit

    for site in ("gate", "up", "products"):
        assert same(read(model, ROWS, silent(site)), twin(model, mute))


def test_products_are_silu_of_the_gate_times_up(model):
    found = activations(model, ROWS, "gate", "up", "products")
    opened = found["gate"] / (1 + np.exp(-found["gate"].astype("float64")))
    assert np.allclose(found["products"], opened * found["up"], rtol=1e-5, atol=1e-5)


def test_a_transplanted_network_is_called_and_has_no_units(model):
    seen = []

    def edit(site, layer, x):
        seen.append(site)
        return x

    with transplanted(model, feedforward=lambda x, gate, up, down: 0 * x):
        silent = read(model, ROWS, edit)
    factors = np.ones((L, 2), "float32")
    factors[:, 1] = 0
    assert same(silent, read(model, ROWS, scale(factors)))
    assert {"gate", "up", "products"}.isdisjoint(seen)


def test_attention_scaled_by_two_is_a_doubled_output_kernel(model):
    def double(backbone):
        kernel = backbone.transformer_layers[2].self_attention.attention_output.kernel
        kernel.assign(2 * kernel)

    factors = np.ones((L, 2), "float32")
    factors[2, 0] = 2
    assert same(read(model, ROWS, scale(factors)), twin(model, double))


@pytest.mark.slow
def test_blocks_in_another_order_are_swapped_weights():
    even = made(sliding_window=3)

    def swap(backbone):
        one, other = (layer.get_weights() for layer in backbone.transformer_layers[:2])
        backbone.transformer_layers[0].set_weights(other)
        backbone.transformer_layers[1].set_weights(one)

    swapped = made(sliding_window=3)
    swap(swapped.backbone)
    assert same(read(even, ROWS, order=[1, 0, 2]), direct(swapped))
    assert not same(direct(even), direct(swapped), 1e-2)


def test_a_block_left_out_adds_nothing(model):
    factors = np.ones((L, 2), "float32")
    factors[1] = 0
    assert same(read(model, ROWS, order=[0, 2]), read(model, ROWS, scale(factors)))


def test_other_positions_are_another_scaling(model):
    halved = made(rope_scaling_factor=0.5)
    halved.set_weights(model.get_weights())
    assert same(read(model, ROWS, positions=2 * np.arange(6)), direct(halved))
    assert same(read(model, ROWS, positions=100 + np.arange(6)), direct(model), 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("site", interventions.SITES)
def test_what_another_run_had_everywhere_makes_the_rest_of_that_run(model, site):
    """Every site of one block is all that the later ones depend on, but for the stream before."""
    other = rows(random=1)
    kept = activations(model, other, site)[site]
    where = np.ones((len(kept), 1, 1, 1, 1)[: kept.ndim - 1], bool)
    found = read(model, ROWS, replace(site, where, kept))
    again = activations(model, ROWS, site, edit=replace(site, where, kept))[site]
    assert np.array_equal(again, kept)
    if site == "stream":
        assert same(found, direct(model, other))
    else:
        assert not same(found, direct(model), 1e-2)


def test_zeros_are_put_where_no_values_are_given(model):
    where = BARE.astype(bool)
    where[1] = True
    factors = np.ones((L, 2), "float32")
    factors[1, 0] = 0
    assert same(read(model, ROWS, replace("attention", where)), read(model, ROWS, scale(factors)))


@pytest.mark.slow
def test_a_sweep_is_one_reading_after_another(model):
    other = activations(model, rows(random=1), "stream")["stream"]
    settings = np.zeros((4, L + 1, 1, 6), bool)
    settings[range(4), range(4), :, 2] = True

    def patched(where, values):
        return replace("stream", where, values)

    found = sweep(model, ROWS, patched, settings, lambda logits, _: logits, other)
    for setting, logits in zip(settings, found):
        assert same(logits, read(model, ROWS, replace("stream", setting, other)))


def test_weights_are_those_of_the_window(model):
    weights = activations(model, ROWS, "weights")["weights"]
    assert np.allclose(weights[:, 0].sum(axis=-1), 1, atol=1e-5)
    distance = np.subtract.outer(np.arange(6), np.arange(6))
    for layer, window in enumerate([3, 6, 2]):
        seen = weights[layer, 0].max(axis=0) > 0
        assert np.array_equal(seen, (distance >= 0) & (distance < window))
    assert not weights[:, 1, :, :, 5].any()  # the padded key


def test_activations_have_the_shapes_that_are_told(model):
    found = activations(model, ROWS, *interventions.SITES)
    sizes = {"B": 2, "S": 6, "D": D, "F": F, "H": H, "K": K, "h": 4}
    for site, words in interventions.SITES.items():
        axes = words[1 : words.index(")")].split(", ")
        layers = L + 1 if site == "stream" else L
        assert found[site].shape == (layers, *(sizes[axis] for axis in axes))


def test_the_stream_is_the_sum_of_what_is_added(model):
    found = activations(model, ROWS, "stream", "attention", "network")
    added = found["attention"] + found["network"]
    assert np.allclose(np.diff(found["stream"], axis=0), added, atol=1e-4)


def test_the_lens_ends_with_the_model(model):
    def logits(logits, _):
        return logits

    found = lens(model, ROWS, logits)
    assert found.shape == (L + 1, *ROWS.token_ids.shape, V)
    assert same(found[-1], direct(model))
    assert same(found[0], read(model, ROWS, order=[]))


def test_a_transplanted_norm_is_called_by_edited_passes(model):
    with transplanted(model, norm=lambda x, scale, epsilon: x * scale):
        expected = direct(model)
        assert same(read(model, ROWS, unchanged), expected)
    assert not same(direct(model), expected, 1e-2)


@pytest.mark.parametrize("part", ["block", "attention", "heads", "mask"])
def test_a_transplant_that_an_edited_pass_would_go_around_is_refused(model, part):
    with (
        pytest.raises(RuntimeError, match="never called"),
        transplanted(model, **{part: lambda *arguments: arguments[0]}),
        pytest.raises(ValueError, match="does not call a block, attention, heads or mask"),
    ):
        read(model, ROWS, unchanged)


def test_an_unknown_site_lists_those_that_exist(model):
    with pytest.raises(ValueError, match="No site is called 'head': there are stream, query"):
        activations(model, ROWS, "head")


@pytest.mark.slow
def test_the_shipped_model_is_read_whole():
    shipped = MistralCausalLM.from_preset("mistral_tiny_en")
    tokenizer = MistralTokenizer.from_preset("mistral_tiny_en")
    for texts in (panel.docstrings(tokenizer), panel.documents(tokenizer)):
        some = texts.where(np.arange(len(texts)) % 12 == 0)
        expected, real = direct(shipped, some), some.padding_mask
        for found in (read(shipped, some), read(shipped, some, unchanged)):
            assert abs(found - expected)[real].max() < 1e-5 * abs(expected[real]).max()
