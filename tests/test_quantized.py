"""Products with quantized kernels: equal to products with the float kernel, a tile at a time."""

from functools import partial

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from mistral_lib.layers import quantized
from mistral_lib.layers.quantized import (
    KernelLayout,
    QuantizedKernel,
    dequantize,
    elements,
    lookup,
    matmul,
    quantize,
)

LAYOUTS = {
    "int8": {},
    "int8, transposed": {"transposed": True},
    "int4, pairs of columns": {"pairs": "columns", "block_size": 4},
    "int4, pairs of rows": {"pairs": "rows", "block_size": 4},
    "int4, pairs of rows, transposed": {"pairs": "rows", "block_size": 4, "transposed": True},
}
# Odd sizes, where half a byte stays empty, and widths that tiles do not divide.
SHAPES = [(6, 10), (9, 7), (5, 300), (300, 5), (8, 1)]


def quantized_kernel(layout, shape, dtype="float32"):
    """A kernel of normally distributed numbers, and the float matrix that it stands for."""
    matrix = np.random.default_rng(0).normal(size=shape).astype(dtype)
    stored = KernelLayout(shape, **LAYOUTS[layout])
    arrays = quantize(matrix.T if stored.transposed else matrix, stored)
    kernel = QuantizedKernel(*jax.tree.map(jnp.asarray, arrays), stored)
    return kernel, by_hand(kernel)


