"""Reading and writing a Tekken vocabulary (chapter 2, "Tokens").

Tekken is byte-pair encoding on bytes. Its first ids are the control tokens; then come the 256 bytes
and the tokens made by merges, in the order in which training found them. A pattern first cuts a
text into words. Inside a word, the pair whose token has the lowest id is merged first.

Mistral stores this as `tekken.json`. KerasHub and Hugging Face write the same tokens in GPT-2's
alphabet, which has a printable character for each byte, and list the merged pairs separately.
"""

import base64
import binascii
import dataclasses
import functools
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mistral_lib.presets.json_files import parse_json

EXPECTED = "Expected Mistral's tekken.json."
# What files of versions up to v7 do not list. The other control tokens are <SPECIAL_20>, ….
CONTROLS = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]"),
    *("[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "[TOOL_CONTENT]",
)
VERSIONS = ("v2", "v3", "v7", "v11", "v13", "v15")  # of the chat template, as mistral-common 1.13
PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclasses.dataclass(frozen=True)
class TekkenVocabulary:
    """The tokens of a Tekken vocabulary, and how a text is cut into words.

    Attributes:
        controls: names of the control tokens, which have the first ids.
        tokens: bytes of the tokens of text, which have the ids after those.
        pattern: a regular expression for the words.
        version: of the chat template, such as "v7".
        settings: those of the model in version 15, with the values that prompts have by default.
    """

    controls: tuple[str, ...]
    tokens: tuple[bytes, ...]
    pattern: str
    version: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def ranks(self) -> dict[bytes, int]:
        """The place of each token of text."""
        return {token: rank for rank, token in enumerate(self.tokens)}

    @functools.cached_property
    def merges(self) -> tuple[tuple[bytes, bytes], ...]:
        """The pair that makes each token, in the order of the tokens.

        The pair is found by merging the token's bytes with the tokens before it. The result is
        unique: until a token is made, no merge reaches across its ends, so inside it the merges are
        the same as if it stood alone.
        """
        pairs = []
        for rank, token in enumerate(self.tokens):
            if len(token) > 1:
                parts = _merge(token, rank, self.ranks)
                if len(parts) != 2:
                    raise ValueError(
                        f"The token {token!r} (rank {rank}) is no pair of tokens before it. "
                        f"{EXPECTED}"
                    )
                pairs.append((parts[0], parts[1]))
        return tuple(pairs)

    @functools.cached_property
    def spelled(self) -> tuple[str, ...]:
        """All tokens in the order of their ids, text in GPT-2's alphabet."""
        return (*self.controls, *map(spell, self.tokens))

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """The ids by their tokens."""
        return {token: id for id, token in enumerate(self.spelled)}

    def merge_lines(self) -> list[str]:
        """The merges as merges.txt has them."""
        return [f"{spell(left)} {spell(right)}" for left, right in self.merges]

    def to_json(self) -> bytes:
        """The content of tekken.json."""
        vocab = [
            {
                "rank": rank,
                "token_bytes": base64.b64encode(token).decode("ascii"),
                "token_str": _as_text(token),
            }
            for rank, token in enumerate(self.tokens)
        ]
        controls = [
            {"rank": rank, "token_str": name, "is_control": True}
            for rank, name in enumerate(self.controls)
        ]
        config = {
            "pattern": self.pattern,
            "num_vocab_tokens": len(self.tokens),
            "default_vocab_size": len(self.controls) + len(self.tokens),
            "default_num_special_tokens": len(self.controls),
            "version": self.version,
        }
        content = {"config": config, "special_tokens": controls, "vocab": vocab}
        if self.version == "v15":
            content["model_settings_builder"] = {
                name: {"type": "enum", "accepts_none": True, "default": value, "values": [value]}
                for name, value in self.settings.items()
            }
        return json.dumps(content, ensure_ascii=False).encode()


def parse_tekken(data: bytes, source: str) -> TekkenVocabulary:
    """The vocabulary in the content of a tekken.json.

    Args:
        data: UTF-8 text.
        source: where it came from, for the error.

    Raises:
        ValueError: another kind of file, or a damaged one.

    Source: mistral-common 1.13, `tokens/tokenizers/tekken.py`.

    >>> parse_tekken(b"{}", "tekken.json")
    Traceback (most recent call last):
    ValueError: tekken.json is no Tekken vocabulary: it has no object 'config'. Expected ...
    """
    content = parse_json(data, source)
    try:
        return _read(content)
    except (TypeError, KeyError, ValueError, AttributeError, binascii.Error) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{source} is no Tekken vocabulary: {reason}. {EXPECTED}") from error


def _read(content: dict[str, Any]) -> TekkenVocabulary:
    for name, kind, spoken in (("config", dict, "object"), ("vocab", list, "list")):
        if not isinstance(content.get(name), kind):
            raise ValueError(f"it has no {spoken} {name!r}")
    config = content["config"]
    version, size = config["version"], config["default_vocab_size"]
    if version not in VERSIONS:
        raise ValueError(f"its version is {version!r:.40}, and known are {', '.join(VERSIONS)}")
    controls = _read_controls(content.get("special_tokens"), config, version)
    num_tokens = size - len(controls)
    if not 256 <= num_tokens <= len(content["vocab"]):
        raise ValueError(
            f"of {size} ids {len(controls)} are control tokens, but there are "
            f"{len(content['vocab'])} tokens"
        )
    tokens = []
    for rank, entry in enumerate(content["vocab"][:num_tokens]):
        if entry["rank"] != rank:
            raise ValueError(f"token {rank} has the rank {entry['rank']!r:.40}")
        tokens.append(base64.b64decode(entry["token_bytes"], validate=True))
    settings = {
        name: builder["default"]
        for name, builder in (content.get("model_settings_builder") or {}).items()
        if builder and builder.get("default") is not None
    }
    return _checked(TekkenVocabulary(controls, tuple(tokens), config["pattern"], version, settings))


