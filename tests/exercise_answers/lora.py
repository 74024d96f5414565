"""Answers to the exercises of chapter 14, "LoRA"."""

import jax
import jax.numpy as jnp
import numpy as np


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


def alpha_by_factor(r, lora_alpha, use_rslora):
    factor = lora_alpha / np.sqrt(r) if use_rslora else lora_alpha / r
    return factor * r


ANSWERS = {
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
            lambda x, a, b, upstream, scale: np.dot(x.T * scale, np.dot(upstream, np.transpose(b))),
            lambda x, a, b, upstream, scale: ((b @ upstream.T) @ x).T * scale,
        ],
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
            lambda weights, n: np.where(np.arange(len(weights)) < n - 1, 0, weights),
            lambda weights, n: np.concatenate([np.zeros(n - 1, bool), weights[n - 1 :]]),
        ],
    ),
    "lora.rslora": (
        [
            lambda r, lora_alpha, use_rslora: lora_alpha,
            lambda r, lora_alpha, use_rslora: lora_alpha * r if use_rslora else lora_alpha,
            lambda r, lora_alpha, use_rslora: lora_alpha / r**0.5 if use_rslora else lora_alpha,
            lambda r, lora_alpha, use_rslora: lora_alpha * r**0.5,
            lambda r, lora_alpha, use_rslora: lora_alpha if use_rslora else lora_alpha * r**0.5,
            lambda r, lora_alpha, use_rslora: r**0.5 if use_rslora else 1,
            lambda r, lora_alpha, use_rslora: lora_alpha * r**2 if use_rslora else lora_alpha,
            lambda r, lora_alpha, use_rslora: lora_alpha / r,
            lambda r, lora_alpha: lora_alpha * r**0.5,
        ],
        [
            lambda r, lora_alpha, use_rslora: lora_alpha * (r**0.5 if use_rslora else 1),
            lambda r, lora_alpha, use_rslora: lora_alpha * np.sqrt(r) ** use_rslora,
            lambda r, lora_alpha, use_rslora: np.where(use_rslora, lora_alpha * r**0.5, lora_alpha),
            alpha_by_factor,
            lambda r, lora_alpha, use_rslora: (
                jnp.sqrt(r) * lora_alpha if use_rslora else lora_alpha
            ),
        ],
    ),
    "lora.directions": (
        [
            ((0.87, 0.99), "b"),
            ((0.87, 0.99), "c"),
            ((0.99, 0.87), "a"),
            ((1, 1), "a"),
            ((0, 0), "a"),
            ((0.13, 0.01), "a"),
            ((1.42, 1.29), "a"),
            ((0.125, 0.5), "b"),
            (0.87, "a"),
            ((0.87, 0.99, 1), "a"),
            "a",
        ],
        [
            ((0.87, 0.99), "a"),
            ([0.8751, 0.9894], "(a)"),
            ((np.float64(0.88), 0.98), "A"),
            [[0.9, 1.0], "a"],
            (jnp.array([0.875, 0.99]), "a"),
        ],
    ),
    "lora.volume": (
        [
            ((0.93, 0.3), "a"),
            ((0.93, 0.3), "c"),
            ((0.3, 0.93), "b"),
            ((1, 1), "b"),
            ((0, 0), "b"),
            ((0.75, 0.09), "b"),
            ((1.36, 1.44), "b"),
            ((0.5, 0.5), "a"),
            (0.93, "b"),
            "b",
        ],
        [
            ((0.93, 0.3), "b"),
            ([0.9309, 0.2963], "b"),
            (np.array([0.93, 0.29]), "(b)"),
            [(np.float32(0.94), 0.35), "B"],
            ((0.92, 0.28), " b "),
        ],
    ),
}
