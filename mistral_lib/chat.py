"""Conversations as token ids (chapter 2, "Tokens").

An instruct model was trained on conversations written in one form, its chat template: what the user
says between `[INST]` and `[/INST]`, each reply ended by `</s>`. Mistral's versions differ in
whether these marks are control tokens or ordinary text, in where the system message and the tools
are put, and in how a tool is called. Fine-tuned models may have a template of their own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mistral_lib.chat_messages import read_tools
from mistral_lib.chat_writer import TEMPLATES, Writer
from mistral_lib.checks import check_choice
from mistral_lib.jinja_templates import render_conversation


def detect_version(tokenizer: Any) -> str:
    """The version of a vocabulary.

    Args:
        tokenizer: a `MistralTokenizer` or `MistralTekkenTokenizer`.

    Returns:
        The version that a Tekken vocabulary names. Otherwise the newest version whose control
        tokens the vocabulary has: "v1" for Mistral 7B 0.1 and 0.2 and for vocabularies without
        `[INST]`, "v3" for Mistral 7B 0.3, "v2" and "v7" for those of Mistral's larger models.

    >>> from mistral_lib import MistralTokenizer
    >>> detect_version(MistralTokenizer.from_preset("mistral_tiny_en"))
    'v1'
    """
    if "version" in tokenizer.extras:
        return tokenizer.extras["version"]
    known = [name for name in TEMPLATES if not _missing_controls(tokenizer, name)]
    return known[-1] if known[-1] != "v13" else "v11"  # which have the same control tokens


def encode_conversation(
    conversation: Sequence[Mapping[str, Any]],
    tokenizer: Any,
    version: str | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> list[int]:
    """The token ids of a conversation to which the model is to reply.

    Args:
        conversation: as `MistralTokenizer.apply_chat_template` takes it.
        tokenizer: a `MistralTokenizer` or `MistralTekkenTokenizer`.
        version: one of `TEMPLATES`; `None` is the checkpoint's own template, or the version of
            the vocabulary.
        tools: definitions of the tools that the model may call.

    Returns:
        The ids, beginning with `<s>` and ending with `[/INST]`.

    Raises:
        TypeError, ValueError: as `MistralTokenizer.apply_chat_template`.

    >>> from mistral_lib import MistralTokenizer
    >>> tokenizer = MistralTokenizer.from_preset("mistral_tiny_en")
    >>> ids = encode_conversation([{"role": "user", "content": "Return the sum"}], tokenizer)
    >>> [tokenizer.id_to_token(id) for id in ids[:1]], tokenizer.decode(ids)
    (['<s>'], '[INST] Return the sum [/INST]')
    """
    if version is None and "chat_template" in tokenizer.extras:
        version = own_version(tokenizer)
        if version is None:
            return tokenizer.encode_rendered(render_conversation(conversation, tokenizer, tools))
    writer = Writer(tokenizer, _check_version(version, tokenizer))
    return writer.write(conversation, None if tools is None else read_tools(tools))


def is_conversation(inputs: Any) -> bool:
    """Whether the input is a list that begins with a message, not with a text or an id.

    >>> is_conversation([{"role": "user", "content": "Hi"}]), is_conversation(["Hi"])
    (True, False)
    """
    return isinstance(inputs, list | tuple) and len(inputs) > 0 and isinstance(inputs[0], dict)


# Conversations that show whether a template is one of Mistral's.
PROBES = (
    [{"role": "user", "content": "a1"}],
    [
        {"role": "user", "content": "a1"},
        {"role": "assistant", "content": "b2"},
        {"role": "user", "content": "c3"},
    ],
    [
        {"role": "system", "content": "s0"},
        {"role": "user", "content": "a1"},
        {"role": "assistant", "content": "b2"},
        {"role": "user", "content": "c3"},
    ],
)


def own_version(tokenizer: Any) -> str | None:
    """The version of Mistral's template that a checkpoint's own is equal to; `None` if to none.

    The texts that they write are compared without white space. If there is such a version, no
    content of a message can become a control token; a foreign template gives no such guarantee.

    Args:
        tokenizer: a tokenizer with a `chat_template` among its `extras`.
    """
    rendered = []
    for probe in PROBES:
        try:
            rendered.append("".join(render_conversation(probe, tokenizer, None).split()))
        except ValueError:
            rendered.append(None)
    if None in rendered[:2]:
        return None
    detected = detect_version(tokenizer)
    others = [name for name in reversed(TEMPLATES) if not _missing_controls(tokenizer, name)]
    for version in (detected, *others):
        writer = Writer(tokenizer, version)
        texts = ["".join(writer.spell(probe).split()) for probe in PROBES]
        if all(theirs in (None, ours) for theirs, ours in zip(rendered, texts, strict=True)):
            return version
    return None


def _check_version(version: str | None, tokenizer: Any) -> str:
    """A version that the vocabulary can write."""
    if version is None:
        return detect_version(tokenizer)
    check_choice("version", version, tuple(TEMPLATES))
    if missing := _missing_controls(tokenizer, version):
        raise ValueError(
            f"Version {version!r} of the chat template needs the control token {missing[0]!r}, "
            "which this vocabulary lacks. Leave version out: the vocabulary's own is "
            f"{detect_version(tokenizer)!r}."
        )
    return version


def _missing_controls(tokenizer: Any, version: str) -> list[str]:
    """The control tokens of a version, and of those before it, that a vocabulary lacks."""
    upto = [*TEMPLATES][: [*TEMPLATES].index(version) + 1]
    needed = [control for name in upto for control in TEMPLATES[name].controls]
    unknown = tokenizer.unk_token_id
    ids = {name: tokenizer.token_to_id(name) for name in needed}
    return [name for name, id in ids.items() if id == unknown or not tokenizer.is_control(id)]
