"""mistral_lib/generation/decoding.py: the compiled loop against one forward pass a token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_models import (
    PROMPTS,
    finish,
    make_backbone,
    make_job,
    make_loop,
    prompt,
    uncached,
    write,
)

from mistral_lib.generation.compiled import watch
from mistral_lib.generation.sampling import GREEDY, filter_logits, make_sampler


@pytest.fixture(scope="module")
def backbone():
    return make_backbone()


@pytest.fixture(scope="module")
def loop(backbone):
    return make_loop(backbone)


@pytest.fixture(scope="module")
def next_logits(backbone):
    """Logits after a row of ids, from the backbone without a cache."""
    return uncached(backbone)


def test_greedy_equals_a_loop_without_a_cache(loop, next_logits):
    for row in PROMPTS:
        expected = list(row)
        for _ in range(12):
            logits = np.sort(np.array(next_logits(expected))[0])
            assert logits[-1] - logits[-2] > 1e-3  # rounding cannot decide
            expected.append(int(jnp.argmax(next_logits(expected))))
        assert row + write(loop, [row], [12])[0] == expected


@pytest.mark.slow
def test_sampling_equals_a_loop_without_a_cache(loop, next_logits):
    sampler = make_sampler(0.9, top_k=20, top_p=0.95)
    row = list(PROMPTS[0])
    key = jax.random.key(5)
    for index in range(8):
        logits = filter_logits(next_logits(row), sampler)[0]
        row.append(int(jax.random.categorical(jax.random.fold_in(key, index), logits)))
    assert PROMPTS[0] + write(loop, [PROMPTS[0]], [8], [5], sampler)[0] == row


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [GREEDY, make_sampler(1.0), make_sampler(0.8, top_p=0.9)])
def test_a_row_does_not_depend_on_its_neighbours(loop, sampler):
    together = write(loop, PROMPTS, [10, 4, 7], [5, 6, 7], sampler)
    alone = [
        write(loop, [row], [limit], [seed], sampler)[0]
        for row, limit, seed in zip(PROMPTS, [10, 4, 7], [5, 6, 7], strict=True)
    ]
    assert together == alone
    assert [len(row) for row in together] == [10, 4, 7]


@pytest.mark.slow
def test_blocks_of_steps_equal_one_run(loop):
    sampler = make_sampler(1.0)
    once = write(loop, PROMPTS, [11] * 3, [1, 2, 3], sampler)
    for steps in (1, 4, 100):
        assert write(loop, PROMPTS, [11] * 3, [1, 2, 3], sampler, steps=steps) == once


@pytest.mark.slow
def test_samples_share_one_prefill(loop):
    sampler = make_sampler(1.2)
    together = write(loop, PROMPTS[:2], [9, 5], [1, 2, 3, 4, 5, 6], sampler, num_samples=3)
    assert together[:3] == write(loop, PROMPTS[:1] * 3, [9] * 3, [1, 2, 3], sampler)
    assert together[3:] == write(loop, PROMPTS[1:2] * 3, [5] * 3, [4, 5, 6], sampler)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [GREEDY, make_sampler(0.5, top_k=10)])
def test_log_probs_are_the_models_own(loop, next_logits, sampler):
    state, _ = finish(loop, make_job(PROMPTS[:1], [7], [4], sampler, log_probs=True))
    row = list(PROMPTS[0])
    for token, log_prob in zip(np.array(state.tokens)[0, :7], np.array(state.log_probs)[0, :7]):
        expected = jax.nn.log_softmax(next_logits(row))[0, token]
        assert log_prob == pytest.approx(float(expected), abs=1e-4)
        row.append(int(token))


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_repetition_penalty_counts_prompt_and_continuation(loop, next_logits, temperature):
    """Against the rule, on the text so far and one forward pass a token."""
    sampler = make_sampler(temperature, repetition_penalty=1.8)
    row, key = list(PROMPTS[0]), jax.random.key(3)
    for index in range(12):
        logits = np.array(next_logits(row)[0])
        for token in set(row):
            logits[token] = logits[token] * 1.8 if logits[token] < 0 else logits[token] / 1.8
        if temperature:
            row.append(int(jax.random.categorical(jax.random.fold_in(key, index), logits)))
        else:
            row.append(int(logits.argmax()))
    for batch in ([PROMPTS[0]], [PROMPTS[0], PROMPTS[2]]):
        got = write(loop, batch, [12] * len(batch), [3] * len(batch), sampler)
        assert PROMPTS[0] + got[0] == row
    assert write(loop, [PROMPTS[0]], [12], [3], make_sampler(temperature))[0] != row[3:]


def test_stop_tokens_end_a_row_and_are_kept(loop):
    free = write(loop, PROMPTS, [10] * 3)
    stop = free[0][4]
    stopped = write(loop, PROMPTS, [10] * 3, stop=(stop,))
    for row, whole in zip(stopped, free, strict=True):
        assert row == (whole[: whole.index(stop) + 1] if stop in whole else whole)
    assert len(stopped[0]) <= 5


def test_a_first_token_that_stops(loop):
    first = write(loop, [PROMPTS[0]], [1])[0]
    assert len(first) == 1
    assert write(loop, [PROMPTS[0]], [10], stop=tuple(first)) == [first]


@pytest.mark.slow
def test_seeds_matter(loop):
    sampler = make_sampler(1.5)
    texts = write(loop, [PROMPTS[0]] * 3, [12] * 3, [1, 2, 1], sampler)
    assert texts[0] == texts[2] != texts[1]


def test_trained_weights_are_used_without_a_new_compilation(backbone):
    loop = make_loop(backbone)
    before = write(loop, PROMPTS, [6] * 3)
    kernel = backbone.transformer_layers[0].self_attention.value.kernel
    original = np.array(kernel.value)
    kernel.assign(-original)
    with watch() as calls:
        changed = write(loop, PROMPTS, [6] * 3)
        kernel.assign(original)
        again = write(loop, PROMPTS, [6] * 3)
    assert changed != before
    assert again == before
    assert [call.name for call in calls] == ["read_chunk", "choose", "run_steps"] * 2
    assert not any(call.compiled for call in calls)


@pytest.mark.slow
def test_lengths_in_one_bucket_share_a_compilation(backbone):
    loop = make_loop(backbone)
    with watch() as calls:
        for length in (17, 20, 31):
            write(loop, [prompt(length)], [1])
            write(loop, [prompt(length)], [3])
    assert [call.name for call in calls if call.compiled] == ["read_chunk", "choose", "run_steps"]
    for temperature, top_k, seed in ((1, 5, 0), (0.5, 7, 1), (1.5, 2, 9)):
        sampler = make_sampler(temperature, top_k, top_p=0.5, repetition_penalty=temperature)
        with watch() as calls:
            write(loop, [prompt(18)], [3], [seed], sampler)
        drawing = [] if seed else ["choose", "run_steps"]  # once, beside greedy
        assert [call.name for call in calls if call.compiled] == drawing


def test_no_weight_is_a_constant_of_the_compiled_loop(backbone, loop):
    with watch() as calls:
        write(loop, [PROMPTS[0]], [4])
    assert calls[-1].name == "run_steps"
    text = calls[-1].lower().as_text()
    for line in text.splitlines():
        assert not ("stablehlo.constant" in line and 'dense<"0x' in line and len(line) > 2000)
    arguments = text[: text.index("->")]
    for shape in ("50x32", "32x50", "32x16", "32x48", "48x32"):
        assert f"tensor<{shape}xf32>" in arguments
