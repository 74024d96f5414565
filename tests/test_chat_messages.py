"""mistral_lib/chat_messages.py: messages are read as OpenAI's clients write them."""

import pytest

from mistral_lib.chat_messages import Call, Message, Thought, aggregate, read_messages, read_tools


def read(**message):
    return read_messages([message, {"role": "user", "content": "x"}])[0]


def test_contents():
    assert read(role="user", content="a").parts == ("a",)
    assert read(role="user", content=b"a").text == "a"
    assert read(role="user", content="").parts == ()
    pieces = [{"type": "text", "text": text} for text in ("a", "", "b")]
    assert read(role="user", content=pieces).parts == ("a\n\nb",)
    thought = {"type": "thinking", "thinking": "t", "closed": False}
    message = read(role="assistant", content=[*pieces, thought, *pieces])
    assert message.parts == ("a\n\nb", Thought("t", closed=False), "a\n\nb")
    assert message.text == "a\n\nba\n\nb"
    assert [m.text for m in read_messages([{"role": "user", "content": pieces}], join="")] == ["ab"]


def test_calls():
    def calls(arguments, **more):
        function = {"name": "f", "arguments": arguments}
        return read(role="assistant", tool_calls=[{"id": "1", "function": function, **more}]).calls

    assert calls('{"a": 1}') == calls({"a": 1}, type="function") == (Call("f", {"a": 1}, "1"),)
    assert calls("") == (Call("f", {}, "1"),)
    assert calls("not json") == (Call("f", "not json", "1"),)
    assert calls("{}", id=None)[0].id == "null"


def test_what_is_none_counts_as_left_out():
    message = read(role="assistant", content="a", tool_calls=None, refusal=None)
    assert message == Message("assistant", ("a",))
    call = {"id": "1", "function": {"name": "f", "arguments": "{}"}}
    assert read(role="assistant", content=None, tool_calls=[call]).parts == ()


def test_neighbours():
    messages = [Message("user", ("a",)), Message("user", ()), Message("user", ("b", Thought("c")))]
    messages += [Message("user", ("d",)), Message("tool", ("e",)), Message("tool", ("f",))]
    found = aggregate(messages)
    assert [m.parts for m in found] == [("a\n\nb", Thought("c"), "d"), ("e",), ("f",)]


def test_tools():
    function = {"name": "f", "description": None, "parameters": None, "strict": True}
    (tool,) = read_tools([{"function": function}])
    assert list(tool["function"]) == ["name", "description", "parameters"]
    assert tool["function"] == {"name": "f", "description": "", "parameters": {}}


@pytest.mark.parametrize(
    ("tools", "error", "message"),
    [
        ("f", TypeError, "tools must be a list of definitions, but is 'f'"),
        ([{"name": "f"}], TypeError, r"Tool 0 must be \{'type': 'function'"),
        ([{"type": "web", "function": {"name": "f"}}], TypeError, "Tool 0 must be"),
        ([{"function": {"name": "f g"}}], ValueError, "The name of tool 0 must be 1 to 64 letters"),
        ([{"function": {}}], ValueError, "name of tool 0 .*but is None"),
    ],
)
def test_wrong_tools(tools, error, message):
    with pytest.raises(error, match=message):
        read_tools(tools)


@pytest.mark.parametrize(
    ("message", "error", "found"),
    [
        ({"role": "user", "content": "a", "name": "b"}, ValueError, "'user' may have content"),
        ({"role": "user", "content": [{"type": "image_url"}]}, TypeError, "with the piece"),
        ({"role": "user", "content": [{"type": "text"}]}, TypeError, "with the piece"),
        ({"role": "user", "content": ["a"]}, TypeError, "list, with the piece 'a'"),
        (
            {"role": "user", "content": [{"type": "thinking", "thinking": "a"}]},
            ValueError,
            "Message 0 of the role 'user' must not hold a thought",
        ),
        (
            {"role": "assistant", "content": "a", "tool_calls": "f"},
            TypeError,
            "must be a list, but",
        ),
        ({"role": "assistant", "tool_calls": ["f"]}, TypeError, "A tool call of message 0 must be"),
        ({"role": "assistant", "tool_calls": [{"function": 3}]}, TypeError, "A tool call of mess"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 3}}]},
            TypeError,
            "with the arguments in JSON",
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f()"}}]},
            ValueError,
            r"The name of a tool in message 0 must be .*but is 'f\(\)'",
        ),
    ],
)
def test_wrong_messages(message, error, found):
    with pytest.raises(error, match=found):
        read(**message)


@pytest.mark.parametrize(
    ("name", "value", "error"), [("tool_call_id", 3, TypeError), ("name", "a b", ValueError)]
)
def test_wrong_results(name, value, error):
    call = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f"}}]}
    with pytest.raises(error, match="message 1 must be"):
        read_messages([call, {"role": "tool", "content": "a", name: value}])
