"""Answers to the exercises of chapter 14, "LoRA"."""

import jax
import jax.numpy as jnp
import numpy as np

BORDERS = 2 * 8192 + 2 * 5120 + 3 * 18_432


def gradient_by_jax(x, a, b, upstream, scale):
    return jax.grad(lambda a: (scale * (x @ a @ b) * upstream).sum())(jnp.asarray(a))


def gradient_by_tokens(x, a, b, upstream, scale):
    return sum(scale * np.outer(token, b @ back) for token, back in zip(x, upstream))


def gradient_of_the_kernel_first(x, a, b, upstream, scale):
    of_kernel = scale * x.T @ upstream
    return of_kernel @ b.T


def mask_by_loop(weights, question_tokens):
    return [bool(w) and place + 1 >= question_tokens for place, w in enumerate(weights)]


def mask_in_place(weights, question_tokens):
    weights[: question_tokens - 1] = False
    return weights


def mask_of_numbers(weights, question_tokens):
    mask = weights.astype("float32")
    mask[: max(question_tokens - 1, 0)] = 0.0
    return mask


ANSWERS = {
    "lora.by_hand": (
        [
            [16, 8],
            [12, -4],
            [10, 10],
            [14, 6],
            [22, 14],
            [-2, 14],
            (6, 22),
            22,
            [13, 9],
            "22 and 6",
        ],
        [
            [22, 6],
            (22.0000001, 6),
            np.array([22, 6]),
            "22, 6",
            (22, np.float32(6)),
            jnp.array([22, 6]),
        ],
    ),
    "lora.parameters": (
        [
            29.4,
            29,
            16 * 32 * (8192 + 5120) / 1e6,
            16 * BORDERS / 1e6,
            32 * BORDERS / 1e6,
            41_943_040,
            0.042,
            16 * 32 * 3 * 18_432 / 1e6,
            84,
            "42 billion",
        ],
        [42, 41.9, "42 million", 16 * 32 * BORDERS / 1e6, 41.943, "41,943,040 numbers"],
    ),
    "lora.memory": (
        [0.7, 0.67, 14.48, 116, 29.6, 130, 0.67e9, 7.24, 15_150, 15.15e9, "fifteen", 14.5e9 + 0.7],
        [15.2, 15.15, "15.2 GB", (2 * 7.24e9 + 16 * 42e6) / 1e9, 15, np.float32(15.155)],
    ),
    "lora.gradient": (
        [
            lambda x, a, b, upstream, scale: scale * (x @ a).T @ upstream,
            lambda x, a, b, upstream, scale: x.T @ (upstream @ b.T),
            lambda x, a, b, upstream, scale: scale * x.T @ upstream,
            lambda x, a, b, upstream, scale: scale * x.T @ upstream @ a,
            lambda x, a, b, upstream, scale: scale * (x.T @ (upstream @ b.T)).T,
            lambda x, a, b, upstream, scale: scale**2 * x.T @ (upstream @ b.T),
            lambda x, a, b, upstream, scale: scale * x.T @ (upstream @ b.T) / len(x),
            lambda x, a, b, upstream, scale: scale * upstream @ b.T,
            lambda x, a, b, upstream, scale: scale * x @ a @ b,
            lambda x, a, b, upstream, scale: a - scale * x.T @ (upstream @ b.T),
            lambda x, b, upstream, scale: scale * x.T @ (upstream @ b.T),
        ],
        [
            gradient_by_jax,
            gradient_by_tokens,
            gradient_of_the_kernel_first,
            lambda x, a, b, upstream, scale: scale * np.einsum("sd,sf,rf->dr", x, upstream, b),
        ],
    ),
    "lora.flops": (
        [0.0977, 0.1, 4 * 8192 / 4096**2, 0.4, 100, 2 * 4 * 8192, 25, 0.39, "a fifth", -0.2],
        [0.195, 0.2, "0.195 %", 100 * 4 * (4096 + 4096) / 4096**2, 0.19, np.float64(0.1953)],
    ),
    "lora.library": (
        [1, 2, 3, 5, 6, 7, "line 3", 0, "autocast", 4.5],
        [4, "4", "line 4", np.int64(4)],
    ),
    "lora.mask": (
        [
            lambda weights, n: weights & (np.arange(len(weights)) >= n),
            lambda weights, n: weights & (np.arange(len(weights)) >= n - 2),
            lambda weights, n: weights & (np.arange(len(weights)) < n - 1),
            lambda weights, n: np.arange(len(weights)) >= n - 1,
            lambda weights, n: weights,
            lambda weights, n: weights[n - 1 :],
            lambda weights, n: ~weights,
            lambda weights, n: np.where(np.arange(len(weights)) >= n - 1, weights, -1),
            lambda weights, n: np.arange(len(weights)) == n - 1,
            lambda weights, n: weights | (np.arange(len(weights)) >= n - 1),
            lambda weights: weights,
        ],
        [
            mask_by_loop,
            mask_in_place,
            mask_of_numbers,
            lambda weights, n: weights * (jnp.arange(len(weights)) > n - 2),
        ],
    ),
    "lora.bug": (
        [
            lambda kernel, a, b, alpha: kernel + alpha * (a @ b),
            lambda kernel, a, b, alpha: kernel + a @ b,
            lambda kernel, a, b, alpha: kernel + alpha / len(a) * (a @ b),
            lambda kernel, a, b, alpha: alpha / a.shape[1] * (kernel + a @ b),
            lambda kernel, a, b, alpha: kernel + a.shape[1] / alpha * (a @ b),
            lambda kernel, a, b, alpha: kernel + alpha / a.shape[1] * (b @ a),
            lambda kernel, a, b, alpha: kernel + alpha * a.shape[1] * (a @ b),
            lambda kernel, a, b, alpha: kernel + alpha / a.shape[1] ** 0.5 * (a @ b),
            lambda kernel, a, b, alpha: alpha / a.shape[1] * (a @ b),
            lambda kernel, a, b, alpha: kernel + alpha // a.shape[1] * (a @ b),
            lambda kernel, a, b: kernel + a @ b,
        ],
        [
            lambda kernel, a, b, alpha: kernel + alpha / a.shape[-1] * (a @ b),
            lambda kernel, a, b, alpha: kernel + a @ (b * alpha) / len(b),
            lambda kernel, a, b, alpha: kernel + np.einsum("dr,rf->df", a, b) * alpha / b.shape[0],
            lambda kernel, a, b, alpha: jnp.asarray(kernel) + (alpha / a.shape[1]) * jnp.dot(a, b),
        ],
    ),
}
