"""Strings that end a text, also across tokens (chapter 16, "Sampling")."""

from collections.abc import Sequence

from mistral_lib.generation.stream_decoder import StreamDecoder
from mistral_lib.inputs import as_texts
from mistral_lib.tokenizer_base import Tokenizer


class StopStrings:
    """Lets a text through up to the first of some strings, however it comes in pieces.

    What could be the beginning of a stop string is held back until it is known.

    Args:
        strings: any number of str, none of them empty.

    Attributes:
        found: whether the text has come to a stop string.

    >>> stop = StopStrings(["###"])
    >>> [stop.push(piece) for piece in ("a # b #", "# c", " ##", "# d")], stop.found
    (['a # b ', '## c', ' ', ''], True)
    """

    def __init__(self, strings: Sequence[str]):
        self._strings = tuple(strings)
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """Takes the next piece and returns the text that it settles."""
        if self.found:
            return ""
        text = self._held + piece
        places = ((text.find(string), len(string)) for string in self._strings)
        found = [(place + length, place) for place, length in places if place >= 0]
        if found:  # the one that is complete first, so that the cuts of the pieces do not matter
            self.found, self._held = True, ""
            return text[: min(found)[1]]
        held = max((_overlap(text, string) for string in self._strings), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def flush(self) -> str:
        """Ends the text: what was held back was no stop string."""
        held, self._held = self._held, ""
        return held


class Transcript:
    """The text of one row while its tokens are written.

    A model may know more ids than its tokenizer: tokens added to a checkpoint, or rows that fill up
    the embedding. They write nothing, like control tokens.

    Args:
        tokenizer: a `MistralTokenizer` or `MistralTekkenTokenizer`.
        prompt_ids: ids in front, as `StreamDecoder` takes them.
        stop_strings: strings that end the text; the text ends in front of them.

    Attributes:
        length: number of tokens taken: all up to the one that completes a stop string.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int] = (),
        stop_strings: Sequence[str] = (),
    ):
        self._size, self._end = tokenizer.vocabulary_size(), tokenizer.end_token_id
        self._decoder = StreamDecoder(tokenizer, [self._known(id) for id in prompt_ids])
        self._stop = StopStrings(stop_strings)
        self.length = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string has come."""
        return self._stop.found

    def _known(self, id: int) -> int:
        return id if id < self._size else self._end

    def read(self, ids: Sequence[int]) -> str:
        """Takes all ids of the row so far and returns the text that the new ones settle."""
        pieces = []
        # One at a time: where a stop string ends, the tokens end too.
        while not self.stopped and self.length < len(ids):
            pieces.append(self._stop.push(self._decoder.push([self._known(ids[self.length])])))
            self.length += 1
        return "".join(pieces)

    def flush(self) -> str:
        """Ends the text and returns the rest of it."""
        rest = self._stop.push(self._decoder.flush())
        return rest + self._stop.flush()


def check_stop_strings(stop_strings: str | Sequence[str] | None) -> tuple[str, ...]:
    """The stop strings as a tuple, checked; `None` and a single text are understood.

    >>> check_stop_strings("###")
    ('###',)
    """
    if stop_strings is None:
        return ()
    strings = tuple(as_texts(stop_strings, "stop string")[0])
    if "" in strings:
        raise ValueError(
            "A stop string must not be empty: it would end every text at once. Leave it out."
        )
    return strings


def _overlap(text: str, string: str) -> int:
    """How many characters at the end of the text could begin the string."""
    longest = min(len(text), len(string) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(string[:size])), 0)
