"""Answers to the exercises of chapter 10, "SwiGLU"."""

import jax
import jax.numpy as jnp
import numpy as np


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
            lambda z: (1 + np.tanh(z / 2)) / 2 + z / (4 * np.cosh(z / 2) ** 2),
            lambda z: np.array([slope(number) for number in z]),
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
            lambda x, gate, up, down: silu(x @ gate) @ up * x @ down,
            lambda x, gate, up, down: silu(x @ gate) * ((x @ up) @ down),
            lambda x, gate, up, down: (silu(x @ gate) * (x @ up)).T @ down,
            lambda x, gate, up, down: (silu(x @ gate.T) * (x @ up.T)) @ down.T,
        ],
        [
            unit_by_unit,
            by_jax,
            token_by_token,
            lambda x, gate, up, down: silu(x @ gate) * (x @ up) @ down,
            lambda x, gate, up, down: np.einsum("sf,sf,fd->sd", silu(x @ gate), x @ up, down),
            lambda x, gate, up, down: np.multiply(np.dot(x, up), silu(np.dot(x, gate))).dot(down),
            lambda x, gate, up, down: ((x @ gate) * sigmoid(x @ gate) * (x @ up)) @ down,
        ],
    ),
    "feedforward.search": (
        [
            ((0.62, 0.50), "a"),
            ((0.62, 0.50), "c"),
            ((0.50, 0.62), "b"),
            ((0.62, 0.62), "b"),
            ((0.60, 0.60), "b"),
            ((1.0, 1.0), "c"),
            ((1.0, 1.0), "b"),
            ((0.5, 0.5), "b"),
            (0.62, "b"),
            ((0.62, 0.50), "luck"),
            ((0.62, 0.50),),
        ],
        [
            ((0.62, 0.50), "b"),
            ([0.62, 0.50], "(b)"),
            (np.array([0.62 + 0.003, 0.50 - 0.003]), "B"),
            [(f"{0.62}", f"{0.50}"), "b"],
        ],
    ),
    "feedforward.choose": (
        [
            ((0.035, 0.047, 0.012), "a"),
            ((0.035, 0.047, 0.012), "c"),
            ((0.047, 0.035, 0.012), "b"),
            ((0.051, 0.047, 0.012), "b"),
            ((0.076, 0.151, 0.040), "b"),
            ((0.014, 0.009, 0.002), "b"),
            ((1.39, 1.41, 1.37), "b"),
            ((0.012, 0.012, 0.012), "a"),
            ((0.035, 0.047), "b"),
            (0.012, "b"),
            ((0.035, 0.047, 0.012), "product"),
        ],
        [
            ((0.035, 0.047, 0.012), "b"),
            ([0.0354, 0.0467, 0.0118], "(b)"),
            (np.array([0.036, 0.048, 0.011]), "B"),
            [["0.035", "0.047", "0.012"], "b"],
            ((0.035, 0.046, 0.012), " b "),
        ],
    ),
}
