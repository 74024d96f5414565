"""Answers to the exercises of chapter 20, "Many devices"."""

import jax
import jax.numpy as jnp
import numpy as np


def silu(z):
    return z / (1 + np.exp(-z))


def loss_by_loops(losses, real):
    total, count = 0.0, 0
    for part, mask in zip(losses, real):
        for loss, is_real in zip(part, mask):
            if is_real:
                total, count = total + loss, count + 1
    return total / count


def loss_of_one_device(losses, real):
    return np.concatenate(losses)[np.concatenate(real)].mean()


def weighted_mean_of_means(losses, real):
    means = [part[mask].mean() for part, mask in zip(losses, real)]
    return np.average(means, weights=[mask.sum() for mask in real])


def network(x, gate, up, down):
    return (silu(x @ gate) * (x @ up)) @ down


def share(x, gate, up, down, device, count):
    width = gate.shape[1] // count
    own = slice(device * width, (device + 1) * width)
    return network(x, gate[:, own], up[:, own], down[own])


def share_by_splitting(x, gate, up, down, device, count):
    parts = (np.split(gate, count, 1), np.split(up, count, 1), np.split(down, count))
    return network(x, *(part[device] for part in parts))


def share_by_silence(x, gate, up, down, device, count):
    units = np.arange(gate.shape[1]) * count // gate.shape[1] == device
    return (silu(x @ gate) * (x @ up) * units) @ down


def share_by_jax(x, gate, up, down, device, count):
    width = gate.shape[1] // count
    cut = jax.lax.dynamic_slice_in_dim
    z = x @ cut(jnp.asarray(gate), device * width, width, 1)
    hidden = jax.nn.silu(z) * (x @ cut(jnp.asarray(up), device * width, width, 1))
    return hidden @ cut(jnp.asarray(down), device * width, width, 0)


def cut_by_rows(x, gate, up, down, device, count):
    width = x.shape[1] // count
    own = slice(device * width, (device + 1) * width)
    return network(x[:, own], gate[own], up[own], down)


def dealt_in_turn(x, gate, up, down, device, count):
    return network(x, gate[:, device::count], up[:, device::count], down[device::count])


def down_is_whole(x, gate, up, down, device, count):
    width = gate.shape[1] // count
    own = slice(device * width, (device + 1) * width)
    return silu(x @ gate[:, own]) * (x @ up[:, own]) @ down[:width]


ANSWERS = {
    "distribution.mean": (
        [
            lambda losses, real: np.mean([p[m].mean() for p, m in zip(losses, real)]),
            lambda losses, real: np.concatenate(losses).mean(),
            lambda losses, real: sum(p[m].sum() for p, m in zip(losses, real)),
            lambda losses, real: (
                sum(p[m].sum() for p, m in zip(losses, real)) / np.concatenate(losses).size
            ),
            lambda losses, real: sum(p[m].sum() for p, m in zip(losses, real)) / len(losses),
            lambda losses, real: [p[m].mean() for p, m in zip(losses, real)],
            lambda losses, real: sum(p.sum() for p in losses) / sum(m.sum() for m in real),
            lambda losses, real: losses[real].mean(),
            lambda losses, real: np.median(np.concatenate(losses)[np.concatenate(real)]),
            lambda losses, real: loss_by_loops(losses[:1], real[:1]),
            lambda losses: np.mean(losses),
        ],
        [
            loss_by_loops,
            loss_of_one_device,
            weighted_mean_of_means,
            lambda losses, real: (
                jnp.sum(jnp.stack(losses) * jnp.stack(real)) / jnp.stack(real).sum()
            ),
        ],
    ),
    "distribution.by_hand": (
        [[55, 55], [13, 42], [30, 77], [33, 77], [3, 7], [43, 12], 55, [12], [11, 44], "12 and 43"],
        [[12, 43], (12, 43), np.array([12.0, 43.0]), "12, 43", jnp.array([12, 43])],
    ),
    "distribution.share": (
        [
            cut_by_rows,
            dealt_in_turn,
            down_is_whole,
            lambda x, gate, up, down, device, count: network(x, gate, up, down),
            lambda x, gate, up, down, device, count: (
                share(x, gate, up, down, device, count) / count
            ),
            lambda x, gate, up, down, device, count: network(x, gate, up, down) / count,
            lambda x, gate, up, down, device, count: network(
                x, gate, up, np.split(down, count, 1)[device]
            ),
            lambda x, gate, up, down, device, count: share(
                x, gate, up, down, count - 1 - device, count
            ),
            lambda x, gate, up, down, device, count: share(x, gate, up, down, 0, count),
            lambda x, gate, up, down, device, count: sum(
                share(x, gate, up, down, d, count) for d in range(count)
            ),
            lambda x, gate, up, down, device, count: (
                silu(x @ np.split(gate, count, 1)[device]) * (x @ np.split(up, count, 1)[device])
            ),
            lambda x, gate, up, down, device: network(x, gate, up, down),
        ],
        [share, share_by_splitting, share_by_silence, share_by_jax],
    ),
    "distribution.library": (
        [1, 2, 3, 4, 5, 6, 7, 9, "line 7", 0, "rows"],
        [8, "8", "line 8", np.int64(8)],
    ),
    "distribution.bytes": (
        [1.81, 14.5, 7.24, 3620, 3.62e9, 28.96, 0.9, 1.8, "a quarter", 2],
        [3.62, 3.6, "3.62 GB", 7.24 * 2 / 4, np.float32(3.62), 7_241_732_096 / 2e9],
    ),
    "distribution.ring": (
        [64, 56, 128, 28, 896, 224, 3584, 112 * 2**20, "two sums", 32, 7],
        [112, "112 MiB", 2 * 2 * 7 / 8 * 32, 112.0, np.int64(112), 110],
    ),
    "distribution.wait": (
        [
            0.32,
            0.02,
            5.12,
            640,
            65 * 8192 / 3e9,
            650,
            6.5,
            0.00065,
            0,
            "not at all",
            0.01,
        ],
        [0.65, 0.64, "0.65 ms", 65 * 0.01, "650 microseconds", np.float64(0.65)],
    ),
    "distribution.heads": (
        [(1, 32), (2, 16), (8, 4), (8, 8), (1, 8), (32, 1), (4, 4), 8, [4, 8, 1], "4 by 8"],
        [(4, 8), [4, 8], np.array([4, 8]), "(4, 8)", (32 // 8, np.int64(8))],
    ),
}
