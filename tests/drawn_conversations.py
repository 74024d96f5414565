"""Conversations drawn at random, with tools and thoughts; and mistral-common's tokenizers."""

import functools
import tempfile
from pathlib import Path

from hypothesis import strategies as st
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer as Peer
from vocabularies import MISTRAL, small_tekken

from mistral_lib import MistralTekkenTokenizer, MistralTokenizer

NEW_CONTROLS = (
    "[ARGS]",
    "[CALL_ID]",
    "[THINK]",
    "[/THINK]",
    "[MODEL_SETTINGS]",
    "[/MODEL_SETTINGS]",
)
TEKKENS = ("v3", "v7", "v11", "v13", "v15")
# Every version that a kind of vocabulary has.
CASES = (*MISTRAL, *(f"{version} tekken" for version in TEKKENS))

WORDS = (
    "a",
    " b ",
    "the window",
    "\n",
    "é☃",
    "[INST]",
    "</s>",
    "<s>",
    "[/TOOL_RESULTS]",
    "{}",
    '"',
)
TEXT = st.lists(st.sampled_from(WORDS), max_size=3).map("".join)
NAME = st.sampled_from(("now", "get-weather", "f_1"))
ID = st.sampled_from(("abcdefgh1", "ABCDEFGH2", "000000000"))
VALUE = st.sampled_from((1, 1.5, "é", None, True, [1, {"b": 2}], {}))
ARGUMENTS = st.dictionaries(st.sampled_from("abc"), VALUE, max_size=2) | st.sampled_from(
    ('{"a": 1}', '{"b":[1,2],  "a": "é"}', "no json", "", "5")
)


@functools.cache
def pair(case: str):
    """Our tokenizer and mistral-common's, of one version on one kind of vocabulary."""
    version, _, is_tekken = case.partition(" ")
    if not is_tekken:
        return MistralTokenizer(MISTRAL[version]), getattr(Peer, version)()
    vocabulary = small_tekken(version, NEW_CONTROLS)
    if version == "v15":
        vocabulary.settings["reasoning_effort"] = "high"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tekken.json"
        file.write_bytes(vocabulary.to_json())
        return MistralTekkenTokenizer(file), Peer.from_file(str(file))


def by_peer(case: str, conversation: list[dict], tools: list[dict] | None = None) -> list[int]:
    """What mistral-common makes of a conversation."""
    request = ChatCompletionRequest(messages=conversation, tools=tools)
    return pair(case)[1].encode_chat_completion(request).tokens


@st.composite
def contents(draw, thoughts: bool = False):
    kinds = ["text", "pieces", *(["thoughts"] if thoughts else [])]
    kind = draw(st.sampled_from(kinds))
    if kind == "text":
        return draw(TEXT)
    pieces = [
        {"type": "text", "text": text} for text in draw(st.lists(TEXT, min_size=1, max_size=3))
    ]
    if kind == "thoughts":
        thought = {"type": "thinking", "thinking": draw(TEXT)}
        if draw(st.booleans()):
            thought["closed"] = draw(st.booleans())
        pieces.insert(draw(st.integers(0, len(pieces))), thought)
    return pieces


def call(name, arguments, id):
    return {"type": "function", "id": id, "function": {"name": name, "arguments": arguments}}


@st.composite
def conversations(draw, thoughts: bool):
    """Mostly in the right order, sometimes not."""
    messages = []
    for _ in range(draw(st.integers(1, 7))):
        role = draw(st.sampled_from(("user", "user", "assistant", "assistant", "system", "calls")))
        if role == "calls":
            calls = draw(st.lists(st.builds(call, NAME, ARGUMENTS, ID), min_size=1, max_size=2))
            message = {"role": "assistant", "tool_calls": calls}
            if draw(st.integers(0, 3)) == 0:
                message["content"] = draw(contents(thoughts))
            messages.append(message)
            results = [each["id"] for each in calls]
            for id in draw(st.permutations(results)) if draw(st.integers(0, 4)) else [draw(ID)]:
                result = {"role": "tool", "content": draw(contents() | ARGUMENTS.map(str))}
                result["tool_call_id"] = id
                if draw(st.booleans()):
                    result["name"] = draw(NAME)
                messages.append(result)
        else:
            messages.append({"role": role, "content": draw(contents(thoughts and role != "user"))})
    if messages[-1]["role"] != "tool" or draw(st.booleans()):
        messages.append({"role": "user", "content": draw(contents())})
    return messages


TOOLS = st.none() | st.lists(
    st.builds(
        lambda name, description, parameters: {
            "type": "function",
            "function": {"name": name, "description": description, "parameters": parameters},
        },
        NAME,
        TEXT,
        st.sampled_from(
            ({}, {"type": "object", "properties": {"é": {"type": "string"}}, "required": ["é"]})
        ),
    ),
    max_size=2,
)
