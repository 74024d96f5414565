"""Mistral's own chat templates, version by version (chapter 2, "Tokens").

Each version writes the same conversation in its own way. Only the marks between the texts are
control tokens: a text is encoded separately, so nothing in it can become a control token.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mistral_lib.chat_messages import (
    Call,
    Message,
    Thought,
    aggregate,
    parse_json,
    read_messages,
)


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
    """The form in which one version of Mistral's instruct models reads conversations.

    Attributes:
        controls: the control tokens that its vocabulary has and the version before lacks. The first
            version has none, and writes `[INST]` and `[/INST]` as text.
        system: where the system message is put: before the "first" or the "last" message of the
            user, or on its "own", between control tokens.
        tools: before which message of the user the tools are defined; `None` without tools.
        calls: how tool calls are written: in one "list" in JSON; "with id", the same with ids; or
            one after another, with "[CALL_ID]" and "[ARGS]", or with "[ARGS]" alone.
        results: how the result of a tool is written: in a "list" in JSON, in an "object" in JSON,
            after "[TOOL_CONTENT]", or "alone".
        join: what is put between two pieces of text in one message.
    """

    controls: tuple[str, ...]
    system: str
    tools: str | None = "last"
    calls: str = "with id"
    results: str = "object"
    join: str = "\n\n"


# From old to new: a vocabulary keeps the control tokens of earlier versions.
TEMPLATES = {
    "v1": ChatTemplate((), "first", None),
    "v2": ChatTemplate(("[INST]", "[/INST]"), "last", calls="list", results="list"),
    "v3": ChatTemplate(("[PREFIX]",), "last"),
    "v7": ChatTemplate(("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"), "own", results="[TOOL_CONTENT]"),
    "v11": ChatTemplate(
        ("[ARGS]", "[CALL_ID]"), "own", calls="[CALL_ID]", results="[TOOL_CONTENT]"
    ),
    "v13": ChatTemplate((), "own", tools="first", calls="[ARGS]", results="alone"),
    "v15": ChatTemplate(
        ("[MODEL_SETTINGS]", "[/MODEL_SETTINGS]"), "own", "first", "[ARGS]", "alone", join=""
    ),
}
CALL_ID = re.compile("[a-zA-Z0-9]{9}")


class Writer:
    """Writes conversations in one version.

    Args:
        tokenizer: a tokenizer that has the version's control tokens.
        version: one of `TEMPLATES`.
    """

    def __init__(self, tokenizer: Any, version: str):
        self._tokenizer, self._version = tokenizer, version
        self._template = TEMPLATES[version]

    def write(
        self,
        conversation: Sequence[Mapping[str, Any]],
        tools: list[dict[str, Any]] | None = None,
    ) -> list[int]:
        """The ids of a conversation."""
        template = self._template
        messages = read_messages(conversation, template.join)
        self._check(messages, tools)
        system = [m.text for m in messages if m.role == "system" and m.is_said]
        messages = aggregate(messages)
        if template.system != "own":
            messages = [message for message in messages if message.role != "system"]
            if messages[0].role != "user":
                messages.insert(0, Message("user", ()))
        messages = self._without_history(messages)
        users = [i for i, m in enumerate(messages) if m.role == "user"]
        places = {"first": users[:1], "last": users[-1:], "own": [], None: []}
        ids = [self._tokenizer.start_token_id]
        for index, message in enumerate(self._in_order(messages)):
            if message.role == "user":
                if index in places[template.tools]:
                    ids += self._tools(tools)
                prompt = "\n\n".join(system) if index in places[template.system] else ""
                ids += self._user(f"{prompt}\n\n{message.text}" if prompt else message.text)
            elif message.role == "assistant":
                ids += self._assistant(message)
            elif message.role == "tool":
                ids += self._result(message)
            else:
                ids += self._between("[SYSTEM_PROMPT]", message.parts, "[/SYSTEM_PROMPT]")
        return ids

    def spell(self, conversation: Sequence[Mapping[str, Any]]) -> str:
        """The text of a conversation, with control tokens written by their names."""
        tokenizer, text, run = self._tokenizer, "", []
        for id in [*self.write(conversation), tokenizer.start_token_id]:
            if tokenizer.is_control(id):
                text += tokenizer.decode(run) + tokenizer.id_to_token(id)
                run = []
            else:
                run.append(id)
        return text.removesuffix(tokenizer.start_token)

    def _without_history(self, messages: list[Message]) -> list[Message]:
        """The messages for version 2, which leaves out all tool calls but the last."""
        if self._template.results != "list":
            return messages
        last = max([i for i, m in enumerate(messages) if m.role == "user"], default=-1)
        recent = messages[last + 1 :]
        for first, second, third in zip(recent, recent[1:], recent[2:]):
            if first.calls and second.role == third.role == "tool":
                raise ValueError(
                    f"Message {third.index} is a second result, but version 'v2' of the chat "
                    "template has one in a turn."
                )
        kept = [m for m in messages[: last + 1] if not (m.calls or m.role == "tool")]
        return kept + recent

    def _check(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> None:
        """Refuses what the version cannot write."""
        template, version = self._template, self._version
        has_tools = tools or any(m.calls or m.role == "tool" for m in messages)
        if has_tools and template.tools is None:
            raise ValueError(f"Version {version!r} of the chat template has no tools.")
        together = aggregate(messages)
        replies = [m for m in together if not m.parts]
        if template.system != "own":  # these versions check each message alone as well
            replies += [m for m in messages if not m.is_said]
        for message in replies:
            if message.role == "assistant" and not message.calls:
                raise ValueError(
                    f"Message {message.index} is an empty reply. Leave it out, or say what it was."
                )
        both = [m for m in together if m.parts and m.calls]
        both += [m for m in messages if m.is_said and m.calls]
        if both and template.system != "own":
            raise ValueError(
                f"Message {both[0].index} has both a content and tool calls, which version "
                f"{version!r} of the chat template cannot write. Leave one of them out."
            )
        for message in together:
            thoughts = [part for part in message.parts if isinstance(part, Thought)]
            known = self._control("[THINK]") is not None and version in ("v13", "v15")
            if thoughts and (not known or (message.role == "system" and version == "v15")):
                raise ValueError(
                    f"Message {message.index} holds a thought, for which version {version!r} of "
                    f"the chat template has no place in a message of the role {message.role!r}."
                )
        self._check_ids(messages)

    def _check_ids(self, messages: list[Message]) -> None:
        """Refuses ids of calls that the version cannot write, or that belong to no call."""
        calls = self._template.calls
        pending: set[str] = set()
        for message in messages:
            ids = [call.id for call in message.calls]
            ids += [message.call_id or "null"] if message.role == "tool" else []
            for id in ids if calls != "list" else ():
                is_known = id != "null" if calls == "[ARGS]" else CALL_ID.fullmatch(id)
                if not is_known:
                    raise ValueError(
                        f"The id of a tool call in message {message.index} must be "
                        f"{'given' if calls == '[ARGS]' else '9 letters and digits'}, but is "
                        f"{id!r:.80}."
                    )
            if message.role == "assistant":
                pending = set(ids)
                if calls in ("[CALL_ID]", "[ARGS]") and len(pending) < len(ids):
                    raise ValueError(f"Two tool calls of message {message.index} have one id.")
            elif message.role == "tool" and calls in ("[CALL_ID]", "[ARGS]"):
                if message.call_id not in pending:
                    raise ValueError(
                        f"Message {message.index} is the result of {message.call_id!r:.80}, which "
                        "is no tool call before it, or which has a result already."
                    )
                pending.remove(message.call_id)

    def _in_order(self, messages: list[Message]) -> list[Message]:
        """The messages; from version 11 on, results of tools are in the order of their calls."""
        if self._template.calls not in ("[CALL_ID]", "[ARGS]"):
            return messages
        ordered, places = [], {}
        for message in messages:
            if message.role == "assistant":
                places = {call.id: place for place, call in enumerate(message.calls)}
            ordered.append(message)
            if message.role == "tool":
                start = len(ordered)
                while start and ordered[start - 1].role == "tool":
                    start -= 1
                ordered[start:] = sorted(ordered[start:], key=lambda m: places[m.call_id])
        return ordered

    def _tools(self, tools: list[dict[str, Any]] | None) -> list[int]:
        ids = []
        if tools:
            text = json.dumps(tools, ensure_ascii=False)
            ids += self._between("[AVAILABLE_TOOLS]", [text], "[/AVAILABLE_TOOLS]")
        settings = self._tokenizer.model_settings()
        if self._version == "v15" and settings:
            text = json.dumps(settings, ensure_ascii=False, sort_keys=True)
            ids += self._between("[MODEL_SETTINGS]", [text], "[/MODEL_SETTINGS]")
        return ids

    def _user(self, text: str) -> list[int]:
        if self._version == "v1":
            return self._encode(f"[INST] {text} [/INST]")
        return self._between("[INST]", [text], "[/INST]")

    def _assistant(self, message: Message) -> list[int]:
        parts = message.parts
        if self._version != "v1" and not any(isinstance(part, Thought) for part in parts):
            parts = [message.text.rstrip(" ")]
        return [*self._parts(parts), *self._calls(message.calls), self._tokenizer.end_token_id]

    def _calls(self, calls: Sequence[Call]) -> list[int]:
        kind, ids = self._template.calls, []
        if calls and kind in ("list", "with id"):
            described = [{"name": call.name, "arguments": call.arguments} for call in calls]
            if kind == "with id":
                described = [{**each, "id": call.id} for each, call in zip(described, calls)]
            ids += [self._control("[TOOL_CALLS]"), *self._json(described)]
        for call in calls if kind in ("[CALL_ID]", "[ARGS]") else ():
            ids += [self._control("[TOOL_CALLS]"), *self._encode(call.name)]
            if kind == "[CALL_ID]":
                ids += [self._control("[CALL_ID]"), *self._encode(call.id)]
            ids += [self._control("[ARGS]"), *self._json(call.arguments)]
        return ids

    def _result(self, message: Message) -> list[int]:
        kind, text = self._template.results, message.text
        if kind == "list":
            ids = self._json([{"name": message.name, "content": parse_json(text)}])
        elif kind == "object":
            ids = self._json({"content": parse_json(text), "call_id": message.call_id})
        else:
            ids = self._encode(text)
        if kind == "[TOOL_CONTENT]":
            ids = [*self._encode(message.call_id or ""), self._control("[TOOL_CONTENT]"), *ids]
        return [self._control("[TOOL_RESULTS]"), *ids, self._control("[/TOOL_RESULTS]")]

    def _between(self, begin: str, parts: Sequence[str | Thought], end: str) -> list[int]:
        """The ids of parts between two control tokens."""
        return [self._control(begin), *self._parts(parts), self._control(end)]

    def _parts(self, parts: Sequence[str | Thought]) -> list[int]:
        ids = []
        for part in parts:
            if isinstance(part, str):
                ids += self._encode(part)
            else:
                end = [self._control("[/THINK]")] if part.closed else []
                ids += [self._control("[THINK]"), *self._encode(part.text), *end]
        return ids

    def _json(self, value: Any) -> list[int]:
        return self._encode(json.dumps(value, ensure_ascii=False))

    def _encode(self, text: str) -> list[int]:
        """The ids of a text alone, whatever it says and whatever the tokenizer adds by default."""
        return self._tokenizer.encode_plain(text)

    def _control(self, name: str) -> Any:
        id = self._tokenizer.token_to_id(name)
        return id if self._tokenizer.is_control(id) and id != self._tokenizer.unk_token_id else None
