"""Answers to the exercises of chapter 12, "The backbone"."""

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14_336 + 2 * 4096


def shapes_added(V, L, H, K, D, F):
    h = D // H
    block = [(D, D), (D, K * h), (D, K * h), (D, D), (D, F), (D, F), (F, D), (D,), (D,)]
    shapes = [(V, D), (D,), (D, V)] + L * block
    return sum(int(np.prod(shape)) for shape in shapes)


def share_of_heads(V, L, H, K, D, F):
    attention = D * D * (2 + 2 * K / H)
    return 2 * V * D + L * (attention + 3 * D * F) + (2 * L + 1) * D


def count(V, L, H, K, D, F, tables=2, keys=None, kernels=3, norms=2, last=1):
    width = D // H * (keys or K)
    return tables * V * D + L * (2 * D * D + 2 * D * width + kernels * D * F + norms * D) + last * D


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
    "backbone.debug": (
        [
            (((5, 0), (2, 1), (1, 127)), "b"),
            (((4, 0), (1, 1), (0, 127)), "a"),
            (((4, 0), (1, 1), (0, 127)), "c"),
            (((0, 4), (1, 1), (127, 0)), "b"),
            (((4, 1), (1, 2), (0, 128)), "b"),
            (((4, 0), (1, 0), (0, 0)), "b"),
            ((4, 1, 0), "b"),
            (((4, 0), (1, 1)), "b"),
            ((None, (1, 1), (0, 127)), "b"),
            (((4, 0), (1, 1), (0, 127)), "the window"),
            [(4, 0), (1, 1), (0, 127)],
            "b",
            {"A": (4, 0), "B": (1, 1), "C": (0, 127)},
        ],
        [
            (((4, 0), (1, 1), (0, 127)), "b"),
            ([[4, 0], [1, 1], [0, 127]], "(b)"),
            (np.array([[4, 0], [1, 1], [0, 127]]), "B"),
            [([4, 0], (1.0, 1), (np.int64(0), 127)), " b"],
        ],
    ),
    "backbone.patch": (
        [
            ((0.64, 0.12), "a"),
            ((0.64, 0.12), "c"),
            ((0.77, 0.12), "b"),
            ((0.55, 0.02), "b"),
            ((0.77, 0.19), "b"),
            ((0.22, 0.0), "b"),
            ((0.12, 0.64), "b"),
            ((64, 12), "b"),
            ((0.64,), "b"),
            ((0.64, 0.3), "b"),
            (0.64, 0.12),
            (np.zeros(36), "b"),
            "attention",
        ],
        [
            ((0.64, 0.12), "b"),
            ([0.6391, 0.1175], "B"),
            (np.array([0.64, 0.12], "float32"), "(b)"),
            ("0.64, 0.12", "b"),
        ],
    ),
    "backbone.silent": (
        [4, 6, 7, 3, 11, 0, 8, "none", [1, 2, 3, 4, 5], 57],
        [5, "5", 5.0, np.int64(5), len("abcde")],
    ),
    "backbone.count": (
        [
            lambda V, L, H, K, D, F: count(V, L, H, K, D, F, keys=H),
            lambda V, L, H, K, D, F: count(V, L, H, K, D, F, tables=1),
            lambda V, L, H, K, D, F: count(V, L, H, K, D, F, last=0),
            lambda V, L, H, K, D, F: count(V, L, H, K, D, F, norms=1),
            lambda V, L, H, K, D, F: count(V, L, H, K, D, F, kernels=2),
            lambda V, L, H, K, D, F: count(V, L, H, K, D, F, norms=0, last=0),
            lambda V, L, H, K, D, F: count(V, L, H, K, D, F, keys=1),
            lambda V, L, H, K, D, F: L * count(V, 1, H, K, D, F),
            lambda V, L, H, K, D, F: (
                2 * V * D + L * (2 * D * D + 2 * D * K + 3 * D * F + 2 * D) + D
            ),
            lambda V, L, H, K, D, F: count(V, L, H, K, D, F) * 2,
            lambda V, L, H, D, F: count(V, L, H, H, D, F),
        ],
        [
            shapes_added,
            share_of_heads,
            count,
            lambda V, L, H, K, D, F: np.int64(count(V, L, H, K, D, F)),
        ],
    ),
    "backbone.fit": (
        [53, 53.8, 59, 24 * 2**30 / 2 / BLOCK, 28, 116, 32, 24, 118, 1.7, "a hundred"],
        [57, 57.9, 57.878, "57", (24 * 2**30 / 2 - 2 * 32_000 * 4096) // BLOCK, 58],
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
