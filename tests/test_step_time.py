"""mistral_lib/teaching/step_time.py: the equation is counted by hand, by JAX, and by the clock."""

import jax
import jax.numpy as jnp
import pytest

from mistral_lib import MistralBackbone, without_weights
from mistral_lib.config import MistralConfig
from mistral_lib.teaching import roofline
from mistral_lib.teaching.step_time import (
    Step,
    Work,
    checking_step,
    decoding_step,
    keys_seen,
    reading_step,
)

# V, L, H, D, F, K: heads of 4 numbers, 2 groups; a window of 3.
SMALL = MistralConfig(10, 2, 4, 16, 32, 2, sliding_window=3)
BLOCK = 16 * 16 + 2 * (16 * 8) + 16 * 16 + 3 * 16 * 32  # query, key and value, output, feed-forward
SCALES = 2 * 16


def test_a_step_of_decoding_by_hand():
    step = decoding_step(SMALL, rows=5, context=7)
    assert step.weights.flops == 2 * 5 * (2 * BLOCK + 16 * 10)
    assert step.weights.bytes == 4 * (2 * (BLOCK + SCALES) + 16 + 16 * 10)
    assert step.attention.flops == 5 * 2 * 3 * 4 * 4 * 4  # rows, layers, keys, heads, h, FLOPs
    assert step.attention.bytes == 5 * 2 * 3 * 2 * 2 * 4 * 4  # …, key and value, K, h, float32


def test_reading_by_hand():
    step = reading_step(SMALL, tokens=5)
    assert step.weights.flops == 2 * 5 * 2 * BLOCK  # without logits
    assert step.weights.bytes == 4 * (2 * (BLOCK + SCALES) + 16)
    pairs = 1 + 2 + 3 + 3 + 3
    assert step.attention.flops == 2 * pairs * 4 * 4 * 4
    assert step.attention.bytes == 2 * 5 * 2 * 2 * 4 * 4


def test_the_longer_of_two_times_and_the_sum_of_two_parts():
    step = Step(Work(flops=30, bytes=10), Work(flops=5, bytes=8))
    assert step.seconds(rate=10, bandwidth=4) == 3 + 2
    assert step.seconds(rate=10, bandwidth=2) == 5 + 4


def test_a_batch_shares_the_weights_and_nothing_else():
    one, many = (decoding_step(SMALL, rows, context=7) for rows in (1, 64))
    assert many.weights.bytes == one.weights.bytes
    assert many.weights.flops == 64 * one.weights.flops
    assert many.attention.bytes == 64 * one.attention.bytes
    assert many.attention.flops == 64 * one.attention.flops


def test_checking_reads_weights_and_cache_once_and_computes_for_every_token():
    assert checking_step(SMALL, 3, 7, tokens=1) == decoding_step(SMALL, 3, 7)
    one, five = decoding_step(SMALL, 3, 7), checking_step(SMALL, 3, 7, tokens=5)
    assert (five.weights.bytes, five.attention.bytes) == (one.weights.bytes, one.attention.bytes)
    assert five.weights.flops == 5 * one.weights.flops
    assert five.attention.flops == 5 * one.attention.flops


def test_layers_with_windows_of_their_own():
    mixed = MistralConfig(10, 3, 2, 8, 16, 1, sliding_window=[4, None, 4])
    assert keys_seen(mixed, 100) == [4, 100, 4]
    pairs = 100 * 101 // 2 + 2 * (10 + 96 * 4)
    assert reading_step(mixed, 100).attention.flops == 4 * 2 * 4 * pairs


def test_a_tied_embedding_is_read_for_the_logits_alone():
    tied = SMALL.changed(tie_word_embeddings=True)
    assert decoding_step(tied, 1, 7) == decoding_step(SMALL, 1, 7)
    assert reading_step(tied, 7) == reading_step(SMALL, 7)


def test_quantized_weights_with_their_scales_and_the_cache_as_it_computes():
    step = decoding_step(SMALL, 1, 7, dtype="int8_from_bfloat16")
    outputs = 2 * (16 + 8 + 8 + 16 + 32 + 32 + 16) + 10  # one scale each
    norms = 2 * (2 * SCALES + 16)
    assert step.weights.bytes == 2 * BLOCK + 160 + 2 * outputs + norms
    assert step.weights.flops == decoding_step(SMALL, 1, 7).weights.flops
    assert step.attention.bytes == decoding_step(SMALL, 1, 7).attention.bytes / 2


def test_the_compiler_counts_the_same():
    config = MistralConfig(500, 2, 4, 128, 256, 2)
    with without_weights():
        model = MistralBackbone(**config.to_dict())

    def run(weights, token_ids):
        inputs = {"token_ids": token_ids, "padding_mask": jnp.ones_like(token_ids)}
        return model.stateless_call(weights, [], inputs)[0]

    weights = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in model.trainable_variables]
    token_ids = jax.ShapeDtypeStruct((1, 16), "int32")
    counted = jax.jit(run).lower(weights, token_ids).compile().cost_analysis()
    step = reading_step(config, 16)
    square = 16 * 16 / (16 * 17 / 2)  # the dense path computes the whole square of scores
    flops = step.weights.flops + square * step.attention.flops
    assert flops <= counted["flops"] < 1.05 * flops


@pytest.mark.parametrize(
    ("workload", "step"),
    [
        ("decode_80_x1", lambda config: decoding_step(config, 1, 48)),
        ("decode_1040_x1", lambda config: decoding_step(config, 1, 1008)),
        ("decode_4096_x1", lambda config: decoding_step(config, 1, 4064)),
        ("decode_80_x8", lambda config: decoding_step(config, 8, 48)),
        ("prefill_1024", lambda config: reading_step(config, 1024)),
        ("prefill_4096", lambda config: reading_step(config, 4096)),
        ("prefill_8192", lambda config: reading_step(config, 8192)),
        ("prefill_32768", lambda config: reading_step(config, 32768)),
    ],
)
def test_the_recorded_times_are_above_the_least_and_not_far(workload, step):
    """Against the clock: the committed record, with the limits measured beside each workload."""
    record = roofline.records()["cpu"]
    limits = {name: each["limit"] for name, each in record["workloads"].items()}
    rate = limits["prefill_1024"]["rate"]
    bandwidth = limits["decode_80_x1_64"]["rate"]
    own = limits.get(workload) or limits[f"{workload}_64"]
    if own["kind"] == "matmul":
        rate = own["rate"]
    else:
        bandwidth = own["rate"]
    least = step(MistralConfig(**roofline.MODEL)).seconds(rate, bandwidth)
    assert 1 < roofline.seconds_of(record, workload) / least < 1.5
