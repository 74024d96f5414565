"""mistral_lib/chat_writer.py: every version of both kinds of vocabularies equals mistral-common."""

import pytest
from drawn_conversations import CASES, NEW_CONTROLS, TOOLS, by_peer, call, conversations, pair
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mistral_common.tokens.tokenizers.base import TokenizerVersion
from vocabularies import small_tekken

from mistral_lib import MistralTekkenTokenizer
from mistral_lib.chat_writer import TEMPLATES

WITH_TOOLS = [case for case in CASES if case != "v1"]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Of a city, é",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def user(text):
    return {"role": "user", "content": text}


def reply(*calls, **message):
    return {"role": "assistant", **({"tool_calls": [*calls]} if calls else {}), **message}


def result(content, id="abcdefgh1", **message):
    return {"role": "tool", "content": content, "tool_call_id": id, **message}


ASKED = [user("Is it raining?"), reply(call("weather", '{"city": "Århus"}', "abcdefgh1"))]
CONVERSATIONS = {
    "tools alone": [user("Hi")],
    "a call and its result": [*ASKED, result('{"rain":  true}')],
    "history": [*ASKED, result("Yes.", name="weather"), reply(content="Yes. "), user("And now?")],
    "two users": [user("a"), user("b"), reply(content="c"), reply(content="d "), user("e")],
    "systems": [
        {"role": "system", "content": "one"},
        {"role": "system", "content": [{"type": "text", "text": "two"}]},
        user("a"),
        {"role": "system", "content": "three"},
        user("b"),
    ],
}


@pytest.mark.parametrize("case", WITH_TOOLS)
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_tools_and_neighbours_equal_mistral_common(case, name):
    tokenizer, conversation = pair(case)[0], CONVERSATIONS[name]
    ids = tokenizer.apply_chat_template(conversation, tools=[TOOL])
    assert ids == by_peer(case, conversation, [TOOL])
    version = case.partition(" ")[0]
    assert ids == tokenizer.apply_chat_template(conversation, version=version, tools=[TOOL])
    plain = tokenizer.apply_chat_template(conversation)
    assert plain == by_peer(case, conversation)
    assert plain == tokenizer.apply_chat_template(conversation, tools=[])
    definition = tokenizer.token_to_id("[AVAILABLE_TOOLS]")
    assert (ids.count(definition), plain.count(definition)) == (1, 0)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_conversation_equals_mistral_common(data):
    case = data.draw(st.sampled_from(CASES))
    conversation = data.draw(conversations(thoughts=case.startswith(("v13", "v15"))))
    tools = data.draw(TOOLS)
    try:
        expected = by_peer(case, conversation, tools)
    except Exception:
        expected = None
    try:
        ids = pair(case)[0].apply_chat_template(conversation, tools=tools)
    except ValueError:
        ids = None
    # Mistral-common ignores tools in v1, and the calls of a first message when it counts results.
    if not (case == "v1" and tools and ids is None) and not (
        conversation[0]["role"] == "assistant" and expected is None
    ):
        assert ids == expected


def test_thoughts_equal_mistral_common():
    thought = {"type": "thinking", "thinking": "a [/THINK] b"}
    conversation = [
        user("Hi"),
        reply(content=[thought, {"type": "text", "text": "Hello "}]),
        user("?"),
        reply(content=[{**thought, "closed": False}]),
        user("!"),
    ]
    for case in ("v13 tekken", "v15 tekken"):
        tokenizer = pair(case)[0]
        ids = tokenizer.apply_chat_template(conversation)
        assert ids == by_peer(case, conversation)
        marks = [tokenizer.token_to_id(name) for name in ("[THINK]", "[/THINK]")]
        assert [ids.count(mark) for mark in marks] == [2, 1]
    with_system = [{"role": "system", "content": [thought]}, user("Hi")]
    assert pair("v13 tekken")[0].apply_chat_template(with_system) == (
        by_peer("v13 tekken", with_system)
    )
    for case, conversation in (("v15 tekken", with_system), ("v11 tekken", with_system)):
        with pytest.raises(ValueError, match="Message 0 holds a thought, for which version 'v1"):
            pair(case)[0].apply_chat_template(conversation)


