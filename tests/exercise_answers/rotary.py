"""Answers to the exercises of chapter 5, "Rotary positions"."""

import math

import jax.numpy as jnp
import numpy as np


def angles_of(x, positions, base=10_000.0):
    half = x.shape[1] // 2
    return np.outer(positions, base ** (-np.arange(half) / half))


def halves(x, positions, angles=None, sign=1):
    half = x.shape[1] // 2
    angles = angles_of(x, positions) if angles is None else angles
    c, s = np.cos(angles), sign * np.sin(angles)
    a, b = x[:, :half], x[:, half:]
    return np.hstack([a * c - b * s, b * c + a * s])


def in_place(x, positions):
    half = x.shape[1] // 2
    angles = angles_of(x, positions)
    first, second = x[:, :half], x[:, half:]
    first[:] = first * np.cos(angles) - second * np.sin(angles)
    second[:] = second * np.cos(angles) + first * np.sin(angles)
    return x


def in_place_and_right(x, positions):
    half = x.shape[1] // 2
    angles = angles_of(x, positions)
    for row, turn in zip(x, angles):
        for p in range(half):
            a, b = row[p], row[p + half]
            row[p] = a * math.cos(turn[p]) - b * math.sin(turn[p])
            row[p + half] = b * math.cos(turn[p]) + a * math.sin(turn[p])
    return x


def neighbours(x, positions):
    angles = angles_of(x, positions)
    out = np.empty_like(x)
    out[:, ::2] = x[:, ::2] * np.cos(angles) - x[:, 1::2] * np.sin(angles)
    out[:, 1::2] = x[:, 1::2] * np.cos(angles) + x[:, ::2] * np.sin(angles)
    return out


def rotate_half(x, positions):
    angles = np.tile(angles_of(x, positions), 2)
    half = x.shape[1] // 2
    rotated = np.concatenate([-x[:, half:], x[:, :half]], axis=1)
    return x * np.cos(angles) + rotated * np.sin(angles)


def as_complex(x, positions):
    half = x.shape[1] // 2
    z = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angles_of(x, positions))
    return np.concatenate([z.real, z.imag], axis=1)


def by_jax(x, positions):
    half = x.shape[1] // 2
    angles = jnp.outer(positions, 10_000.0 ** (-jnp.arange(half) / half))
    first, second = jnp.split(x, 2, axis=1)
    c, s = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([first * c - second * s, second * c + first * s], axis=1)


def first_row_only(x, positions):
    return halves(x, np.full(len(x), positions[0]))


def ramp_by_hand(turns, factor, low, high):
    out = []
    for t in turns:
        if t <= low:
            out.append(1 / factor)
        elif t >= high:
            out.append(1)
        else:
            share = (t - low) / (high - low)
            out.append(share + (1 - share) / factor)
    return out


def ramp_without_ends(turns, factor, low, high):
    share = (turns - low) / (high - low)
    return share + (1 - share) / factor


