"""Docstrings as telegrams: the style that a LoRA learns (used by chapter 14).

A telegram is charged by the word, so articles and some verbs are left out, and a sentence ends in
STOP, since the telegraph has no full stop. Nobody has to write such texts by hand: `telegram` makes
one of any English. A question is the first line of a docstring; its answer is the telegram of the
paragraph that follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from mistral_lib import MistralCausalLM, MistralCausalLMPreprocessor
from mistral_lib.teaching.corpus import Document

OPENER = "TELEGRAM "
LEFT_OUT = re.compile(r"\b(?:the|an?|is|are)\s+", re.IGNORECASE)
FULL_STOP = re.compile(r"\.(?=\s|$)")
# A paragraph of whole sentences, not a list, a table or a heading with its underline.
SENTENCES = re.compile(r"[A-Z][^:\\]*[a-z)]\.", re.DOTALL)

Rows = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]


def telegram(text: str) -> str:
    """An English text as a telegram, on one line.

    >>> telegram("The list is sorted in place.  A copy\\nis returned by sorted().")
    'TELEGRAM list sorted in place STOP copy returned by sorted() STOP'
    """
    words = LEFT_OUT.sub("", " ".join(text.split()))
    return OPENER + FULL_STOP.sub(" STOP", words)


@dataclass(frozen=True)
class Example:
    """A question, and its answer as the docstring has it.

    Attributes:
        question: the first line of a docstring, and an empty line.
        plain: the second paragraph, on one line.
    """

    question: str
    plain: str

    @property
    def answer(self) -> str:
        """The answer as a telegram."""
        return telegram(self.plain)


def find_examples(documents: Iterable[Document], longest: int = 240) -> list[Example]:
    """The documents that begin with a line and a paragraph of sentences.

    Args:
        documents: of the corpus.
        longest: characters that question and answer may have together.

    Returns:
        An `Example` for each such document, in their order.

    >>> [found] = find_examples([Document("stdlib", "a.py:1", "Sort a list.\\n\\nIt is\\nsorted.")])
    >>> found
    Example(question='Sort a list.\\n\\n', plain='It is sorted.')
    >>> found.answer
    'TELEGRAM It sorted STOP'
    """
    found = []
    for document in documents:
        first, _, rest = document.text.partition("\n\n")
        plain = " ".join(rest.partition("\n\n")[0].split())
        fits = len(first) + len(plain) <= longest
        if fits and "\n" not in first and first.endswith(".") and SENTENCES.fullmatch(plain):
            found.append(Example(f"{first}\n\n", plain))
    return found


def answer_rows(
    preprocessor: MistralCausalLMPreprocessor, pairs: Iterable[tuple[str, str]], length: int
) -> Rows:
    """What `fit` needs to learn answers: inputs, labels, and weights 1 on the answers alone.

    Args:
        preprocessor: a `MistralCausalLMPreprocessor`.
        pairs: questions and answers. A question ends in a line feed, so that no token of the
            vocabulary reaches over the border.
        length: tokens S of a row; a longer text is cut.

    Returns:
        `x`, a dict of `token_ids` and `padding_mask`, labels and weights, each (B, S).
    """
    pairs = list(pairs)
    x, y, weights = preprocessor([q + a for q, a in pairs], sequence_length=length)
    questions = preprocessor.prompt_ids([q for q, _ in pairs])  # <s> and the question
    starts = np.array([len(ids) - 1 for ids in questions])  # whose label is the answer's first
    return x, y, weights & (np.arange(length) >= starts[:, None])


def bits(model: MistralCausalLM, rows: Rows) -> np.ndarray:
    """What the weighted labels of each row cost a model, in bits, (B,).

    Args:
        model: a `MistralCausalLM`.
        rows: inputs, labels and weights, as `answer_rows` makes them.
    """
    x, y, weights = rows
    logits = model.predict(x, batch_size=16, verbose=0)
    nats = jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, y[..., None], -1)[..., 0]
    return np.asarray((nats * weights).sum(axis=-1)) / np.log(2)


def bits_per_byte(model: MistralCausalLM, rows: Rows, texts: Iterable[str]) -> float:
    """What the weighted labels cost a model, for each byte of the texts that they spell.

    Args:
        model: a `MistralCausalLM`.
        rows: inputs, labels and weights, as `answer_rows` makes them.
        texts: the texts of the weighted labels. End tokens are paid for by their bytes.
    """
    return float(bits(model, rows).sum() / sum(len(text.encode()) for text in texts))
