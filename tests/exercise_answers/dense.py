"""Answers to the exercises of chapter 4, "One head"."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def softmax(scores):
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def attention(scale=True, hidden=-np.inf, by=softmax):
    def attend(query, key, value):
        scores = query @ key.T / (query.shape[1] ** 0.5 if scale else 1)
        scores[np.triu_indices(len(scores), 1)] = hidden
        return by(scores) @ value

    return attend


def raw_softmax(scores):
    return np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)


def times_the_triangle(query, key, value):
    S, h = query.shape
    return softmax(query @ key.T / h**0.5 * np.tri(S)) @ value


def zeros_after_the_softmax(query, key, value):
    return np.tril(softmax(query @ key.T / query.shape[1] ** 0.5)) @ value


def mean_of_the_past(query, key, value):
    return np.cumsum(value, axis=0) / np.arange(1, len(value) + 1)[:, None]


def wrong_triangle(query, key, value):
    scores = query @ key.T / query.shape[1] ** 0.5
    return softmax(np.where(np.tri(len(scores), k=-1, dtype=bool), scores, -np.inf)) @ value


def softmax_over_all(query, key, value):
    scores = np.where(
        np.tri(len(query), dtype=bool), query @ key.T / query.shape[1] ** 0.5, -np.inf
    )
    weights = np.exp(scores - scores.max())
    return weights / weights.sum() @ value


def weights_alone(query, key, value):
    scores = query @ key.T / query.shape[1] ** 0.5
    return softmax(np.where(np.tri(len(scores), dtype=bool), scores, -np.inf))


def keys_for_queries(query, key, value):
    return attention()(key, query, value)


def row_by_row(query, key, value):
    out = []
    for i in range(len(query)):
        scores = [float(query[i] @ key[j]) / math.sqrt(len(query[i])) for j in range(i + 1)]
        top = max(scores)
        weights = [math.exp(s - top) for s in scores]
        out.append(sum(w * value[j] for j, w in enumerate(weights)) / sum(weights))
    return out


def additive_mask(query, key, value):
    S, h = query.shape
    mask = np.triu(np.full((S, S), -np.inf), k=1)
    return softmax(query @ key.T / np.sqrt(h) + mask) @ value


def by_jax(query, key, value):
    scores = query @ key.T / query.shape[1] ** 0.5
    scores = jnp.where(jnp.tril(jnp.ones_like(scores)) == 1, scores, -1e9)
    return jax.nn.softmax(scores, axis=-1) @ value


def by_the_field(query, key, value):
    heads = (x[None, :, None] for x in (query, key, value))
    return jax.nn.dot_product_attention(*heads, is_causal=True)[0, :, 0]


ANSWERS = {
    "dense.by_hand": (
        [22, 20, 15, 14, 70, 30, 23.3333, 10, "seventeen", [17.5, 20], None],
        [17.5, "17.5", 70 / 4, np.float32(17.5), "35/2", [17.5]],
    ),
    "dense.attend": (
        [
            times_the_triangle,
            zeros_after_the_softmax,
            mean_of_the_past,
            wrong_triangle,
            softmax_over_all,
            weights_alone,
            keys_for_queries,
            attention(scale=False),
            attention(by=raw_softmax),
            attention(hidden=-15),
            attention(hidden=-20),
            attention(hidden=-100),
            attention(hidden=-1e4),
            attention(hidden=0),
            attention(hidden=-np.inf, by=lambda scores: softmax(scores.T).T),
            lambda query, key, value: softmax(query @ key.T / query.shape[1] ** 0.5) @ value,
            lambda query, key, value: query @ key.T @ value,
            lambda x: x,
        ],
        [
            row_by_row,
            additive_mask,
            by_jax,
            attention(),
            attention(hidden=-1e30),
            attention(hidden=-1e9),
        ],
    ),
    "dense.library": ([2, 3, 4, 0, 5, "line 3", "scores", -1], [1, "1", "line 1", np.int32(1)]),
    "dense.square": (
        [
            8192**2 * 4 / 2**30,
            32 * 8192**2 * 4,
            32 * 8192**2 / 2**30,
            32 * 8192**2 * 2 / 2**30,
            32 * 8192 * 128 * 4 / 2**30,
            32 * 32 * 8192**2 * 4 / 2**30,
            8192,
            32 * 8192**2 * 4 / 1e9,
            "8 GB of scores",
        ],
        [8, "8 GiB", 8.0, 2**5 * 2**26 * 4 / 2**30, np.int64(8), "8192 MiB"],
    ),
    "dense.break_it": (
        [
            [[1.0, 200.0], [1.0, 2.0]],
            ([[0.0, 1e9], [0.0, 0.0]],),
            [[-200.0]],
            [[1, 2], [3, 4]],
            [[5, -200], [-50, -60]],
            [1, 2, 3],
            [[1, 2, 3], [4, 5, 6]],
            [[math.inf, 0], [0, 0]],
            -200,
            "very low scores",
            [[1, 2], [3]],
        ],
        [
            ([[-200.0, 0.0], [0.0, 0.0]],),
            [[-200, 0], [0, 0]],
            np.full((3, 3), -150.0),
            (jnp.full((2, 2), -1000),),
            [[[-200, 0], [0, 0]]],
            ([[-99.0, 5.0], [1.0, 2.0]],),
        ],
    ),
    "dense.unscaled": (
        [11.3, math.e, 128, math.exp(8), 1, math.sqrt(128), 2**11.3, math.exp(128), "eleven", 0],
        [80_000, 82_000, math.exp(11.3), np.exp(128**0.5), "80,000", 1e5],
    ),
}