def by_hand(kernel):
    """The matrix, element by element."""
    values, scale = np.asarray(kernel.values), np.asarray(kernel.scale, "float64")
    if kernel.layout.transposed:
        values, scale = values.T, scale.T
    if kernel.zero is None:
        return values / scale
    zero = np.asarray(kernel.zero).T if kernel.layout.transposed else np.asarray(kernel.zero)
    matrix = np.zeros(kernel.layout.shape)
    for row, column in np.ndindex(kernel.layout.shape):
        odd = (row if kernel.layout.pairs == "rows" else column) % 2
        place = (row // 2, column) if kernel.layout.pairs == "rows" else (row, column // 2)
        nibble = (int(values[place]) >> 4 if odd else int(values[place])) & 15
        group = row // kernel.layout.block_size
        signed = nibble - 16 if nibble > 7 else nibble
        matrix[row, column] = (signed - int(zero[group, column])) * scale[group, column]
    return matrix


@pytest.fixture(params=["one tile in two", "many tiles"])
def tiles(request, monkeypatch):
    if request.param == "many tiles":
        monkeypatch.setattr(quantized, "CPU_TILE_BYTES", 200)
        monkeypatch.setattr(quantized, "TILE_BYTES", 200)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_product_and_gradient(layout, shape, tiles):
    kernel, matrix = quantized_kernel(layout, shape)
    random = np.random.default_rng(1)
    x = random.normal(size=(2, 3, shape[0])).astype("float32")
    # A new function each time: the number of tiles is not among what JAX compiles for.
    output, gradient = jax.vjp(lambda x: jax.jit(partial(matmul))(x, kernel), x)
    np.testing.assert_allclose(output, x @ matrix, rtol=1e-5, atol=1e-4)
    upstream = random.normal(size=output.shape).astype("float32")
    np.testing.assert_allclose(gradient(upstream)[0], upstream @ matrix.T, rtol=1e-5, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_dequantize(layout):
    for shape in SHAPES:
        kernel, matrix = quantized_kernel(layout, shape)
        np.testing.assert_allclose(dequantize(kernel), matrix, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if "transposed" in layout])
def test_lookup(layout):
    kernel, matrix = quantized_kernel(layout, (9, 7))
    ids = np.array([[0, 6], [3, 3]])
    rows = lookup(kernel, ids, "float32")
    np.testing.assert_allclose(rows, matrix.T[ids], rtol=1e-6, atol=1e-6)
    assert lookup(kernel, ids, "bfloat16").dtype == "bfloat16"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_quantized_in_pieces_is_quantized_whole(layout, monkeypatch):
    whole, _ = quantized_kernel(layout, (9, 77))
    monkeypatch.setattr(quantized, "PIECE_SIZE", 100)
    pieces, _ = quantized_kernel(layout, (9, 77))
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(pieces), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_error_is_that_of_rounding(layout, monkeypatch):
    """Uniform between two steps, its root mean square is the step divided by the root of 12."""
    if "block_size" in LAYOUTS[layout]:
        monkeypatch.setitem(LAYOUTS, layout, {**LAYOUTS[layout], "block_size": 32})
    matrix = np.random.default_rng(0).normal(size=(64, 30)).astype("float32")
    kernel, back = quantized_kernel(layout, (64, 30))
    step = np.asarray(kernel.scale.T if kernel.layout.transposed else kernel.scale)
    step = 1 / step if kernel.zero is None else np.repeat(step, 32, axis=0)
    np.testing.assert_allclose(np.std((back - matrix) / step), 12**-0.5, rtol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_low_precision_rounds_only_inputs_and_weights(layout):
    kernel, matrix = quantized_kernel(layout, (64, 40), "bfloat16")
    x = jnp.asarray(np.random.default_rng(1).normal(size=(3, 64)), "bfloat16")
    output, gradient = jax.vjp(lambda x: matmul(x, kernel), x)
    assert output.dtype == "float32"
    exact = np.asarray(x, "float64") @ matrix
    assert np.abs(output - exact).max() < 2e-3 * np.abs(exact).max()
    assert gradient(jnp.ones_like(output))[0].dtype == "bfloat16"


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("gradient", [False, True])
def test_a_loop_makes_one_tile_float(layout, gradient, monkeypatch):
    """Where XLA could do all dequantization before the loop, as it does without tiles."""
    monkeypatch.setattr(quantized, "CPU_TILE_BYTES", 2**16)
    monkeypatch.setattr(quantized, "TILE_BYTES", 2**16)
    size, number = 512, 4
    kernel, _ = quantized_kernel(layout, (size, size))
    kernels = [jax.tree.map(jnp.copy, kernel) for _ in range(number)]

    def workspace(multiply):
        def step(kernels, x):
            for kernel in kernels:
                x = multiply(x, kernel)
            return x

        def loop(kernels, x):
            return jax.lax.fori_loop(0, 3, lambda _, x: step(kernels, x), x)

        compiled = jax.jit(loop).lower(kernels, jnp.ones((1, size))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    def tiled(x, kernel):
        if not gradient:
            return matmul(x, kernel)
        return jax.vjp(lambda x: matmul(x, kernel), x)[1](x)[0]

    in_float = 4 * size * size
    assert workspace(lambda x, kernel: x @ dequantize(kernel)) > number * in_float
    assert workspace(tiled) < 2 * 2**16 + 100 * size


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_result_gets_its_memory_in_its_turn(layout):
    """One after the other they fit in the memory of two; zeros for all would come first."""
    size, rows = 512, 64
    kernel, _ = quantized_kernel(layout, (size, size))

    def workspace(number):
        def chain(kernels, x):
            for kernel in kernels:
                x = jnp.tanh(matmul(x, kernel))
            return x

        compiled = jax.jit(chain).lower([kernel] * number, jnp.ones((rows, size))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert workspace(10) < workspace(4) + 4 * rows * size


def test_arithmetic_is_keras_own():
    matrix = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    values, scale, zero = quantize(matrix, KernelLayout((8, 6)))
    expected = keras.quantizers.abs_max_quantize(matrix, axis=0)
    np.testing.assert_array_equal(values, expected[0])
    np.testing.assert_array_equal(scale, np.asarray(expected[1])[0])
    assert zero is None


@pytest.mark.parametrize("block_size", [None, 8], ids=["int8", "int4"])
def test_single_elements_are_those_of_the_whole_and_within_half_a_step(block_size):
    layout = KernelLayout((24, 6), block_size, "columns" if block_size else None)
    matrix = np.random.default_rng(0).normal(size=layout.shape).astype("float32")
    arrays = (None if array is None else jnp.asarray(array) for array in quantize(matrix, layout))
    kernel = QuantizedKernel(*arrays, layout)
    rows, columns = (index.ravel() for index in np.indices(layout.shape))
    values, steps = elements(kernel, rows, columns)
    np.testing.assert_allclose(values, dequantize(kernel)[rows, columns], rtol=1e-6)
    assert (np.abs(values - matrix[rows, columns]) <= 0.501 * steps).all()
    assert np.isfinite(steps).mean() > 0.5
