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
    "dense.head": (
        [
            lambda x, q, k, v, o: attention()(x @ q, x @ k, x @ v),
            lambda x, q, k, v, o: attention()(x @ q, x @ k, x @ v) @ o.T,
            lambda x, q, k, v, o: attention()(x @ k, x @ q, x @ v) @ o,
            lambda x, q, k, v, o: attention()(x @ q, x @ k, x @ k) @ o,
            lambda x, q, k, v, o: attention()(x @ q, x @ k, x) @ v @ o @ o,
            lambda x, q, k, v, o: x + attention()(x @ q, x @ k, x @ v) @ o,
            lambda x, q, k, v, o: attention(scale=False)(x @ q, x @ k, x @ v) @ o,
            lambda x, q, k, v, o: zeros_after_the_softmax(x @ q, x @ k, x @ v) @ o,
            lambda x, q, k, v, o: attention()(q.T @ x, k.T @ x, v.T @ x) @ o,
            lambda x, q, k, v, o: x @ v @ o,
            lambda x, q, k, v: attention()(x @ q, x @ k, x @ v),
            lambda x, q, k, v, o: None,
            3,
        ],
        [
            lambda x, q, k, v, o: attention()(x @ q, x @ k, x @ v) @ o,
            lambda x, q, k, v, o: by_jax(jnp.dot(x, q), jnp.dot(x, k), jnp.dot(x, v)) @ o,
            lambda x, q, k, v, o: np.array(row_by_row(x @ q, x @ k, x @ (v @ o))),
            lambda x, q, k, v, o: np.einsum("sh,hd->sd", additive_mask(x @ q, x @ k, x @ v), o),
        ],
    ),
    "dense.routes": (
        [
            ((1.15, 1.31, 2.45), "a"),
            ((1.15, 1.31, 2.45), "c"),
            ((0.42, 1.17, 1.6), "b"),
            ((1.62, 1.46, 0.32), "b"),
            ((1.04, 1.74, 2.74), "b"),
            ((1.15, 1.31, 1.31), "a"),
            ((1.15, 1.31), "b"),
            ((1.15, 1.31, 2.45), "d"),
            (1.15, 1.31, 2.45),
            "b",
            ((1.15, 1.31, 2.45), True),
            (np.zeros(12), "b"),
            ([], "b"),
        ],
        [
            ((1.15, 1.31, 2.45), "b"),
            ([1.1496, 1.3089, 2.4512], "B"),
            (np.array([1.15, 1.31, 2.45], "float32"), "(b)"),
            [("1.15", "1.3", "2.45"), " b "],
        ],
    ),
    "dense.weights": (
        [
            ((0.61, 0.6, 0.63, 0.23), "a"),
            ((0.61, 0.6, 0.63, 0.23), "c"),
            ((0.71, 0.84, 0.86, 0.41), "b"),
            ((0.63, 0.23, 0.61, 0.6), "b"),
            ((0.6, 0.61, 0.23, 0.63), "b"),
            ((0.62, 0.61, 0.58, 0.19), "b"),
            ((0.61, 0.6), "b"),
            (np.zeros(36), "b"),
            ((0.61, 0.6, 0.63, 0.23), "none of them"),
            (0.61, 0.6, 0.63, 0.23),
            {"weights": (0.61, 0.6)},
            None,
        ],
        [
            ((0.61, 0.6, 0.63, 0.23), "b"),
            ([0.6123, 0.598, 0.6281, 0.2263], "b"),
            (np.array([0.61, 0.6, 0.63, 0.23]), "B"),
            ("0.61, 0.60, 0.63, 0.23", "(b)"),
        ],
    ),
}
