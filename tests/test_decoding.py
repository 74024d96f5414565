"""mistral_lib/generation/decoding.py: the compiled loop against one forward pass a token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mistral_lib import MistralBackbone
from mistral_lib.generation.decoding import DecodingLoop
from mistral_lib.generation.sampling import Sampler, filter_logits, make_sampler

VOCABULARY, WINDOW, LONGEST = 50, 7, 48
GREEDY = Sampler()


@pytest.fixture(scope="module")
def backbone():
    backbone = MistralBackbone(VOCABULARY, 2, 4, 32, 48, 2, sliding_window=WINDOW)
    rng = np.random.default_rng(0)
    for variable in backbone.variables:
        if len(variable.shape) > 1:
            variable.assign(rng.normal(0, 0.4, variable.shape))
    return backbone


@pytest.fixture(scope="module")
def loop(backbone):
    return DecodingLoop(backbone)


@pytest.fixture(scope="module")
def next_logits(backbone):
    """Logits after a row of ids, from the backbone without a cache."""
    forward = jax.jit(
        lambda ids, mask: backbone.token_embedding(
            backbone({"token_ids": ids, "padding_mask": mask}), reverse=True
        )
    )

    def logits(row):
        ids = np.zeros((1, LONGEST), int)
        ids[0, : len(row)] = row
        return forward(ids, np.arange(LONGEST)[None] < len(row))[:, len(row) - 1]

    return logits


def prompt(length, seed=0):
    return np.random.default_rng(seed).integers(0, VOCABULARY, length).tolist()


PROMPTS = [prompt(3, 1), prompt(WINDOW, 2), prompt(30, 3)]  # below, at and far above the window


def write(loop, prompts, limits, seeds=None, sampler=GREEDY, stop=(), steps=None, **kwargs):
    """The new tokens of every row, in calls of `steps` tokens."""
    state = loop.start(prompts, limits, seeds or [0] * len(prompts), sampler, stop, **kwargs)
    while not state.finished.all():
        state = loop.run(state, sampler, stop, steps)
    return [row[:n].tolist() for row, n in zip(np.array(state.tokens), state.counts, strict=True)]


def test_greedy_equals_a_loop_without_a_cache(loop, next_logits):
    for row in PROMPTS:
        expected = list(row)
        for _ in range(12):
            logits = np.sort(np.array(next_logits(expected))[0])
            assert logits[-1] - logits[-2] > 1e-3  # rounding cannot decide
            expected.append(int(jnp.argmax(next_logits(expected))))
        assert row + write(loop, [row], [12])[0] == expected


def test_sampling_equals_a_loop_without_a_cache(loop, next_logits):
    sampler = make_sampler(0.9, top_k=20, top_p=0.95)
    row = list(PROMPTS[0])
    key = jax.random.key(5)
    for index in range(8):
        logits = filter_logits(next_logits(row), sampler)[0]
        row.append(int(jax.random.categorical(jax.random.fold_in(key, index), logits)))
    assert PROMPTS[0] + write(loop, [PROMPTS[0]], [8], [5], sampler)[0] == row


@pytest.mark.parametrize("sampler", [GREEDY, make_sampler(1.0), make_sampler(0.8, top_p=0.9)])
def test_a_row_does_not_depend_on_its_neighbours(loop, sampler):
    together = write(loop, PROMPTS, [10, 4, 7], [5, 6, 7], sampler)
    alone = [
        write(loop, [row], [limit], [seed], sampler)[0]
        for row, limit, seed in zip(PROMPTS, [10, 4, 7], [5, 6, 7], strict=True)
    ]
    assert together == alone
    assert [len(row) for row in together] == [10, 4, 7]


def test_blocks_of_steps_equal_one_run(loop):
    sampler = make_sampler(1.0)
    once = write(loop, PROMPTS, [11] * 3, [1, 2, 3], sampler)
    for steps in (1, 4, 100):
        assert write(loop, PROMPTS, [11] * 3, [1, 2, 3], sampler, steps=steps) == once


@pytest.mark.parametrize("chunk_size", [1, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW])
def test_prefill_in_chunks(loop, chunk_size):
    assert write(loop, PROMPTS, [6] * 3, chunk_size=chunk_size) == write(loop, PROMPTS, [6] * 3)


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


def test_seeds_matter(loop):
    sampler = make_sampler(1.5)
    texts = write(loop, [PROMPTS[0]] * 3, [12] * 3, [1, 2, 1], sampler)
    assert texts[0] == texts[2] != texts[1]


def test_trained_weights_are_used_without_a_new_compilation(backbone):
    loop = DecodingLoop(backbone)
    before = write(loop, PROMPTS, [6] * 3)
    compiled = loop._steps._cache_size(), loop._read._cache_size()
    kernel = backbone.transformer_layers[0].self_attention.value.kernel
    original = np.array(kernel.value)
    kernel.assign(-original)
    changed = write(loop, PROMPTS, [6] * 3)
    kernel.assign(original)
    assert changed != before
    assert write(loop, PROMPTS, [6] * 3) == before
    assert (loop._steps._cache_size(), loop._read._cache_size()) == compiled


def test_lengths_in_one_bucket_share_a_compilation(backbone):
    loop = DecodingLoop(backbone)
    for length in (17, 20, 31):
        write(loop, [prompt(length)], [1])
        write(loop, [prompt(length)], [3])
    assert loop._read._cache_size() == 1
    assert loop._steps._cache_size() == 1


def test_no_weight_is_a_constant_of_the_compiled_loop(backbone, loop):
    state = loop.start([PROMPTS[0]], [4], [0], GREEDY)
    weights = [variable.value for variable in backbone.variables]
    text = loop._steps.lower(weights, state, GREEDY, np.zeros(0, "int32"), np.int32(3)).as_text()
    for line in text.splitlines():
        assert not ("stablehlo.constant" in line and 'dense<"0x' in line and len(line) > 2000)
    arguments = text[: text.index("->")]
    for shape in ("50x32", "32x50", "32x16", "32x48", "48x32"):
        assert f"tensor<{shape}xf32>" in arguments
