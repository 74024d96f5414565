"""Quantized kernels, multiplied a tile at a time (chapter 18, "Quantization").

A product needs its kernel in float. Written as `x @ dequantize(kernel)`, that costs more than it
saves: inside a decoding loop XLA sees that the float kernel is the same in every step, computes it
once before the loop, and keeps it: all kernels together, at the size of the float model. So the
product is a loop of its own, over tiles of columns. A tile is cut out, made float, multiplied, and
overwritten by the next. XLA cannot move what depends on the loop's counter, on any device, and a
tile that fits in a processor's cache never goes through memory as floats.
"""

import dataclasses

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.typing import DTypeLike

from mistral_lib.arrays import Array, Float, Float32, Int
from mistral_lib.checks import check_keras_for

# A tile's size in float. On CPUs it has to stay in the cache; on GPUs fewer, larger kernels win.
CPU_TILE_BYTES = 4 * 2**20
TILE_BYTES = 64 * 2**20
PIECE_SIZE = 2**17  # numbers that are quantized at once


@dataclasses.dataclass(frozen=True)
class KernelLayout:
    """How a quantized matrix (D, N) is stored.

    In int8, an element is `value / scale`, with one scale a column. In int4 it is
    `(value - zero) * scale`, with a scale and a zero for every `block_size` rows of a column, and
    two neighbours share a byte, the first in its low half.

    Attributes:
        shape: (D, N).
        block_size: rows that share a scale, an even number; `None` in int8.
        pairs: whether neighbouring "rows" or "columns" share a byte; `None` in int8.
        transposed: whether the arrays are stored the other way round, (N, D) and (N, G).
    """

    shape: tuple[int, int]
    block_size: int | None = None
    pairs: str | None = None
    transposed: bool = False

    @property
    def axis(self) -> int:
        """The axis of the stored arrays along which the columns lie."""
        return 0 if self.transposed else 1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuantizedKernel:
    """A matrix (D, N) in int8 or int4, in the arrays in which Keras stores it.

    Attributes:
        values: int8, (D, N); in int4 half as many rows or columns, rounded up.
        scale: float, (N,); in int4 (G, N), G = D / block_size rounded up.
        zero: int8 (G, N); `None` in int8.
        layout: how the arrays are to be read.
    """

    values: jax.Array
    scale: jax.Array
    zero: jax.Array | None
    layout: KernelLayout = dataclasses.field(metadata={"static": True})


@jax.custom_vjp
def matmul(x: Float[Array, "*rows D"], kernel: QuantizedKernel) -> Float32[Array, "*rows N"]:
    """`x @ kernel`, summed in float32, with no more of the kernel in float than one tile.

    The gradient flows to `x`; the kernel has none.

    Args:
        x: float array (..., D).
        kernel: (D, N).

    Returns:
        A float32 array (..., N).

    >>> kernel = QuantizedKernel(
    ...     jnp.full((4, 6), 127, "int8"), jnp.full(6, 127.0), None, KernelLayout((4, 6))
    ... )
    >>> print(matmul(jnp.ones((1, 4)), kernel))
    [[4. 4. 4. 4. 4. 4.]]
    """
    kernel = _with_pairs(kernel)
    columns = kernel.values.shape[kernel.layout.axis]
    size, count = _tiling(kernel, columns)
    rows = _halves(x) if kernel.layout.pairs == "rows" else (x, x)

    def multiply(index, output):
        start = jnp.minimum(index * size, columns - size)
        matrices = _matrices(kernel, start, size, _dtype(x))
        products = [
            jnp.matmul(part.astype(matrix.dtype), matrix, preferred_element_type="float32")
            for part, matrix in zip(rows, matrices)
        ]
        tile = jnp.stack(products, -1) if kernel.layout.pairs == "columns" else sum(products)
        if kernel.zero is None:
            tile = tile / jax.lax.dynamic_slice_in_dim(kernel.scale, start, size)
        return jax.lax.dynamic_update_slice_in_dim(output, tile, start, axis=x.ndim - 1)

    shape = (*x.shape[:-1], columns, *((2,) if kernel.layout.pairs == "columns" else ()))
    # Every place is overwritten. Zeros would depend on nothing, and XLA would make those of all
    # products of a model before the first one begins.
    empty = jnp.full(shape, jnp.ravel(x)[0].astype("float32"))
    output = jax.lax.fori_loop(0, count, multiply, empty)
    return output.reshape(*x.shape[:-1], -1)[..., : kernel.layout.shape[1]]


def _forward(x, kernel):
    return matmul(x, kernel), (kernel, jnp.zeros(0, x.dtype))


