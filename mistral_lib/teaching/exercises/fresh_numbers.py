"""Exercises about numbers and machines, for paper, with new numbers (used by all chapters)."""

from __future__ import annotations

from mistral_lib.teaching.exercises.fresh import Fresh, bfloat16_step


def _byte(sign, exponent, fraction, scale):
    return (-1) ** sign * (1 + fraction / 8) * 2.0 ** (exponent - 7) * scale


def _ring(devices, device):
    pieces = [0] * devices
    for step in range(devices):
        pieces[(device - step) % devices] = step + 1
    return pieces


def _rounded(number):
    return bfloat16_step(number) * round(number / bfloat16_step(number))


def _weight(largest, steps):
    return round(steps * largest / 127, 6)


def _times(rate, bandwidth, side, vectors, least=max):
    """Milliseconds for one vector and for several."""
    reading = 4 * side**2 / (bandwidth * 1e9) * 1000
    return tuple(least(n * 2 * side**2 / (rate * 1e9) * 1000, reading) for n in (1, vectors))


def _number(country, area, line):
    return f"+{country} {area} {line}"


FRESH = {
    "checkpoints.fp8": Fresh(
        text="The byte is {sign} {exponent:04b} {fraction:03b}: one bit of sign, four of exponent, "
        "counted from 7, and three of fraction. The `weight_scale_inv` of its tensor is {scale}. "
        "Which number does the kernel have there?",
        book=dict(sign=1, exponent=6, fraction=4, scale=0.5),
        ranges=dict(
            sign=(0, 1), exponent=range(4, 11), fraction=range(1, 8), scale=(0.125, 0.25, 0.5, 2)
        ),
        answer=_byte,
        mistakes=lambda sign, exponent, fraction, scale: (
            (
                _byte(sign, exponent, fraction, 1 / scale),
                "the number is multiplied with the scale, whatever its name ends in.",
            ),
            (_byte(sign, exponent, fraction, 1), "that is the byte alone, before its scale."),
            (_byte(1 - sign, exponent, fraction, scale), "the first bit is the sign: 1 is minus."),
            (
                _byte(sign, exponent, 0, scale),
                f"the fraction is missing: {fraction:03b} is {fraction} eighths, added to 1.",
            ),
            (_byte(sign, exponent + 7, fraction, scale), "the exponent counts from 7."),
        ),
    ),
    "distribution.ring": Fresh(
        text="{devices} devices in a ring hold {devices} pieces each, and every number is 1. "
        "Device i sends to device i + 1, and begins with its piece i. What does device {device} "
        "hold after the reduce-scatter? Answer with a list of {devices} numbers.",
        book=dict(devices=4, device=0),
        ranges=dict(devices=(3, 4, 5, 6), device=range(6)),
        good=lambda devices, device: device < devices,
        answer=_ring,
        mistakes=lambda devices, device: (
            (
                [devices] * devices,
                "that is after the all-gather. Halfway only one piece is complete.",
            ),
            (
                [(piece - device) % devices + 1 for piece in range(devices)],
                "that is the ring in the other direction: they send to the right.",
            ),
            (_ring(devices, (device - 1) % devices), "that is the device to the left."),
        ),
    ),
    "on_ramp.jit": Fresh(
        text="What are the three results?\n\n    factor = {first}\n    scaled = jax.jit(lambda x: "
        "factor * x)\n    one = scaled({x})\n    factor = {second}\n    two, three = scaled({x}), "
        "scaled({x}.0)\n",
        book=dict(first=2, second=10, x=3),
        ranges=dict(first=range(2, 8), second=range(8, 15), x=range(2, 8)),
        answer=lambda first, second, x: [first * x, first * x, second * x],
        mistakes=lambda first, second, x: (
            (
                [first * x, second * x, second * x],
                f"the second call finds the program of the first, with the {first} in it.",
            ),
            (
                [first * x] * 3,
                f"{x}.0 is a float: for another dtype the function is read again.",
            ),
        ),
    ),
    "on_ramp.rounding": Fresh(
        text="What is {number:,} in bfloat16? (Between two powers of two there are 128 numbers.)",
        book=dict(number=1003),
        ranges=dict(number=range(515, 4000)),
        good=lambda number: number % bfloat16_step(number) not in (0, bfloat16_step(number) / 2),
        answer=_rounded,
        mistakes=lambda number: (
            (
                number // bfloat16_step(number) * bfloat16_step(number)
                + bfloat16_step(number) // 2,
                f"that takes nine binary digits. The neighbours are {bfloat16_step(number)} apart.",
            ),
            (
                2 * (number // bfloat16_step(number)) * bfloat16_step(number)
                + bfloat16_step(number)
                - _rounded(number),
                "it is the other neighbour. Which of the two is nearer?",
            ),
            (number, "bfloat16 has eight binary digits, and that takes more."),
        ),
    ),
    "on_ramp.shape": Fresh(
        text="Queries have the shape (B, S, K, G, h) = ({B}, {S}, {K}, {G}, {h}) and keys (B, T, "
        'K, h) = ({B}, {T}, {K}, {h}). What is the shape of np.einsum("bskgh,btkh->bkgst", '
        "queries, keys)?",
        book=dict(B=2, S=5, K=2, G=3, h=4, T=7),
        ranges=dict(B=(2, 3), S=range(4, 8), K=(2, 3), G=(2, 3, 4), h=(4, 8, 16), T=range(6, 12)),
        good=lambda B, S, K, G, h, T: S not in (K, G, T) and T not in (h, G),
        answer=lambda B, S, K, G, h, T: [B, K, G, S, T],
        mistakes=lambda B, S, K, G, h, T: (
            ([B, S, K, G, T], "the order is that after the arrow: b, k, g, s, t."),
            ([B, K, G, S, h], "h is in both inputs and not in the output, so it is summed over."),
            ([B, K, G, S, S], f"the keys have {T} places, and theirs is the letter t."),
        ),
    ),
    "quantization.by_hand": Fresh(
        text="The largest weight of a column is {largest}. What becomes of a weight that is "
        "{steps} steps of the grid, {largest} / 127 each, when the column is stored in int8 and "
        "read back?",
        book=dict(largest=2.54, steps=-13.2),
        ranges=dict(
            largest=(1.27, 2.54, 3.81, 5.08, 6.35),
            steps=[
                sign * (n + rest) for n in range(5, 50) for rest in (0.2, 0.7) for sign in (1, -1)
            ],
        ),
        answer=lambda largest, steps: _weight(largest, round(steps)),
        mistakes=lambda largest, steps: (
            (round(steps), "that is the whole number that is stored. What does it stand for?"),
            (
                _weight(largest, steps),
                "that is the weight. Between the steps of the grid there is nothing.",
            ),
            (-_weight(largest, round(steps)), "the sign is stored, too."),
        ),
    ),
    "roofline.by_hand": Fresh(
        text="A small processor does {rate} billion FLOPs and reads {bandwidth} GB in a second. A "
        "matrix of {side:,} × {side:,} float32 numbers is multiplied with one vector, and then "
        "with {vectors} vectors at once. How many milliseconds does each take at least? (Two FLOPs "
        "for each number of the matrix and each vector; the vectors themselves are small.)",
        book=dict(rate=5, bandwidth=1, side=1000, vectors=50),
        ranges=dict(
            rate=(2, 4, 5, 8, 10, 20),
            bandwidth=(1, 2, 4),
            side=(1000, 2000, 3000),
            vectors=(10, 20, 50, 100, 200),
        ),
        good=lambda rate, bandwidth, side, vectors: (
            rate > bandwidth and vectors * bandwidth > 2 * rate
        ),
        answer=_times,
        mistakes=lambda rate, bandwidth, side, vectors: (
            (
                (
                    _times(rate, bandwidth, side, vectors)[0],
                    vectors * _times(rate, bandwidth, side, vectors)[0],
                ),
                f"the matrix is read once for all {vectors} vectors.",
            ),
            (
                _times(rate, bandwidth, side, vectors, least=lambda *both: sum(both)),
                "both happen at the same time: the longer one counts, not the sum.",
            ),
            (
                _times(rate, bandwidth, side, vectors, least=min),
                "those are the shorter ones of each pair. The slower part decides.",
            ),
        ),
    ),
    "tokenizer.digits": Fresh(
        text="How many tokens does the telephone number `+{country} {area} {line}` have in a "
        "Tekken vocabulary, whatever its merges are?",
        book=dict(country=49, area=30, line=901820),
        ranges=dict(
            country=(1, 7, 33, 34, 39, 44, 81, 351, 353),
            area=(20, 30, 71, 221, 415, 911),
            line=(*range(100_000, 999_999, 4321), *range(1_000_000, 9_999_999, 54_321)),
        ),
        answer=lambda **parts: len(_number(**parts)),
        mistakes=lambda **parts: (
            (
                len(_number(**parts)) - 2,
                "a blank goes with letters that follow it, but not with a digit.",
            ),
            (
                len(_number(**parts)) - 3,
                "that is the digits. The plus sign and the two blanks are tokens too.",
            ),
            (3, "a number is not one word: the pattern cuts after each digit."),
        ),
    ),
}
