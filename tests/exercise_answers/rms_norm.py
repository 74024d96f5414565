"""Answers to the exercises of chapter 9, "RMSNorm"."""

import jax
import jax.numpy as jnp
import numpy as np


def row_by_row(x, scale):
    rows = []
    for vector in x:
        size = (sum(number**2 for number in vector) / len(vector) + 1e-6) ** 0.5
        rows.append([number / size * s for number, s in zip(vector, scale)])
    return rows


def in_place(x, scale):
    x /= np.sqrt(np.mean(np.square(x), axis=1, keepdims=True) + 1e-6)
    x *= scale
    return x


def by_jax(x, scale):
    x = jnp.asarray(x)
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6) * scale


def layer_norm(x, scale):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6) * scale


def epsilon_outside(x, scale):
    return x / (np.sqrt((x**2).mean(axis=-1, keepdims=True)) + 1e-6) * scale


def axis_of_tokens(x, scale):
    return x / np.sqrt((x**2).mean(axis=0, keepdims=True) + 1e-6) * scale


def mean_of_all(x, scale):
    return x / np.sqrt((x**2).mean() + 1e-6) * scale


def without_epsilon(x, scale):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True)) * scale


def mean_then_square(x, scale):
    return x / np.sqrt(x.mean(axis=-1, keepdims=True) ** 2 + 1e-6) * scale


def gradient_by_jax(x, scale, upstream):
    _, back = jax.vjp(lambda x: by_jax(x, scale), jnp.asarray(x))
    return back(jnp.asarray(upstream, jnp.float32))[0]


def gradient_by_matrix(x, scale, upstream):
    rows = []
    for v, u in zip(x, upstream):
        r2 = np.mean(v**2) + 1e-6
        jacobian = np.eye(len(v)) / r2**0.5 - np.outer(v, v) / len(v) / r2**1.5
        rows.append(jacobian.T @ (u * scale))
    return rows


def gradient_in_one_line(x, scale, upstream):
    r = np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-6)
    w = scale * upstream
    return w / r - x * (w * x).sum(axis=1, keepdims=True) / x.shape[1] / r**3


def gradient(x, scale, upstream, mean=np.mean, sign=-1, last=1, use_scale=True):
    r = np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)
    n, w = x / r, upstream * scale if use_scale else upstream
    return (w + sign * n * mean(w * n, axis=-1, keepdims=True)) / r**last


