"""Answers to the exercises of chapter 11, "The block and the residual stream"."""

import jax.numpy as jnp
import numpy as np


def in_two_sums(x, attention_norm, attention, feedforward_norm, feedforward):
    after = x + attention(attention_norm(x))
    return after + feedforward(feedforward_norm(after))


def in_place(x, attention_norm, attention, feedforward_norm, feedforward):
    x += attention(attention_norm(x))
    x += feedforward(feedforward_norm(x))
    return x


def by_loop(x, *parts):
    for norm, part in (parts[:2], parts[2:]):
        x = x + part(norm(x))
    return x


def parallel(x, attention_norm, attention, feedforward_norm, feedforward):
    return x + attention(attention_norm(x)) + feedforward(feedforward_norm(x))


def post_norm(x, attention_norm, attention, feedforward_norm, feedforward):
    x = attention_norm(x + attention(x))
    return feedforward_norm(x + feedforward(x))


def stream_is_normalised(x, attention_norm, attention, feedforward_norm, feedforward):
    x = attention_norm(x)
    x = x + attention(x)
    x = feedforward_norm(x)
    return x + feedforward(x)


def stream_once(x, attention_norm, attention, feedforward_norm, feedforward):
    x = x + attention(attention_norm(x))
    return feedforward(feedforward_norm(x))


def no_stream(x, attention_norm, attention, feedforward_norm, feedforward):
    return feedforward(feedforward_norm(attention(attention_norm(x))))


def no_norms(x, attention_norm, attention, feedforward_norm, feedforward):
    x = x + attention(x)
    return x + feedforward(x)


def norm_of_the_update(x, attention_norm, attention, feedforward_norm, feedforward):
    x = x + attention_norm(attention(x))
    return x + feedforward_norm(feedforward(x))


def network_first(x, attention_norm, attention, feedforward_norm, feedforward):
    x = x + feedforward(feedforward_norm(x))
    return x + attention(attention_norm(x))


def adds_the_embedding_again(x, attention_norm, attention, feedforward_norm, feedforward):
    y = x + attention(attention_norm(x))
    return x + feedforward(feedforward_norm(y))


ANSWERS = {
    "decoder.by_hand": (
        [
            [-1, 2],
            [-3, 6],
            [-1, 4],
            [3, 0],
            6,
            [0, 5],
            [6, 0],
            [[3, 0], [-2, 1]],
            "zero and six",
            [0],
        ],
        [[0, 6], (0, 6), np.array([0.0, 6.0]), "0, 6", jnp.array([0, 6]), [np.int64(0), 6]],
    ),
    "decoder.write": (
        [
            parallel,
            post_norm,
            stream_is_normalised,
            stream_once,
            no_stream,
            no_norms,
            norm_of_the_update,
            network_first,
            adds_the_embedding_again,
            lambda x, attention, feedforward: x + attention(x) + feedforward(x),
        ],
        [in_two_sums, in_place, by_loop],
    ),
    "decoder.silent": (
        [0, 128, 49, True, 2, 6, "all of them", "one", None, [1, 2]],
        [1, "1", 1.0, np.int64(1), [1], np.array(1)],
    ),
    "decoder.paths": (
        [64, 128, 2**32, 2.0**65, 2.0**63, 32, 4**64, 64**2, 2**33, 2, "2 to the 64", 10**9],
        [2.0**64, 2**64, 4**32, 1.8e19, 2e19, np.float64(2) ** 64, "1.8e19"],
    ),
    "decoder.parameters": (
        [
            176,
            42,
            41.9,
            (4 * 4096**2 + 3 * 4096 * 14_336) / 1e6,
            (2 * 4096**2 + 2 * 4096 * 1024 + 2 * 4096 * 14_336) / 1e6,
            218e6,
            0.218,
            7240 / 30,
            226 * 32,
            "218 thousand",
        ],
        [218, 218.1, "218 million", 220, 7240 / 33, (41_943_040 + 176_160_768 + 8192) / 1e6],
    ),
    "decoder.growth": (
        [64, 32, 32**0.5, 1, 65, 4096, 2**64, 16, "it explodes", 6],
        [8, 64**0.5, 65**0.5, "8", np.sqrt(64), np.linalg.norm(np.ones(64))],
    ),
}
