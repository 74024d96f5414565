"""Rotary positions: complex numbers in float64, distances alone, half against half; scalings."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mistral_lib.layers.rotary import (
    attention_factor,
    query_scale,
    rotary_angles,
    rotate,
    text_positions,
)
from mistral_lib.rope_scaling import RopeScaling


def by_complex_numbers(x, positions, max_wavelength=10000.0, scaling_factor=1.0):
    """The paper's formula: pair p of a head is a complex number, turned by its angle."""
    x = np.asarray(x, "float64")
    half = x.shape[-1] // 2
    pairs = x[..., :half] + 1j * x[..., half:]
    frequencies = np.array([max_wavelength ** (-2 * p / x.shape[-1]) for p in range(half)])
    angles = np.asarray(positions, "float64")[..., None] / scaling_factor * frequencies
    turned = pairs * np.exp(1j * angles)[..., None, :]
    return np.concatenate([turned.real, turned.imag], axis=-1)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    first=st.integers(0, 3000),
    max_wavelength=st.sampled_from([100, 10000.0, 1e6]),
    scaling_factor=st.sampled_from([1.0, 4.0, 0.5, 2.7]),
)
def test_equals_the_complex_numbers(seed, first, max_wavelength, scaling_factor):
    x = np.random.default_rng(seed).normal(size=(2, 5, 3, 8)).astype("float32")
    positions = first + np.arange(5)
    angles = rotary_angles(positions, 8, max_wavelength, scaling_factor)
    assert angles.shape == (5, 4)
    assert angles.dtype == "float32"
    expected = by_complex_numbers(x, positions, max_wavelength, scaling_factor)
    # An angle of a radians is known to a * 2^-24.
    tolerance = 1e-5 + 4 * 2.0**-23 * (first + 5) / scaling_factor
    np.testing.assert_allclose(rotate(x, angles), expected, atol=tolerance, rtol=1e-5)


def test_every_row_can_have_its_own_positions():
    x = np.random.default_rng(1).normal(size=(2, 3, 2, 6)).astype("float32")
    positions = np.array([[0, 1, 2], [7, 5, 6]])
    rows = [rotate(x[row : row + 1], rotary_angles(positions[row], 6)) for row in range(2)]
    np.testing.assert_allclose(
        rotate(x, rotary_angles(positions, 6)), np.concatenate(rows), rtol=1e-6
    )


@settings(max_examples=15, deadline=None, derandomize=True)
@given(query_position=st.integers(0, 200), distance=st.integers(0, 100), shift=st.integers(0, 2000))
def test_a_score_depends_on_the_distance_alone(query_position, distance, shift):
    query, key = np.random.default_rng(2).normal(size=(2, 1, 1, 1, 16)).astype("float32")

    def score(offset):
        positions = np.array([query_position + distance + offset, query_position + offset])
        angles = rotary_angles(positions, 16)
        return (rotate(query, angles[:1]) * rotate(key, angles[1:])).sum()

    np.testing.assert_allclose(score(0), score(shift), atol=5e-3)


def test_distances_do_matter():
    query, key = np.random.default_rng(2).normal(size=(2, 1, 1, 1, 16)).astype("float32")
    scores = [(rotate(query, rotary_angles(np.array([d]), 16)) * key).sum() for d in range(6)]
    assert len(np.unique(np.round(scores, 2))) == 6


