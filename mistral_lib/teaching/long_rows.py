"""Documents after other documents, in rows longer than a window (used by chapters 8 and 15)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mistral_lib.arrays import Array, Bool, Float, Int
from mistral_lib.teaching.interventions import Edit
from mistral_lib.teaching.measures import log_chances
from mistral_lib.teaching.panel import Documents
from mistral_lib.tokenizer import MistralTokenizer

BACK = 8  # documents before one, which together are longer than any row that is asked for


def before(
    documents: Sequence[Sequence[int]], length: int, start: int
) -> Int[np.ndarray, "n length"]:
    """For each document a row of what comes before it: the start token, and ends of others.

    Args:
        documents: their token ids; the documents stand in a circle, so each has others before it.
        length: of the rows.
        start: the start token.

    Raises:
        ValueError: there are not enough tokens before a document.

    >>> before([[5, 6], [7], [8, 9]], length=3, start=1)
    array([[1, 8, 9],
           [1, 5, 6],
           [1, 6, 7]])
    """
    rows = []
    for number in range(len(documents)):
        others = range(number - min(BACK, len(documents)), number)
        tokens = np.concatenate([documents[other] for other in others]).astype(int)
        if len(tokens) < length - 1:
            raise ValueError(f"length is {length}, but only {len(tokens)} tokens come before.")
        rows.append([start, *tokens[len(tokens) - length + 1 :]])
    return np.array(rows)


def after_others(
    documents: Documents, tokenizer: MistralTokenizer, length: int
) -> tuple[Documents, Bool[np.ndarray, "n length"]]:
    """Each document at the end of a row of `length` tokens, and which tokens are its own.

    >>> from mistral_lib.teaching import panel
    >>> tokenizer = MistralTokenizer.from_preset("mistral_tiny_en")
    >>> rows, own = after_others(panel.documents(tokenizer).half("confirm"), tokenizer, 256)
    >>> rows.token_ids.shape, int(own.sum(axis=1).max())
    ((26, 256), 217)
    """
    ids = token_lists(documents)
    sizes = np.array([len(document) for document in ids])
    earlier = before(ids, length, tokenizer.start_token_id)
    rows = [
        [*row[:1], *row[1 + size :], *document] for row, size, document in zip(earlier, sizes, ids)
    ]
    moved = dataclasses.replace(
        documents,
        title=f"{documents.title}, after others",
        token_ids=np.array(rows, "int32"),
        padding_mask=np.ones((len(rows), length), bool),
    )
    return moved, np.arange(length) >= length - sizes[:, None]


def token_lists(documents: Documents) -> list[list[int]]:
    """The token ids of each document, without the start token."""
    rows = zip(np.asarray(documents.token_ids), np.asarray(documents.padding_mask))
    return [row[real][1:].tolist() for row, real in rows]


def own_bits(
    logits: Float[Array, "n S V"], rows: Documents, own: Bool[np.ndarray, "n S"]
) -> Float[np.ndarray, " n"]:
    """What the documents cost at the end of their rows, in bits."""
    return -(np.asarray(log_chances(logits, rows)) * own[:, 1:]).sum(axis=1) / np.log(2)


def only(visible: Bool[Array, "S S"]) -> Edit:
    """An edit: attention sees what `visible` shows each query of all keys, and nothing else.

    The weights of what is not seen are dropped, and the others divided by their sum, which is what
    a mask does. What a layer's own mask hides stays hidden.
    """

    def edit(site, layer, x):
        if site != "weights":
            return x
        kept = x * visible
        total = kept.sum(axis=-1, keepdims=True)
        return kept / (total + (total == 0))

    return edit
