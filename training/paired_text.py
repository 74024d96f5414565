"""One text for runs of many days (chapter 13, "Training a Mistral from nothing")."""

import json
import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from batches import Batches
from vocabulary import encode, train_vocabulary

from mistral_lib.teaching import corpus

EVERY = 3  # of the held-out documents one in three judges: more cost time, and change little
GROUPS = 20  # of documents, from which the noise over documents is estimated


@dataclass(frozen=True)
class Text:
    """What all runs read, and what judges them.

    Attributes:
        training: token ids of each document.
        held_out: the same of the documents that judge.
        training_bytes: UTF-8 bytes of the training text.
        held_out_bytes: of each held-out document.
        description: sizes, fingerprints and versions, for the records.
    """

    training: list[np.ndarray]
    held_out: list[np.ndarray]
    training_bytes: int
    held_out_bytes: np.ndarray
    description: dict

    @property
    def bytes_per_token(self) -> float:
        """Of the training text."""
        return self.training_bytes / sum(map(len, self.training))

    def group_bits_per_byte(self, bits: np.ndarray) -> np.ndarray:
        """Bits per byte of each group of documents (GROUPS,), from the bits of each document."""
        group = np.arange(len(bits)) % GROUPS
        totals = [np.bincount(group, values, GROUPS) for values in (bits, self.held_out_bytes)]
        return totals[0] / totals[1]


def encode_text(text: corpus.Corpus, vocabulary_size: int) -> Text:
    """A corpus as token ids, under a vocabulary that is trained on its training part."""
    training = [document.text for document in text.training]
    held_out = [document.text for document in text.held_out[::EVERY]]
    vocabulary = train_vocabulary(training, vocabulary_size)
    rows, held_out_rows = encode(vocabulary, training), encode(vocabulary, held_out)
    held_out_bytes = np.array([len(each.encode()) for each in held_out])
    training_bytes = sum(len(each.encode()) for each in training)
    distributions = metadata.packages_distributions()
    sources = {document.source for document in text.training} - {corpus.STANDARD_LIBRARY}
    packages = sorted({distributions[source][0] for source in sources})
    group_bytes = np.bincount(np.arange(len(held_out)) % GROUPS, held_out_bytes, GROUPS)
    description = {
        "training_text": corpus.fingerprint(text.training),
        "held_out_text": corpus.fingerprint(text.held_out[::EVERY]),
        "training_documents": len(training),
        "training_bytes": training_bytes,
        "training_tokens": sum(map(len, rows)),
        "held_out_documents": len(held_out),
        "held_out_tokens": sum(map(len, held_out_rows)),
        "held_out_group_bytes": group_bytes.astype(int).tolist(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
    }
    return Text(rows, held_out_rows, training_bytes, held_out_bytes, description)


def prepare_text(path: Path, vocabulary_size: int) -> Text:
    """The text of a file, or, if there is none yet, the text that this machine has now.

    The corpus changes with every package that is installed or updated. A file keeps one text for
    all runs.
    """
    if not path.exists():
        text = encode_text(corpus.build_corpus(), vocabulary_size)
        parts = {
            f"{name}_{what}": array
            for name in ("training", "held_out")
            for what, array in (
                ("tokens", np.concatenate(getattr(text, name)).astype("uint16")),
                ("lengths", np.array([len(row) for row in getattr(text, name)])),
            )
        }
        partial = path.with_suffix(".partial.npz")
        np.savez(
            partial,
            **parts,
            held_out_bytes=text.held_out_bytes,
            description=np.array(json.dumps(text.description)),
        )
        os.replace(partial, path)
    with np.load(path) as arrays:
        training, held_out = (
            np.split(
                arrays[f"{name}_tokens"].astype("int32"),
                np.cumsum(arrays[f"{name}_lengths"])[:-1],
            )
            for name in ("training", "held_out")
        )
        description = json.loads(str(arrays["description"]))
        return Text(
            training,
            held_out,
            description["training_bytes"],
            arrays["held_out_bytes"],
            description,
        )


class Sequences:
    """The sequences of a seed, in an order that does not depend on the batch size.

    Args:
        documents: token ids of each.
        length: tokens of a sequence, S.
        seed: of the order.
    """

    DRAWN = 64  # at once; batch sizes are divisors of it

    def __init__(self, documents: list[np.ndarray], length: int, seed: int):
        self._batches = Batches(documents, self.DRAWN, length, seed)

    def batch(self, step: int, batch_size: int) -> np.ndarray:
        """The tokens (batch_size, S + 1) of one step."""
        drawn, first = divmod(step * batch_size, self.DRAWN)
        return self._batches.batch(drawn)[first : first + batch_size]
