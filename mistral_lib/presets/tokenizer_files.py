"""Which tokenizer a preset has (chapter 17, "Presets and checkpoints").

KerasHub names the class in its tokenizer.json. A checkpoint may have SentencePiece's
`tokenizer.model`, Mistral's `tekken.json`, or only the `tokenizer.json` of Hugging Face's
tokenizers; tokens that were added to the vocabulary are in up to three more files.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mistral_lib.added_tokens import AddedToken, parse_added_tokens
from mistral_lib.presets.json_files import check_file
from mistral_lib.presets.sources import Source
from mistral_lib.presets.tokenizer_json import convert, read_prefix
from mistral_lib.tekken_vocabulary import VERSIONS
from mistral_lib.vocabulary import LARGEST_VOCABULARY

CONFIG_FILE = "tokenizer_config.json"
ADDED_TOKENS_FILE, CHAT_TEMPLATE_FILE = "added_tokens.json", "chat_template.jinja"
FAST_TOKENIZER_FILE, TEKKEN_FILE = "tokenizer.json", "tekken.json"
# Including those of larger models; the number is the version of the chat template.
VOCABULARY_FILES = ("tokenizer.model", "tokenizer.model.v3", "tokenizer.model.v7")
ALL_FILES = (*VOCABULARY_FILES, TEKKEN_FILE, FAST_TOKENIZER_FILE)
SENTENCEPIECE, TEKKEN = "MistralTokenizer", "MistralTekkenTokenizer"
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": ""}
# SentencePiece puts a space in front of a text. If tokens were added, transformers puts one before
# every part between them. With the pre-tokenizer Metaspace it puts none where there is one, and
# with the scheme "first" only one at the beginning. If a tokenizer.json is "alone", without a
# SentencePiece model, that holds for every text.
PREFIXES = ("first", "always", "first_alone", "always_alone")


@dataclass(frozen=True)
class TokenizerFiles:
    """The tokenizer of a preset, before it is made.

    Attributes:
        kind: its class, by KerasHub's name.
        vocabulary: arguments that say what the vocabulary is.
        arguments: all other arguments.
        extras: what else the preset says, which is also kept for an export: `chat_template`,
            in Jinja; `special_tokens`, the names that a template may use; `added_tokens`, as
            `added_tokens.parse_added_tokens` reads them; `prefix`, one of `PREFIXES`; `version`, of
            the chat template. Each is there only if it is known.
    """

    kind: str
    vocabulary: dict[str, Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    extras: dict[str, Any] = field(default_factory=dict)


def find_tokenizer(source: Source) -> TokenizerFiles:
    """The tokenizer of a checkpoint.

    Raises:
        FileNotFoundError: the checkpoint has none.
        ValueError: it is of a kind that is not known here.
    """
    for name in VOCABULARY_FILES:
        file = source.find(name)
        if file is not None:
            kind, vocabulary = SENTENCEPIECE, {"proto": file}
            break
    else:
        file = source.find(TEKKEN_FILE)
        if file is not None:
            kind, vocabulary = TEKKEN, {"vocabulary": file}
        elif source.find(FAST_TOKENIZER_FILE) is not None:
            content = _read_fast(source)
            kind, vocabulary = convert(content, str(source.get(FAST_TOKENIZER_FILE)))
        else:
            expected = " nor ".join(ALL_FILES)
            raise source.missing(f"{source} has no vocabulary: neither {expected}.")
    return TokenizerFiles(kind, vocabulary, extras=_read_extras(source, kind, vocabulary))


def checked_extras(extras: Any) -> dict[str, Any]:
    """The extras that a preset of ours may hold; whatever else was written there is left out."""
    if not isinstance(extras, dict):
        return {}
    added = [token.to_json() for token in parse_added_tokens(extras.get("added_tokens"))]
    found = {
        "chat_template": _checked_template(extras.get("chat_template")),
        "added_tokens": added,
        "special_tokens": _checked_names(extras.get("special_tokens")),
        "prefix": next((each for each in PREFIXES if each == extras.get("prefix")), None),
        "version": next((each for each in VERSIONS if each == extras.get("version")), None),
    }
    return {name: value for name, value in found.items() if value}


def _checked_names(content: Any) -> dict[str, str]:
    """The special tokens that are not named as usual; each is a str or an object with flags."""
    names = {}
    for name in SPECIAL_TOKENS if isinstance(content, dict) else ():
        token = content.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and token != SPECIAL_TOKENS[name]:
            names[name] = token
    return names


def _checked_template(template: Any) -> Any:
    """A chat template: a text, or a list of named ones."""
    if isinstance(template, str):
        return template
    named = template if isinstance(template, list) else []
    keys = ("name", "template")
    return [
        {key: each[key] for key in keys}
        for each in named
        if isinstance(each, dict) and all(isinstance(each.get(key), str) for key in keys)
    ]


def _read_fast(source: Source) -> dict[str, Any]:
    return source.json(FAST_TOKENIZER_FILE, LARGEST_VOCABULARY)


def _read_extras(source: Source, kind: str, vocabulary: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says about its tokenizer besides the vocabulary: see `TokenizerFiles`."""
    config = source.json(CONFIG_FILE) if source.find(CONFIG_FILE) is not None else {}
    fast = _read_fast(source) if source.find(FAST_TOKENIZER_FILE) is not None else {}
    extras: dict[str, Any] = {"chat_template": _read_template(source, config)}
    extras["special_tokens"] = _checked_names(config)
    extras["added_tokens"] = [
        token.to_json() for token in _read_added(source, config, fast).values()
    ]
    if kind == SENTENCEPIECE:
        alone = not isinstance(vocabulary["proto"], Path)
        prefix = read_prefix(fast, alone) if fast else None
        if not fast and config.get("legacy") is False:
            prefix = "first"
        extras["prefix"] = prefix
    return {name: value for name, value in extras.items() if value}


def _read_template(source: Source, config: dict[str, Any]) -> Any:
    """The chat template, which newer versions of transformers write into a file of its own."""
    file = source.find(CHAT_TEMPLATE_FILE)
    if file is None:
        return _checked_template(config.get("chat_template"))
    check_file(file)
    return file.read_text(encoding="utf-8")


def _read_added(
    source: Source, config: dict[str, Any], fast: dict[str, Any]
) -> dict[int, AddedToken]:
    """The added tokens by their ids; files that say more about them replace what others say."""
    named = {} if source.find(ADDED_TOKENS_FILE) is None else source.json(ADDED_TOKENS_FILE)
    decoder = config.get("added_tokens_decoder")
    described = [
        {**token, "id": int(id)}
        for id, token in (decoder.items() if isinstance(decoder, dict) else ())
        if id.isdecimal() and isinstance(token, dict)
    ]
    lists = (named, described, fast.get("added_tokens"))
    return {token.id: token for listed in lists for token in parse_added_tokens(listed)}
