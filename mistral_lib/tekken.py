"""Tekken, Mistral's tokenizer since 2024 (chapter 2, "Tokens").

A pattern cuts a text into words, and byte-pair encoding merges the bytes of each word. Each byte is
a token, so the vocabulary can spell every character. Spaces are treated like all other characters,
and nothing is put in front of a text.
"""

import base64
import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tiktoken

from mistral_lib.checks import as_path
from mistral_lib.presets.atomic import replaced_file
from mistral_lib.presets.json_files import parse_json
from mistral_lib.presets.loading import load_tokenizer
from mistral_lib.presets.preset import Preset
from mistral_lib.tekken_vocabulary import (
    PATTERN,
    TekkenVocabulary,
    from_merges,
    parse_tekken,
)
from mistral_lib.tokenizer_base import Tokenizer
from mistral_lib.vocabulary import read_vocabulary
from mistral_lib.vocabulary_ids import check_id

VOCABULARY_FILE, MERGES_FILE = "vocabulary.json", "merges.txt"
EXPECTED = "Expected Mistral's tekken.json, or KerasHub's vocabulary.json."
# With that much white space in a row, the pattern's backtracking overflows tiktoken's stack.
LONGEST_SPACE = 900_000


@keras.saving.register_keras_serializable(package="mistral_lib")
class MistralTekkenTokenizer(Tokenizer):
    """Mistral's Tekken tokenizer: byte-pair encoding on bytes, with `<s>`, `</s>` and padding id 0.

    Encoding treats all text alike: `"<s>"` or `"[INST]"` inside a text becomes the ordinary tokens
    that spell it, never the control token of that name. Decoding writes nothing for control tokens,
    and U+FFFD where bytes are not valid UTF-8. Tokens of text are spelled in GPT-2's alphabet, as
    KerasHub and transformers spell them: `Ġ` is a space.

    Args:
        vocabulary: path of a `tekken.json`, or its bytes; or, in KerasHub's form, a dictionary that
            maps tokens to ids, or the path of the `vocabulary.json` that holds it. `None` leaves
            the vocabulary to `load_assets`.
        merges: in KerasHub's form, the pairs of tokens that are merged, such as `"t h"`, or the
            path of the `merges.txt` that holds them.
        split_pattern: in KerasHub's form, the regular expression that cuts a text into words;
            `None` means Tekken's own.
        add_bos: whether `encode` puts `<s>` in front, unless the call says otherwise.
        add_eos: whether `encode` appends `</s>`, unless the call says otherwise.

    Raises:
        FileNotFoundError: there is no file at a path.
        TypeError: an argument of another type.
        ValueError: not a Tekken vocabulary, or a pattern that is not a regular expression.

    Source: mistral-common 1.13, `tekken.py`; the interface is KerasHub's.

    >>> from mistral_lib.tekken_vocabulary import spell
    >>> names = ["<unk>", "<s>", "</s>", *(spell(bytes([i])) for i in range(256)), "th", "the"]
    >>> vocabulary = {name: id for id, name in enumerate(names)}
    >>> tokenizer = MistralTekkenTokenizer(vocabulary, ["t h", "th e"])
    >>> [tokenizer.id_to_token(i) for i in tokenizer.encode("the ☃", add_bos=True)]
    ['<s>', 'the', 'Ġ', 'â', 'ĺ', 'ĥ']
    >>> tokenizer.decode(tokenizer.encode("the ☃", add_bos=True))
    'the ☃'
    """

    kind = "MistralTekkenTokenizer"
    vocabulary_argument = "vocabulary"

    def __init__(
        self,
        vocabulary: str | os.PathLike | bytes | Mapping[str, int] | None = None,
        merges: str | os.PathLike | Sequence[str] | None = None,
        split_pattern: str | None = None,
        add_bos: bool = False,
        add_eos: bool = False,
    ):
        super().__init__(add_bos, add_eos)
        self.split_pattern = split_pattern
        self._vocabulary: TekkenVocabulary | None = None
        if vocabulary is not None:
            self._set_vocabulary(_read(vocabulary, merges, split_pattern))

    def _set_vocabulary(self, vocabulary: TekkenVocabulary) -> None:
        try:
            self._encoding = tiktoken.Encoding(
                "tekken",
                pat_str=vocabulary.pattern,
                mergeable_ranks=vocabulary.ranks,
                special_tokens={},
            )
        except ValueError as error:
            raise ValueError(
                f"MistralTekkenTokenizer: split_pattern is {vocabulary.pattern!r:.80}, which is no "
                f"regular expression: {error}"
            ) from error
        self._vocabulary = vocabulary
        self._has_vocabulary = True
        self.split_pattern = vocabulary.pattern
        # KerasHub's files have no place for the version.
        self.extras = {"version": vocabulary.version, **self.extras}

    @property
    def vocabulary(self) -> TekkenVocabulary:
        """The vocabulary, as `tekken.json` stores it."""
        if self._vocabulary is None:
            raise ValueError(
                "MistralTekkenTokenizer has no vocabulary yet: construct it with a tekken.json, or "
                f"call load_assets(folder) on a folder that holds {VOCABULARY_FILE} and "
                f"{MERGES_FILE}."
            )
        return self._vocabulary

    @property
    def unk_token_id(self) -> int:
        """The id of `<unk>`, to which no text is ever encoded."""
        return self._piece_id("<unk>")

    def _base_size(self) -> int:
        return len(self.vocabulary.spelled)

    def _piece(self, id: int) -> str:
        return self.vocabulary.spelled[id]

    def _piece_id(self, piece: str) -> int:
        ids = self.vocabulary.ids
        return ids.get(piece, ids["<unk>"])

    def _is_control(self, id: int) -> bool:
        return id < len(self.vocabulary.controls)

    def byte_value(self, id: int) -> int | None:
        """The byte, 0 to 255, that an id stands for; `None` for an id that is not one byte."""
        data = self.unfinished_bytes(id)
        return data[0] if data is not None and len(data) == 1 else None

    def unfinished_bytes(self, id: int) -> bytes | None:
        """The bytes of a token of text, which may end inside a character; otherwise `None`."""
        id = check_id(id, self.vocabulary_size())
        place = id - len(self.vocabulary.controls)
        is_text = id not in self._added.by_id and 0 <= place < len(self.vocabulary.tokens)
        return self.vocabulary.tokens[place] if is_text else None

    def model_settings(self) -> dict[str, Any]:
        """The settings of the model that the vocabulary names, with their default values."""
        return self.vocabulary.settings

    def _encode_texts(self, texts: list[str]) -> list[list[int]]:
        return [self._encode_part(text, at_start=True) for text in texts]

    def _encode_part(self, text: str, at_start: bool) -> list[int]:
        offset = len(self.vocabulary.controls)
        if len(text) > LONGEST_SPACE and re.search(rf"\s{{{LONGEST_SPACE}}}", text):
            raise ValueError(
                f"The text has {LONGEST_SPACE:,} or more spaces in a row, and Tekken's pattern "
                "cannot cut that many. Cut them away: text.strip()."
            )
        return [offset + rank for rank in self._encoding.encode_ordinary(text)]

    def _decode_run(self, ids: list[int], at_start: bool) -> str:
        offset, tokens = len(self.vocabulary.controls), self.vocabulary.tokens
        return "".join(
            b"".join(tokens[id - offset] for id in run).decode("utf-8", errors="replace")
            for is_text, run in itertools.groupby(ids, lambda id: id >= offset)
            if is_text
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments for JSON: `vocabulary` is a tekken.json in base64."""
        vocabulary = None
        if self._vocabulary is not None:
            vocabulary = base64.b64encode(self._vocabulary.to_json()).decode("ascii")
        extras = {"extras": self.extras} if self.extras else {}
        flags = {"add_bos": self.add_bos, "add_eos": self.add_eos}
        return {
            "vocabulary": vocabulary,
            "split_pattern": self.split_pattern,
            **flags,
            **extras,
        }

    def save_assets(self, folder: str | os.PathLike) -> None:
        """Writes `vocabulary.json` and `merges.txt` into a folder, which is made if missing."""
        ids, merges = self.vocabulary.ids, self.vocabulary.merge_lines()
        with replaced_file(as_path(folder) / VOCABULARY_FILE) as new:
            new.write_text(json.dumps(ids), encoding="utf-8")
        with replaced_file(as_path(folder) / MERGES_FILE) as new:
            new.write_text("".join(f"{line}\n" for line in merges), encoding="utf-8")

    def load_assets(self, folder: str | os.PathLike) -> None:
        """Takes the vocabulary from the two files in a folder, in place of the present one."""
        folder = as_path(folder)
        files = folder / VOCABULARY_FILE, folder / MERGES_FILE
        self._set_vocabulary(_read(*files, self.split_pattern))

    @classmethod
    def from_preset(cls, preset: str | Path) -> "MistralTekkenTokenizer":
        """The tokenizer of a preset: a name, address or folder, as for `MistralBackbone`."""
        return load_tokenizer({"MistralTekkenTokenizer": cls}, Preset.open(preset))


def _read(vocabulary: Any, merges: Any, pattern: str | None) -> TekkenVocabulary:
    """A vocabulary in one of the forms that the constructor takes."""
    source, ids, data = "the vocabulary", vocabulary, None
    if isinstance(vocabulary, bytes):
        source, data = "the bytes given as vocabulary", vocabulary
    elif isinstance(vocabulary, str | os.PathLike):
        source, data = os.fspath(vocabulary), read_vocabulary(as_path(vocabulary), EXPECTED)
    elif not isinstance(vocabulary, Mapping):
        raise TypeError(
            "MistralTekkenTokenizer: vocabulary must be the path of a tekken.json, its bytes, or "
            f"KerasHub's dictionary, but is {type(vocabulary).__name__}."
        )
    if data is not None and merges is None:
        return parse_tekken(data, source)
    if data is not None:
        ids = parse_json(data, source)
    if merges is None or not all(type(id) is int for id in ids.values()):
        missing = "merges" if merges is None else "an int for every token of vocabulary"
        raise ValueError(f"MistralTekkenTokenizer: {missing} must be given. {EXPECTED}")
    if isinstance(merges, str | os.PathLike):
        lines = read_vocabulary(as_path(merges), EXPECTED).decode("utf-8").splitlines()
        merges = [line for line in lines if line and not line.startswith("#version:")]
    try:
        return from_merges(ids, merges, PATTERN if pattern is None else pattern)
    except ValueError as error:
        raise ValueError(f"{source} is no Tekken vocabulary: {error}. {EXPECTED}") from error
