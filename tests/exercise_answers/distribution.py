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


CUT = (2.42, 2.01)

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
    "distribution.ring": (
        [
            [4, 4, 4, 4],
            [4, 1, 1, 1],
            [1, 4, 1, 1],
            [1, 2, 3, 4],
            [4, 3, 2, 1],
            [1, 1, 3, 2],
            [2, 1, 1, 1],
            [1, 4, 3],
            4,
            "piece 1",
        ],
        [[1, 4, 3, 2], (1, 4, 3, 2), np.array([1, 4, 3, 2]), "1, 4, 3, 2", jnp.array([1, 4, 3, 2])],
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
    "distribution.cut": (
        [
            (CUT, "b"),
            (CUT, "c"),
            ((1.0, 1.0), "a"),
            ((2.2, 2.2), "a"),
            (CUT[::-1], "a"),
            ((0.6, 0.6), "a"),
            (CUT[0], "a"),
            (CUT, "each"),
            "a",
        ],
        [(CUT, "a"), (list(CUT), "A"), (np.array(CUT) + 0.003, "(a)")],
    ),
    "distribution.fsdp": (
        [
            ((112, 448, 378), "a"),
            ((112, 448, 378), "b"),
            ((140, 560, 491), "c"),
            ((378, 112, 448), "c"),
            ((112, 448, 196), "c"),
            ((114688, 458752, 387072), "c"),
            ((112, 378), "c"),
            "c",
        ],
        [
            ((112, 448, 378), "c"),
            ([112.0, 448.0, 378.0], "C"),
            (np.array([112, 448, 378]), "(c)"),
        ],
    ),
    "distribution.bubble": (
        [
            ((0.474, 0.389), "a"),
            ((0.474, 0.389), "b"),
            ((0.273, 0.045), "c"),
            ((0.389, 0.474), "c"),
            ((0.526, 0.611), "c"),
            ((47.4, 38.9), "c"),
            (0.474, "c"),
            ((0.474, 0.389), "the slowest"),
        ],
        [
            ((1 - 40 / 76, 1 - 320 / 524), "c"),
            ([0.47, 0.39], "C"),
            (np.array([0.4737, 0.3893]), "(c)"),
        ],
    ),
}
