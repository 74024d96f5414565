"""Prompts as people write them, and results in the same form (chapter 1, "One token")."""

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from mistral_lib.chat import is_conversation
from mistral_lib.checks import check_integer
from mistral_lib.inputs import (
    as_dictionary,
    as_rows,
    as_texts,
    check_preprocessor,
    check_rows,
    is_text,
    standardize_inputs,
    without_arrays,
)


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Checked prompts.

    Attributes:
        rows: token ids, one list for each prompt.
        shown: the rows as they belong to the result: none of a conversation, whose result is the
            reply alone.
        is_text: whether they came as text or as conversations.
        is_single: whether they came as one, not as a list.
        padded_length: of the arrays, if they came in a dictionary.
    """

    rows: list[list[int]]
    shown: list[list[int]]
    is_text: bool = False
    is_single: bool = False
    padded_length: int | None = None

    def room(self) -> list[int]:
        """How many tokens fit after each prompt in the arrays that it came in."""
        width = self.padded_length or 0
        return [width - len(row) for row in self.rows]

    def unwrap(self, values: list) -> Any:
        """What belongs to each prompt; without the list, if the prompts came without one."""
        return values[0] if self.is_single else values


def read_prompts(inputs: Any, preprocessor: Any, vocabulary_size: int) -> Prompts:
    """Prompts from text, conversations, token ids, or KerasHub's dictionary.

    Args:
        inputs: a str, a list of str, a conversation (a list of messages), a list of conversations,
            a list or array of ids, a list of such lists (of any lengths) or a 2-D array, or a
            dictionary of `token_ids` and `padding_mask`.
        preprocessor: a `MistralCausalLMPreprocessor`, needed for text; or `None`.
        vocabulary_size: what every id must be below.

    Raises:
        ValueError: text without a preprocessor, an empty prompt, an id outside the vocabulary, a
            conversation that `MistralTokenizer.apply_chat_template` refuses.
        TypeError: anything else than the above.

    >>> read_prompts([[1, 2], [3]], None, vocabulary_size=10).rows
    [[1, 2], [3]]
    """
    if isinstance(inputs, dict):
        rows, length = _masked_rows(inputs)
        rows = check_rows(rows, vocabulary_size)
        prompts = Prompts(rows, shown=rows, padded_length=length)
    elif is_text(inputs) or is_conversation(inputs) or _are_conversations(inputs):
        prompts = _read_text(inputs, preprocessor)
    else:
        rows, batched = _id_rows(inputs)
        rows = check_rows(rows, vocabulary_size)
        prompts = Prompts(rows, shown=rows, is_single=not batched)
    return prompts


def results(
    prompts: Prompts, options: Any, done: list[Any], strip_prompt: bool, tokenizer: Any
) -> Any:
    """What `generate` returns, in the form of the input.

    Args:
        prompts: what was continued.
        options: the `Options` of the call.
        done: the `Continuation` of each row.
        strip_prompt: whether to leave out the prompts.
        tokenizer: decodes prompts that came as text.
    """
    samples, to_width = options.samples, options.has_no_limit
    rows, log_probs = [], [row.log_probs for row in done]
    for index, row in enumerate(done):
        prompt = [] if strip_prompt else prompts.shown[index // samples]
        if prompts.is_text and row.text is not None:
            rows.append((tokenizer.decode(prompt) if prompt else "") + row.text)
        elif prompts.padded_length is not None and to_width:
            rows.append(prompt + row.tokens[: prompts.room()[index // samples]])
        else:
            rows.append(prompt + row.tokens)
    if prompts.padded_length is not None:
        width = prompts.padded_length if to_width else max(map(len, rows))
        rows = as_dictionary(rows, width)
    else:
        if options.num_samples is not None:
            starts = range(0, len(done), samples)
            rows, log_probs = (
                [each[start : start + samples] for start in starts] for each in (rows, log_probs)
            )
        rows = prompts.unwrap(rows)
    return (rows, prompts.unwrap(log_probs)) if options.log_probs else rows


def new_token_limits(
    rows: list[list[int]], max_length: int | None, max_new_tokens: int | None
) -> list[int]:
    """How many new tokens each prompt may be given.

    Args:
        rows: the prompts' token ids.
        max_length: the most tokens of prompt and continuation together, or `None`.
        max_new_tokens: the most new tokens, or `None`. Exactly one of the two must be given.

    Raises:
        ValueError: both or neither are given, or a prompt leaves no room below `max_length`.

    >>> new_token_limits([[1, 2], [3]], max_length=5, max_new_tokens=None)
    [3, 4]
    """
    if max_length is None and max_new_tokens is not None:
        return [check_integer("max_new_tokens", max_new_tokens)] * len(rows)
    if max_length is None or max_new_tokens is not None:
        found = "neither is" if max_length is None else "both are"
        raise ValueError(
            "Either max_length (of prompt and continuation together) or max_new_tokens must be "
            f"given, but {found}."
        )
    check_integer("max_length", max_length)
    longest = max(map(len, rows))
    if longest >= max_length:
        raise ValueError(
            f"max_length must be above {longest}, the tokens of the longest prompt, but is "
            f"{max_length}. Prompts are never cut: raise max_length, or give max_new_tokens."
        )
    return [max_length - len(row) for row in rows]


def row_seeds(seed: int | Sequence[int] | np.ndarray | None, num_rows: int) -> list[int]:
    """A seed for each row: `seed`, `seed + 1`, ... for an integer, or the seeds that are given.

    `None` begins with a random integer, a new one at each call; it comes from Python's `random`, as
    Keras's own seeds do.

    >>> row_seeds(7, 3)
    [7, 8, 9]
    """
    seed = without_arrays(seed)
    if isinstance(seed, list | tuple):
        if len(seed) != num_rows:
            raise ValueError(
                f"seed must be one integer, or {num_rows} of them for {num_rows} rows, but has "
                f"{len(seed)} entries."
            )
        seeds = [check_integer("seed", each, minimum=0) for each in seed]
    else:
        first = random.randrange(2**31) if seed is None else check_integer("seed", seed, minimum=0)
        seeds = [first + row for row in range(num_rows)]
    return seeds


def _read_text(inputs: Any, preprocessor: Any) -> Prompts:
    """Prompts from a text, a conversation, or a list of one or the other."""
    check_preprocessor(preprocessor)
    if is_text(inputs) and not _are_conversations(inputs):
        texts, batched = as_texts(inputs)
        rows = shown = preprocessor.prompt_ids(texts)
    else:
        batched = not is_conversation(inputs)
        template = preprocessor.tokenizer.apply_chat_template
        rows = [template(conversation) for conversation in (inputs if batched else [inputs])]
        shown = [[] for _ in rows]
    return Prompts(rows, shown, is_text=True, is_single=not batched)


def _are_conversations(inputs) -> bool:
    """Whether the input is a list that begins with a conversation."""
    return isinstance(inputs, (list, tuple)) and len(inputs) > 0 and is_conversation(inputs[0])


def _id_rows(inputs) -> tuple[list, bool]:
    inputs = without_arrays(inputs)
    if not isinstance(inputs, list | tuple):
        raise TypeError(
            "A prompt must be text, a list of texts, token ids or lists of token ids, but is of "
            f"type {type(inputs).__name__}."
        )
    return as_rows(inputs)


def _masked_rows(inputs) -> tuple[list[list[int]], int]:
    arrays = standardize_inputs(inputs)
    token_ids, mask = np.asarray(arrays["token_ids"]), np.asarray(arrays["padding_mask"], bool)
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError("padding_mask must mark padding on the right only, 1 1 1 0 0.")
    rows = [ids[real].tolist() for ids, real in zip(token_ids, mask, strict=True)]
    return rows, mask.shape[1]