ANSWERS = {
    "rms_norm.by_hand": (
        [
            [0.1, 0.7, 0.5, 0.5],
            [1 / 4.5, 7 / 4.5, 5 / 4.5, 5 / 4.5],
            [0.04, 0.28, 0.2, 0.2],
            [-1.6, 1.15, 0.23, 0.23],
            [1 / 18, 7 / 18, 5 / 18, 5 / 18],
            [1, 49, 25, 25],
            [0.2, 1.4, 1.0],
            5,
            [0.2, 1.4, 1.0, 0.5],
            "a fifth of it",
        ],
        [
            [0.2, 1.4, 1, 1],
            np.array([1, 7, 5, 5]) / 5,
            (1 / 5, 7 / 5, 1, 1),
            ["1/5", "7/5", 1, 1],
            jnp.array([0.2, 1.4, 1.0, 1.0]),
            "0.2 1.4 1 1",
        ],
    ),
    "rms_norm.write": (
        [
            layer_norm,
            epsilon_outside,
            axis_of_tokens,
            mean_of_all,
            without_epsilon,
            mean_then_square,
            lambda x, scale: x / np.linalg.norm(x),
            lambda x, scale: x / np.linalg.norm(x, axis=-1, keepdims=True) * scale,
            lambda x, scale: x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6),
            lambda x, scale: x / ((x**2).mean(axis=-1, keepdims=True) + 1e-6) * scale,
            lambda x, scale: x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-3) * scale,
            lambda x, scale: x / np.sqrt((x**2).mean(axis=-1) + 1e-6) * scale,
            lambda x, scale: x * scale,
            lambda x: x,
        ],
        [
            row_by_row,
            in_place,
            by_jax,
            lambda x, scale: x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * scale,
            lambda x, scale: (x.T / np.sqrt((x**2).mean(axis=1) + 1e-6)).T * scale,
        ],
    ),
    "rms_norm.fold": (
        [
            lambda scale, kernel: kernel * scale,
            lambda scale, kernel: kernel / scale[:, None],
            lambda scale, kernel: scale @ kernel,
            lambda scale, kernel: kernel @ np.diag(scale),
            lambda scale, kernel: kernel * scale[:, None] ** 2,
            lambda scale, kernel: kernel.T * scale,
            lambda scale, kernel: kernel,
            lambda scale, kernel: kernel + scale[:, None],
            lambda scale, kernel: (kernel.T @ np.diag(scale)).T[0],
            lambda kernel: kernel,
        ],
        [
            lambda scale, kernel: np.diag(scale) @ kernel,
            lambda scale, kernel: np.einsum("d,df->df", scale, kernel),
            lambda scale, kernel: (kernel.T * scale).T,
            lambda scale, kernel: [s * row for s, row in zip(scale, kernel)],
            lambda scale, kernel: jnp.asarray(kernel) * scale.reshape(-1, 1),
        ],
    ),
    "rms_norm.gains": (
        [
            ((1.73, 0.02), "a"),
            ((1.73, 0.02), "c"),
            ((3.09, 1.38), "b"),
            ((0.02, 1.73), "b"),
            ((1.94, 0.02), "b"),
            ((1.73, 1.73), "a"),
            ((1.73, 0.0), "b"),
            ((1.73, 0.02), "d"),
            ((1.73,), "b"),
            (1.73, 0.02),
            "b",
            "the scales matter",
        ],
        [
            ((1.73, 0.02), "b"),
            ([1.7285, 0.0214], "B"),
            (np.array([1.7285, 0.0214]), "(b)"),
            (("1.73", "0.02"), "b"),
            [[1.73, 0.021], "b"],
        ],
    ),
    "rms_norm.stations": (
        [
            ((0.03, 0.69, 0.0), "a"),
            ((0.03, 0.69, 0.0), "c"),
            ((1.39, 2.06, 1.36), "b"),
            ((0.0, 0.69, 0.03), "b"),
            ((0.0, 0.0, 0.0), "a"),
            ((0.69, 0.59, 0.14), "b"),
            ((0.03, 0.69), "b"),
            ((0.03, 0.6, 0.0), "b"),
            ("b", (0.03, 0.69, 0.0)),
            0.69,
            "b",
        ],
        [
            ((0.03, 0.69, 0.0), "b"),
            ([0.0266, 0.6926, 1e-7], "b"),
            (np.array([0.0266, 0.6926, -1e-7]), "B)"),
            [(0.027, 0.693, 0), "b"],
        ],
    ),
    "rms_norm.break_it": (
        [
            ([[3.0, 4.0]],),
            [[3, 4]],
            [[1.0, 2.0], [2.0, -1.0]],
            np.ones((3, 4)),
            np.zeros((2, 2)),
            [1, 2, 3],
            [[1, 2], [np.nan, 1]],
            [[[1, 1], [3, 3]], [[1, 1], [3, 3]]],
            5,
            "loud tokens",
            [],
            [[1, 1], [3]],
        ],
        [
            ([[1.0, 1.0], [3.0, 3.0]],),
            [[1, 1], [3, 3]],
            ([[0.0], [5.0]],),
            np.eye(2) * [1, 9],
            (jnp.array([[1.0, 2.0], [30.0, 40.0]]),),
            [[[1, 1], [3, 3]]],
        ],
    ),
    "rms_norm.gradient": (
        [
            lambda x, scale, upstream: (
                upstream * scale / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)
            ),
            lambda x, scale, upstream: gradient(x, scale, upstream, mean=np.sum),
            lambda x, scale, upstream: gradient(x, scale, upstream, sign=1),
            lambda x, scale, upstream: gradient(x, scale, upstream, last=0),
            lambda x, scale, upstream: gradient(x, scale, upstream, last=2),
            lambda x, scale, upstream: gradient(x, scale, upstream, use_scale=False),
            lambda x, scale, upstream: gradient(x, scale, upstream, last=-1),
            lambda x, scale, upstream: upstream * scale,
            lambda x, scale, upstream: by_jax(upstream, scale),
            lambda x, scale, upstream: gradient(x, scale, upstream).sum(),
            lambda x, scale: x,
        ],
        [gradient, gradient_by_jax, gradient_by_matrix, gradient_in_one_line],
    ),
}
