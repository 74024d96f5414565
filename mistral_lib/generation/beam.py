"""Beam search: several continuations at once, the best of them kept (chapter 16, "Sampling")."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mistral_lib.arrays import Bool, Float, Int
from mistral_lib.generation.cache import RollingCache, extend, select_rows
from mistral_lib.generation.compiled import CompiledFunction, array_tree
from mistral_lib.generation.protocol import Job, mark_used, step_until_finished, watched
from mistral_lib.generation.reading import PromptReader, logits_of
from mistral_lib.generation.sampling import Sampler, filter_logits, token_log_probs


@array_tree
class Hypotheses:
    """N continuations of each of B prompts, the best first.

    Attributes:
        tokens: their tokens.
        lengths: how many tokens each has.
        scores: -inf where there is no continuation.
        log_probs: see `token_log_probs`; or `None`.
    """

    tokens: Int[Array, "B N capacity"]
    lengths: Int[Array, "B N"]
    scores: Float[Array, "B N"]
    log_probs: Float[Array, "B N capacity"] | None

    def take(self, index: Int[Array, "B M"]) -> "Hypotheses":
        """Those at the indices, M of each prompt."""
        rows = jnp.arange(len(index))[:, None]
        return jax.tree.map(lambda array: array[rows, index], self)

    def best(
        self, number: int, scores: Float[Array, "B N"] | None = None
    ) -> tuple["Hypotheses", Int[Array, "B M"]]:
        """The best by other scores, which they take on, and their indices."""
        scores, index = jax.lax.top_k(self.scores if scores is None else scores, number)
        return dataclasses.replace(self.take(index), scores=scores), index

    def beside(self, others: "Hypotheses") -> "Hypotheses":
        """All of these and all of some others, of the same prompts."""
        return jax.tree.map(lambda *both: jnp.concatenate(both, axis=1), self, others)


@array_tree
class BeamState:
    """Everything that changes during a search over B prompts with N beams each.

    Attributes:
        cache: of B * N rows: what each beam has read, all its tokens but the last.
        running: the beams; the score is the sum of the tokens' (penalised) log-probabilities.
        ended: the best continuations that have ended; the score is divided by
            `length ** length_penalty`.
        steps: how many tokens each beam has.
        limits: how many it may have.
        finished: whether no beam can become better than those that have ended.
        failed: see `DecodingState`.
        length_penalty: see `Job`.
        used_tokens: see `DecodingState`; a row for each beam.
    """

    cache: RollingCache
    running: Hypotheses
    ended: Hypotheses
    steps: Int[Array, ""]
    limits: Int[Array, " B"]
    finished: Bool[Array, " B"]
    failed: Bool[Array, " B"]
    length_penalty: Float[Array, ""]
    used_tokens: Bool[Array, "rows V"] | None

    @property
    def tokens(self) -> Int[Array, "B capacity"]:
        """The best continuation of each prompt."""
        return self.ended.tokens[:, 0]

    @property
    def counts(self) -> Int[Array, " B"]:
        """How many tokens it has."""
        return self.ended.lengths[:, 0]

    @property
    def log_probs(self) -> Float[Array, "B capacity"] | None:
        """Its tokens' log-probabilities."""
        return None if self.ended.log_probs is None else self.ended.log_probs[:, 0]


