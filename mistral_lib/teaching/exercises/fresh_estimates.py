"""Estimates with new numbers (used by all chapters)."""

from __future__ import annotations

import math

import numpy as np

from mistral_lib.teaching.exercises.fresh import Fresh, bfloat16_step

WIDTHS = (1024, 2048, 3072, 4096, 5120, 6144, 8192)
DIGITS = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}


def _cache(layers, heads, key_heads, size):
    return 2 * layers * key_heads * size * 2 / 2**10


def _step_time(billions, window, kib, bandwidth, *, weight=2, slots=True):
    slot_bytes = window * kib * 1024 if slots else 0
    return (weight * billions * 1e9 + slot_bytes) / (bandwidth * 1e9) * 1000


def _rounds(size, window, turn=2 * math.pi):
    pairs = size // 2
    return int((turn * 10_000 ** (np.arange(pairs) / pairs) <= window).sum())


def _blocks(memory, *, gibibyte=2**30, number=2, tables=2 * 32_000 * 4096):
    in_block = 2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14_336 + 2 * 4096
    return int((memory * gibibyte / number - tables) / in_block)


def _percent(exponent):
    return 100 * (math.exp(exponent) - 1)


FRESH = {
    "attention.cache": Fresh(
        text="A model has {layers} layers, each with {heads} query heads and {key_heads} heads "
        "with keys and values, of {size} features each. How many KiB does its cache hold for each "
        "token, in bfloat16?",
        book=dict(layers=32, heads=32, key_heads=8, size=128),
        ranges=dict(
            layers=(16, 24, 32, 40, 48, 56, 64, 80),
            heads=(32, 40, 48, 64),
            key_heads=(2, 4, 8),
            size=(64, 128),
        ),
        answer=_cache,
        mistakes=lambda layers, heads, key_heads, size: (
            (_cache(layers, 0, heads, size), "query heads counted? Only keys and values are kept."),
            (_cache(layers, 0, key_heads, size) / 2, "keys or values? Both are kept."),
            (_cache(layers, 0, key_heads, size) * 2, "four bytes are float32."),
            (_cache(1, 0, key_heads, size), f"that is one layer. There are {layers}."),
            (_cache(layers, 0, 1, size), f"that is one key head. There are {key_heads}."),
        ),
    ),
    "attention.room": Fresh(
        text="A GPU has {memory} GiB, and the weights of a model take {weights} of them. A token's "
        "cache is {kib} KiB. How many texts of {length:,} tokens fit at once, without a window and "
        "with nothing else in memory? Within 15 % is near enough.",
        book=dict(memory=80, weights=13.5, kib=128, length=8192),
        ranges=dict(
            memory=(24, 32, 40, 48, 80, 96, 141),
            weights=(4.5, 7.5, 13.5, 22.5, 27),
            kib=(64, 128, 256),
            length=(2048, 4096, 8192, 16_384),
        ),
        good=lambda memory, weights, kib, length: (
            0.13 < weights / memory < 0.7 and (memory - weights) / (length * kib / 2**20) > 10
        ),
        answer=lambda memory, weights, kib, length: (memory - weights) / (length * kib / 2**20),
        mistakes=lambda memory, weights, kib, length: (
            (memory / (length * kib / 2**20), f"the weights need room, too: {weights} GiB."),
            (
                (memory - weights) * 2**20 / kib,
                f"that is tokens. A text has {length:,} of them.",
            ),
        ),
    ),
    "backbone.fit": Fresh(
        text="A GPU has {memory} GiB. How many blocks of Mistral 7B's shape, with its tables, "
        "would fit in bfloat16 if it held nothing but weights? Within 4 % is near enough.",
        book=dict(memory=24),
        ranges=dict(memory=(16, 20, 22, 32, 36, 40, 48, 64, 80, 94, 96, 128, 141, 180, 192)),
        answer=_blocks,
        mistakes=lambda memory: (
            (_blocks(memory, gibibyte=10**9), "a GiB is 2 ** 30 bytes, not a billion."),
            (_blocks(memory, number=4), "that is float32, four bytes a number."),
            (_blocks(memory, number=1), "that is one byte a number."),
        ),
    ),
    "cache.milliseconds": Fresh(
        text="A model of {billions} billion weights in bfloat16 writes one text on a GPU that "
        "reads {bandwidth:,} GB a second. Its window of {window:,} tokens is full, and a token's "
        "cache is {kib} KiB. What is the least number of milliseconds that a token can take? "
        "Within 15 % is near enough.",
        book=dict(billions=7.24, window=4096, kib=128, bandwidth=4800),
        ranges=dict(
            billions=(1.1, 3.2, 7.24, 8.03, 13, 24, 32),
            window=(4096, 8192, 16_384, 32_768),
            kib=(64, 128, 256),
            bandwidth=(900, 1555, 2039, 3350, 4800, 8000),
        ),
        good=lambda billions, window, kib, bandwidth: window * kib * 1024 < 2 * billions * 1e9,
        answer=_step_time,
        mistakes=lambda **numbers: (
            (_step_time(**numbers, weight=4), "four bytes a weight? bfloat16 has two."),
            (_step_time(**numbers, weight=0), "the weights are read, too."),
            (_step_time(**numbers, slots=False), "the cache is read, too."),
        ),
    ),
    "causal_lm.loop_cost": Fresh(
        text="A program lets a model write until the text has {tokens:,} tokens, starting from <s> "
        "alone, and reads everything again each time. How many times the work of a program with a "
        "cache is that? Leave out what attention adds.",
        book=dict(tokens=1000),
        ranges=dict(tokens=range(100, 4001, 20)),
        answer=lambda tokens: (tokens + 1) / 2,
        mistakes=lambda tokens: (
            (tokens, "that is the factor for the last token. The first costs the same either way."),
            (
                tokens * (tokens + 1) / 2,
                f"that is how many tokens the loop reads. The cache reads {tokens:,} of them.",
            ),
        ),
    ),
    "embedding.rungs": Fresh(
        text="Two tokens have logits near {logit}, one bfloat16 rung apart. By how many percent is "
        "one likelier than the other?",
        book=dict(logit=20),
        ranges=dict(logit=(3, 5, 6, 7, 9, 10, 12, 14, 18, 24, 28, 36, 40, 48, 56, 70, 80)),
        answer=lambda logit: _percent(bfloat16_step(logit)),
        mistakes=lambda logit: (
            (
                _percent(bfloat16_step(logit) / 2),
                "that step holds between the powers of two below.",
            ),
            (_percent(bfloat16_step(logit) * 2), "that step holds from the next power of two on."),
            (100 / 256, "that is how far a number moves. Logits are exponents."),
            (bfloat16_step(logit), "that is the step of the logit. What is that in percent?"),
        ),
    ),
    "masks.pairs": Fresh(
        text="Estimate, without running code, how many (query, key) pairs one head scores for "
        "{length:,} tokens with a window of {window:,}. Within a quarter is near enough.",
        book=dict(length=32_768, window=4096),
        ranges=dict(
            length=(4096, 8192, 16_384, 32_768, 65_536, 131_072),
            window=(256, 512, 1024, 2048, 4096, 8192),
        ),
        good=lambda length, window: length >= 4 * window,
        answer=lambda length, window: length * window - window * (window - 1) // 2,
        mistakes=lambda length, window: (
            (
                length * window / 2,
                "a window makes a band, not a triangle: nearly every row is full.",
            ),
            (length**2, "the whole square was counted, the future with it."),
            (length * (length + 1) // 2, "that is causal attention without a window."),
            (window**2, f"that is one window by one window. There are {length:,} rows."),
        ),
    ),
    "on_ramp.bytes": Fresh(
        text="How many MiB (2**20 bytes) do the hidden states of {texts} texts of {tokens:,} "
        "tokens take in bfloat16, if D = {width:,}?",
        book=dict(texts=8, tokens=4096, width=4096),
        ranges=dict(texts=(3, 4, 6, 8, 12, 16, 32), tokens=(512, 1024, 2048, 4096), width=WIDTHS),
        answer=lambda texts, tokens, width: texts * tokens * width * 2 / 2**20,
        mistakes=lambda texts, tokens, width: (
            (tokens * width * 2 / 2**20, f"that is one text. There are {texts}."),
            (texts * tokens * width * 4 / 2**20, "that is float32: bfloat16 has two bytes."),
            (texts * tokens * width / 2**20, "that is one byte a number. It has 16 bits."),
        ),
    ),
    "on_ramp.kernel": Fresh(
        text="How many million weights does a layer without bias need to turn D = {width:,} "
        "features into F = {wide:,}?",
        book=dict(width=4096, wide=14_336),
        ranges=dict(width=WIDTHS, wide=(2816, 8192, 11_008, 14_336, 16_384, 20_480, 28_672)),
        good=lambda width, wide: wide >= 2 * width,
        answer=lambda width, wide: width * wide / 1e6,
        mistakes=lambda width, wide: (
            ((width + wide) / 1e6, "those are the sizes added. A kernel has rows times columns."),
            (width**2 / 1e6, "that is a kernel from D to D."),
            (3 * width * wide / 1e6, "that is a whole network. One kernel is asked for."),
        ),
    ),
    "rotary.precision": Fresh(
        text="Positions become {dtype}. From which position on are neighbouring tokens sometimes "
        "turned by exactly the same angles? Within a fifth is near enough.",
        book=dict(dtype="float32"),
        ranges=dict(dtype=("bfloat16", "float16", "float64")),
        answer=lambda dtype: 2 ** DIGITS[dtype],
        mistakes=lambda dtype: (
            (
                2 ** (DIGITS[dtype] - 1),
                f"{dtype} stores {DIGITS[dtype] - 1} bits of digits, and a leading 1 that it need "
                "not store.",
            ),
            (
                2 ** (DIGITS[dtype] + 1),
                "there neighbours are 4 apart. Where do they begin to be 2?",
            ),
            (2**31, "an int32 ends there."),
        ),
    ),
    "rotary.wavelength": Fresh(
        text="A head has {size} features, and a token sees {window:,} tokens. The slowest of its "
        "wavelengths is nearly 2π · 10,000. How many of the {pairs} pairs go round at least once "
        "within these {window:,} tokens? Within 5 % is near enough.",
        book=dict(size=128, window=4096, pairs=64),
        ranges=dict(
            size=(64, 96, 128, 256),
            window=(512, 1024, 2048, 4096, 8192),
            pairs=(32, 48, 64, 128),
        ),
        good=lambda size, window, pairs: size == 2 * pairs,
        answer=lambda size, window, pairs: _rounds(size, window),
        mistakes=lambda size, window, pairs: (
            (
                _rounds(size, window, turn=1),
                "you counted a radian as a round. A full turn is 2π of them.",
            ),
            (pairs, "those are all pairs. The slowest needs more than 50,000 tokens."),
            (pairs - _rounds(size, window), "those are the pairs that do not finish a round."),
        ),
    ),
    "tokenizer.scan": Fresh(
        text="A loop looks at every pair of neighbours again after each merge. A text of "
        "{letters:,} characters ends as {tokens:,} tokens. Estimate, within 25 %, how many pairs "
        "it looks at in all.",
        book=dict(letters=10_000, tokens=2500),
        ranges=dict(letters=range(4000, 40_001, 2000), tokens=range(500, 12_001, 500)),
        good=lambda letters, tokens: 0.1 < tokens / letters < 0.4,
        answer=lambda letters, tokens: (letters * (letters - 1) - tokens * (tokens - 1)) // 2,
        mistakes=lambda letters, tokens: (
            (
                (letters - tokens) * letters,
                f"the text gets shorter: the last merges look at {tokens:,} pairs only.",
            ),
            (letters - tokens, "that is how many merges there are. Each looks at every pair."),
            (letters**2, "a text that is cut has fewer merges, and gets shorter on the way."),
        ),
    ),
}
