"""Answers to the exercises of chapter 10, "SwiGLU"."""

import jax
import jax.numpy as jnp
import numpy as np

from mistral_lib.teaching.facts import MISTRAL_7B


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def silu(z):
    return z / (1 + np.exp(-z))


def unit_by_unit(x, gate, up, down):
    out = 0
    for f in range(gate.shape[1]):
        out = out + np.outer(silu(x @ gate[:, f]) * (x @ up[:, f]), down[f])
    return out


def by_jax(x, gate, up, down):
    return jnp.dot(jax.nn.silu(x @ gate) * (x @ up), down)


def token_by_token(x, gate, up, down):
    return np.array([(silu(token @ gate) * (token @ up)) @ down for token in x])


def precedence(x, gate, up, down):
    return (silu(x @ gate) * x @ up) @ down


def slope(z):
    return sigmoid(z) * (1 + z - silu(z))


ANSWERS = {
    "feedforward.by_hand": (
        [-25, 19, 10, 30, 1215, -1185, 0.5, 25, -10, "15 or so", [0, 30]],
        [15, 14.9993, "15", round(14.99932), 15.0, np.float64(14.99932)],
    ),
    "feedforward.derivative": (
        [
            sigmoid,
            silu,
            lambda z: z * sigmoid(z) * (1 - sigmoid(z)),
            lambda z: sigmoid(z) * (1 - sigmoid(z)),
            lambda z: sigmoid(z) - z * sigmoid(z) * (1 - sigmoid(z)),
            lambda z: sigmoid(z) + sigmoid(z) * (1 - sigmoid(z)),
            lambda z: (z > 0).astype(float),
            lambda z: (z > 0) * 1,
            lambda z: sigmoid(z) + z * sigmoid(z) * (1 + sigmoid(z)),
            lambda z: np.gradient(silu(z)),
            lambda z: max(0, z),
            0.5,
        ],
        [
            slope,
            lambda z: sigmoid(z) + z * sigmoid(z) * (1 - sigmoid(z)),
            lambda z: (silu(z + 1e-4) - silu(z - 1e-4)) / 2e-4,
            lambda z: jax.vmap(jax.grad(jax.nn.silu))(z),
            lambda z: (1 + np.exp(-z) + z * np.exp(-z)) / (1 + np.exp(-z)) ** 2,
        ],
    ),
    "feedforward.write": (
        [
            precedence,
            lambda x, gate, up, down: (silu(x @ up) * (x @ gate)) @ down,
            lambda x, gate, up, down: (sigmoid(x @ gate) * (x @ up)) @ down,
            lambda x, gate, up, down: (np.maximum(x @ gate, 0) * (x @ up)) @ down,
            lambda x, gate, up, down: silu((x @ gate) * (x @ up)) @ down,
            lambda x, gate, up, down: (silu(x @ gate) + x @ up) @ down,
            lambda x, gate, up, down: silu(x @ gate) * (x @ up),
            lambda x, gate, up, down: silu((silu(x @ gate) * (x @ up)) @ down),
            lambda x, gate, up, down: (silu(gate) * up) @ down,
            lambda x, gate, up, down: silu(x @ gate) @ down,
            lambda x, gate, up, down: x + (silu(x @ gate) * (x @ up)) @ down,
            lambda x, gate, up: silu(x @ gate) * (x @ up),
        ],
        [unit_by_unit, by_jax, token_by_token],
    ),
    "feedforward.library": (
        ["up", "down", "all", "silu", "none of them", 1, ["gate", "up"], "float32"],
        ["gate", "Gate", " gate ", "`gate`", ["gate"]],
    ),
    "feedforward.bug": (
        [
            precedence,
            lambda x, gate, up, down: silu(x @ gate) @ up * x @ down,
            lambda x, gate, up, down: (silu(x @ up) * (x @ gate)) @ down,
            lambda x, gate, up, down: silu(x @ gate) * ((x @ up) @ down),
            lambda x, gate, up, down: (silu(x @ gate) * (x @ up)).T @ down,
            lambda x, gate, up, down: (silu(x @ gate) * x) @ (up @ down),
            lambda x, gate, up, down: (silu(x @ gate) * (up @ x)) @ down,
            lambda x, gate, up, down: (silu(x @ gate.T) * (x @ up.T)) @ down.T,
            lambda x, gate, up, down: (silu(x @ gate) * (x @ up)) @ down.T,
            lambda x, gate, up, down: None,
        ],
        [
            unit_by_unit,
            by_jax,
            token_by_token,
            lambda x, gate, up, down: silu(x @ gate) * (x @ up) @ down,
        ],
    ),
    "feedforward.share": (
        [52, 2.43, 0.78, 100 * 3 * 4096 * 14_336 / 7.24e9, 0.779, 26, 7.8, 5.6, "most of it", 33],
        [78, 77.85, 80, "78 %", "78 per cent", 100 * 96 * 4096 * 14_336 / MISTRAL_7B],
    ),
    "feedforward.width": (
        [4 * 4096, 2 * 4096, 4096 / 3, 4096, 14_336, 12_288, 2 / 3 * 4096, 8 / 3, "two thirds"],
        [8 / 3 * 4096, 10_923, 10_922, 11_000, "10,922", np.int64(10_922)],
    ),
    "feedforward.flops": (
        [
            5.6,
            2 * 3 * 4096 * 14_336 / 1e9,
            14.48,
            2 * 32 * 3 * 4096 * 14_336,
            11_274,
            2 * 32 * 2 * 4096 * 14_336 / 1e9,
            7.24,
            0.0113,
            "11 million",
        ],
        [11.3, 11, 2 * 5.637, "11.3 billion", "11.3", np.float32(11.27)],
    ),
}
