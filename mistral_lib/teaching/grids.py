"""Weights on the lines of a grid, in the ways of several formats (used by chapter 18).

Each function takes a matrix (D, N) and returns it with every weight on a line of its grid, in
float: what a model computes with after its weights were stored in that format. `size` rows of a
column share a grid. A whole kernel shares one when it is made one long column, `w.reshape(-1, 1)`.
`applied` rounds the matrices of a model, and `reader` says what texts cost then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import jax
import numpy as np

from mistral_lib import MistralCausalLM
from mistral_lib.arrays import Array, Float
from mistral_lib.generation.compiled import CompiledFunction
from mistral_lib.teaching.interventions import activations, stream, unembed
from mistral_lib.teaching.measures import bits
from mistral_lib.teaching.panel import Rows

Matrix = Float[np.ndarray, "D N"]
TABLE = "token_embedding/embeddings"  # it is read by rows, so its rows are what shares a grid


def in_groups(matrix: Matrix, size: int) -> Float[np.ndarray, "groups size N"]:
    """The rows in groups that share a grid; the last group is filled up with zeros.

    >>> in_groups(np.arange(3.0).reshape(3, 1), 2)[..., 0].tolist()
    [[0.0, 1.0], [2.0, 0.0]]
    """
    padded = np.pad(matrix, ((0, -len(matrix) % size), (0, 0)))
    return padded.reshape(-1, size, matrix.shape[1])


def joined(groups: Float[np.ndarray, "groups size N"], rows: int) -> Matrix:
    """A matrix of so many rows out of groups of rows, as `in_groups` makes them."""
    return groups.reshape(-1, groups.shape[2])[:rows].astype("float32")


def between(matrix: Matrix, size: int) -> Matrix:
    """Four bits as Keras stores them: 16 lines from the smallest weight to the largest.

    >>> print(between(np.array([[-0.3], [0.52], [1.2]]), 3).ravel().round(2))
    [-0.3  0.5  1.2]
    """
    groups = in_groups(matrix, size)
    low, high = groups.min(axis=1, keepdims=True), groups.max(axis=1, keepdims=True)
    step = (high - low + np.float32(1e-7)) / 15
    zero = np.clip(np.round(-low / step) - 8, -8, 7)
    numbers = np.clip(np.round(groups / step) + zero, -8, 7)
    return joined((numbers - zero) * step, len(matrix))


def q4_0(matrix: Matrix, size: int = 32) -> Matrix:
    """llama.cpp's Q4_0: the largest weight, by size, is line -8 of 16 lines from -8 to 7.

    >>> print(q4_0(np.array([[0.8], [-0.31], [-0.8]]), 3).ravel().round(2))
    [ 0.8 -0.3 -0.7]
    """
    groups = in_groups(matrix, size)
    place = abs(groups).argmax(axis=1)[:, None]
    step = np.take_along_axis(groups, place, 1) / -8
    step = np.where(step == 0, 1, step)
    return joined((np.minimum(15, np.floor(groups / step + 8.5)) - 8) * step, len(matrix))


def normal_lines() -> Float[np.ndarray, " 16"]:
    """The 16 lines of NF4, from -1 to 1: quantiles of the normal distribution, and zero.

    Source: `create_normal_map` of bitsandbytes.

    >>> print(normal_lines()[[0, 1, 7, 8, 15]].round(3))
    [-1.    -0.696  0.     0.08   1.   ]
    """
    quantile, far = NormalDist().inv_cdf, 0.9677083
    below = [-quantile(share) for share in np.linspace(far, 0.5, 8)[:-1]]
    above = [quantile(share) for share in np.linspace(far, 0.5, 9)[:-1]]
    lines = np.sort([*below, 0.0, *above])
    return lines / lines[-1]


def normal_float(matrix: Matrix, size: int = 64) -> Matrix:
    """NF4: 16 lines that lie closest where normally distributed weights are.

    >>> print(normal_float(np.array([[1.0], [0.1], [-0.2]]), 3).ravel().round(2))
    [ 1.    0.08 -0.18]
    """
    groups, lines = in_groups(matrix, size), normal_lines()
    largest = _positive(abs(groups).max(axis=1, keepdims=True))
    middles = (lines[1:] + lines[:-1]) / 2
    return joined(lines[np.searchsorted(middles, groups / largest)] * largest, len(matrix))


def gptq(
    matrix: Matrix,
    inputs: Float[np.ndarray, "tokens D"],
    bits: int = 4,
    watch: Callable[[Matrix], object] | None = None,
    dampening: float = 0.01,
) -> Matrix:
    """GPTQ with a grid for each column: each row is rounded, and the later ones make up for it.

    Args:
        matrix: the weights.
        inputs: what the matrix is multiplied with in typical texts.
        bits: of a stored weight; the grid of a column has zero in its middle.
        watch: is given the matrix after each row; the rows before are rounded by then, and the rows
            after it are changed.
        dampening: what is added to the diagonal, as a part of its mean.

    Source: Frantar et al., "GPTQ", 2023.

    Rounded alone, 0.4 and 0.35 would both become 0.6, and the sum would be too large:

    >>> print(gptq(np.array([[0.6], [0.4], [0.35]]), np.ones((1, 3)), bits=2).ravel())
    [0.6 0.6 0. ]
    """
    inputs, changed = np.asarray(inputs, "float64"), np.array(matrix, "float64")
    squares = inputs.T @ inputs
    squares += dampening * np.diag(squares).mean() * np.eye(len(matrix))
    upper = np.linalg.cholesky(np.linalg.inv(squares)).T
    top = 2 ** (bits - 1) - 1
    step = _positive(abs(changed).max(axis=0) / top)
    for row in range(len(matrix)):
        rounded = np.clip(np.round(changed[row] / step), -top, top) * step
        off = (changed[row] - rounded) / upper[row, row]
        changed[row] = rounded
        changed[row + 1 :] -= np.outer(upper[row, row + 1 :], off)
        if watch is not None:
            watch(changed)
    return changed.astype("float32")


def inputs_of(model: MistralCausalLM, rows: Rows) -> dict[str, Float[np.ndarray, "B S D"]]:
    """What each projection of each block is multiplied with, by the path of its kernel.

    >>> from mistral_lib.teaching import panel
    >>> model = MistralCausalLM.from_preset("mistral_tiny_en")
    >>> rows = panel.own(model.preprocessor.tokenizer, ["One text."])
    >>> inputs_of(model, rows)["transformer_layer_5/feedforward/down/kernel"].shape[2]
    512
    """
    found: dict[str, Any] = {}
    seen = activations(model, rows, "stream", "heads", "attention")
    for layer, block in enumerate(model.backbone.transformer_layers):
        x = seen["stream"][layer]
        attention, network = block.self_attention, block.feedforward
        normed = block.self_attention_layernorm(x)
        middle = block.feedforward_layernorm(x + seen["attention"][layer])
        heads = seen["heads"][layer].reshape(*x.shape[:2], -1)
        hidden = jax.nn.silu(network.gate(middle)) * network.up(middle)
        for projection, given in (
            (attention.query, normed),
            (attention.key, normed),
            (attention.value, normed),
            (attention.attention_output, heads),
            (network.gate, middle),
            (network.up, middle),
            (network.down, hidden),
        ):
            found[projection.kernel.path] = np.asarray(given)
    return found


def applied(
    model: MistralCausalLM, stored: Callable[[Matrix], Matrix], only: str = ""
) -> list[np.ndarray]:
    """The weights of a model with its matrices rounded, in the order of `model.weights`.

    Args:
        model: a float model. It is not changed.
        stored: makes of a matrix (D, N), whose rows are summed over, what is read back. The
            embedding is handed over transposed, because a token reads a row of it.
        only: a part of the paths of those matrices that are rounded, such as "up"; all by default.

    >>> model = MistralCausalLM.from_preset("mistral_tiny_en")
    >>> weights = applied(model, lambda w: between(w, 32), "layer_0/feedforward/up")
    >>> sum(not np.array_equal(a, b) for a, b in zip(weights, model.get_weights()))
    1
    """
    found = []
    for variable in model.weights:
        matrix = np.asarray(variable.value)
        if matrix.ndim == 2 and only in variable.path:
            turned = variable.path == TABLE
            rounded = stored(matrix.T if turned else matrix)
            matrix = rounded.T if turned else rounded
        found.append(matrix)
    return found


def reader(
    model: MistralCausalLM, rows: Rows
) -> Callable[[Sequence[np.ndarray]], Float[np.ndarray, " B"]]:
    """A function of weights that says what each text costs with them, in bits, compiled once.

    Args:
        model: it has its own weights again after each call.
        rows: the texts.

    >>> from mistral_lib.teaching import panel
    >>> model = MistralCausalLM.from_preset("mistral_tiny_en")
    >>> documents = panel.documents(model.preprocessor.tokenizer).half("discover")
    >>> bits_of = reader(model, documents)
    >>> bits_of(model.get_weights()).shape
    (26,)
    """

    def run(rows: Any) -> Array:
        return bits(unembed(model, stream(model, rows, lambda site, layer, x: x)), rows)

    compiled = CompiledFunction(run, model.backbone, donate=False)

    def bits_of(weights):
        before = model.get_weights()
        model.set_weights(weights)
        found = np.asarray(compiled(rows))
        model.set_weights(before)
        return found

    return bits_of


def _positive(step):
    """Steps for groups of zeros alone, too."""
    return np.where(step > 0, step, 1).astype(step.dtype)
