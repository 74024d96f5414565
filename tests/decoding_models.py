"""Small models whose every choice is clear, prompts around their window, and what loops write."""

import jax
import numpy as np

from mistral_lib import MistralBackbone
from mistral_lib.generation.decoding import DecodingLoop
from mistral_lib.generation.protocol import Job
from mistral_lib.generation.reading import PromptReader
from mistral_lib.generation.sampling import GREEDY

VOCABULARY, WINDOW, LONGEST = 50, 7, 48


def make_backbone(seed=0, layers=2, window=WINDOW, vocabulary_size=VOCABULARY):
    backbone = MistralBackbone(vocabulary_size, layers, 4, 32, 48, 2, sliding_window=window)
    rng = np.random.default_rng(seed)
    for variable in backbone.variables:
        if len(variable.shape) > 1:
            variable.assign(rng.normal(0, 0.4, variable.shape))
    return backbone


def make_loop(backbone, **kwargs):
    return DecodingLoop(PromptReader(backbone, **kwargs))


def uncached(backbone):
    """A function of a row of ids: the logits after it, (1, V), computed without a cache."""
    forward = jax.jit(
        lambda ids, mask: backbone.token_embedding(
            backbone({"token_ids": ids, "padding_mask": mask}), reverse=True
        )
    )

    def next_logits(row):
        ids = np.zeros((1, LONGEST), int)
        ids[0, : len(row)] = row
        return forward(ids, np.arange(LONGEST)[None] < len(row))[:, len(row) - 1]

    return next_logits


def prompt(length, seed=0, vocabulary_size=VOCABULARY):
    return np.random.default_rng(seed).integers(0, vocabulary_size, length).tolist()


PROMPTS = [prompt(3, 1), prompt(WINDOW, 2), prompt(30, 3)]  # below, at and far above the window


def make_job(prompts, limits, seeds=None, sampler=GREEDY, stop=(), **options):
    seeds = [0] * len(prompts) * options.get("num_samples", 1) if seeds is None else seeds
    return Job(prompts, limits, seeds, sampler, stop, **options)


def finish(loop, job, steps=None):
    """The state when all is written, and the number of calls of `steps` steps that it took."""
    state, calls = loop.start(job), 0
    while not state.finished.all():
        state, calls = loop.run(state, job, steps), calls + 1
    return state, calls


def new_tokens(state):
    """The new tokens of every row."""
    return [row[:n].tolist() for row, n in zip(np.array(state.tokens), state.counts, strict=True)]


def write(loop, *args, steps=None, **options):
    """What a loop writes for a job."""
    return new_tokens(finish(loop, make_job(*args, **options), steps)[0])
