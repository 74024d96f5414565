"""Speculative decoding: a small model guesses, the large one checks (chapter 16, "Sampling")."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mistral_lib.arrays import Bool, Float, Int, Key
from mistral_lib.backbone import MistralBackbone
from mistral_lib.generation.cache import RollingCache, extend, next_positions
from mistral_lib.generation.compiled import CompiledFunction, array_tree
from mistral_lib.generation.decoding import DecodingLoop, DecodingState, append, last_tokens
from mistral_lib.generation.protocol import Job, mark_used, step_until_finished, watched
from mistral_lib.generation.reading import PromptReader, logits_of
from mistral_lib.generation.sampling import (
    Sampler,
    draw,
    filter_logits,
    token_log_probs,
)


@array_tree
class SpeculativeState(DecodingState):
    """A `DecodingState`, and what the draft model has read.

    Attributes:
        draft: its cache, which may lack the last token that the model's cache has.
    """

    draft: RollingCache


class SpeculativeLoop:
    """Writes what a `DecodingLoop` writes, several tokens for each reading of its weights.

    In a round the draft model writes k tokens, and the model reads them all at once. It keeps those
    that it accepts and adds one of its own, so that a round gives 1 to k + 1 tokens, row by row.
    Greedy, a token is accepted if the model would have chosen it. In sampling, a token of draft
    probability q and model probability p is accepted with probability min(1, p / q), and the first
    that is not is replaced by a draw from max(p - q, 0), normalised: what is written is distributed
    exactly as without a draft, whatever the draft is.

    Tokens that are taken back leave their keys in the cache, in slots beyond the window, where the
    next round overwrites them.

    Args:
        loop: of the model whose text is wanted.
        draft: a reader with a smaller model of the same vocabulary.
        num_draft_tokens: k.

    Attributes:
        run_rounds: the compiled function.

    Source: Leviathan et al., "Fast Inference from Transformers via Speculative Decoding", 2023.
    """

    def __init__(self, loop: DecodingLoop, draft: PromptReader, num_draft_tokens: int):
        self.loop = loop
        self.draft = draft
        self.num_draft_tokens = num_draft_tokens
        self.run_rounds = CompiledFunction(self._run_rounds, loop.backbone, draft.backbone)

    def start(self, job: Job) -> SpeculativeState:
        """As `DecodingLoop.start`; the draft model reads the prompts too."""
        lookahead = self.num_draft_tokens + 1
        state = self.loop.start(job, lookahead)
        longest = job.longest + lookahead - 1
        _, draft = self.draft.read(job.prompts, longest, job.num_samples, lookahead)
        return SpeculativeState(**vars(state), draft=draft)

    def run(self, state: SpeculativeState, job: Job, steps: int | None = None) -> SpeculativeState:
        """Up to `steps` rounds for every unfinished row. Uses `state` up."""
        steps = job.capacity if steps is None else steps
        return self.run_rounds(state, job.sampler, job.stop_ids, np.int32(steps))

    def _run_rounds(
        self,
        state: SpeculativeState,
        sampler: Sampler,
        stop_tokens: Int[Array, " n"],
        steps: Int[Array, ""],
    ) -> SpeculativeState:
        def step(state):
            keys = jax.vmap(jax.random.fold_in)(state.keys, state.counts)
            proposed, draft_logits, draft = self._propose(state, sampler, keys)
            greedy = proposed if sampler.temperature is None else None
            state = dataclasses.replace(watched(state, draft_logits, greedy), draft=draft)
            return self._verify(state, proposed, draft_logits, sampler, keys, stop_tokens)

        return step_until_finished(step, state, steps)

    def _propose(
        self, state: SpeculativeState, sampler: Sampler, keys: Key[Array, " B"]
    ) -> tuple[Int[Array, "B k"], Float[Array, "B k V"], RollingCache]:
        """The draft's tokens, the logits that it drew them from, and its cache."""
        backbone, reading = self.draft.backbone, jnp.where(state.finished, 0, 1)
        # One token has not been read, or two where all of the last round were accepted.
        unread = jnp.clip(state.cache.lengths + 1 - state.draft.lengths, 1, 2)
        chunk = last_tokens(state, unread)
        hidden, cache = _extend_one_by_one(backbone, state.draft, chunk, unread * reading)
        hidden = jnp.take_along_axis(hidden, unread[:, None, None] - 1, axis=1)

        def choose(hidden, used_tokens, index):
            logits = filter_logits(logits_of(backbone, hidden)[:, 0], sampler, used_tokens)
            return draw(logits, sampler, _fold(keys, index)), logits

        def step(carry, index):
            cache, token, used_tokens = carry
            if used_tokens is not None:
                used_tokens = mark_used(used_tokens, token)
            hidden, cache = extend(backbone, cache, token[:, None], reading)
            token, logits = choose(hidden, used_tokens, index)
            return (cache, token, used_tokens), (token, logits)

        token, logits = choose(hidden, state.used_tokens, 0)
        (cache, _, _), (tokens, more) = jax.lax.scan(
            step, (cache, token, state.used_tokens), jnp.arange(1, self.num_draft_tokens)
        )
        tokens = jnp.concatenate([token[None], tokens]).T
        logits = jnp.concatenate([logits[None], more]).swapaxes(0, 1)
        return tokens, logits, cache

    def _verify(
        self,
        state: SpeculativeState,
        proposed: Int[Array, "B k"],
        draft_logits: Float[Array, "B k V"],
        sampler: Sampler,
        keys: Key[Array, " B"],
        stop_tokens: Int[Array, " n"],
    ) -> SpeculativeState:
        """Reads the proposed tokens, writes the accepted ones and one more."""
        backbone, length, reading = self.loop.backbone, state.cache.lengths, ~state.finished
        chunk = jnp.concatenate([last_tokens(state, 1), proposed], axis=1)  # (B, k + 1)
        counts = jnp.where(reading, chunk.shape[1], 0)
        hidden, cache = _extend_one_by_one(backbone, state.cache, chunk, counts)
        raw = logits_of(backbone, hidden)  # (B, k + 1, V)
        logits = filter_logits(raw, sampler, _used_along(state.used_tokens, proposed))
        if sampler.temperature is None:
            tokens = logits.argmax(axis=-1).astype("int32")
            accepted = tokens[:, :-1] == proposed
            state = watched(state, raw, tokens)
        else:
            tokens, accepted = _accept(logits, draft_logits, proposed, keys)
            state = watched(state, raw)
        accepted = jnp.cumprod(accepted, axis=1, dtype="int32").sum(axis=1, dtype="int32")
        read = length + jnp.where(reading, accepted + 1, 0)
        draft_read = jnp.minimum(read, state.draft.lengths)
        state = dataclasses.replace(
            state,
            cache=RollingCache(cache.layers, read),
            draft=RollingCache(state.draft.layers, draft_read),
        )
        log_probs = None if state.log_probs is None else token_log_probs(raw, tokens)
        return append(state, tokens, accepted + 1, stop_tokens, log_probs)