def test_thoughts_need_their_control_tokens():
    tokenizer = MistralTekkenTokenizer(small_tekken("v13", NEW_CONTROLS[:2]).to_json())
    conversation = [user("a"), reply(content=[{"type": "thinking", "thinking": "b"}]), user("c")]
    with pytest.raises(ValueError, match="Message 1 holds a thought, for which version 'v13'"):
        tokenizer.apply_chat_template(conversation)


def test_results_stand_in_the_order_of_the_calls_from_version_11():
    calls = [call("f", "{}", "abcdefgh1"), call("g", "{}", "abcdefgh2")]
    conversation = [user("a"), reply(*calls), result("second", "abcdefgh2"), result("first")]
    for case in CASES[2:]:
        tokenizer = pair(case)[0]
        ids = tokenizer.apply_chat_template(conversation)
        assert ids == by_peer(case, conversation)
        text = tokenizer.decode(ids)
        in_order = case.startswith(("v11", "v13", "v15"))
        assert (text.index("first") < text.index("second")) == in_order


def test_settings_of_the_model_equal_mistral_common():
    tokenizer = pair("v15 tekken")[0]
    ids = tokenizer.apply_chat_template([user("a"), user("b")])
    begin, end = (ids.index(tokenizer.token_to_id(f"[{s}MODEL_SETTINGS]")) for s in ("", "/"))
    assert tokenizer.decode(ids[begin:end]) == '{"reasoning_effort": "high"}'
    assert ids == by_peer("v15 tekken", [user("a"), user("b")])


def test_the_versions_are_mistral_commons():
    assert list(TEMPLATES) == list(TokenizerVersion.__members__)


def test_no_text_becomes_a_control_token():
    for case in WITH_TOOLS:
        tokenizer = pair(case)[0]
        names = [name for name in tokenizer.get_vocabulary()[:40] if name[0] in "[<"]
        text = "".join(name for name in names if not name.startswith("<0x"))
        arguments = {"city": text}

        def written(text, arguments, tokenizer=tokenizer):
            tools = [{"type": "function", "function": {**TOOL["function"], "description": text}}]
            calls = reply(call("weather", arguments, "abcdefgh1"))
            conversation = [
                {"role": "system", "content": text},
                user(text),
                calls,
                result(text),
                reply(content=f"{text}."),
                user(text),
            ]
            ids = tokenizer.apply_chat_template(conversation, tools=tools)
            return [id for id in ids if tokenizer.is_control(id)]

        assert written(text, arguments) == written("a", {})


# --- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "conversation", "message"),
    [
        ("v1", [*ASKED, result("x")], "Version 'v1' of the chat template has no tools"),
        (
            "v3",
            [user("a"), reply(call("f", "", "1"), content="b"), result("c")],
            "Message 1 has bo",
        ),
        ("v3", [user("a"), reply(call("f", "", "1")), result("c")], "message 1 must be 9 letters"),
        ("v7", [*ASKED, result("c", "x")], "message 2 must be 9 letters and digits, but is 'x'"),
        ("v13 tekken", [user("a"), reply(call("f", "", "")), result("b")], "must be given, but is"),
        (
            "v11 tekken",
            [*ASKED, result("c", "abcdefgh2")],
            "Message 2 is the result of 'abcdefgh2'",
        ),
        ("v13 tekken", [*ASKED, result("c"), result("d")], "which has a result already"),
        (
            "v13 tekken",
            [user("a"), reply(call("f", "", "1"), call("g", "", "1")), result("b", "1")],
            "Two tool calls of message 1 have one id",
        ),
        (
            "v2",
            [user("a"), reply(call("f", "", "1"), call("g", "", "2")), result("b"), result("c")],
            "Message 3 is a second result",
        ),
        ("v3", [*ASKED, reply(content="b"), user("c")], "Message 2 comes after too few results"),
        (
            "v3",
            [*ASKED, result("a"), result("b"), reply(content="c"), user("d")],
            "Message 4 comes after too many results",
        ),
    ],
)
def test_what_a_version_cannot_write(case, conversation, message):
    with pytest.raises(ValueError, match=message):
        pair(case)[0].apply_chat_template(conversation)
    with pytest.raises(Exception, match=r".*"):
        by_peer(case, conversation)
