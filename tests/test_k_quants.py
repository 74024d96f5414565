"""mistral_lib/presets/k_quants.py: the blocks that ggml makes of the same numbers."""

import gguf
import numpy as np
import pytest
from reference.make_gguf import FOLDER, matrix

from mistral_lib.presets.k_quants import BLOCKS_AT_ONCE, quantize_k

RESULTS = np.load(FOLDER / "results.npz")
KINDS = ["Q4_K", "Q6_K"]


def dequantize(rows, kind):
    return gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[kind])


def rms(array):
    return np.sqrt((array**2).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_of_ggml(kind):
    """Where two scales are equally good but for the last bit of a float32, another may be taken."""
    rows = quantize_k(matrix(), kind)
    assert rows.shape == RESULTS[f"bytes_{kind}"].shape
    assert (rows != RESULTS[f"bytes_{kind}"]).mean() < 0.01
    ours, theirs = (dequantize(r, kind) - matrix() for r in (rows, RESULTS[f"bytes_{kind}"]))
    for mine, yours in zip(ours, theirs):
        assert rms(mine) <= 1.001 * rms(yours)


@pytest.mark.parametrize(("kind", "error"), [("Q4_K", 0.075), ("Q6_K", 0.019)])
def test_error_is_that_of_the_bits(kind, error):
    array = np.random.default_rng(0).normal(0, 0.02, (16, 1024)).astype("float32")
    found = rms(dequantize(quantize_k(array, kind), kind) - array) / 0.02
    assert 0.9 * error < found < error


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0, 1, -3, 0.05, 1e4, -1e-20])
def test_constant_blocks(kind, value):
    array = np.full((2, 256), value, "float32")
    assert np.allclose(dequantize(quantize_k(array, kind), kind), array, rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_do_not_depend_on_one_another(kind):
    """Nor on how many there are: the last of those that are computed at once are filled up."""
    expected = quantize_k(matrix(), kind)
    many = np.tile(matrix(), (90, 1))
    assert many.size > 256 * BLOCKS_AT_ONCE
    assert (quantize_k(many, kind) == np.tile(expected, (90, 1))).all()
    assert (quantize_k(matrix()[3:4, 256:], kind) == expected[3:4, len(expected[0]) // 2 :]).all()
