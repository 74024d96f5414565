"""Text while it is being generated (chapter 16, "Sampling").

A text cannot be shown id by id: the character ☃ may be three byte pieces, and the space in front of
a piece is dropped at the start of a text and nowhere else.
"""

import codecs
from collections.abc import Sequence

from mistral_lib.tokenizer_base import Tokenizer


class StreamDecoder:
    """Decodes ids block by block; the pieces joined are the text that decoding all at once gives.

    Only ids with bytes of a character that is not yet complete are held back, so no piece splits a
    character. Each block costs the time of decoding itself, however long the text is.

    Args:
        tokenizer: a `MistralTokenizer` or `MistralTekkenTokenizer`.
        prompt_ids: ids that come first. Their text is left out of the pieces, and decides how the
            pieces begin: after a prompt the first piece keeps its leading space, so that
            `tokenizer.decode(prompt_ids)` and the pieces join to the whole text. Where a prompt
            ends inside a character, that character belongs to the first piece.

    >>> import io, sentencepiece
    >>> from mistral_lib import MistralTokenizer
    >>> model = io.BytesIO()
    >>> sentencepiece.SentencePieceTrainer.train(
    ...     sentence_iterator=iter(["the window slides"]),
    ...     model_writer=model,
    ...     minloglevel=2,
    ...     vocab_size=275,
    ...     model_type="bpe",
    ...     byte_fallback=True,
    ... )
    >>> tokenizer = MistralTokenizer(model.getvalue())
    >>> decoder = StreamDecoder(tokenizer)
    >>> [decoder.push([id]) for id in tokenizer.encode("the ☃ is")] + [decoder.flush()]
    ['', 't', 'he', ' ', '', '', '☃', ' ', 'i', 's', '']
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int] = ()):
        self._tokenizer = tokenizer
        # The context stands for all ids so far: decoding behind it writes what decoding behind all
        # of them would. Once a text has begun, any id that writes whole characters will do; the
        # search begins at the end of the vocabulary, where most are.
        self._mid_text = next(
            (
                [id]
                for id in reversed(range(tokenizer.vocabulary_size()))
                if "\ufffd" not in (tokenizer.decode([id]) or "\ufffd")
            ),
            [],
        )
        self._context = []
        self._held = []
        self._flushed = False
        self.push(prompt_ids)

    def push(self, ids: Sequence[int]) -> str:
        """Takes the next ids and returns the text that they settle.

        Args:
            ids: integers, (n,): a list, tuple or array, also empty.

        Returns:
            The new text; empty where the ids write nothing or stop inside a character.

        Raises:
            TypeError, ValueError: as `MistralTokenizer.decode`.
            RuntimeError: `flush` was called.
        """
        if self._flushed:
            raise RuntimeError("This StreamDecoder was flushed. Make a new one for another text.")
        # Padding writes nothing, not even a break between two bytes.
        ids = self._held + [id for id in ids if id != self._tokenizer.pad_token_id]
        settled = len(ids)
        while not self._is_settled(ids, settled):
            settled -= 1
        text = self._write(ids[:settled])
        self._held = ids[settled:]
        return text

    def flush(self) -> str:
        """Ends the text: bytes of a character that never became complete, as U+FFFD each."""
        self._flushed = True
        return self._write(self._held)

    def _is_settled(self, ids: list[int], place: int) -> bool:
        """Whether the text before a place is complete: no character will ever cross that place."""
        before = self._bytes(ids[max(0, place - 3) : place])  # a character has at most four bytes
        behind = self._bytes(ids[place:], at_start=True)
        together, _ = codecs.utf_8_decode(before + behind, "replace", False)
        apart, _ = codecs.utf_8_decode(behind, "replace", False)
        return together == before.decode("utf-8", "replace") + apart

    def _bytes(self, ids: list[int], at_start: bool = False) -> bytes:
        """The bytes at the end, or at the start, of ids that may be of unfinished characters."""
        data = []
        for id in ids if at_start else reversed(ids):
            written = self._tokenizer.unfinished_bytes(id)
            if written is None:
                break
            data.append(written)
        return b"".join(data if at_start else reversed(data))

    def _write(self, ids: list[int]) -> str:
        """The text of ids behind the context, which is brought up to date."""
        behind = len(self._tokenizer.decode(self._context))
        text = self._tokenizer.decode(self._context + ids)[behind:]
        if text:
            self._context = self._mid_text
        else:
            # At the start a lone space piece writes nothing, yet the next one will.
            written = [id for id in ids if not self._tokenizer.is_control(id)]
            self._context = written[-1:] or self._context
        return text
