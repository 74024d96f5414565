"""Packed batches, a function of the step (chapter 13, "Training a Mistral from nothing")."""

from collections.abc import Iterator

import numpy as np


class Batches:
    """Sequences of one length cut from documents laid end to end.

    The documents are joined by their end and start tokens, in a new order every epoch, and cut
    from a new offset, so that no padding is computed and no cut falls twice in the same place.
    Batch number `step` is a function of the seed and the step alone: a run that was interrupted
    goes on with the batches that it would have seen.

    Args:
        documents: token ids of each document, with its start and end token.
        batch_size: sequences in a batch, B.
        length: tokens in a sequence, S.
        seed: of all random choices.

    Raises:
        ValueError: the documents do not fill one batch.
    """

    def __init__(self, documents: list[np.ndarray], batch_size: int, length: int, seed: int = 0):
        self.documents = documents
        self.batch_size = batch_size
        self.length = length
        self.seed = seed
        self.num_tokens = sum(len(document) for document in documents)
        # One sequence fewer than fit leaves room for any offset, and for the last label.
        self.steps_per_epoch = ((self.num_tokens - 1) // length - 1) // batch_size
        if self.steps_per_epoch < 1:
            raise ValueError(
                f"{self.num_tokens} tokens do not fill one batch of {batch_size} x {length}. "
                "Take more text, a smaller batch or a shorter length."
            )
        self._epoch = None

    def __call__(self, start: int, stop: int) -> Iterator[tuple[dict, np.ndarray]]:
        """The batches of the steps from `start` to before `stop`, as `fit` takes them.

        Yields:
            `({"token_ids": int32 (B, S), "padding_mask": bool (B, S)}, labels int32 (B, S))`,
            labels being the tokens one place further on.
        """
        for step in range(start, stop):
            token_ids = self.batch(step)  # (B, S + 1)
            mask = np.ones((self.batch_size, self.length), bool)
            yield {"token_ids": token_ids[:, :-1], "padding_mask": mask}, token_ids[:, 1:]

    def batch(self, step: int) -> np.ndarray:
        """The tokens (B, S + 1) of one step."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._lay_out(epoch)
        chosen = self._starts[index * self.batch_size : (index + 1) * self.batch_size]
        return self._stream[chosen[:, None] + np.arange(self.length + 1)]

    def _lay_out(self, epoch: int):
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.documents))
        self._stream = np.concatenate([self.documents[i] for i in order]).astype("int32")
        offset = random.integers(self.length)
        starts = np.arange(self.steps_per_epoch * self.batch_size) * self.length + offset
        self._starts = random.permutation(starts)
        self._epoch = epoch