class BeamSearch:
    """Beam search in the manner of transformers.

    A beam that has ended competes with its score divided by `length ** length_penalty`. The search
    of a prompt stops when N have ended and the best running beam, at its present length, would not
    replace the last of them, or at the limit (`early_stopping=False` in transformers). Each prompt
    is searched as if it were alone.

    The beams of a prompt share one prefill. Where one beam goes on in two ways, the rows of its
    rolling cache are copied, so that memory stays at N windows however long the text is.

    Args:
        reader: reads the prompts, with the backbone that writes.

    Attributes:
        choose, run_steps: the compiled functions.

    Source: Freitag and Al-Onaizan, "Beam Search Strategies for Neural Machine Translation", 2017;
    Wu et al., "Google's Neural Machine Translation System", 2016, section 7, for the penalty.
    """

    def __init__(self, reader: PromptReader):
        self.reader = reader
        self.backbone = reader.backbone
        self.choose = CompiledFunction(self._choose, self.backbone)
        self.run_steps = CompiledFunction(self._run_steps, self.backbone)

    def start(self, job: Job) -> BeamState:
        """Reads the prompts and chooses the first token of every beam.

        Args:
            job: what to write, with at least 2 beams. Its seeds have no use, since nothing is
                drawn; its repetition penalty applies to the log-probabilities.
        """
        beams = job.num_beams
        hidden, cache = self.reader.read(job.prompts, job.longest, beams)
        shape = (len(job.prompts), beams)
        none = Hypotheses(
            tokens=jnp.zeros((*shape, job.capacity), "int32"),
            lengths=jnp.zeros(shape, "int32"),
            scores=jnp.full(shape, -jnp.inf),
            log_probs=jnp.zeros((*shape, job.capacity), "float32") if job.log_probs else None,
        )
        state = BeamState(
            cache=cache,
            # One beam only: with equal beams all would choose the same tokens.
            running=dataclasses.replace(none, scores=none.scores.at[:, 0].set(0.0)),
            ended=jax.tree.map(jnp.copy, none),
            steps=jnp.zeros((), "int32"),
            limits=jnp.array(job.limits, "int32"),
            finished=jnp.zeros(len(job.prompts), bool),
            failed=jnp.zeros(len(job.prompts), bool),
            length_penalty=jnp.array(job.length_penalty, "float32"),
            used_tokens=job.used_tokens(self.backbone.vocabulary_size, beams),
        )
        return self.choose(state, hidden, job.sampler, job.stop_ids)

    def run(self, state: BeamState, job: Job, steps: int | None = None) -> BeamState:
        """Up to `steps` more tokens; by default as many as there may be. Uses `state` up."""
        steps = job.capacity if steps is None else steps
        return self.run_steps(state, job.sampler, job.stop_ids, np.int32(steps))

    def _run_steps(
        self,
        state: BeamState,
        sampler: Sampler,
        stop_tokens: Int[Array, " n"],
        steps: Int[Array, ""],
    ) -> BeamState:
        def step(state):
            last = jax.lax.dynamic_index_in_dim(state.running.tokens, state.steps - 1, axis=2)
            beams = last.shape[1]
            reading = jnp.repeat(jnp.where(state.finished, 0, 1), beams)
            hidden, cache = extend(self.backbone, state.cache, last.reshape(-1, 1), reading)
            state = dataclasses.replace(state, cache=cache)
            return self._choose(state, hidden[:, 0], sampler, stop_tokens)

        return step_until_finished(step, state, steps)

    def _choose(
        self,
        state: BeamState,
        hidden: Float[Array, "rows D"],
        sampler: Sampler,
        stop_tokens: Int[Array, " n"],
    ) -> BeamState:
        """One more token for every beam: the best continuations end or run on."""
        batch, beams = state.running.scores.shape
        logits = logits_of(self.backbone, hidden[:, None])[:, 0]  # (B N, V)
        state = watched(state, logits.reshape(batch, beams, -1))
        candidates, parents = self._candidates(state, logits, sampler, len(stop_tokens))
        steps = state.steps + 1
        token = jax.lax.dynamic_index_in_dim(candidates.tokens, state.steps, 2, keepdims=False)
        ends = (token[..., None] == stop_tokens).any(-1) | (steps >= state.limits)[:, None]

        running, index = candidates.best(beams, jnp.where(ends, -jnp.inf, candidates.scores))
        parents = jnp.take_along_axis(parents, index, axis=1)
        rows = (jnp.arange(batch)[:, None] * beams + parents).ravel()
        used_tokens = state.used_tokens
        if used_tokens is not None:
            token = jnp.take_along_axis(token, index, axis=1).ravel()
            used_tokens = mark_used(used_tokens[rows], token)

        ended, weight = _end(state, candidates, ends)
        hopeless = running.scores[:, 0] / weight <= ended.scores[:, -1]
        return dataclasses.replace(
            state,
            cache=select_rows(state.cache, rows),
            running=running,
            ended=ended,
            steps=steps,
            finished=state.finished | hopeless | ends.all(axis=1),
            used_tokens=used_tokens,
        )

    def _candidates(
        self,
        state: BeamState,
        logits: Float[Array, "rows V"],
        sampler: Sampler,
        num_stop_tokens: int,
    ) -> tuple[Hypotheses, Int[Array, "B M"]]:
        """The best continuations by one token, and the beams that they come from."""
        batch, beams = state.running.scores.shape
        size = logits.shape[-1]
        scores = filter_logits(jax.nn.log_softmax(logits), sampler, state.used_tokens)
        scores = state.running.scores[..., None] + scores.reshape(batch, beams, size)
        # Each stop token can end every beam; so many more leave N that go on.
        number = min(max(2, 1 + num_stop_tokens) * beams, beams * size)
        scores, index = jax.lax.top_k(scores.reshape(batch, beams * size), number)
        parents, token = index // size, (index % size).astype("int32")
        candidates = state.running.take(parents)
        at_end = (slice(None), slice(None), state.steps)
        log_probs = candidates.log_probs
        if log_probs is not None:
            rows = jnp.arange(batch)[:, None] * beams + parents
            log_probs = log_probs.at[at_end].set(token_log_probs(logits[rows], token))
        candidates = Hypotheses(
            tokens=candidates.tokens.at[at_end].set(token),
            lengths=candidates.lengths + 1,
            scores=scores,
            log_probs=log_probs,
        )
        return candidates, parents


def _end(
    state: BeamState, candidates: Hypotheses, ends: Bool[Array, "B M"]
) -> tuple[Hypotheses, Float[Array, ""]]:
    """The best that have ended, now or before, and what a score is divided by at this length."""
    beams = state.running.scores.shape[1]
    weight = (state.steps + 1).astype("float32") ** state.length_penalty
    # Only the best N may end; the others are there so that N are left to run on.
    ending = ends & (jnp.arange(ends.shape[1]) < beams) & ~state.finished[:, None]
    scores = jnp.where(ending, candidates.scores / weight, -jnp.inf)
    ended, _ = state.ended.beside(dataclasses.replace(candidates, scores=scores)).best(beams)
    return ended, weight
