"""Reading and merging the messages of a conversation (chapter 2, "Tokens").

Programs write conversations in OpenAI's form: a content may be a list of pieces, the assistant may
call tools, and the result of a tool is a message of its own. Consecutive messages of one role are
merged into one, as in mistral-common.
"""

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mistral_lib.checks import check_choice
from mistral_lib.inputs import check_text

ROLES = ("system", "user", "assistant", "tool")
# What a message may hold besides its role; and the roles that may come before each role.
KEYS = {
    "system": {"content"},
    "user": {"content"},
    "assistant": {"content", "tool_calls"},
    "tool": {"content", "tool_call_id", "name"},
}
BEFORE = {
    "system": ("system", "user"),
    "user": ("system", "user", "assistant", "tool"),
    "assistant": ("system", "user", "assistant", "tool"),
    "tool": ("assistant", "tool"),
}
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True)
class Thought:
    """What a model thinks before it replies; `closed` says whether the thought is complete."""

    text: str
    closed: bool = True


@dataclass(frozen=True)
class Call:
    """A tool call: the name of the tool, its arguments as JSON values, an id for the result."""

    name: str
    arguments: Any
    id: str


@dataclass(frozen=True)
class Message:
    """A message that has been checked.

    Attributes:
        role: one of `ROLES`.
        parts: texts and thoughts, in their order; neither an empty text nor two texts in a row.
        calls: the assistant's tool calls.
        call_id: the call whose result this message of a tool is.
        name: the name of that tool, if the message gives it.
        is_said: whether there is a content; a list of empty texts counts as one.
        index: its place in the conversation.
    """

    role: str
    parts: tuple[str | Thought, ...]
    calls: tuple[Call, ...] = ()
    call_id: str | None = None
    name: str | None = None
    is_said: bool = True
    index: int = field(default=0, compare=False)

    @property
    def text(self) -> str:
        """The text of the message, without its thoughts."""
        return "".join(part for part in self.parts if isinstance(part, str))


def read_messages(conversation: Sequence[Mapping[str, Any]], join: str = "\n\n") -> list[Message]:
    """The messages of a conversation that the model is to reply to, with their form checked.

    Args:
        conversation: as `MistralTokenizer.apply_chat_template` takes it.
        join: what is put between two pieces of text in one message.

    Raises:
        TypeError, ValueError: as `MistralTokenizer.apply_chat_template`.

    >>> [message.text for message in read_messages([{"role": "user", "content": "Hi"}])]
    ['Hi']
    >>> read_messages([{"role": "tool", "content": "Hi"}])
    Traceback (most recent call last):
    ValueError: Message 0 has the role 'tool', expected 'system' or 'user' or 'assistant'. ...
    """
    if not isinstance(conversation, list | tuple):
        raise TypeError(
            "A conversation must be a list of messages such as {'role': 'user', 'content': 'Hi'}, "
            f"but is of type {type(conversation).__name__}."
        )
    messages: list[Message] = []
    for index, content in enumerate(conversation):
        message = _read_message(content, index, join)
        before = messages[-1].role if messages else "system"
        if before not in BEFORE[message.role]:
            expected = [role for role in ROLES if before in BEFORE[role]]
            raise ValueError(
                f"Message {index} has the role {message.role!r}, expected "
                f"{' or '.join(map(repr, expected))}. The system speaks before the user or after "
                "the user, and a tool after the assistant that called it."
            )
        messages.append(message)
    last = messages[-1].role if messages else None
    if last not in ("user", "tool"):
        found = f"ends with the role {last!r}" if messages else "is empty"
        raise ValueError(
            f"The conversation {found}, expected 'user' or 'tool' at the end: the reply is what "
            "the model writes."
        )
    _check_results(messages)
    return messages


def aggregate(messages: Iterable[Message], join: str = "\n\n") -> list[Message]:
    """Consecutive messages of one role as one message; results of tools stay separate.

    Args:
        messages: as `read_messages` returns them.
        join: what is put between the texts of two messages.
    """
    found = []
    for role, group in itertools.groupby(messages, lambda message: message.role):
        members = list(group)
        if role in ("system", "tool"):
            found += members
            continue
        parts: list[str | Thought] = []
        for part in itertools.chain.from_iterable(member.parts for member in members):
            if parts and isinstance(part, str) and isinstance(parts[-1], str):
                parts[-1] += join + part
            else:
                parts.append(part)
        calls = itertools.chain.from_iterable(member.calls for member in members)
        is_said = any(member.is_said for member in members)
        index = members[0].index
        found.append(Message(role, tuple(parts), tuple(calls), is_said=is_said, index=index))
    return found


def parse_json(text: str) -> Any:
    """The value that a text has as JSON; the text itself if it is not JSON, `{}` if it is empty.

    >>> parse_json('{"a": 1}'), parse_json("sunny"), parse_json("")
    ({'a': 1}, 'sunny', {})
    """
    try:
        return json.loads(text) if text else {}
    except ValueError:
        return text


