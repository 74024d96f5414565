"""Prompts of any length into the cache, a chunk at a time (chapter 15, "The rolling cache")."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from mistral_lib.arrays import Float, Int
from mistral_lib.backbone import MistralBackbone
from mistral_lib.generation.cache import RollingCache, extend, new_cache, select_rows, update_rows
from mistral_lib.generation.compiled import CompiledFunction, bucket, power_of_two

CHUNK_SIZE = 512


class PromptReader:
    """Reads prompts with one backbone, compiled once for each bucket of sizes.

    A chunk at a time, so that the memory is that of a chunk and the window, however long a prompt
    is.

    Args:
        backbone: a `MistralBackbone`.
        chunk_size: the most tokens of a prompt that are read at once.

    Attributes:
        read_chunk: the compiled function.
    """

    def __init__(self, backbone: MistralBackbone, chunk_size: int = CHUNK_SIZE):
        self.backbone = backbone
        self.chunk_size = chunk_size
        self.read_chunk = CompiledFunction(self._read_chunk, backbone)

    def read(
        self, prompts: list[list[int]], max_length: int, num_samples: int = 1, lookahead: int = 1
    ) -> tuple[Float[Array, "rows D"], RollingCache]:
        """Reads the prompts of a batch.

        A row that has ended takes no part in the chunks that longer rows go on reading.

        Args:
            prompts: token ids, at least one in each row.
            max_length: the most tokens that a row will have.
            num_samples: rows of the result for each prompt.
            lookahead: see `new_cache`.

        Returns:
            The hidden states of the prompts' last tokens, and the cache, of `num_samples` rows for
            each prompt.
        """
        batch, backbone = len(prompts), self.backbone
        cache = new_cache(backbone, batch, bucket(max_length), lookahead)
        hidden = jnp.zeros((batch, backbone.hidden_dim), backbone.compute_dtype)
        for begin in range(0, max(map(len, prompts)), self.chunk_size):
            rows = self._rows_longer_than(begin, prompts)
            end = begin + self.chunk_size
            chunk = [prompts[row][begin:end] if row < batch else [] for row in rows]
            token_ids, counts = padded(chunk, self.chunk_size)
            index = None if len(rows) == batch else np.array(rows, "int32")
            lengths = np.array([len(prompts[row]) if row < batch else 0 for row in rows], "int32")
            hidden, cache = self.read_chunk(cache, hidden, token_ids, counts, lengths, index)
        if num_samples > 1:
            hidden, cache = select_rows((hidden, cache), np.repeat(np.arange(batch), num_samples))
        return hidden, cache

    def _rows_longer_than(self, begin: int, prompts: list[list[int]]) -> list[int]:
        """All rows, or those that have tokens left, filled up to a power of two."""
        batch = len(prompts)
        rows = [row for row, prompt in enumerate(prompts) if len(prompt) > begin]
        size = power_of_two(len(rows))
        if size >= batch or self.backbone.distribution is not None:
            return list(range(batch))
        return rows + [batch] * (size - len(rows))

    def _read_chunk(
        self,
        cache: RollingCache,
        hidden: Float[Array, "B D"],
        token_ids: Int[Array, "R C"],
        counts: Int[Array, " R"],
        lengths: Int[Array, " R"],
        rows: Int[Array, " R"] | None,
    ) -> tuple[Float[Array, "B D"], RollingCache]:
        """The hidden state of each row's last real token; unchanged for a row that has none."""
        before, part = (hidden, cache) if rows is None else select_rows((hidden, cache), rows)
        states, part = extend(self.backbone, part, token_ids, counts, lengths[:, None])
        last = states[jnp.arange(len(counts)), jnp.maximum(counts - 1, 0)]
        last = jnp.where((counts > 0)[:, None], last, before)
        if rows is None:
            return last, part
        return update_rows(hidden, rows, last), update_rows(cache, rows, part)


def padded(
    rows: list[list[int]], most: int
) -> tuple[Int[np.ndarray, "B C"], Int[np.ndarray, " B"]]:
    """Rows of token ids in one array, padded on the right to a bucket, and their lengths.

    >>> token_ids, counts = padded([[1, 2, 3], [4]], most=5)
    >>> token_ids.tolist(), counts.tolist()
    ([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0]], [3, 1])
    """
    counts = np.array([len(row) for row in rows], "int32")
    token_ids = np.zeros((len(rows), min(bucket(int(counts.max())), most)), "int32")
    for padded_row, row in zip(token_ids, rows, strict=True):
        padded_row[: len(row)] = row
    return token_ids, counts


def logits_of(
    backbone: MistralBackbone, hidden_states: Float[Array, "B C D"]
) -> Float[Array, "B C V"]:
    """Float32 logits of hidden states, inside a compiled function."""
    return jnp.asarray(backbone.token_embedding(hidden_states, reverse=True), "float32")
