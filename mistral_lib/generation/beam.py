"""Beam search: several continuations at once, the best of them kept (chapter 16, "Sampling")."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mistral_lib.generation.cache import RollingCache, extend, select_rows
from mistral_lib.generation.decoding import CHUNK_SIZE, DecodingLoop, bucket
from mistral_lib.generation.sampling import Sampler, filter_logits, token_log_probs


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hypotheses:
    """N continuations of each of B prompts, the best first.

    Attributes:
        tokens: int32 (B, N, capacity).
        lengths: int32 (B, N).
        scores: float32 (B, N); -inf where there is no continuation.
        log_probs: float32 (B, N, capacity), see `token_log_probs`; or `None`.
    """

    tokens: jax.Array
    lengths: jax.Array
    scores: jax.Array
    log_probs: jax.Array | None

    def best(self, number: int, scores=None) -> tuple["Hypotheses", jax.Array]:
        """The best N by other scores, which they take on, and their indices (B, N)."""
        scores, index = jax.lax.top_k(self.scores if scores is None else scores, number)
        return dataclasses.replace(_take(self, index), scores=scores), index


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BeamState:
    """Everything that changes during a search over B prompts with N beams each.

    Attributes:
        cache: of B * N rows: what each beam has read, all its tokens but the last.
        running: the beams; the score is the sum of the tokens' (penalised) log-probabilities.
        ended: the best continuations that have ended; the score is divided by
            `length ** length_penalty`.
        steps: int32, how many tokens each beam has.
        limits: int32 (B,), how many it may have.
        finished: bool (B,), whether no beam can become better than those that have ended.
        length_penalty: float32.
        seen: bool (B * N, V), see `DecodingState`.
    """

    cache: RollingCache
    running: Hypotheses
    ended: Hypotheses
    steps: jax.Array
    limits: jax.Array
    finished: jax.Array
    length_penalty: jax.Array
    seen: jax.Array | None

    @property
    def tokens(self) -> jax.Array:
        """The best continuation of each prompt, int32 (B, capacity)."""
        return self.ended.tokens[:, 0]

    @property
    def counts(self) -> jax.Array:
        """Its length, int32 (B,)."""
        return self.ended.lengths[:, 0]

    @property
    def log_probs(self) -> jax.Array | None:
        """Its tokens' log-probabilities, float32 (B, capacity)."""
        return None if self.ended.log_probs is None else self.ended.log_probs[:, 0]