def read_tools(tools: Any) -> list[dict[str, Any]]:
    """The definitions of tools in the form in which Mistral's models read them.

    >>> read_tools([{"type": "function", "function": {"name": "now", "strict": True}}])
    [{'type': 'function', 'function': {'name': 'now', 'description': '', 'parameters': {}}}]
    """
    if not isinstance(tools, list | tuple):
        raise TypeError(f"tools must be a list of definitions, but is {tools!r:.80}.")
    found = []
    for index, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or tool.get("type", "function") != "function":
            raise TypeError(
                f"Tool {index} must be {{'type': 'function', 'function': {{'name': ..., "
                f"'description': ..., 'parameters': ...}}}}, but is {tool!r:.80}."
            )
        found.append(
            {
                "type": "function",
                "function": {
                    "name": _check_name(function.get("name"), f"The name of tool {index}"),
                    "description": function.get("description") or "",
                    "parameters": function.get("parameters") or {},
                },
            }
        )
    return found


def _read_message(message: Any, index: int, join: str) -> Message:
    if not isinstance(message, dict):
        raise TypeError(
            f"Message {index} must be a dictionary of role and content, but is {message!r:.80}."
        )
    given = {key: value for key, value in message.items() if value is not None}
    if "role" not in message:
        raise ValueError(
            f"Message {index} must have the keys role and content, but has {tuple(message)}."
        )
    role = check_choice(f"The role of message {index}", message["role"], ROLES)
    calls = _read_calls(given.get("tool_calls"), index) if role == "assistant" else ()
    if ("content" not in message and not calls) or not given.keys() <= {"role", *KEYS[role]}:
        raise ValueError(
            f"Message {index} must have the keys role and content, but has {tuple(message)}. A "
            f"message of the role {role!r} may have {', '.join(sorted(KEYS[role]))}; images are "
            "not supported."
        )
    content = "" if calls and "content" not in given else message["content"]
    parts = _read_parts(content, role, index, join)
    names = {key: given.get(key) for key in ("tool_call_id", "name")}
    for key, value in names.items():
        if not isinstance(value, str | None):
            raise TypeError(f"{key} of message {index} must be a str, but is {value!r:.80}.")
    if names["name"] is not None:
        _check_name(names["name"], f"The name of message {index}")
    of_call = {"call_id": names["tool_call_id"], "name": names["name"]}
    return Message(role, parts, calls, **of_call, is_said=bool(content), index=index)


def _read_parts(content: Any, role: str, index: int, join: str) -> tuple[str | Thought, ...]:
    """The parts of a content that is a text, or a list of pieces as OpenAI writes it."""
    name = f"the content of message {index}"
    if not (isinstance(content, list | tuple) and content):
        text = check_text(name, content)
        return (text,) if text else ()
    parts: list[str | Thought] = []
    for piece in content:
        kind = piece.get("type") if isinstance(piece, Mapping) else None
        keys = {"text": {"type", "text"}, "thinking": {"type", "thinking", "closed"}}
        if kind not in keys or not set(piece) <= keys[kind] or kind not in piece:
            raise TypeError(
                f"Expected a str, but {name} is list, with the piece {piece!r:.80}: expected "
                "{'type': 'text', 'text': ...} or {'type': 'thinking', 'thinking': ...}."
            )
        text = check_text(name, piece[kind])
        if kind == "thinking":
            if role not in ("assistant", "system"):
                raise ValueError(f"Message {index} of the role {role!r} must not hold a thought.")
            parts.append(Thought(text, piece.get("closed", True) is True))
        elif text and parts and isinstance(parts[-1], str):
            parts[-1] += join + text
        elif text:
            parts.append(text)
    return tuple(parts)


def _read_calls(calls: Any, index: int) -> tuple[Call, ...]:
    if not isinstance(calls, list | tuple | None):
        raise TypeError(f"tool_calls of message {index} must be a list, but is {calls!r:.80}.")
    found = []
    for call in calls or ():
        function = call.get("function") if isinstance(call, Mapping) else None
        arguments = function.get("arguments", "") if isinstance(function, Mapping) else None
        if not (
            isinstance(function, Mapping)
            and isinstance(arguments, str | Mapping)
            and isinstance(call.get("id") or "", str)
        ):
            raise TypeError(
                f"A tool call of message {index} must be {{'id': ..., 'function': {{'name': ..., "
                f"'arguments': ...}}}}, with the arguments in JSON, but is {call!r:.80}."
            )
        if isinstance(arguments, str):
            arguments = parse_json(check_text(f"the arguments in message {index}", arguments))
        name = _check_name(function.get("name"), f"The name of a tool in message {index}")
        found.append(Call(name, arguments, call.get("id") or "null"))
    return tuple(found)


def _check_name(name: Any, what: str) -> str:
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise ValueError(
            f"{what} must be 1 to 64 letters, digits, underscores and hyphens, but is {name!r:.80}."
        )
    return name


def _check_results(messages: list[Message]) -> None:
    """Refuses a conversation that goes on before every tool call has a result."""
    missing = 0
    for message in messages:
        if message.role == "tool":
            missing -= 1
        elif message.role == "assistant":
            if missing:
                found = "too few" if missing > 0 else "too many"
                raise ValueError(
                    f"Message {message.index} comes after {found} results: every tool call needs "
                    "one message of the role 'tool'."
                )
            missing = len(message.calls)