def test_norms_are_kept_and_position_zero_turns_nothing():
    x = np.random.default_rng(3).normal(size=(1, 4, 2, 8)).astype("float32")
    turned = rotate(x, rotary_angles(np.array([0, 1, 77, 4000]), 8))
    np.testing.assert_array_equal(turned[:, 0], x[:, 0])
    np.testing.assert_allclose(
        np.linalg.norm(turned, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5
    )


def test_a_pair_is_a_feature_and_the_one_half_a_head_later():
    # Mistral's own files pair neighbours instead; those weights need a permutation first.
    x = np.zeros((1, 1, 1, 8), "float32")
    x[..., 1] = 1
    turned = np.asarray(rotate(x, rotary_angles(np.array([1]), 8)))[0, 0, 0]
    assert set(np.flatnonzero(turned)) == {1, 5}
    np.testing.assert_allclose(turned[[1, 5]], [np.cos(0.1), np.sin(0.1)], rtol=1e-6)


def test_the_wavelengths_run_from_two_pi_to_almost_the_base():
    angles = rotary_angles(np.array([1]), 128, 10000)[0]
    np.testing.assert_allclose(angles[0], 1)
    np.testing.assert_allclose(angles[-1], 10000 ** (-126 / 128), rtol=1e-6)
    ratios = angles[1:] / angles[:-1]
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_is_rounded_only_at_the_end(dtype):
    # Position 32,767 is no bfloat16 number, and its angle would be off by radians.
    x = jnp.asarray(np.random.default_rng(4).normal(size=(1, 2, 50, 8)), dtype)
    positions = np.array([32767, 3])
    turned = rotate(x, rotary_angles(positions, 8))
    assert turned.dtype == dtype
    expected = by_complex_numbers(np.asarray(x, "float64"), positions)
    step = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(turned, "float64"), expected, atol=2 * step + 5e-3)
    # Where the angle is small, the exact result is only rounded; a few lie between two numbers.
    wrong = turned[:, 1] != jnp.asarray(expected[:, 1], dtype)
    assert wrong.mean() < 0.02


def test_positions_are_float32_even_if_given_in_less():
    angles = rotary_angles(jnp.array([511], "int16"), 4)
    np.testing.assert_allclose(angles[0, 0], 511)


def test_its_gradient_turns_back():
    # The derivative of a rotation is the rotation; its transpose undoes it.
    x, towards = np.random.default_rng(5).normal(size=(2, 1, 3, 1, 4)).astype("float32")
    angles = rotary_angles(np.array([1, 5, 9]), 4)
    gradient = jax.grad(lambda x: (rotate(x, angles) * towards).sum())(x)
    np.testing.assert_allclose(gradient, rotate(towards, -angles), atol=1e-6)


# Scalings for long texts, by the formulas in plain loops