def _extend_one_by_one(
    backbone: MistralBackbone,
    cache: RollingCache,
    token_ids: Int[Array, "B C"],
    counts: Int[Array, " B"],
) -> tuple[Float[Array, "B C D"], RollingCache]:
    """Like `extend`, with the rotary positions of tokens that are read one after another."""
    lengths = next_positions(cache, token_ids.shape[1]) + 1
    return extend(backbone, cache, token_ids, counts, lengths)


def _accept(
    logits: Float[Array, "B C V"],
    draft_logits: Float[Array, "B k V"],
    proposed: Int[Array, "B k"],
    keys: Key[Array, " B"],
) -> tuple[Int[Array, "B C"], Bool[Array, "B k"]]:
    """For every position the token to write there and, but for the last, whether it is the draft's.

    Args:
        logits: float32 (B, C, V) with C = k + 1, filtered.
        draft_logits: float32 (B, k, V), filtered.
        proposed: int32 (B, k), drawn from them.
        keys: random keys (B,), of this round.
    """
    wanted, drafted = jax.nn.softmax(logits), jax.nn.softmax(draft_logits)
    number = proposed.shape[1]

    def at(probabilities):
        return jnp.take_along_axis(probabilities, proposed[..., None], axis=-1)[..., 0]

    luck = jax.vmap(lambda key: jax.random.uniform(key, (number,)))(_fold(keys, number))
    accepted = luck * at(drafted) < at(wanted[:, :-1])  # (B, k)
    # Behind the last proposal the draft has no probability: the draw is the model's own.
    missing = jnp.maximum(wanted - jnp.pad(drafted, ((0, 0), (0, 1), (0, 0))), 0.0)
    # Equal distributions leave nothing but rounding; then any refusal was rounding too.
    missing = jnp.where(missing.sum(axis=-1, keepdims=True) > 0, missing, wanted)
    own = jax.vmap(lambda key, p: jax.random.categorical(key, jnp.log(p)))(
        _fold(keys, number + 1), missing
    ).astype("int32")
    kept = jnp.pad(accepted, ((0, 0), (0, 1)))
    return jnp.where(kept, jnp.pad(proposed, ((0, 0), (0, 1))), own), accepted


def _fold(keys: Key[Array, " B"], number: int | Int[Array, ""]) -> Key[Array, " B"]:
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def _used_along(
    used_tokens: Bool[Array, "B V"] | None, proposed: Int[Array, "B k"]
) -> Bool[Array, "B C V"] | None:
    """What the text holds before each position of a round."""
    if used_tokens is None:
        return None
    steps = [used_tokens]
    for index in range(proposed.shape[1]):
        steps.append(mark_used(steps[-1], proposed[:, index]))
    return jnp.stack(steps, axis=1)
