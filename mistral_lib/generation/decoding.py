"""The compiled loop that writes text, a token at a time (chapter 16, "Sampling")."""

import dataclasses

import jax
import jax.numpy as jnp
import keras
import numpy as np

from mistral_lib.generation.cache import RollingCache, extend, new_cache
from mistral_lib.generation.sampling import Sampler, sample

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
    """

    cache: RollingCache
    tokens: jax.Array
    counts: jax.Array
    limits: jax.Array
    finished: jax.Array
    keys: jax.Array


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

    def start(
        self,
        prompts: list[list[int]],
        limits: list[int],
        seeds: list[int],
        sampler: Sampler,
        stop_tokens=(),
        chunk_size: int = CHUNK_SIZE,
    ) -> DecodingState:
        """Reads the prompts, in chunks, and chooses the first token of every row.

        Args:
            prompts: token ids, at least one in each row.
            limits: how many tokens each row may be given, at least 1.
            seeds: one for each row: equal seeds on equal prompts draw equal tokens.
            sampler: how tokens are chosen.
            stop_tokens: token ids that end a row.
            chunk_size: how many tokens of a prompt are read at once.

        Returns:
            The state after the first token.
        """
        longest = max(len(p) + n for p, n in zip(prompts, limits, strict=True))
        cache = new_cache(self.backbone, len(prompts), bucket(longest))
        hidden = jnp.zeros((len(prompts), self.backbone.hidden_dim), self.backbone.compute_dtype)
        weights = self._weights()
        for begin in range(0, max(map(len, prompts)), chunk_size):
            chunk = [prompt[begin : begin + chunk_size] for prompt in prompts]
            counts = np.array([len(row) for row in chunk], "int32")
            token_ids = np.zeros((len(chunk), min(bucket(int(counts.max())), chunk_size)), "int32")
            for row, ids in zip(token_ids, chunk, strict=True):
                row[: len(ids)] = ids
            hidden, cache = self._read(weights, cache, hidden, token_ids, counts)
        state = DecodingState(
            cache=cache,
            tokens=jnp.zeros((len(prompts), bucket(max(limits))), "int32"),
            counts=jnp.zeros(len(prompts), "int32"),
            limits=jnp.array(limits, "int32"),
            finished=jnp.zeros(len(prompts), bool),
            keys=jax.vmap(jax.random.key)(jnp.array(seeds, "uint32")),
        )
        return self._first(weights, state, hidden, sampler, np.array(stop_tokens, "int32"))

    def run(self, state: DecodingState, sampler: Sampler, stop_tokens=(), steps: int | None = None):
        """Adds up to `steps` tokens to every unfinished row; by default as many as it may have.

        The state that is passed in is used up: its memory becomes that of the returned one.
        """
        steps = state.tokens.shape[1] if steps is None else steps
        return self._steps(
            self._weights(), state, sampler, np.array(stop_tokens, "int32"), np.int32(steps)
        )

    def _weights(self) -> list[jax.Array]:
        return [variable.value for variable in self.backbone.variables]

    def _scope(self, weights):
        return keras.StatelessScope(list(zip(self.backbone.variables, weights, strict=True)))

    def _read_chunk(self, weights, cache, hidden, token_ids, counts):
        """The hidden state of each row's last real token; unchanged for a row that has none."""
        with self._scope(weights):
            states, cache = extend(self.backbone, cache, token_ids, counts)
        last = states[jnp.arange(len(counts)), jnp.maximum(counts - 1, 0)]
        return jnp.where((counts > 0)[:, None], last, hidden), cache

    def _choose_first(self, weights, state, hidden, sampler, stop_tokens):
        with self._scope(weights):
            return self._choose(state, hidden, sampler, stop_tokens)

    def _run_steps(self, weights, state, sampler, stop_tokens, steps):
        def step(carry):
            state, done = carry
            rows = jnp.arange(len(state.counts))
            last = state.tokens[rows, state.counts - 1]
            reading = jnp.where(state.finished, 0, 1)
            with self._scope(weights):
                hidden, cache = extend(self.backbone, state.cache, last[:, None], reading)
                state = dataclasses.replace(state, cache=cache)
                return self._choose(state, hidden[:, 0], sampler, stop_tokens), done + 1

        def unfinished(carry):
            state, done = carry
            return (done < steps) & ~state.finished.all()

        return jax.lax.while_loop(unfinished, step, (state, 0))[0]

    def _choose(self, state, hidden, sampler, stop_tokens):
        """Draws the next token of every unfinished row and writes it down."""
        logits = self.backbone.token_embedding(hidden[:, None], reverse=True)[:, 0]
        keys = jax.vmap(jax.random.fold_in)(state.keys, state.counts)
        token = sample(jnp.asarray(logits, "float32"), sampler, keys)
        rows = jnp.arange(len(token))
        index = jnp.where(state.finished, state.tokens.shape[1], state.counts)
        counts = state.counts + ~state.finished
        stopped = (token[:, None] == stop_tokens).any(axis=1)
        return dataclasses.replace(
            state,
            tokens=state.tokens.at[rows, index].set(token, mode="drop"),
            counts=counts,
            finished=state.finished | stopped | (counts >= state.limits),
        )