def frequencies_by_a_loop(size, base, scaling, length):
    """The frequencies by the formulas of transformers, one pair after the other, in float64."""
    factor, original = scaling["factor"], scaling["original_max_position_embeddings"]
    if scaling["rope_type"] == "dynamic":
        growth = factor * max(length, original) / original - (factor - 1)
        base = base * growth ** (size / (size - 2))
    found = []
    for p in range(size // 2):
        frequency = 1 / base ** (2 * p / size)
        turns = original * frequency / (2 * math.pi)
        if scaling["rope_type"] == "llama3":
            low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
            if turns < low:
                frequency = frequency / factor
            elif turns <= high:
                smooth = (turns - low) / (high - low)
                frequency = (1 - smooth) * frequency / factor + smooth * frequency
        if scaling["rope_type"] == "yarn":
            ends = [
                size * math.log(original / (2 * math.pi * beta)) / (2 * math.log(base))
                for beta in (scaling["beta_fast"], scaling["beta_slow"])
            ]
            if scaling["truncate"]:
                ends = [math.floor(ends[0]), math.ceil(ends[1])]
            first, last = max(ends[0], 0), min(ends[1], size - 1)
            last = last + 0.001 if first == last else last
            ramp = min(max((p - first) / (last - first), 0), 1)
            frequency = frequency / factor * ramp + frequency * (1 - ramp)
        found.append(frequency)
    return np.array(found)


SCALINGS = st.fixed_dictionaries(
    {
        "factor": st.sampled_from([1.0, 2.0, 16.0, 40.0]),
        "original_max_position_embeddings": st.sampled_from([7, 64, 8192]),
    }
).flatmap(
    lambda both: st.sampled_from(
        [
            {**both, "rope_type": "dynamic"},
            {**both, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0},
            *(
                {**both, "rope_type": "yarn", "beta_fast": fast, "beta_slow": slow, "truncate": cut}
                for fast, slow in ((32.0, 1.0), (4.0, 4.0), (3.0, 0.5))
                for cut in (False, True)
            ),
        ]
    )
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    scaling=SCALINGS,
    size=st.sampled_from([4, 8, 64]),
    base=st.sampled_from([100.0, 10000.0, 1e6]),
    first=st.integers(0, 20000),
    more=st.integers(0, 20000),
)
def test_scaled_angles_equal_the_formulas_in_a_loop(scaling, size, base, first, more):
    positions = first + np.arange(3)
    length = first + 3 + more
    angles = rotary_angles(
        positions, size, base, scaling=RopeScaling(**scaling), text_lengths=np.array([length])
    )
    expected = positions[:, None] * frequencies_by_a_loop(size, base, scaling, length)
    # A power in float32 is exact to a few units in the last place, times its exponent.
    np.testing.assert_allclose(angles, expected, rtol=3e-6, atol=1e-12)


def test_the_length_of_dynamic_is_that_of_the_positions_unless_given():
    scaling = RopeScaling("dynamic", 2, 8)
    positions = np.arange(20)
    whole = rotary_angles(positions, 8, scaling=scaling)
    given = rotary_angles(positions, 8, scaling=scaling, text_lengths=np.array([20]))
    np.testing.assert_array_equal(whole, given)
    short = rotary_angles(positions[:8], 8, scaling=scaling)
    np.testing.assert_allclose(short, rotary_angles(positions[:8], 8), rtol=1e-6)
    assert (whole[8:, 1:] < rotary_angles(positions, 8)[8:, 1:]).all()
    one_by_one = rotary_angles(positions, 8, scaling=scaling, text_lengths=positions + 1)
    np.testing.assert_allclose(one_by_one[:8], short, rtol=1e-6)
    np.testing.assert_allclose(one_by_one[19], whole[19], rtol=1e-6)


def test_a_head_of_one_pair_can_be_dynamic():
    scaling = RopeScaling("dynamic", 2, 8)
    np.testing.assert_allclose(rotary_angles(np.arange(20), 2, scaling=scaling)[:, 0], range(20))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 0.1 * math.log(16) + 1),  # 1.2773
        ({"mscale": 1, "mscale_all_dim": 1}, 1),
        (
            {"mscale": 2, "mscale_all_dim": 0.5},
            (0.2 * math.log(16) + 1) / (0.05 * math.log(16) + 1),
        ),
        ({"mscale": 2}, 0.1 * math.log(16) + 1),  # as transformers: one alone says nothing
        ({"mscale_all_dim": 2}, 0.1 * math.log(16) + 1),
        ({"mscale": 2, "mscale_all_dim": 0}, 0.1 * math.log(16) + 1),
        ({"attention_factor": 1.1, "mscale": 2, "mscale_all_dim": 1}, 1.1),
    ],
)
def test_the_attention_factor_of_yarn(settings, expected):
    scaling = RopeScaling("yarn", 16, 8192, **settings)
    assert attention_factor(scaling) == pytest.approx(expected, rel=1e-12)
    scale = query_scale(np.arange(3), scaling)
    if expected == 1:
        assert scale is None  # nothing to multiply with
    else:
        np.testing.assert_allclose(scale, expected**2, rtol=1e-6)


def test_only_yarn_has_an_attention_factor():
    assert attention_factor(RopeScaling("dynamic", 16, 8192)) == 1
    assert attention_factor(RopeScaling("yarn", 1, 8192)) == 1


def test_the_factor_of_a_query_rises_with_each_original_length():
    scaling = RopeScaling("yarn", 16, 100, attention_factor=1.5, llama_4_scaling_beta=0.1)
    positions = np.array([-5, 0, 99, 100, 199, 200, 10**6])
    passed = np.array([0, 0, 0, 1, 1, 2, 10**4])
    expected = 1.5**2 * (1 + 0.1 * np.log(1 + passed))
    np.testing.assert_allclose(query_scale(positions, scaling), expected, rtol=1e-6)
    assert query_scale(positions, None) is None


def test_texts_are_counted_from_their_first_real_token():
    mask = np.array([[0, 1, 0, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], bool)
    positions, lengths = text_positions(mask)
    np.testing.assert_array_equal(positions[0], [-1, 0, 1, 2, 3])
    np.testing.assert_array_equal(positions[1:], [range(5)] * 2)
    np.testing.assert_array_equal(lengths[:2, 0], [3, 5])