ANSWERS = {
    "rotary.by_hand": (
        [4, 3, -3, 0, 2, (2, -1), "minus four", -2],
        [-4, "-4", -4.0, "−4", np.int8(-4), [-4]],
    ),
    "rotary.break_it": (
        [
            ([1, 2], [2, 1], 0, 0),
            ([1, 2], [2, 1], 1000, 0),
            ([0, 0], [2, 1], 5, 3),
            ([1, 0], [1, 0], 0, 710),
            ([1, 2], [0, 0], 5, 3),
            ([1, 2, 3, 4], [2, 1, 0, 0], 3, 1),
            ([1, 2], [2, 1], -1, -1),
            ([1, 2], [2, 1], 0.5, 0.5),
            ([1, 2], [2, 1]),
            [1, 0],
            np.array([1, 0, 1, 0]),
            "position 1",
            (1, 0, 1, 1),
            ([1, math.inf], [1, 0], 1, 1),
        ],
        [
            ([1, 0], [1, 0], 1, 1),
            [(1, 2), (2, 1), 3, 1],
            (np.array([0, 1]), np.array([1, 1]), np.int64(0), np.int64(2)),
            (jnp.array([1.0, 0.0]), [0, 1], "4", 7.0),
        ],
    ),
    "rotary.wavelength": (
        [58, 64, 18, 50, 60, 652, 16, 32, 4096, 128, 0, "most of them", None],
        [46, 45, 47, 44, "46 pairs", np.int64(46), 46.0, 64 * math.log(4096 / 6.283, 10_000)],
    ),
    "rotary.turn": (
        [
            in_place,
            neighbours,
            first_row_only,
            lambda x, positions: x,
            lambda x, positions: halves(x, positions, sign=-1),
            lambda x, positions: halves(x, positions, 2 * np.pi * angles_of(x, positions)),
            lambda x, positions: halves(x, positions, angles_of(x, positions, 1.0)),
            lambda x, positions: halves(x, positions, angles_of(x, positions, 1e6)),
            lambda x, positions: halves(x, positions, angles_of(x, positions, 100.0)),
            lambda x, positions: halves(x, positions, np.degrees(angles_of(x, positions))),
            lambda x, positions: halves(x.T, positions),
            lambda x, positions: halves(x, positions)[0],
            lambda x: x,
        ],
        [halves, in_place_and_right, rotate_half, as_complex, by_jax],
    ),
    "rotary.precision": (
        [
            2**31,
            2**32,
            2**23,
            2**25,
            2**12,
            2**7,
            10_000_000,
            10**6,
            3.4e38,
            65_504,
            "when it is big",
        ],
        [
            2**24,
            16_777_216,
            "16.8 million",
            "2e7".replace("2e7", "1.68e7"),
            17e6,
            16e6,
            float(2**24),
        ],
    ),
    "rotary.permute": (
        [
            lambda size: np.arange(size).reshape(size // 2, 2).T.reshape(-1),
            lambda size: [*range(0, size, 2), *range(1, size, 2)],
            lambda size: np.arange(size),
            lambda size: np.roll(np.arange(size), size // 2),
            lambda size: [(p, p + size // 2) for p in range(size // 2)],
            lambda size: [p + 1 for i in range(size // 2) for p in (i, i + size // 2)],
            lambda size: [p for i in range(size // 2) for p in (i + size // 2, i)],
            lambda size: np.arange(size)[::-1],
            lambda size: {p: p + size // 2 for p in range(size // 2)},
        ],
        [
            lambda size: np.arange(size).reshape(2, size // 2).T.ravel(),
            lambda size: [p for i in range(size // 2) for p in (i, i + size // 2)],
            lambda size: np.stack([np.arange(size // 2), np.arange(size // 2, size)], 1).reshape(
                -1
            ),
            lambda size: [i // 2 + (i % 2) * size // 2 for i in range(size)],
            lambda size: jnp.arange(size).reshape(2, -1).T.flatten(),
        ],
    ),
    "rotary.ramp": (
        [
            ramp_without_ends,
            lambda turns, factor, low, high: np.where(turns <= low, 1 / factor, 1.0),
            lambda turns, factor, low, high: 1 / np.interp(turns, [low, high], [factor, 1]),
            lambda turns, factor, low, high: np.interp(turns, [low, high], [1, 1 / factor]),
            lambda turns, factor, low, high: np.interp(turns, [low, high], [factor, 1]),
            lambda turns, factor, low, high: np.interp(turns, [low, high], [0, 1]),
            lambda turns, factor, low, high: np.full(len(turns), 1 / factor),
            lambda turns, factor, low, high: np.clip((turns - low) / (high - low), 1 / factor, 1),
            lambda turns, factor, low, high: 1 / factor if turns < low else 1,
            lambda turns, factor, low, high: np.interp(turns, [low, high], [1 / factor, 1]).mean(),
        ],
        [
            ramp_by_hand,
            lambda turns, factor, low, high: np.interp(turns, [low, high], [1 / factor, 1]),
            lambda turns, factor, low, high: (
                1 / factor + (1 - 1 / factor) * np.clip((turns - low) / (high - low), 0, 1)
            ),
            lambda turns, factor, low, high: jnp.interp(
                turns, jnp.array([low, high]), jnp.array([1 / factor, 1])
            ),
        ],
    ),
    "rotary.rounding": (
        [
            ((0.34, 0.33), "a"),
            ((0.34, 0.33), "c"),
            ((0.34, 0.71), "b"),
            ((0.34, 0.71), "a"),
            ((0.34, 0.78), "b"),
            ((0.34, 0.21), "b"),
            ((0.34, 0.49), "b"),
            ((0.34, 0.93), "c"),
            ((0.34, 0.0), "a"),
            ((0.338,), "b"),
            (0.34, 0.33, "b"),
            (np.zeros(26), "b"),
            ((0.34, 0.33), None),
            "b",
        ],
        [
            ((0.34, 0.33), "b"),
            ([0.3381, 0.3319], "B"),
            (np.array([0.338, 0.325], "float32"), "(b)"),
            [("0.34", "0.32"), "b"],
        ],
    ),
    "rotary.pairs": (
        [
            ((0.0, 0.91), "a"),
            ((0.0, 0.91), "b"),
            ((0.91, 0.0), "b"),
            ((0.91, 0.0), "c"),
            ((0.38, 0.91), "a"),
            ((0.24, 0.91), "a"),
            ((0.93, 0.93), "a"),
            ((0.0, 0.0), "c"),
            ((8, 8), "c"),
            ((0.001,), "c"),
            (0.0, 0.91, "c"),
            ((0.0, 0.91), 3),
            np.zeros(16),
        ],
        [
            ((0.0, 0.91), "c"),
            ([0.0008, 0.9091], "C"),
            (np.array([0.001, 0.909]), "(c)"),
            ("0.00, 0.91", " c"),
        ],
    ),
}
