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


def in_two_steps(upstream, back_attention, back_network):
    at_m = upstream + back_network(upstream)
    return at_m + back_attention(at_m)


def in_steps_of_one(upstream, back_attention, back_network):
    u = upstream.copy()
    u += back_network(upstream)
    return u + back_attention(u)


def by_a_loop(upstream, *backs):
    for back in reversed(backs):
        upstream = upstream + back(upstream)
    return upstream


def attention_first(upstream, back_attention, back_network):
    at_m = upstream + back_attention(upstream)
    return at_m + back_network(at_m)


def upstream_again(upstream, back_attention, back_network):
    at_m = upstream + back_network(upstream)
    return upstream + back_attention(at_m)


ANSWERS = {
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
    "decoder.pair": (
        [
            ((0.179, 0.218), "a"),
            ((0.179, 0.218), "c"),
            ((0.218, 0.179), "b"),
            ((0.098, 0.081), "b"),
            ((0.098, 0.218), "b"),
            ((0.081, 0.218), "b"),
            ((0.179, 0.03), "c"),
            ((2.896, 1.576), "b"),
            ((0.179, 0.25), "b"),
            ((0.179,), "b"),
            (0.179, 0.218),
            "b",
            ((0.179, 0.218), "d"),
            ((0.0, 0.0), "a"),
            (None, "b"),
            ((2.20, 2.28), "c"),
        ],
        [
            ((0.179, 0.218), "b"),
            ([0.1794, 0.2176], "B"),
            (np.array([0.18, 0.22]), "(b)"),
            (("0.18", "0.218"), "b"),
            [(np.float32(0.179), 0.217), "b"],
        ],
    ),
    "decoder.gradient": (
        [
            lambda u, attention, network: u + attention(u) + network(u),
            lambda u, attention, network: u + attention(network(u)),
            lambda u, attention, network: attention(network(u)),
            lambda u, attention, network: attention(u + network(u)),
            lambda u, attention, network: network(u) + attention(network(u)),
            attention_first,
            upstream_again,
            lambda u, attention, network: u,
            lambda u, attention, network: u + network(u),
            lambda u, attention, network: attention(u),
            lambda u, attention, network: 2 * u + attention(u) + network(u),
            lambda u, attention, network: network(u) + attention(u),
            lambda u, attention: u + attention(u),
        ],
        [
            in_two_steps,
            in_steps_of_one,
            lambda u, attention, network: u + network(u) + attention(u + network(u)),
            by_a_loop,
        ],
    ),
    "decoder.nudge": (
        [
            ((0.064, 0.007), "a"),
            ((0.064, 0.007), "c"),
            ((0.007, 0.064), "b"),
            ((0.022, 0.002), "b"),
            ((0.925, 0.925), "c"),
            ((0.064, 0.02), "b"),
            ((0.0002, 0.55), "a"),
            ((0.064, 0.007), "d"),
            ((0.064, 0.007), 2),
            ((0.064, "small"), "b"),
            ((0.5, 0.5), "c"),
            ((0.064,), "b"),
            0.064,
            "b",
        ],
        [
            ((0.064, 0.007), "b"),
            (np.array([0.0636, 0.0073]), "(b)"),
            (("0.063", "0.0074"), "B"),
            [[jnp.float32(0.0636), 0.0073], "b"],
        ],
    ),
}
