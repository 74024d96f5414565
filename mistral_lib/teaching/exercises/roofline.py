"""The exercises of chapter 19, "GPU runs"."""

from __future__ import annotations

from mistral_lib.teaching.exercises.kinds import Estimate, Explanation, Function, Value
from mistral_lib.teaching.facts import MISTRAL_7B

TABLE_7B = 32_000 * 4096  # of the embedding, of which a token reads one row
T4_FLOPS, T4_BYTES = 65e12, 320e9  # a second, from its data sheet
INT4_7B = 3.7e9  # bytes that a token reads in int4


def _works():
    """FLOPs, bytes, FLOP/s and bytes a second, with either of the two as the limit."""
    yield 2.0, 1.0, 2.0, 2.0
    yield 2.0, 4.0, 2.0, 2.0
    yield 2e9, 4e9, 1e12, 50e9
    yield 4e12, 1e9, 1e12, 50e9
    yield 0.0, 5.0, 3.0, 2.0


EXERCISES = [
    Value(
        name="roofline.by_hand",
        kind="trace by hand",
        minutes=4,
        difficulty=1,
        solution=(4, 20),
        unit="ms",
        mistakes=(
            ((0.4, 20), "one vector: 4 MB at 1 GB a second are 4 ms, and that takes longer."),
            ((4, 4), "fifty vectors need 50 times the arithmetic: 100 million FLOPs."),
            ((4.4, 24), "both happen at the same time: the longer one counts, not the sum."),
            ((4, 200), "the matrix is read once for all 50 vectors."),
            ((0.4, 4), "those are the shorter ones of each pair. The slower part decides."),
        ),
        hints=(
            "Compute two times for each product: for the arithmetic, and for reading the matrix.",
            "One vector: 2 million FLOPs and 4 MB. Fifty vectors: 100 million FLOPs and 4 MB.",
            "max(2e6 / 5e9, 4e6 / 1e9), max(100e6 / 5e9, 4e6 / 1e9), in seconds",
        ),
    ),
    Function(
        name="roofline.least",
        kind="missing lines",
        minutes=3,
        difficulty=1,
        solution=lambda flops, size, rate, bandwidth: max(flops / rate, size / bandwidth),
        cases=_works,
        mistakes={
            "is the sum: reading and computing go on at the same time.": (
                lambda flops, size, rate, bandwidth: flops / rate + size / bandwidth
            ),
            "is the shorter of the two: the work is done when both are.": (
                lambda flops, size, rate, bandwidth: min(flops / rate, size / bandwidth)
            ),
            "counts the arithmetic alone.": lambda flops, size, rate, bandwidth: flops / rate,
            "counts the bytes alone.": lambda flops, size, rate, bandwidth: size / bandwidth,
            "gives FLOPs a second; seconds are asked for.": (
                lambda flops, size, rate, bandwidth: min(rate, flops / size * bandwidth)
            ),
        },
        hints=(
            "Two things have to be finished, and neither waits for the other.",
            "One takes flops / rate, the other size / bandwidth.",
            "max(flops / rate, size / bandwidth)",
        ),
    ),
    Value(
        name="roofline.loop",
        kind="trace by hand",
        minutes=3,
        difficulty=2,
        solution=650,
        mistakes=(
            (30, "that is what the compiler's analysis says: it counts the body once."),
            (20, "that is the body, once."),
            (640, "the 10 outside the loop are missing."),
            (960, "the 10 outside the loop are done once."),
        ),
        hints=(
            "How often is the body of the loop run, and how often is it counted?",
            "Outside the loop are 30 - 20 = 10. The body's 20 are done 32 times.",
            "10 + 32 * 20",
        ),
    ),
    Value(
        name="roofline.bug",
        kind="find the bug",
        minutes=4,
        difficulty=2,
        solution=6,
        mistakes=(
            (2, "nothing has been computed before that line."),
            (
                3,
                "that keeps the first call out of the timing, and does no harm. But the others "
                "still run on when the clock is read.",
            ),
            (1, "nothing has been computed before that line."),
            (4, "nothing is at work before that line but the first call, and that is not timed."),
            (5, "there every call would wait for the one before: with a GPU, a gap each time."),
            (7, "then the clock has been read already."),
        ),
        hints=(
            "What has happened when a call of a compiled function returns?",
            "The calls return at once; the device is still at work when the clock is read.",
            "jax.block_until_ready(output) between the loop and the line that reads the clock",
        ),
    ),
    Estimate(
        name="roofline.batch",
        kind="estimate",
        minutes=4,
        difficulty=2,
        solution=round(T4_FLOPS / T4_BYTES),
        factor=1.1,
        unit="texts",
        mistakes=(
            (2 * T4_FLOPS / T4_BYTES, "a weight takes two bytes, but it also makes two FLOPs."),
            (T4_FLOPS / T4_BYTES / 2, "one FLOP a byte and text: two FLOPs for two bytes."),
            (4 * T4_FLOPS / T4_BYTES, "float16 takes two bytes, not eight."),
            (T4_FLOPS / T4_BYTES / 8, "that is not one multiplication for each weight and text."),
        ),
        hints=(
            "How many FLOPs does a weight make for each text, and how many bytes is it?",
            "With B texts: 2 B FLOPs for 2 bytes. The GPU can do 65e12 / 320e9 FLOPs a byte.",
            "65e12 / 320e9",
        ),
    ),
    Estimate(
        name="roofline.fastest",
        kind="estimate",
        minutes=3,
        difficulty=1,
        solution=round(T4_BYTES / INT4_7B),
        factor=1.1,
        unit="tokens a second",
        mistakes=(
            (4000, "that is the limit of the arithmetic. Bytes come first."),
            (T4_FLOPS / 2 / MISTRAL_7B, "that is the limit of the arithmetic. Bytes come first."),
            (T4_BYTES / (2 * (MISTRAL_7B - TABLE_7B)), "that is float16."),
            (T4_BYTES / INT4_7B / 2, "each byte is read once for a token, not twice."),
            (INT4_7B / T4_BYTES * 1000, "those are milliseconds a token."),
        ),
        hints=(
            "Which bytes have to be read again for every token?",
            "3.7 GB for each token, and 320 GB in a second.",
            "320 / 3.7",
        ),
    ),
    Estimate(
        name="roofline.cache",
        kind="estimate",
        minutes=4,
        difficulty=3,
        solution=round(14.5e9 / (128 * 1024), -3),
        factor=1.1,
        unit="tokens",
        mistakes=(
            (14.5e9 / (64 * 1024), "keys and values: 128 KiB a token, not 64."),
            (14.5e9 / (512 * 1024), "8 key-value heads, not 32."),
            (4096, "that is the window; without it the cache goes on growing."),
            (14.5e9 / (4 * 1024), "that is one of 32 layers."),
        ),
        hints=(
            "What does a step read besides the weights, and how does it grow?",
            "The cache holds 128 KiB for each token; the weights are 14.5 GB.",
            "14.5e9 / (128 * 1024)",
        ),
    ),
    Explanation(
        name="roofline.explain",
        kind="explain",
        minutes=5,
        difficulty=2,
        points=(
            "One token reads all weights once and does two FLOPs with each: the arithmetic units "
            "mostly wait.",
            "So for one text the bandwidth decides, and the second GPU is hardly faster.",
            "Reading prompts and training have many tokens for each weight: there it is twice as "
            "fast.",
            "Fewer bytes help one text: smaller weights, a shorter cache.",
        ),
        hints=(
            "Which of the two limits does writing one token run into?",
            "Mark the points of the figure on the left, and move the flat part of the roof up.",
            "Say for which work twice the FLOPs are twice the speed.",
        ),
    ),
]
