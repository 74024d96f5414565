"""Weights on grids: each format against loops, and GPTQ against what it promises."""

import numpy as np
import pytest

from mistral_lib import MistralCausalLM
from mistral_lib.teaching import grids, panel
from mistral_lib.teaching.interventions import activations, read
from mistral_lib.teaching.measures import bits


@pytest.fixture(scope="module")
def model():
    return MistralCausalLM.from_preset("mistral_tiny_en")


@pytest.fixture
def matrix():
    return np.random.default_rng(4).normal(size=(70, 3)).astype("float32")


def columns_of(matrix, size):
    """Each group of each column, filled up with zeros, and the place where it is."""
    for column in range(matrix.shape[1]):
        for start in range(0, len(matrix), size):
            group = [float(w) for w in matrix[start : start + size, column]]
            yield slice(start, start + size), column, group, group + [0.0] * (size - len(group))


@pytest.mark.parametrize("size", [1, 7, 32, 70, 128])
def test_groups_are_joined_again(matrix, size):
    groups = grids.in_groups(matrix, size)
    assert groups.shape == (-(-70 // size), size, 3)
    assert np.array_equal(grids.joined(groups, 70), matrix)


@pytest.mark.parametrize("size", [7, 32, 128])
def test_q4_0_is_that_of_llama_cpp(matrix, size):
    """Its loop, weight by weight: the signed largest weight, divided by -8, is the step."""
    found = grids.q4_0(matrix, size)
    for rows, column, group, filled in columns_of(matrix, size):
        step = max(filled, key=abs) / -8
        expected = [(min(15, int(w / step + 8.5)) - 8) * step for w in group]
        assert np.allclose(found[rows, column], expected, atol=1e-5)


@pytest.mark.parametrize("size", [7, 32, 128])
def test_nf4_takes_the_nearest_of_its_lines(matrix, size):
    found, lines = grids.normal_float(matrix, size), grids.normal_lines()
    for rows, column, group, filled in columns_of(matrix, size):
        largest = max(map(abs, filled))
        expected = [min(lines, key=lambda x: abs(x - w / largest)) * largest for w in group]
        assert np.allclose(found[rows, column], expected, atol=1e-5)


def test_nf4_has_the_lines_of_its_paper():
    """The first and last digits of the table in its appendix."""
    lines = grids.normal_lines()
    assert np.allclose(
        lines[[0, 1, 2, 7, 8, 14, 15]], [-1, -0.6962, -0.5251, 0, 0.0796, 0.723, 1], atol=1e-4
    )
    assert (np.diff(lines) > 0).all()
    assert len(lines) == 16


@pytest.mark.parametrize("size", [7, 32, 128])
def test_between_has_16_lines_and_zero_is_one(matrix, size):
    matrix[3] = 0
    found = grids.between(matrix, size)
    assert (found[3] == 0).all()
    for rows, column, group, filled in columns_of(matrix, size):
        step = (max(filled) - min(filled)) / 15
        assert len(np.unique(found[rows, column].round(5))) <= 16
        assert (
            abs(found[rows, column] - group).max() < step * 1.01
        )  # an end may lie half a step off


@pytest.mark.parametrize("stored", [grids.between, grids.q4_0, grids.normal_float])
def test_zeros_stay_zeros(stored):
    assert (stored(np.zeros((40, 2), "float32"), 32) == 0).all()


# GPTQ ---------------------------------------------------------------------------------------------


def squares(inputs, moved):
    return ((inputs @ moved) ** 2).sum()


def test_gptq_keeps_the_sums_closer_than_rounding(matrix):
    random = np.random.default_rng(5)
    inputs = random.normal(size=(200, 70)) @ random.normal(size=(70, 70))
    found = grids.gptq(matrix, inputs)
    step = abs(matrix).max(axis=0) / 7
    nearest = np.round(matrix / step) * step
    assert squares(inputs, found - matrix) < 0.8 * squares(inputs, nearest - matrix)
    assert np.allclose(found / step, np.round(found / step), atol=1e-4)  # on the lines
    assert abs(found / step).max() < 7.001


def test_gptq_moves_later_rows_as_least_squares_would(matrix):
    """After the first row is rounded, the others are what makes the sums best again."""
    random = np.random.default_rng(6)
    inputs = random.normal(size=(300, 70))
    seen = []
    grids.gptq(matrix, inputs, watch=lambda now: seen.append(now.copy()), dampening=1e-9)
    assert len(seen) == 70
    off = inputs[:, :1] * (matrix[0] - seen[0][0])  # what the first row does not give any more
    best, *_ = np.linalg.lstsq(inputs[:, 1:], off, rcond=None)
    assert np.allclose(seen[0][1:] - matrix[1:], best, atol=1e-4)


def test_independent_inputs_leave_nothing_to_make_up_for(matrix):
    step = abs(matrix).max(axis=0) / 7
    found = grids.gptq(matrix, np.eye(70))
    assert np.allclose(found, np.round(matrix / step) * step, atol=1e-5)


# The model ----------------------------------------------------------------------------------------


def test_applied_rounds_what_it_is_told_and_turns_the_table(model):
    shapes = []

    def stored(matrix):
        shapes.append(matrix.shape)
        return 0 * matrix

    weights = grids.applied(model, stored, only="embeddings")
    assert sorted(shapes) == [(192, 2048), (192, 2048)]
    zero = [w.path for w, new in zip(model.weights, weights) if not new.any()]
    assert zero == [grids.TABLE, "token_embedding/reverse_embeddings"]
    assert all(new.shape == w.shape for w, new in zip(model.weights, weights))


def test_reader_says_what_texts_cost_and_puts_the_weights_back(model):
    rows = panel.own(model.preprocessor.tokenizer, ["Return the number of lines.", "A text."])
    before = model.get_weights()
    bits_of = grids.reader(model, rows)
    other = [w * 0.5 for w in before]
    found = bits_of(before), bits_of(other)
    assert np.allclose(found[0], bits(read(model, rows), rows), atol=1e-3)
    assert not np.allclose(*found, atol=1)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before))


def test_inputs_are_what_the_projections_are_given(model):
    """Times its kernel, the input of the last `down` is what its network adds."""
    rows = panel.own(model.preprocessor.tokenizer, ["Return the number of lines."])
    inputs = grids.inputs_of(model, rows)
    assert len(inputs) == 6 * 7
    seen = activations(model, rows, "network", "query", "attention")
    block = model.backbone.transformer_layers[5]
    for projection, site in (
        (block.feedforward.down, "network"),
        (block.self_attention.attention_output, "attention"),
    ):
        product = inputs[projection.kernel.path] @ np.asarray(projection.kernel)
        assert np.allclose(product, seen[site][5], atol=1e-3)
