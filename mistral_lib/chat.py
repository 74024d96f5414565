"""Conversations as token ids (chapter 2, "Tokens").

An instruct model was trained on conversations written in one form, its chat template: what the user
says between `[INST]` and `[/INST]`, each reply ended by `</s>`. Mistral's versions differ in
whether these marks are control tokens or ordinary text, and in where the system message stands.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mistral_lib.checks import check_choice
from mistral_lib.inputs import check_text

ROLES = ("system", "user", "assistant")


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
    """How one version of Mistral's instruct models is addressed.

    Attributes:
        controls: the control tokens that its vocabulary has and the version before lacks. Without
            any, `[INST]` and `[/INST]` are written as text.
        system: where the system message stands: in front of the "first" or the "last" message of
            the user, or on its "own", between control tokens.
    """

    controls: tuple[str, ...]
    system: str


# From old to new: a vocabulary keeps the control tokens of those before it.
TEMPLATES = {
    "v1": ChatTemplate((), "first"),
    "v2": ChatTemplate(("[INST]", "[/INST]"), "last"),
    "v3": ChatTemplate(("[PREFIX]",), "last"),  # like v2 but for tools, which are not supported
    "v7": ChatTemplate(("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"), "own"),
}


def detect_version(tokenizer: Any) -> str:
    """The newest version of which a vocabulary has the control tokens.

    Args:
        tokenizer: a `MistralTokenizer`.

    Returns:
        "v1" for Mistral 7B 0.1 and 0.2 and for vocabularies without `[INST]`, "v3" for Mistral 7B
        0.3; "v2" and "v7" for the vocabularies of Mistral's larger models.

    >>> from mistral_lib import MistralTokenizer
    >>> detect_version(MistralTokenizer.from_preset("mistral_tiny_en"))
    'v1'
    """
    return [name for name in TEMPLATES if not _missing_controls(tokenizer, name)][-1]


def encode_conversation(
    conversation: Sequence[Mapping[str, str]], tokenizer: Any, version: str | None = None
) -> list[int]:
    """The token ids of a conversation to which the model is to reply.

    Args:
        conversation: as `MistralTokenizer.apply_chat_template` takes it.
        tokenizer: a `MistralTokenizer`.
        version: one of `TEMPLATES`; `None` is that of the vocabulary.

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
    system, turns = read_conversation(conversation)
    template = TEMPLATES[_check_version(version, tokenizer)]
    ids = [tokenizer.start_token_id]
    if template.system == "own":
        if system is not None:
            ids += _between("[SYSTEM_PROMPT]", system, "[/SYSTEM_PROMPT]", tokenizer)
    elif system:
        place = 0 if template.system == "first" else -1
        turns[place] = f"{system}\n\n{turns[place]}"
    for index, text in enumerate(turns):
        by_user = index % 2 == 0
        if by_user and template.controls:
            ids += _between("[INST]", text, "[/INST]", tokenizer)
        elif by_user:
            ids += _encode(f"[INST] {text} [/INST]", tokenizer)
        else:
            text = text.rstrip(" ") if template.controls else text
            ids += [*_encode(text, tokenizer), tokenizer.end_token_id]
    return ids


def read_conversation(
    conversation: Sequence[Mapping[str, str]],
) -> tuple[str | None, list[str]]:
    """The texts of a conversation, its form checked.

    Args:
        conversation: as `MistralTokenizer.apply_chat_template` takes it.

    Returns:
        The system message or `None`; and what user and assistant said in turns, an odd number of
        texts, since the user has the first and the last word.

    Raises:
        TypeError, ValueError: as `MistralTokenizer.apply_chat_template`.

    >>> read_conversation([{"role": "user", "content": "Hi"}])
    (None, ['Hi'])
    >>> read_conversation([{"role": "assistant", "content": "Hi"}])
    Traceback (most recent call last):
    ValueError: Message 0 has the role 'assistant', expected 'system' or 'user'. After ...
    """
    if not isinstance(conversation, list | tuple):
        raise TypeError(
            "A conversation must be a list of messages such as {'role': 'user', 'content': 'Hi'}, "
            f"but is of type {type(conversation).__name__}."
        )
    system, turns = None, []
    for index, message in enumerate(conversation):
        role, content = _read_message(message, index)
        expected = (ROLES[1 + len(turns) % 2],)
        if index == 0:
            expected = ("system", "user")
        if role not in expected:
            raise ValueError(
                f"Message {index} has the role {role!r}, expected "
                f"{' or '.join(map(repr, expected))}. After at most one system message, user and "
                "assistant take turns, and the user begins. Join neighbours of one role into one "
                "message, with an empty line between."
            )
        if role == "system":
            system = content
        else:
            turns.append(content)
    if len(turns) % 2 == 0:
        last = f"ends with the role {conversation[-1]['role']!r}" if conversation else "is empty"
        raise ValueError(
            f"The conversation {last}, expected 'user' at the end: the reply is what the model "
            "writes."
        )
    return system, turns


def is_conversation(inputs: Any) -> bool:
    """Whether the input is a list that begins with a message, not with a text or an id.

    >>> is_conversation([{"role": "user", "content": "Hi"}]), is_conversation(["Hi"])
    (True, False)
    """
    return isinstance(inputs, list | tuple) and len(inputs) > 0 and isinstance(inputs[0], dict)


def _read_message(message, index: int) -> tuple[str, str]:
    """Role and content of one message."""
    if not isinstance(message, dict):
        raise TypeError(
            f"Message {index} must be a dictionary of role and content, but is {message!r:.80}."
        )
    if message.keys() != {"role", "content"}:
        raise ValueError(
            f"Message {index} must have the keys role and content, but has {tuple(message)}. Tools "
            "and images are not supported."
        )
    role = check_choice(f"The role of message {index}", message["role"], ROLES)
    content = check_text(f"the content of message {index}", _join(message["content"]))
    if role == "assistant" and not content:
        raise ValueError(f"Message {index} is an empty reply. Leave it out, or say what it was.")
    return role, content


def _join(content: Any) -> Any:
    """A content that is a list of pieces of text, as OpenAI writes it, in one piece.

    There is an empty line between two of them, as mistral-common has it. What is no such list is
    returned as it is.
    """
    if not (isinstance(content, list | tuple) and content):
        return content
    pieces = [
        piece["text"] if isinstance(piece, Mapping) and piece.keys() == {"type", "text"} else None
        for piece in content
    ]
    if not all(isinstance(piece, str) for piece in pieces):
        return content
    return "\n\n".join(filter(None, pieces))


def _check_version(version, tokenizer) -> str:
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


def _missing_controls(tokenizer, version) -> list[str]:
    """The control tokens of a version, and of those before it, that a vocabulary lacks."""
    upto = [*TEMPLATES][: [*TEMPLATES].index(version) + 1]
    needed = [control for name in upto for control in TEMPLATES[name].controls]
    return [name for name in needed if not tokenizer.is_control(tokenizer.token_to_id(name))]


def _between(begin: str, text: str, end: str, tokenizer) -> list[int]:
    """The ids of a text between two control tokens."""
    return [tokenizer.token_to_id(begin), *_encode(text, tokenizer), tokenizer.token_to_id(end)]


def _encode(text: str, tokenizer) -> list[int]:
    """The ids of a text alone, whatever the tokenizer was told to add."""
    return tokenizer.encode(text, add_bos=False, add_eos=False)
