"""Answers to the exercises of chapter 6, "Many heads, fewer keys"."""

import jax.numpy as jnp
import numpy as np


def slices(x, heads):
    size = x.shape[1] // heads
    return np.array([x[:, i * size : (i + 1) * size] for i in range(heads)])


def shared_by_loop(key, heads):
    group = heads // key.shape[1]
    out = np.zeros((len(key), heads, key.shape[2]))
    for head in range(heads):
        out[:, head] = key[:, head // group]
    return out


def dealt_out(key, heads):
    out = np.zeros((len(key), heads, key.shape[2]))
    for head in range(heads):
        out[:, head] = key[:, head % key.shape[1]]
    return out


def first_head_only(key, heads):
    return np.repeat(key[:, :1], heads, axis=1)


ANSWERS = {
    "attention.split": (
        [
            lambda x, heads: x.reshape(heads, len(x), -1),
            lambda x, heads: x.reshape(len(x), heads, -1),
            lambda x, heads: x.reshape(len(x), -1, heads).transpose(2, 0, 1),
            lambda x, heads: x.T.reshape(heads, len(x), -1),
            lambda x, heads: x.reshape(len(x), heads, -1).transpose(1, 2, 0),
            lambda x, heads: np.split(x, heads, axis=0),
            lambda x, heads: x.reshape(heads, -1),
            lambda x, heads: [x] * heads,
            lambda x, heads: x.reshape(len(x), heads, -1).swapaxes(0, 1)[::-1],
        ],
        [
            slices,
            lambda x, heads: np.stack(np.split(x, heads, axis=1)),
            lambda x, heads: x.reshape(len(x), heads, -1).transpose(1, 0, 2),
            lambda x, heads: jnp.moveaxis(x.reshape(len(x), heads, -1), 1, 0),
            lambda x, heads: np.einsum("shd->hsd", x.reshape(len(x), heads, -1)).astype(float),
        ],
    ),
    "attention.cache": (
        [512, 64, 4, 256, 16, 131_072, 0.125, 2 * 32 * 8 * 128 * 2, "128 MiB", 1024, None],
        [128, "128 KiB", "131072 bytes", 2**17 / 2**10, 128.0, np.int64(128)],
    ),
    "attention.room": (
        [80, 16, 16.6, 67_000, 544_768, 66.5 / 8, 13.5, 133, "sixty-six", 93.5],
        [66, 66.5, 67, "66 texts", 80 - 13.5, 65],
    ),
    "attention.order": (
        [
            [0, 2, 4, 1, 3, 5],
            [0, 1, 2, 3, 4, 5],
            [3, 0, 4, 1, 5, 2],
            [0, 1, 0, 1, 0, 1],
            [0, 0, 0, 1, 1, 1],
            [0, 4, 2, 3, 1, 5],
            [0, 3, 1, 4, 5, 2],
            [0, 3, 1, 4, 2],
            [1, 4, 2, 5, 3, 6],
            "the cards",
            3,
            [5, 2, 4, 1, 3, 0],
        ],
        [
            [0, 3, 1, 4, 2, 5],
            (0, 3, 1, 4, 2, 5),
            np.arange(6).reshape(2, 3).T.ravel(),
            jnp.array([0, 3, 1, 4, 2, 5]),
            "0, 3, 1, 4, 2, 5",
        ],
    ),
    "attention.places": (
        [
            ((0.39, 0.4, 0.0), "a"),
            ((0.39, 0.4, 0.0), "c"),
            ((0.5, 0.4, 0.0), "b"),
            ((0.39, 0.4, 0.52), "b"),
            ((0.0, 0.4, 0.39), "b"),
            ((0.5, 0.39, 0.0), "b"),
            ((0.39, 0.0), "b"),
            (0.39, 0.4, 0.0),
            ((0.39, 0.4, 0.0), "two heads"),
            "b",
            (np.zeros(3), "b"),
            (np.zeros((3, 3)), "b"),
        ],
        [
            ((0.39, 0.4, 0.0), "b"),
            ([0.3874, 0.3969, 0.0048], "B"),
            (np.array([0.38, 0.41, 0.01], "float32"), "(b)"),
            [("0.39", "0.40", "0.00"), " b "],
        ],
    ),
    "attention.halves": (
        [
            ((0.188, 0.174, 0.471), "a"),
            ((0.188, 0.174, 0.471), "b"),
            ((0.219, 0.192, 0.51), "c"),
            ((0.174, 0.188, 0.471), "c"),
            ((0.248, 0.325, 0.292), "c"),
            ((1.548, 1.534, 1.831), "c"),
            ((0.188, 0.174, 0.362), "b"),
            ((0.188, 0.174), "c"),
            ((0.19, 0.17, 0.47), "d"),
            0.471,
            None,
        ],
        [
            ((0.188, 0.174, 0.471), "c"),
            ([0.19, 0.17, 0.47], "C"),
            (np.array([0.1879, 0.1744, 0.4707]), "(c)"),
            ("0.188, 0.174, 0.471", " c"),
        ],
    ),
    "attention.share": (
        [
            dealt_out,
            first_head_only,
            lambda key, heads: np.tile(key, (1, heads // key.shape[1], 1)),
            lambda key, heads: np.repeat(key, heads, axis=1),
            lambda key, heads: np.repeat(key, heads // key.shape[1], axis=0),
            lambda key, heads: np.repeat(key, heads // key.shape[1], axis=2),
            lambda key, heads: np.repeat(key, heads // key.shape[1]),
            lambda key, heads: np.concatenate([key] * (heads // key.shape[1]), axis=1),
            lambda key, heads: key,
        ],
        [
            shared_by_loop,
            lambda key, heads: np.repeat(key, heads // key.shape[1], axis=1),
            lambda key, heads: key[:, np.arange(heads) * key.shape[1] // heads],
            lambda key, heads: jnp.repeat(key, heads // key.shape[1], axis=-2),
        ],
    ),
    "attention.library": (
        [1, 2, 3, 4, 6, 7, "line 3", 0, "reshape"],
        [5, "5", "line 5", np.int64(5)],
    ),
}
