"""Chat templates that come with a checkpoint (chapter 2, "Tokens").

Fine-tuned models often use another chat format than Mistral's, and their checkpoints hold it as a
template in Jinja. A template is a small program by somebody else, so it runs in Jinja's sandbox: it
sees only the messages, the tools and the names of tokens, and cannot reach Python's objects. The
size of its results and of its output is limited; the sandbox cannot limit how long it runs.
"""

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

LONGEST_PROMPT = 2**24  # characters; more than any model reads
ADVICE = "Pass version='v1' or another to apply_chat_template for a template of Mistral's."


def render_conversation(
    conversation: Sequence[Mapping[str, Any]],
    tokenizer: Any,
    tools: Sequence[Mapping[str, Any]] | None,
) -> str:
    """The prompt that a checkpoint's own chat template writes for a conversation.

    Args:
        conversation: messages in whatever form the template takes.
        tokenizer: a tokenizer with a `chat_template` among its `extras`.
        tools: definitions of tools, in whatever form the template takes.

    Raises:
        TypeError: something other than a list of dictionaries.
        ValueError: the template is not valid, refuses the conversation, or does something that the
            sandbox does not allow.

    Source: `chat_template_utils.py` of transformers 5.23, with the same environment.
    """
    if not isinstance(conversation, list | tuple) or not all(
        isinstance(message, dict) for message in conversation
    ):
        raise TypeError(
            "A conversation must be a list of messages such as {'role': 'user', 'content': 'Hi'}, "
            f"but is {conversation!r:.80}."
        )
    template = choose_template(tokenizer.extras["chat_template"], tools is not None)
    names = {
        "bos_token": tokenizer.start_token,
        "eos_token": tokenizer.end_token,
        "unk_token": tokenizer.id_to_token(tokenizer.unk_token_id),
        **tokenizer.extras.get("special_tokens", {}),
    }
    values = {"messages": conversation, "tools": tools, "documents": None}
    try:
        values = json.loads(json.dumps(values))  # plain data, without objects that have methods
    except (TypeError, ValueError) as error:
        raise TypeError(f"Messages and tools must be what JSON can hold, but {error}.") from error
    try:
        return _render(template, {**names, **values, "add_generation_prompt": True})
    except jinja2.TemplateSyntaxError as error:
        found = f"is no valid Jinja: {error.message}, in line {error.lineno}"
    except SecurityError as error:
        found = f"was stopped by the sandbox: {error}"
    except jinja2.TemplateError as error:
        found = f"refused the conversation: {error}"
    except (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as e:
        found = f"failed: {type(e).__name__}: {e}"
    except AttributeError as error:
        found = f"failed: {error}"
    raise ValueError(f"The chat template of this checkpoint {found}. {ADVICE}")


def choose_template(template: str | list[dict[str, str]], with_tools: bool) -> str:
    """The template to use, also if a checkpoint has several with names.

    >>> named = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    >>> choose_template(named, False), choose_template(named, True), choose_template("c", True)
    ('a', 'b', 'c')
    """
    if isinstance(template, str):
        return template
    named = {each["name"]: each["template"] for each in template}
    if with_tools and "tool_use" in named:
        return named["tool_use"]
    if "default" not in named:
        raise ValueError(
            f"This checkpoint has the chat templates {', '.join(named)}, but no 'default'. {ADVICE}"
        )
    return named["default"]


def _render(template: str, values: dict[str, Any]) -> str:
    blocks, size = [], 0
    for block in _compile(template).generate(**values):
        blocks.append(block)
        size += len(block)
        if size > LONGEST_PROMPT:
            raise SecurityError(f"it writes more than {LONGEST_PROMPT:,} characters")
    return "".join(blocks)


@functools.lru_cache(maxsize=8)
def _compile(template: str) -> jinja2.Template:
    return _Sandbox().from_string(template)


class _Generation(jinja2.ext.Extension):
    """Accepts `{% generation %}` around what the assistant says, and writes what is inside."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> Any:
        """The contents of the block, without the block."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with what transformers adds, and with a limit on the size of values."""

    intercepted_binops = frozenset(("*", "**", "<<"))

    def __init__(self):
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, jinja2.ext.loopcontrols],
        )
        self.filters["tojson"] = _to_json
        self.globals |= {"raise_exception": _raise, "strftime_now": _now}

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Stops a template that would fill the memory."""
        if operator == "*":
            sizes = [len(v) if isinstance(v, str | list | tuple) else v for v in (left, right)]
            too_large = all(isinstance(size, int) for size in sizes) and (
                abs(sizes[0] * sizes[1]) > LONGEST_PROMPT
                and not all(isinstance(value, int) for value in (left, right))
            )
        else:
            too_large = isinstance(right, int) and abs(right) > 64
        if too_large:
            raise SecurityError(f"a result of {operator} would be too large")
        return super().call_binop(context, operator, left, right)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without the HTML escapes that Jinja's own filter writes."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)
