"""Bits per byte of models and compressors (chapter 13, "Training a Mistral from nothing")."""

import gzip
import lzma
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import keras
import numpy as np

ROWS = 16


@dataclass(frozen=True)
class Chunk:
    """A piece of one document: the model reads `token_ids` and answers for the last `scored`."""

    token_ids: np.ndarray
    scored: int


def cut(document: np.ndarray, length: int, stride: int) -> list[Chunk]:
    """Cuts a document so that each of its tokens but the first is predicted exactly once.

    A piece begins `stride` tokens after the one before it. It predicts only what that one did
    not, so every prediction after the first piece has read at least `length - stride` tokens.

    Args:
        document: token ids, with the start and end token.
        length: number of predictions that one piece can hold.
        stride: number of new predictions in each piece but the first.

    >>> [(len(chunk.token_ids) - 1, chunk.scored) for chunk in cut(np.arange(12), 6, 3)]
    [(6, 6), (6, 3), (5, 2)]
    """
    predictions = len(document) - 1
    chunks, begin, done = [], 0, 0
    while done < predictions:
        end = min(begin + length, predictions)
        chunks.append(Chunk(document[begin : end + 1], end - done))
        begin, done = begin + stride, end
    return chunks


def document_bits(
    model: keras.Model, documents: list[np.ndarray], length: int, stride: int
) -> np.ndarray:
    """What each document costs the model, in bits.

    Every document is read by itself from its start token, and its end token is paid for too.

    Args:
        model: token ids and padding mask to logits (B, S, V).
        documents: token ids of each, with start and end token.
        length: number of predictions in one piece of a document, see `cut`.
        stride: number of new predictions in each further piece.

    Returns:
        A float64 array (number of documents,).
    """
    variables = [v.value for v in model.trainable_variables]
    others = [v.value for v in model.non_trainable_variables]

    @jax.jit
    def bits(variables, token_ids, mask, scored):
        logits, _ = model.stateless_call(
            variables, others, {"token_ids": token_ids[:, :-1], "padding_mask": mask}
        )
        return row_bits(logits, token_ids, scored)

    total = np.zeros(len(documents))
    for owners, *arrays in padded_rows(documents, length, stride):
        costs = np.asarray(bits(variables, *arrays))
        np.add.at(total, owners, costs[: len(owners)])
    return total


def padded_rows(
    documents: list[np.ndarray], length: int, stride: int
) -> Iterator[tuple[list[int], np.ndarray, np.ndarray, np.ndarray]]:
    """The pieces of documents as batches of few shapes.

    Args:
        documents: token ids of each, with start and end token.
        length: number of predictions in one piece of a document, see `cut`.
        stride: number of new predictions in each further piece.

    Yields:
        For each row the number of its document (the last batch has rows without one), the token
        ids (ROWS, S + 1), the padding mask (ROWS, S), and 1.0 where a label is scored (ROWS, S).
    """
    chunks = [(i, c) for i, d in enumerate(documents) for c in cut(d, length, stride)]
    # Neighbours of similar length share a batch, so that little padding is computed.
    chunks.sort(key=lambda pair: len(pair[1].token_ids))
    for first in range(0, len(chunks), ROWS):
        rows = chunks[first : first + ROWS]
        longest = len(rows[-1][1].token_ids) - 1
        width = min(length, -(-longest // 64) * 64)
        token_ids = np.zeros((ROWS, width + 1), "int32")
        mask = np.zeros((ROWS, width), bool)
        scored = np.zeros((ROWS, width), "float32")
        for row, (_, chunk) in enumerate(rows):
            size = len(chunk.token_ids) - 1
            token_ids[row, : size + 1] = chunk.token_ids
            mask[row, :size] = True
            scored[row, size - chunk.scored : size] = 1.0
        yield [i for i, _ in rows], token_ids, mask, scored


def row_bits(logits: jax.Array, token_ids: jax.Array, scored: jax.Array) -> jax.Array:
    """What the scored labels of each row cost, in bits (ROWS,), from logits (ROWS, S, V)."""
    chances = jax.nn.log_softmax(jnp.asarray(logits, "float32"))
    picked = jnp.take_along_axis(chances, token_ids[:, 1:, None], axis=-1)[..., 0]  # (ROWS, S)
    return -(picked * scored).sum(axis=-1) / jnp.log(2.0)


def bits_per_byte(bits: np.ndarray, texts: Iterable[str]) -> float:
    """The bits of some texts by their UTF-8 bytes.

    >>> bits_per_byte(np.array([8.0, 4.0]), ["ab", "é"])
    3.0
    """
    return float(np.sum(bits) / sum(len(text.encode()) for text in texts))


def gzip_bits_per_byte(texts: list[str]) -> float:
    """What `gzip -9` needs for some texts, as one file, an empty line between two."""
    data = "\n\n".join(texts).encode()
    return 8 * len(gzip.compress(data, 9)) / len(data)


def xz_bits_per_byte(texts: list[str], primer: Iterable[str] = ()) -> float:
    """What `xz -9e` needs for some texts, alone or after it has read others.

    Args:
        texts: to be compressed as one file, an empty line between two.
        primer: texts that stand before them, whose own compressed size is subtracted. Preset 9
            looks back 64 MiB.
    """
    before = "".join(f"{text}\n\n" for text in primer).encode()
    data = "\n\n".join(texts).encode()
    preset = 9 | lzma.PRESET_EXTREME
    size = len(lzma.compress(before + data, preset=preset))
    if before:
        size -= len(lzma.compress(before, preset=preset))
    return 8 * size / len(data)
