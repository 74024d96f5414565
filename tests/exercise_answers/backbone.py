"""Answers to the exercises of chapter 12, "The backbone"."""

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14_336 + 2 * 4096


def shapes_added(V, n, H, K, D, F):
    h = D // H
    block = [(D, D), (D, K * h), (D, K * h), (D, D), (D, F), (D, F), (F, D), (D,), (D,)]
    shapes = [(V, D), (D,), (D, V)] + n * block
    return sum(int(np.prod(shape)) for shape in shapes)


def share_of_heads(V, n, H, K, D, F):
    attention = D * D * (2 + 2 * K / H)
    return 2 * V * D + n * (attention + 3 * D * F) + (2 * n + 1) * D


def count(V, n, H, K, D, F, tables=2, keys=None, kernels=3, norms=2, last=1):
    width = D // H * (keys or K)
    return tables * V * D + n * (2 * D * D + 2 * D * width + kernels * D * F + norms * D) + last * D


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def norm(x, scale):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * scale


def lens_by_loops(states, scale, kernel, ids):
    out = np.zeros((len(states), len(ids) - 1))
    for station, state in enumerate(states):
        for i in range(len(ids) - 1):
            out[station, i] = softmax(norm(state[i], scale) @ kernel)[ids[i + 1]]
    return out


def lens_by_jax(states, scale, kernel, ids):
    x = jnp.asarray(states)
    z = x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale @ kernel
    chances = jax.nn.softmax(z[:, :-1], axis=-1)
    return jnp.take_along_axis(chances, jnp.asarray(ids)[None, 1:, None], axis=-1)[..., 0]


def lens_by_logs(states, scale, kernel, ids):
    z = norm(states, scale) @ kernel
    top = z.max(axis=-1, keepdims=True)
    logs = z - top - np.log(np.exp(z - top).sum(axis=-1, keepdims=True))
    return np.exp(np.stack([logs[:, i, ids[i + 1]] for i in range(len(ids) - 1)], axis=1))


def lens(states, scale, kernel, ids, by=softmax, normed=norm, shift=1):
    rows = np.arange(len(ids) - 1)
    return by(normed(states, scale) @ kernel)[:, rows, ids[1:] if shift else ids[:-1]]


ANSWERS = {
    "backbone.order": (
        [
            ["decoder"],
            ["decoder_2", "decoder", "decoder_1"],
            ["decoder_11", "decoder"],
            ["decoder_9", "decoder_9"],
            ["layer_9", "layer_10"],
            ["decoder_09", "decoder_10"],
            ["Decoder_9", "decoder_10"],
            [9, 10],
            "decoder_10",
            [],
            ("decoder_10",),
            10,
            {"decoder_9", "decoder_10"},
        ],
        [
            ["decoder_9", "decoder_10"],
            ("decoder_2", "decoder_31", "decoder_11"),
            (["decoder_10", "decoder_2"],),
            ["decoder", *(f"decoder_{i}" for i in range(1, 32))],
            np.array(["decoder_9", "decoder_10"]),
        ],
    ),
    "backbone.silent": (
        [4, 6, 7, 3, 11, 0, 8, "none", [1, 2, 3, 4, 5], 57],
        [5, "5", 5.0, np.int64(5), len("abcde")],
    ),
    "backbone.by_hand": (
        [
            2688,
            count(10, 2, 8, 4, 16, 8, tables=1),
            count(10, 1, 8, 4, 16, 8),
            count(10, 2, 8, 4, 16, 8, keys=8),
            count(10, 2, 8, 4, 16, 8, kernels=2),
            count(10, 2, 8, 4, 16, 8, norms=1),
            count(10, 2, 8, 4, 16, 8, norms=0, last=0),
            2 * 160,
            -2704,
            2.7,
            "2704 MB",
        ],
        [2704, "2,704", "2704", 2704.0, shapes_added(10, 2, 8, 4, 16, 8), np.int64(2704)],
    ),
    "backbone.count": (
        [
            lambda V, n, H, K, D, F: count(V, n, H, K, D, F, keys=H),
            lambda V, n, H, K, D, F: count(V, n, H, K, D, F, tables=1),
            lambda V, n, H, K, D, F: count(V, n, H, K, D, F, last=0),
            lambda V, n, H, K, D, F: count(V, n, H, K, D, F, norms=1),
            lambda V, n, H, K, D, F: count(V, n, H, K, D, F, kernels=2),
            lambda V, n, H, K, D, F: count(V, n, H, K, D, F, norms=0, last=0),
            lambda V, n, H, K, D, F: count(V, n, H, K, D, F, keys=1),
            lambda V, n, H, K, D, F: n * count(V, 1, H, K, D, F),
            lambda V, n, H, K, D, F: (
                2 * V * D + n * (2 * D * D + 2 * D * K + 3 * D * F + 2 * D) + D
            ),
            lambda V, n, H, K, D, F: count(V, n, H, K, D, F) * 2,
            lambda V, n, H, D, F: count(V, n, H, H, D, F),
        ],
        [
            shapes_added,
            share_of_heads,
            count,
            lambda V, n, H, K, D, F: np.int64(count(V, n, H, K, D, F)),
        ],
    ),
    "backbone.memory": (
        [14.5, 14.48, 27, 28.97, 6.74, 7.24, 13_812, 7_241_732_096 * 16 / 2**30, "seven billion"],
        [13.5, 13.49, "13.5 GiB", 7_241_732_096 * 2 / 2**30, 13.6, np.float32(13.49)],
    ),
    "backbone.fit": (
        [53, 53.8, 59, 24 * 2**30 / 2 / BLOCK, 28, 116, 32, 24, 118, 1.7, "a hundred"],
        [57, 57.9, 57.878, "57", (24 * 2**30 / 2 - 2 * 32_000 * 4096) // BLOCK, 58],
    ),
    "backbone.rounding": (
        [0.78, 100 / 128, 0.2, 0.05, 1 / 256, 50, 8, "half a step", 3.9],
        [0.39, 0.4, 100 / 256, "0.39 %", "0.39 percent", np.float32(0.390625)],
    ),
    "backbone.lens": (
        [
            lambda states, scale, kernel, ids: lens(states, scale, kernel, ids, shift=0),
            lambda states, scale, kernel, ids: lens(
                states, scale, kernel, ids, normed=lambda x, scale: x
            ),
            lambda states, scale, kernel, ids: lens(states, 1, kernel, ids),
            lambda states, scale, kernel, ids: lens(states, scale, kernel, ids, by=lambda z: z),
            lambda states, scale, kernel, ids: lens(
                states,
                scale,
                kernel,
                ids,
                by=lambda z: np.exp(z) / np.exp(z).sum(-1, keepdims=True),
            ),
            lambda states, scale, kernel, ids: lens(
                states, scale, kernel, ids, by=lambda z: np.log(softmax(z))
            ),
            lambda states, scale, kernel, ids: softmax(norm(states, scale) @ kernel),
            lambda states, scale, kernel, ids: lens(states[-1:], scale, kernel, ids),
            lambda states, scale, kernel, ids: softmax(norm(states, scale) @ kernel)[
                :, :-1, ids[1:]
            ],
            lambda states, scale, kernel, ids: lens(states, scale, kernel, ids).T,
            lambda states, scale, kernel, ids: lens(
                states, scale, kernel, ids, normed=lambda x, s: x / x.std(-1, keepdims=True) * s
            ),
        ],
        [lens_by_loops, lens_by_jax, lens_by_logs, lens],
    ),
}