def _read_controls(listed: Any, config: dict[str, Any], version: str) -> tuple[str, ...]:
    """The names of the control tokens; those that are not listed get numbers."""
    number = config["default_num_special_tokens"]
    names = list(CONTROLS)
    if listed is not None:
        names = [token["token_str"] for token in listed]
        if [token["rank"] for token in listed] != list(range(len(listed))):
            raise ValueError("its special_tokens are not in the order of their ranks")
    elif VERSIONS.index(version) > VERSIONS.index("v7"):
        raise ValueError(f"version {version} must list its special_tokens")
    if len(names) > number:
        raise ValueError(f"it lists {len(names)} special_tokens, but says that it has {number}")
    return (*names, *(f"<SPECIAL_{id}>" for id in range(len(names), number)))


def from_merges(
    vocabulary: Mapping[str, int], merges: Iterable[str | Sequence[str]], pattern: str
) -> TekkenVocabulary:
    """The vocabulary in KerasHub's form, or Hugging Face's.

    Args:
        vocabulary: ids by their tokens, in GPT-2's alphabet where they are text.
        merges: pairs of tokens, each a str with a space between or a list of two.
        pattern: a regular expression for the words.

    Raises:
        ValueError: ids in another order than Tekken's, or a token that no pair of the merges makes.
    """
    names = sorted(vocabulary, key=vocabulary.__getitem__)
    if [vocabulary[name] for name in names] != list(range(len(names))):
        raise ValueError(f"its ids are not 0 to {len(names) - 1}")
    first = vocabulary.get(spell(b"\0"), len(names))
    tokens = tuple(unspell(name) for name in names[first:])
    controls = tuple(names[:first])
    # The files do not name the version; control tokens tell most versions apart.
    known = {"[THINK]": "v13", "[ARGS]": "v11", "[SYSTEM_PROMPT]": "v7"}
    version = next((version for name, version in known.items() if name in controls), "v3")
    found = _checked(TekkenVocabulary(controls, tokens, pattern, version))
    made = ["".join(pair.split(" ") if isinstance(pair, str) else pair) for pair in merges]
    ids = [vocabulary.get(token, -1) for token in made]
    if any(one > next for one, next in itertools.pairwise(ids)):
        raise ValueError("its merges are not in the order of the ids that they make")
    missing = set(names[first + 256 :]).symmetric_difference(made)
    if missing:
        raise ValueError(f"either the tokens or the merges lack {min(missing)!r:.80}")
    return found


def _checked(vocabulary: TekkenVocabulary) -> TekkenVocabulary:
    """The same vocabulary, if it has everything that a tokenizer needs."""
    controls, tokens = vocabulary.controls, vocabulary.tokens
    if tokens[:256] != tuple(bytes([value]) for value in range(256)):
        raise ValueError("its tokens do not begin with the 256 bytes")
    if len(set(tokens)) < len(tokens) or len(set(controls)) < len(controls) or b"" in tokens:
        raise ValueError("a token is empty, or there twice")
    for name in ("<unk>", "<s>", "</s>"):
        if name not in controls:
            raise ValueError(f"it has no control token {name!r}")
    if not isinstance(vocabulary.pattern, str):
        raise ValueError(f"its pattern is {vocabulary.pattern!r:.40}")
    return vocabulary


def _merge(token: bytes, limit: int, ranks: Mapping[bytes, int]) -> list[bytes]:
    """The parts of a token after all merges into tokens of a rank below `limit`."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(left + right, limit) for left, right in itertools.pairwise(parts)]
        best = min(pairs)
        if best >= limit:
            break
        i = pairs.index(best)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def _gpt2_alphabet() -> dict[int, str]:
    """A printable character for each byte: its own if that is printable, or one from U+0100.

    Source: OpenAI's GPT-2, `encoder.py`.
    """
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [value for value in range(256) if value not in plain]
    return {value: chr(value) for value in plain} | {
        value: chr(256 + place) for place, value in enumerate(others)
    }


ALPHABET = _gpt2_alphabet()
VALUES = {character: value for value, character in ALPHABET.items()}


def spell(token: bytes) -> str:
    """A token in GPT-2's alphabet.

    >>> spell(" é".encode())
    'ĠÃ©'
    """
    return "".join(map(ALPHABET.__getitem__, token))


def unspell(token: str) -> bytes:
    """The bytes of a token in GPT-2's alphabet.

    Raises:
        ValueError: a character is not in it.
    """
    try:
        return bytes(map(VALUES.__getitem__, token))
    except KeyError as error:
        raise ValueError(
            f"{token!r:.80} has the character {error}, which stands for no byte"
        ) from error


def _as_text(token: bytes) -> str | None:
    try:
        return token.decode()
    except UnicodeDecodeError:
        return None