class BeamSearch:
    """Beam search with the backbone of a `DecodingLoop`, in the manner of transformers.

    A beam that has ended competes with its score divided by `length ** length_penalty`. The search
    of a prompt stops when N have ended and the best running beam, at its present length, would not
    replace the last of them, or at the limit (`early_stopping=False` in transformers). Each prompt
    is searched as if it were alone.

    The beams of a prompt share one prefill. Where one beam goes on in two ways, the rows of its
    rolling cache are copied, so that memory stays at N windows however long the text is.

    Args:
        loop: the `DecodingLoop`.

    Source: Freitag and Al-Onaizan, "Beam Search Strategies for Neural Machine Translation", 2017;
    Wu et al., "Google's Neural Machine Translation System", 2016, section 7, for the penalty.
    """

    def __init__(self, loop: DecodingLoop):
        self.loop = loop
        self._first = jax.jit(self._choose_first, donate_argnames="state")
        self._steps = jax.jit(self._run_steps, donate_argnames="state")

    def start(
        self,
        prompts: list[list[int]],
        limits: list[int],
        seeds: list[int],
        sampler: Sampler,
        stop_tokens=(),
        *,
        num_beams: int,
        length_penalty: float = 1.0,
        log_probs: bool = False,
        chunk_size: int = CHUNK_SIZE,
    ) -> BeamState:
        """Reads the prompts and chooses the first token of every beam.

        Args:
            prompts: token ids, at least one in each row.
            limits: how many tokens may follow each prompt, at least 1.
            seeds: without use, since nothing is drawn.
            sampler: its repetition penalty applies to the log-probabilities.
            stop_tokens: token ids that end a beam.
            num_beams: N, at least 2.
            length_penalty: above 0 favours long texts, below 0 short ones.
            log_probs: whether to keep the tokens' log-probabilities.
            chunk_size: how many tokens of a prompt are read at once.
        """
        batch, capacity = len(prompts), bucket(max(limits))
        longest = max(len(p) + n for p, n in zip(prompts, limits, strict=True))
        cache, hidden = self.loop.read(prompts, longest, num_beams, chunk_size=chunk_size)
        shape = (batch, num_beams)
        none = Hypotheses(
            tokens=jnp.zeros((*shape, capacity), "int32"),
            lengths=jnp.zeros(shape, "int32"),
            scores=jnp.full(shape, -jnp.inf),
            log_probs=jnp.zeros((*shape, capacity), "float32") if log_probs else None,
        )
        state = BeamState(
            cache=cache,
            # One beam only: with equal beams all would choose the same tokens.
            running=dataclasses.replace(none, scores=none.scores.at[:, 0].set(0.0)),
            ended=jax.tree.map(jnp.copy, none),
            steps=jnp.zeros((), "int32"),
            limits=jnp.array(limits, "int32"),
            finished=jnp.zeros(batch, bool),
            length_penalty=jnp.array(length_penalty, "float32"),
            seen=self.loop.seen(prompts, num_beams) if sampler.repetition_penalty else None,
        )
        stop_tokens = np.array(stop_tokens, "int32")
        return self._first(self.loop.weights(), state, hidden, sampler, stop_tokens)

    def run(self, state: BeamState, sampler: Sampler, stop_tokens=(), steps: int | None = None):
        """Up to `steps` more tokens; by default as many as there may be. Uses `state` up."""
        steps = state.tokens.shape[1] if steps is None else steps
        return self._steps(
            self.loop.weights(), state, sampler, np.array(stop_tokens, "int32"), np.int32(steps)
        )

    def _choose_first(self, weights, state, hidden, sampler, stop_tokens):
        with self.loop.scope(weights):
            return self._choose(state, hidden, sampler, stop_tokens)

    def _run_steps(self, weights, state, sampler, stop_tokens, steps):
        def step(carry):
            state, done = carry
            last = jax.lax.dynamic_index_in_dim(state.running.tokens, state.steps - 1, axis=2)
            beams = last.shape[1]
            reading = jnp.repeat(jnp.where(state.finished, 0, 1), beams)
            with self.loop.scope(weights):
                hidden, cache = extend(
                    self.loop.backbone, state.cache, last.reshape(-1, 1), reading
                )
                state = dataclasses.replace(state, cache=cache)
                return self._choose(state, hidden[:, 0], sampler, stop_tokens), done + 1

        def unfinished(carry):
            state, done = carry
            return (done < steps) & ~state.finished.all()

        return jax.lax.while_loop(unfinished, step, (state, 0))[0]

    def _choose(self, state, hidden, sampler, stop_tokens):
        """One more token for every beam: the best continuations end or run on."""
        batch, beams = state.running.scores.shape
        candidates, parents = self._candidates(state, hidden, sampler, len(stop_tokens))
        steps = state.steps + 1
        token = jax.lax.dynamic_index_in_dim(candidates.tokens, state.steps, 2, keepdims=False)
        ends = (token[..., None] == stop_tokens).any(-1) | (steps >= state.limits)[:, None]
        running, index = candidates.best(beams, jnp.where(ends, -jnp.inf, candidates.scores))
        parents = jnp.take_along_axis(parents, index, axis=1)
        rows = (jnp.arange(batch)[:, None] * beams + parents).ravel()
        seen = state.seen
        if seen is not None:
            token = jnp.take_along_axis(token, index, axis=1).ravel()
            seen = seen[rows].at[jnp.arange(len(rows)), token].set(True)

        weight = steps.astype("float32") ** state.length_penalty
        # Only the best N may end; the others are there so that N are left to run on.
        ending = ends & (jnp.arange(ends.shape[1]) < beams) & ~state.finished[:, None]
        ending = jnp.where(ending, candidates.scores / weight, -jnp.inf)
        ended = jax.tree.map(
            lambda old, new: jnp.concatenate([old, new], axis=1),
            state.ended,
            dataclasses.replace(candidates, scores=ending),
        )
        ended, _ = ended.best(beams)
        hopeless = running.scores[:, 0] / weight <= ended.scores[:, -1]
        return dataclasses.replace(
            state,
            cache=select_rows(state.cache, rows),
            running=running,
            ended=ended,
            steps=steps,
            finished=state.finished | hopeless | ends.all(axis=1),
            seen=seen,
        )

    def _candidates(self, state, hidden, sampler, num_stop_tokens):
        """The best continuations by one token, and the beams (B, M) that they come from."""
        batch, beams = state.running.scores.shape
        logits = self.loop.logits(hidden[:, None])[:, 0]  # (B N, V)
        size = logits.shape[-1]
        scores = filter_logits(jax.nn.log_softmax(logits), sampler, state.seen)
        scores = state.running.scores[..., None] + scores.reshape(batch, beams, size)
        # Each stop token can end every beam; so many more leave N that go on.
        number = min(max(2, 1 + num_stop_tokens) * beams, beams * size)
        scores, index = jax.lax.top_k(scores.reshape(batch, beams * size), number)
        parents, token = index // size, (index % size).astype("int32")
        candidates = _take(state.running, parents)
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


def _take(hypotheses: Hypotheses, index) -> Hypotheses:
    """Those at the indices (B, M), as arrays (B, M, ...)."""
    rows = jnp.arange(len(index))[:, None]
    return jax.tree.map(lambda array: array[rows, index], hypotheses)
