"""The compiled loop that writes text, a token at a time (chapter 16, "Sampling")."""

import dataclasses

import jax
import jax.numpy as jnp
import keras
import numpy as np

from mistral_lib.generation.cache import RollingCache, extend, new_cache, select_rows, update_rows
from mistral_lib.generation.sampling import Sampler, draw, filter_logits, token_log_probs

CHUNK_SIZE = 512


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodingState:
    """Everything that changes while a batch is being written.

    Attributes:
        cache: what the model has read: the prompt and all new tokens but the last.
        tokens: int32 (B, capacity), the new tokens of each row.
        counts: int32 (B,), how many new tokens each row has.
        limits: int32 (B,), how many it may have.
        finished: bool (B,).
        keys: random keys (B,).
        log_probs: float32 (B, capacity), see `token_log_probs`; or `None`.
        seen: bool (B, V), the tokens of prompt and continuation; `None` without repetition penalty.
        draft: the draft model's cache in speculative decoding; otherwise `None`.
    """

    cache: RollingCache
    tokens: jax.Array
    counts: jax.Array
    limits: jax.Array
    finished: jax.Array
    keys: jax.Array
    log_probs: jax.Array | None
    seen: jax.Array | None
    draft: RollingCache | None = None


def bucket(size: int) -> int:
    """The next power of two from 16 on: one compilation serves every size in between.

    >>> bucket(3), bucket(16), bucket(100)
    (16, 16, 128)
    """
    return max(16, 1 << (size - 1).bit_length())