def _backward(residuals, gradient):
    """The gradient times the transposed kernel, tile by tile again."""
    kernel, like = residuals
    kernel = _with_pairs(kernel)
    columns = kernel.values.shape[kernel.layout.axis]
    size, count = _tiling(kernel, columns)
    leading = gradient.shape[:-1]
    if kernel.zero is None:
        gradient = gradient / kernel.scale
    if kernel.layout.pairs == "columns":
        gradient = jnp.stack(_halves(gradient), -1)  # (..., columns, 2)

    def multiply(index, total):
        start = jnp.minimum(index * size, columns - size)
        tile = jax.lax.dynamic_slice_in_dim(gradient, start, size, axis=len(leading))
        # The last tile may begin inside the one before it, which has counted those columns.
        new = start + jnp.arange(size) >= index * size
        matrices = _matrices(kernel, start, size, _dtype(like))
        parts = (tile[..., 0], tile[..., 1]) if kernel.layout.pairs == "columns" else (tile, tile)
        products = [
            jnp.matmul(
                jnp.where(new, part, 0).astype(matrix.dtype),
                matrix.T,
                preferred_element_type="float32",
            )
            for part, matrix in zip(parts, matrices)
        ]
        return total + (jnp.stack(products, -1) if kernel.layout.pairs == "rows" else sum(products))

    depth = kernel.layout.shape[0]
    shape = (*leading, *((-(-depth // 2), 2) if kernel.layout.pairs == "rows" else (depth,)))
    total = jax.lax.fori_loop(0, count, multiply, jnp.zeros(shape, "float32"))
    return total.reshape(*leading, -1)[..., :depth].astype(like.dtype), None


matmul.defvjp(_forward, _backward)


def dequantize(kernel: QuantizedKernel, dtype: DTypeLike = "float32") -> Float[Array, "D N"]:
    """The whole matrix in float, (D, N).

    >>> kernel = QuantizedKernel(
    ...     jnp.full((1, 2), 64, "int8"), jnp.full(2, 128.0), None, KernelLayout((1, 2))
    ... )
    >>> print(dequantize(kernel))
    [[0.5 0.5]]
    """
    depth, width = kernel.layout.shape
    kernel = _with_pairs(kernel)
    matrices = _matrices(kernel, 0, kernel.values.shape[kernel.layout.axis], dtype)
    if kernel.zero is None:
        return matrices[0] / kernel.scale.astype(dtype)
    axis = 1 if kernel.layout.pairs == "rows" else 2
    whole = jnp.stack(matrices, axis)
    whole = whole.reshape(-1, whole.shape[-1]) if axis == 1 else whole.reshape(len(whole), -1)
    return whole[:depth, :width]


def quantize(matrix: Float[np.ndarray, "D N"], layout: KernelLayout) -> tuple:
    """The arrays of a kernel, by Keras's arithmetic, a few columns at a time.

    Args:
        matrix: float array (D, N), or (N, D) if the layout is transposed.
        layout: how it is to be stored.

    Returns:
        Values, scale and zero, as the attributes of `QuantizedKernel`, in NumPy.
    """
    check_keras_for("int4" if layout.block_size else "int8")
    matrix = matrix.T if layout.transposed else matrix
    depth, width = layout.shape
    step = max(2, PIECE_SIZE // depth // 2 * 2)  # even: no byte holds columns of two pieces
    arrays = []
    for start in range(0, width, step):
        piece = _quantize_piece(matrix[:, start : start + step], layout)
        if not arrays:  # made once, so that no piece is held beside the whole
            halved = -(-width // 2) if layout.pairs == "columns" else width
            widths = [halved, width, width]
            arrays = [_empty(part, columns, layout) for part, columns in zip(piece, widths)]
        for index, (whole, part) in enumerate(zip(arrays, piece)):
            begin = start // 2 if layout.pairs == "columns" and index == 0 else start
            whole[:, begin : begin + part.shape[1]] = part
    arrays = [array.T if layout.transposed else array for array in arrays]
    return tuple(arrays) if layout.block_size else (arrays[0], arrays[1].reshape(-1), None)


def _quantize_piece(matrix, layout) -> list:
    if layout.block_size is None:
        piece = keras.quantizers.abs_max_quantize(matrix, axis=0, to_numpy=True)
    else:
        values, *others = keras.quantizers.abs_max_quantize_grouped_with_zero_point(
            matrix, layout.block_size, to_numpy=True
        )
        axis = 0 if layout.pairs == "rows" else 1
        piece = keras.quantizers.pack_int4(values, axis=axis)[0], *others
    return [np.asarray(part) for part in piece]


def _empty(part, columns, layout):
    """Room for all columns, of which `part` has some, in the order in which they are stored."""
    if layout.transposed:
        return np.empty((columns, len(part)), part.dtype).T
    return np.empty((len(part), columns), part.dtype)


def lookup(
    kernel: QuantizedKernel, indices: Int[Array, "*rows"], dtype: DTypeLike
) -> Float[Array, "*rows D"]:
    """Columns of a kernel that is stored transposed: the rows of a table.

    Args:
        kernel: (D, N), transposed.
        indices: integer array of any shape.
        dtype: of the result.

    Returns:
        A float array (..., D), for indices of shape (...). Nothing else of the table is made float.
    """
    flat = indices.reshape(-1)
    taken = dataclasses.replace(
        kernel,
        values=jnp.take(kernel.values, flat, axis=0),
        scale=jnp.take(kernel.scale, flat, axis=0),
        zero=None if kernel.zero is None else jnp.take(kernel.zero, flat, axis=0),
        layout=dataclasses.replace(kernel.layout, shape=(kernel.layout.shape[0], len(flat))),
    )
    return dequantize(taken, dtype).T.reshape(*indices.shape, kernel.layout.shape[0])


def elements(
    kernel: QuantizedKernel, rows: Int[np.ndarray, " n"], columns: Int[np.ndarray, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Single elements of a kernel, and the step of each: what lies between two neighbours.

    Rounding moved an element by half a step at most. In int4 one at an end of its range may have
    been cut off there, so that its step is infinite. Nothing else of the kernel is made float.

    Args:
        kernel: (D, N), not transposed; in int4 with pairs of columns.
        rows: where the elements are.
        columns: where the elements are.
    """
    if kernel.zero is None:
        steps = 1 / jnp.asarray(kernel.scale[columns], "float32")
        return kernel.values[rows, columns] * steps, steps
    byte, block = kernel.values[rows, columns // 2], rows // kernel.layout.block_size
    value = jnp.where(columns % 2 == 1, byte >> 4, ((byte & 15) ^ 8) - 8)
    steps = jnp.asarray(kernel.scale[block, columns], "float32")
    numbers = (value - jnp.asarray(kernel.zero[block, columns], "float32")) * steps
    return numbers, jnp.where((value == -8) | (value == 7), jnp.inf, steps)


def _matrices(kernel, start, size, dtype) -> list:
    """Stored columns `start` to `start + size` in float; in int4, the low and the high halves.

    In int8 the scale is left out: it is cheaper on the product.
    """

    def cut(array):
        piece = jax.lax.dynamic_slice_in_dim(array, start, size, axis=kernel.layout.axis)
        return piece.T if kernel.layout.transposed else piece

    values = cut(kernel.values)
    if kernel.zero is None:
        return [values.astype(dtype)]
    scale, zero = cut(kernel.scale).astype(dtype), cut(kernel.zero).astype(dtype)
    repeats = (
        kernel.layout.block_size // 2 if kernel.layout.pairs == "rows" else kernel.layout.block_size
    )
    matrices = []
    for half, part in enumerate((((values & 15) ^ 8) - 8, values >> 4)):
        of_half = (
            (lambda a, h=half: a[..., h]) if kernel.layout.pairs == "columns" else (lambda a: a)
        )
        by_row = [jnp.repeat(of_half(a), repeats, axis=0)[: len(values)] for a in (zero, scale)]
        matrices.append((part.astype(dtype) - by_row[0]) * by_row[1])
    return matrices


def _with_pairs(kernel):
    """Where columns share bytes, their scales and zeros side by side: (G, N / 2, 2)."""
    if kernel.layout.pairs != "columns":
        return kernel
    odd = kernel.layout.shape[1] % 2
    scale, zero = (
        jnp.pad(array, [(0, 0), (0, odd)]).reshape(len(array), -1, 2)
        for array in (kernel.scale, kernel.zero)
    )
    return dataclasses.replace(kernel, scale=scale, zero=zero)


def _halves(array):
    """The even and the odd elements of the last axis, with a zero behind an odd number of them."""
    if array.shape[-1] % 2:
        array = jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, 1)])
    return array[..., ::2], array[..., 1::2]


def _tiling(kernel, columns) -> tuple[int, int]:
    """Stored columns of a tile, and the number of tiles: two at least, or there is no loop."""
    limit = CPU_TILE_BYTES if jax.default_backend() == "cpu" else TILE_BYTES
    depth, width = kernel.layout.shape
    size = -(-columns // max(2, -(-4 * depth * width // limit)))
    if size > 128:
        size = -(-size // 128) * 128  # whole vector registers
    return size, -(-columns // size)


def _dtype(x):
    """The dtype of a product: on CPUs float32, in which XLA multiplies many times faster there."""
    return "float32" if jax.default_backend() == "cpu" else x.dtype
