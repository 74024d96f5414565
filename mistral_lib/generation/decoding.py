"""The compiled loop that writes text, a token at a time (chapter 16, "Sampling")."""

import dataclasses
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mistral_lib.arrays import Bool, Float, Int, Key
from mistral_lib.generation.cache import RollingCache, extend
from mistral_lib.generation.compiled import CompiledFunction, array_tree
from mistral_lib.generation.protocol import Job, step_until_finished, watched
from mistral_lib.generation.reading import PromptReader, logits_of
from mistral_lib.generation.sampling import Sampler, draw, filter_logits, token_log_probs


@array_tree
class DecodingState:
    """Everything that changes while a batch is being written.

    Attributes:
        cache: what the model has read: the prompt and all new tokens but the last.
        tokens: the new tokens of each row.
        counts: how many new tokens each row has.
        limits: how many it may have.
        finished: which rows get no more.
        failed: which rows had logits that are no finite numbers.
        keys: random keys.
        log_probs: see `token_log_probs`; or `None`.
        used_tokens: which tokens prompt and continuation hold; `None` without repetition penalty.
    """

    cache: RollingCache
    tokens: Int[Array, "B capacity"]
    counts: Int[Array, " B"]
    limits: Int[Array, " B"]
    finished: Bool[Array, " B"]
    failed: Bool[Array, " B"]
    keys: Key[Array, " B"]
    log_probs: Float[Array, "B capacity"] | None
    used_tokens: Bool[Array, "B V"] | None


Writing = TypeVar("Writing", bound=DecodingState)


class DecodingLoop:
    """Writes with one model, a token for each row and step. Nothing here knows about text.

    Args:
        reader: reads the prompts, with the backbone that writes.

    Attributes:
        choose, run_steps: the compiled functions.
    """

    def __init__(self, reader: PromptReader):
        self.reader = reader
        self.backbone = reader.backbone
        self.choose = CompiledFunction(self._choose, self.backbone)
        self.run_steps = CompiledFunction(self._run_steps, self.backbone)

    def start(self, job: Job, lookahead: int = 1) -> DecodingState:
        """Reads the prompts and chooses the first token of every row.

        Args:
            job: what to write.
            lookahead: see `new_cache`.
        """
        return self.choose(*self.begin(job, lookahead), job.sampler, job.stop_ids)

    def begin(self, job: Job, lookahead: int = 1) -> tuple[DecodingState, Float[Array, "B D"]]:
        """Reads the prompts: a state without new tokens, and the prompts' last hidden states."""
        longest = job.longest + lookahead - 1
        hidden, cache = self.reader.read(job.prompts, longest, job.num_samples, lookahead)
        shape = (job.num_rows, job.capacity)
        state = DecodingState(
            cache=cache,
            tokens=jnp.zeros(shape, "int32"),
            counts=jnp.zeros(job.num_rows, "int32"),
            limits=jnp.array(np.repeat(job.limits, job.num_samples), "int32"),
            finished=jnp.zeros(job.num_rows, bool),
            failed=jnp.zeros(job.num_rows, bool),
            keys=jax.vmap(jax.random.key)(jnp.array(job.seeds, "uint32")),
            log_probs=jnp.zeros(shape, "float32") if job.log_probs else None,
            used_tokens=job.used_tokens(self.backbone.vocabulary_size, job.num_samples),
        )
        return state, hidden

    def run(self, state: DecodingState, job: Job, steps: int | None = None) -> DecodingState:
        """Adds up to `steps` tokens to every unfinished row; by default as many as it may have.

        The state that is passed in is used up: its memory becomes that of the returned one.
        """
        steps = job.capacity if steps is None else steps
        return self.run_steps(state, job.sampler, job.stop_ids, np.int32(steps))

    def _run_steps(
        self,
        state: DecodingState,
        sampler: Sampler,
        stop_tokens: Int[Array, " n"],
        steps: Int[Array, ""],
    ) -> DecodingState:
        def step(state):
            reading = jnp.where(state.finished, 0, 1)
            hidden, cache = extend(self.backbone, state.cache, last_tokens(state, 1), reading)
            state = dataclasses.replace(state, cache=cache)
            return self._choose(state, hidden[:, 0], sampler, stop_tokens)

        return step_until_finished(step, state, steps)

    def _choose(
        self,
        state: DecodingState,
        hidden: Float[Array, "B D"],
        sampler: Sampler,
        stop_tokens: Int[Array, " n"],
    ) -> DecodingState:
        """Chooses the next token of every unfinished row and writes it down."""
        logits = logits_of(self.backbone, hidden[:, None])[:, 0]
        keys = jax.vmap(jax.random.fold_in)(state.keys, state.counts)
        token = draw(filter_logits(logits, sampler, state.used_tokens), sampler, keys)
        log_probs = None if state.log_probs is None else token_log_probs(logits, token)[:, None]
        state = watched(state, logits, token if sampler.temperature is None else None)
        return append(state, token[:, None], 1, stop_tokens, log_probs)


def last_tokens(state: DecodingState, counts: int | Int[Array, " B"]) -> Int[Array, "B C"]:
    """The last new token or two of each row.

    Args:
        state: with at least as many new tokens in each row.
        counts: 1, or an integer array (B,) of 1 and 2.

    Returns:
        int32 (B, 1), or (B, 2), in which a row that asks for 1 has it in front.
    """
    length = 1 if isinstance(counts, int) else 2
    index = jnp.expand_dims(state.counts - counts, 1) + jnp.arange(length)
    return jnp.take_along_axis(state.tokens, index, axis=1, mode="clip")


def append(
    state: Writing,
    tokens: Int[Array, "B C"],
    counts: int | Int[Array, " B"],
    stop_tokens: Int[Array, " n"],
    log_probs: Float[Array, "B C"] | None = None,
) -> Writing:
    """Writes new tokens behind those of every unfinished row, up to a stop token or the limit.

    Args:
        state: the state before.
        tokens: int32 (B, C).
        counts: how many of the C are meant, an integer or an array (B,).
        stop_tokens: int32 (n,); a row ends with the first of them.
        log_probs: float32 (B, C), if the state keeps them.
    """
    place = jnp.arange(tokens.shape[1])
    index = state.counts[:, None] + place
    stops = (tokens[:, :, None] == stop_tokens).any(axis=2)
    kept = ~state.finished[:, None] & (place < jnp.reshape(counts, (-1, 1)))
    kept = kept & (jnp.cumsum(stops, axis=1) - stops == 0) & (index < state.limits[:, None])
    rows = jnp.arange(len(tokens))[:, None]
    places = jnp.where(kept, index, state.tokens.shape[1])  # out of bounds: dropped
    counts = state.counts + kept.sum(axis=1)
    changes = {
        "tokens": state.tokens.at[rows, places].set(tokens, mode="drop"),
        "counts": counts,
        "finished": state.finished | (stops & kept).any(axis=1) | (counts >= state.limits),
    }
    if state.log_probs is not None:
        changes["log_probs"] = state.log_probs.at[rows, places].set(log_probs, mode="drop")
    if state.used_tokens is not None:
        ids = jnp.where(kept, tokens, state.used_tokens.shape[1])
        changes["used_tokens"] = state.used_tokens.at[rows, ids].set(True, mode="drop")
    return dataclasses.replace(state, **changes)