class DecodingLoop:
    """Prefill and decoding of one backbone, compiled once for each bucket of sizes.

    The weights are arguments of the compiled functions, never constants in them: a model that is
    trained on, or that shares its shapes with another, needs no new compilation, and no weight is
    held twice. Nothing here knows about text.

    Args:
        backbone: a `MistralBackbone`.
    """

    def __init__(self, backbone):
        self.backbone = backbone
        self._read = jax.jit(self._read_chunk, donate_argnames="cache")
        self._first = jax.jit(self._choose_first, donate_argnames="state")
        self._steps = jax.jit(self._run_steps, donate_argnames="state")
        self._others = {}

    def other(self, kind: type, *arguments):
        """A loop of another kind on top of this one, which is kept with all that it has compiled.

        Args:
            kind: `BeamSearch` or `SpeculativeLoop`. The last one of each kind is kept.
            *arguments: of its constructor, after this loop.
        """
        if self._others.get(kind, ((), None))[0] != (kind, *arguments):
            self._others[kind] = (kind, *arguments), kind(self, *arguments)
        return self._others[kind][1]

    def start(
        self,
        prompts: list[list[int]],
        limits: list[int],
        seeds: list[int],
        sampler: Sampler,
        stop_tokens=(),
        *,
        num_samples: int = 1,
        log_probs: bool = False,
        lookahead: int = 1,
        chunk_size: int = CHUNK_SIZE,
    ) -> DecodingState:
        """Reads the prompts, in chunks, and chooses the first token of every row.

        Args:
            prompts: token ids, at least one in each row.
            limits: how many tokens may follow each prompt, at least 1.
            seeds: one for each row: equal seeds on equal prompts draw equal tokens.
            sampler: how tokens are chosen.
            stop_tokens: token ids that end a row.
            num_samples: rows for each prompt, which is read once; they stand one after another.
            log_probs: whether to keep the tokens' log-probabilities.
            lookahead: see `new_cache`.
            chunk_size: how many tokens of a prompt are read at once.

        Returns:
            The state after the first token.
        """
        longest = max(len(p) + n for p, n in zip(prompts, limits, strict=True)) + lookahead - 1
        cache, hidden = self.read(prompts, longest, num_samples, lookahead, chunk_size)
        rows, capacity = len(prompts) * num_samples, bucket(max(limits))
        state = DecodingState(
            cache=cache,
            tokens=jnp.zeros((rows, capacity), "int32"),
            counts=jnp.zeros(rows, "int32"),
            limits=jnp.array(np.repeat(limits, num_samples), "int32"),
            finished=jnp.zeros(rows, bool),
            keys=jax.vmap(jax.random.key)(jnp.array(seeds, "uint32")),
            log_probs=jnp.zeros((rows, capacity), "float32") if log_probs else None,
            seen=self.seen(prompts, num_samples) if sampler.repetition_penalty else None,
        )
        stop_tokens = np.array(stop_tokens, "int32")
        return self._first(self.weights(), state, hidden, sampler, stop_tokens)

    def run(self, state: DecodingState, sampler: Sampler, stop_tokens=(), steps: int | None = None):
        """Adds up to `steps` tokens to every unfinished row; by default as many as it may have.

        The state that is passed in is used up: its memory becomes that of the returned one.
        """
        steps = state.tokens.shape[1] if steps is None else steps
        return self._steps(
            self.weights(), state, sampler, np.array(stop_tokens, "int32"), np.int32(steps)
        )

    def read(
        self,
        prompts: list[list[int]],
        max_length: int,
        num_samples: int = 1,
        lookahead: int = 1,
        chunk_size: int = CHUNK_SIZE,
    ) -> tuple[RollingCache, jax.Array]:
        """Reads prompts of any length, a chunk at a time: memory for the chunk and the window.

        A row that has ended takes no part in the chunks that longer rows go on reading.

        Args:
            prompts: token ids, at least one in each row.
            max_length: the most tokens that a row will have.
            num_samples: rows of the result for each prompt.
            lookahead: see `new_cache`.
            chunk_size: how many tokens are read at once.

        Returns:
            The cache, and the hidden states (B, D) of the prompts' last tokens, of
            `num_samples` rows for each prompt.
        """
        batch, weights = len(prompts), self.weights()
        cache = new_cache(self.backbone, batch, bucket(max_length), lookahead)
        hidden = jnp.zeros((batch, self.backbone.hidden_dim), self.backbone.compute_dtype)
        for begin in range(0, max(map(len, prompts)), chunk_size):
            rows = self._rows_longer_than(begin, prompts)
            chunk = [
                prompts[row][begin : begin + chunk_size] if row < batch else [] for row in rows
            ]
            counts = np.array([len(ids) for ids in chunk], "int32")
            token_ids = np.zeros((len(rows), min(bucket(int(counts.max())), chunk_size)), "int32")
            for row, ids in zip(token_ids, chunk, strict=True):
                row[: len(ids)] = ids
            rows = None if len(rows) == batch else np.array(rows, "int32")
            hidden, cache = self._read(weights, cache, hidden, token_ids, counts, rows)
        if num_samples > 1:
            cache, hidden = select_rows((cache, hidden), np.repeat(np.arange(batch), num_samples))
        return cache, hidden

    def seen(self, prompts: list[list[int]], num_samples: int = 1) -> jax.Array:
        """Which tokens each prompt holds: bool (B, V)."""
        seen = np.zeros((len(prompts), self.backbone.vocabulary_size), bool)
        for row, prompt in zip(seen, prompts, strict=True):
            row[prompt] = True
        return jnp.repeat(jnp.array(seen), num_samples, axis=0)

    def weights(self) -> list[jax.Array]:
        """The arguments that a compiled function passes to `scope`."""
        return [variable.value for variable in self.backbone.variables]

    def scope(self, weights) -> keras.StatelessScope:
        """In this scope the backbone computes with `weights`."""
        return keras.StatelessScope(list(zip(self.backbone.variables, weights, strict=True)))

    def logits(self, hidden_states) -> jax.Array:
        """Float32 logits (B, S, V) of hidden states (B, S, D); inside `scope`."""
        return jnp.asarray(self.backbone.token_embedding(hidden_states, reverse=True), "float32")

    def _rows_longer_than(self, begin, prompts) -> list[int]:
        """All rows, or those that have tokens left, filled up to a power of two."""
        batch = len(prompts)
        rows = [row for row, prompt in enumerate(prompts) if len(prompt) > begin]
        size = 1 << (len(rows) - 1).bit_length()
        if size >= batch or self.backbone.distribution is not None:
            return list(range(batch))
        return rows + [batch] * (size - len(rows))

    def _read_chunk(self, weights, cache, hidden, token_ids, counts, rows):
        """The hidden state of each row's last real token; unchanged for a row that has none."""
        part = (cache, hidden) if rows is None else select_rows((cache, hidden), rows)
        with self.scope(weights):
            states, cache_part = extend(self.backbone, part[0], token_ids, counts)
        last = states[jnp.arange(len(counts)), jnp.maximum(counts - 1, 0)]
        last = jnp.where((counts > 0)[:, None], last, part[1])
        if rows is None:
            return last, cache_part
        return update_rows(hidden, rows, last), update_rows(cache, rows, cache_part)

    def _choose_first(self, weights, state, hidden, sampler, stop_tokens):
        with self.scope(weights):
            return self._choose(state, hidden, sampler, stop_tokens)

    def _run_steps(self, weights, state, sampler, stop_tokens, steps):
        def step(carry):
            state, done = carry
            reading = jnp.where(state.finished, 0, 1)
            with self.scope(weights):
                hidden, cache = extend(self.backbone, state.cache, last_tokens(state, 1), reading)
                state = dataclasses.replace(state, cache=cache)
                return self._choose(state, hidden[:, 0], sampler, stop_tokens), done + 1

        def unfinished(carry):
            state, done = carry
            return (done < steps) & ~state.finished.all()

        return jax.lax.while_loop(unfinished, step, (state, 0))[0]

    def _choose(self, state, hidden, sampler, stop_tokens):
        """Chooses the next token of every unfinished row and writes it down."""
        logits = self.logits(hidden[:, None])[:, 0]
        keys = jax.vmap(jax.random.fold_in)(state.keys, state.counts)
        token = draw(filter_logits(logits, sampler, state.seen), sampler, keys)
        log_probs = None if state.log_probs is None else token_log_probs(logits, token)[:, None]
        return append(state, token[:, None], 1, stop_tokens, log_probs)


def last_tokens(state: DecodingState, counts) -> jax.Array:
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


def append(state: DecodingState, tokens, counts, stop_tokens, log_probs=None) -> DecodingState:
    """Writes new tokens behind those of every unfinished row, up to a stop token or the limit.

    Args:
        state: the state before.
        tokens: int32 (B, N).
        counts: how many of the N are meant, an integer or an array (B,).
        stop_tokens: int32 (n,); a row ends with the first of them.
        log_probs: float32 (B, N), if the state keeps them.
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
    if state.seen is not None:
        ids = jnp.where(kept, tokens, state.seen.shape[1])
        changes["seen"] = state.seen.at[rows, ids].set(True, mode="drop")
    return dataclasses.replace(state, **changes)
