"""Answers to the exercises of the on-ramp."""

import jax.numpy as jnp
import numpy as np


def flat_and_reshaped(x, kernel):
    B, S, D = x.shape
    _, H, h = kernel.shape
    return (x.reshape(B * S, D) @ kernel.reshape(D, H * h)).reshape(B, H, S, h)


def product_of_each_head(x, kernel):
    heads = [x @ kernel[:, n] for n in range(kernel.shape[1])]
    return np.stack(heads, axis=1)


def four_loops(x, kernel):
    B, S, D = x.shape
    _, H, h = kernel.shape
    out = np.zeros((B, H, S, h))
    for b in range(B):
        for n in range(H):
            for s in range(S):
                for d in range(D):
                    out[b, n, s] += x[b, s, d] * kernel[d, n]
    return out


ANSWERS = {
    "on_ramp.shape": (
        [
            [2, 5, 2, 3, 7],
            [2, 2, 5, 3, 7],
            (2, 3, 5, 7),
            [2, 2, 3, 5, 4],
            [2, 2, 3, 7, 5],
            [2, 5, 2, 3, 4, 7],
            "bkgst",
            420,
        ],
        [
            (2, 2, 3, 5, 7),
            np.array([2, 2, 3, 5, 7]),
            "2, 2, 3, 5, 7",
            "(2, 2, 3, 5, 7)",
            np.einsum("bskgh,btkh->bkgst", np.ones((2, 5, 2, 3, 4)), np.ones((2, 7, 2, 4))).shape,
        ],
    ),
    "on_ramp.einsum": (
        [
            flat_and_reshaped,
            lambda x, kernel: np.einsum("bsd,dnh->bsnh", x, kernel),
            lambda x, kernel: np.einsum("bsd,dnh->nbsh", x, kernel),
            lambda x, kernel: np.einsum("bsd,dnh->bnhs", x, kernel),
            lambda x, kernel: np.einsum("bsd,dhH->bhsH", x, kernel).sum(axis=-1),
            lambda x, kernel: x @ kernel,
            lambda x, kernel: np.einsum("BSD,DHh->BHSh", x, kernel).astype(int) // 2,
            lambda kernel, x: np.einsum("bsd,dnh->bnsh", x, kernel),
            lambda x: x,
            "bsd,dnh->bnsh",
        ],
        [
            product_of_each_head,
            four_loops,
            lambda x, kernel: np.tensordot(x, kernel, axes=1).swapaxes(1, 2),
            lambda x, kernel: jnp.einsum("bsd,dnh->bnsh", x, kernel),
            lambda x, kernel: np.einsum("bsd,dnh->bsnh", x, kernel).transpose(0, 2, 1, 3).tolist(),
        ],
    ),
    "on_ramp.bytes": (
        [
            4096 * 4096 * 2 / 2**20,
            8 * 4096 * 4096 * 4 / 2**20,
            8 * 4096 * 4096 / 2**20,
            8 * 4096 * 4096 * 2,
            8 * 4096 * 2 / 2**20,
            8 * 4096 * 4096 * 16 / 2**20,
            8 * 4096 * 4096 * 2 / 10**6,
            "256 KiB",
            None,
        ],
        [256, "256 MiB", np.float32(256), 250, [256], 2**8, "0.25 GiB"],
    ),
    "on_ramp.kernel": (
        [
            (4096 + 14_336) / 1e6,
            4096 * 14_336,
            3 * 4096 * 14_336 / 1e6,
            4096**2 / 1e6,
            14_336**2 / 1e6,
            4096 * 14_336 / 1e9,
            4096 * 14_336 * 2 / 1e6,
            -58.7,
            "about sixty",
        ],
        [58.7, 59, 60, 56, "58,7".replace(",", "."), "58720256 weights", 4096 * 14_336 / 1e6],
    ),
    "on_ramp.jit": (
        [
            [6, 30, 30],
            [6, 6, 6],
            [6, 30, 6],
            [2, 10, 10],
            [30, 30, 30],
            [6, 6],
            6,
            "an error",
            None,
        ],
        [[6, 6, 30], (6, 6, 30.0), np.array([6, 6, 30]), "6 6 30", [jnp.asarray(6), 6, 30.0]],
    ),
    "on_ramp.rounding": (
        [1003, 1000, 1002, 1008, 1024, 1003.5, 512 + 128, True, "1003 in bfloat16"],
        [1004, 1004.0, "1004", jnp.bfloat16(1003), 4 * 251, "1,004", np.array([1004])],
    ),
}
