"""Sequences of tokens that come twice, for finding induction heads (used by chapters 4 and 12).

An induction head reads [A][B] ... [A] and looks at [B]. In a random sequence nothing but its first
coming tells what comes next, and in a sentence everything else helps.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mistral_lib.arrays import Array, Int
from mistral_lib.teaching.panel import Rows, confirmed, padded, record, rows_tree
from mistral_lib.tokenizer import MistralTokenizer

LENGTHS = (8, 16, 32, 48)  # tokens of a random sequence before it comes again


@rows_tree
@dataclasses.dataclass(frozen=True)
class Repeats(Rows):
    """`<s>`, a sequence of tokens, and the same sequence again.

    Attributes:
        periods: int array (B,), the number of tokens of the sequence.
    """

    periods: Int[Array, " B"]


def sentences(tokenizer: MistralTokenizer) -> Repeats:
    """Sentences, each of which comes twice, on two lines.

    >>> tokenizer = MistralTokenizer.from_preset("mistral_tiny_en")
    >>> print(tokenizer.decode(sentences(tokenizer).token_ids[0, 1:]))
    The old baker sold warm bread to the ship's crew.
    The old baker sold warm bread to the ship's crew.
    """
    texts = record()["sentences"]
    rows = tokenizer.encode([f"{text}\n" for text in texts], add_bos=False, add_eos=False)
    return _repeats(tokenizer, "sentences", texts, rows)


def random_repeats(tokenizer: MistralTokenizer, number: int = 16, seed: int = 0) -> Repeats:
    """Sequences of random tokens, each of which comes twice.

    Args:
        tokenizer: the tokens are its printable pieces; none comes twice within a sequence.
        number: sequences of each length in `LENGTHS`.
        seed: another one draws other sequences.

    >>> repeats = random_repeats(MistralTokenizer.from_preset("mistral_tiny_en"))
    >>> repeats.token_ids.shape, repeats.periods[::16].tolist()
    ((64, 97), [8, 16, 32, 48])
    """
    pieces = [tokenizer.id_to_token(id) for id in range(tokenizer.vocabulary_size())]
    texts = [piece.replace("▁", " ") for piece in pieces]
    drawn_from = np.flatnonzero([t.isascii() and t.isprintable() and t[0] != "<" for t in texts])
    bits = np.random.PCG64(seed)  # whose numbers are the same in every version of NumPy
    rows = [
        drawn_from[np.argsort(bits.random_raw(len(drawn_from)))[:length]].tolist()
        for length in LENGTHS
        for _ in range(number)
    ]
    return _repeats(tokenizer, "random repeats", [tuple(row) for row in rows], rows)


def _repeats(tokenizer, title: str, items: Sequence, rows: list[list[int]]) -> Repeats:
    periods = np.array([len(row) for row in rows])
    arrays = padded([[tokenizer.start_token_id, *row, *row] for row in rows])
    return Repeats(title, tuple(items), confirmed([""] * len(rows)), *arrays, periods)
