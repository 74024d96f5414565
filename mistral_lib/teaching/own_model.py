"""The shipped model in the reader's own package, beside the library's (used by chapter 12).

What the reader's parts make of a text is compared with a model of the exercises' solutions, block
by block. At the end the whole package writes, and its text, memory and time are compared.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from mistral_lib import MistralCausalLM
from mistral_lib.masks import attention_mask
from mistral_lib.teaching.exercises.answers import Unreadable, numbers
from mistral_lib.teaching.exercises.running import NotTried
from mistral_lib.teaching.facts import PROMPT
from mistral_lib.teaching.own_parts import PARTS, TEMPLATE
from mistral_lib.teaching.panel import record

NEAR = 1e-6  # of the largest number: both sides compute in float64
MEMORY, TIME, WRITING = 8, 30, 100  # how many times the reference's a reader's may be
NEW_TOKENS = 16
KERNELS = ("query", "key", "value")


@cache
def shipped() -> SimpleNamespace:
    """The shipped model's arrays and vocabulary, read by the package's own `files.py`.

    >>> shipped().settings["num_layers"], shipped().reading.shape
    (6, (2048, 192))
    """
    names: dict[str, Any] = {}
    exec(compile((TEMPLATE / "files.py.txt").read_text(), "files.py", "exec"), names)
    return SimpleNamespace(**names)


def _solution(part: str) -> Callable:
    judge = next(p.judge for p in PARTS if str(p) == part)
    assert judge is not None
    return judge.solution


def attention(x: np.ndarray, weights: Mapping[str, np.ndarray], settings: Mapping) -> np.ndarray:
    """What the attention of one block makes of normalised hidden states (S, D)."""
    S, H, K = len(x), settings["num_query_heads"], settings["num_key_value_heads"]
    heads = {name: (x @ weights[name]).reshape(S, -1, x.shape[1] // H) for name in KERNELS}
    turn, places = _solution("positions.turn"), np.arange(S)
    for name in ("query", "key"):
        each = [turn(head, places) for head in heads[name].swapaxes(0, 1)]
        heads[name] = np.stack(each, axis=1)
    query = heads["query"].reshape(S, K, H // K, -1)
    mask = np.asarray(attention_mask(places, places, settings["sliding_window"]))
    mixed = _solution("heads.attend")(query, heads["key"], heads["value"], mask)
    return mixed.reshape(S, -1) @ weights["output"]


def streams(ids: np.ndarray) -> np.ndarray:
    """The residual stream of the shipped model before the first block and after each.

    >>> streams(np.array([1, 2, 3])).shape
    (7, 3, 192)
    """
    model = shipped()
    norm, network = _solution("norm.norm"), _solution("network.network")
    found = [model.reading[ids]]
    for weights in model.blocks:
        x = found[-1]
        x = x + attention(norm(x, weights["attention_norm"]), weights, model.settings)
        kernels = (weights[name] for name in ("gate", "up", "down"))
        found.append(x + network(norm(x, weights["network_norm"]), *kernels))
    return np.array(found)


def read(ids: np.ndarray) -> np.ndarray:
    """Logits (S, V) of the shipped model."""
    model = shipped()
    return _solution("norm.norm")(streams(ids)[-1], model.last_scale) @ model.writing


@cache
def texts() -> tuple[list[int], list[int]]:
    """Token ids of a short text, and of one that is longer than the window.

    >>> [len(ids) for ids in texts()], shipped().settings["sliding_window"]
    ([49, 140], 128)
    """
    pieces, begin = shipped().pieces, shipped().begin
    long = max(record()["documents"], key=len)
    return [begin, *pieces.encode(PROMPT)], [begin, *pieces.encode(long)][:140]


def complaint(name: str, mine: Callable) -> str | None:
    """What is wrong with a function of the reader's `model.py`, or `None` if it is right.

    Args:
        name: "attention", "streams" or "read".
        mine: the function.

    Returns:
        A sentence. What `mine` raises is not caught.

    Raises:
        NotTried: `mine` is a stub.

    >>> complaint("read", read) is None
    True
    >>> complaint("streams", lambda ids: np.zeros((7, len(ids), 192)))
    'Station 0 is the first that differs, at position 0: that is the embedding.'
    """
    model, ids = shipped(), np.array(texts()[1])
    if name == "attention":
        x = _solution("norm.norm")(model.reading[ids], model.blocks[0]["attention_norm"])
        arguments = x, model.blocks[0], model.settings
        expected, returned = attention(*arguments), mine(*arguments)
    else:
        expected, returned = {"streams": streams, "read": read}[name](ids), mine(ids)
    if returned is ...:
        raise NotTried
    if returned is None:
        return "It returns None: is a `return` missing?"
    try:
        got = numbers(returned)
    except Unreadable as what:
        return f"It returns {what}. An array {expected.shape} is asked for."
    if got.shape != expected.shape:
        return f"Shape: yours is {got.shape}, expected {expected.shape}."
    off = ~(abs(got - expected) <= NEAR * abs(expected).max()).all(axis=-1)  # (..., S)
    return _where(name, off) if off.any() else None


def _where(name: str, off: np.ndarray) -> str:
    """The first station, and the first position in it, that is off."""
    window = shipped().settings["sliding_window"]
    stations = off if name == "streams" else off[None]
    station, row = next((number, one) for number, one in enumerate(stations) if one.any())
    place = int(row.argmax())
    hint = f" The first {place} are right, so look at the window." if place >= window - 1 else ""
    if name == "streams":
        block = f"look at block {station - 1}." if station else "that is the embedding."
        return f"Station {station} is the first that differs, at position {place}: {block}{hint}"
    return f"Position {place} is the first that differs.{hint}"


def finish(own: Mapping[str, ModuleType]) -> Iterator[tuple[str, str | None]]:
    """Runs a package whose parts are all right, and compares it with the library.

    Args:
        own: the modules of the package by their names.

    Yields:
        Pairs of a sentence about what was compared, and what is wrong with it or `None`.
    """
    model = MistralCausalLM.from_preset("mistral_tiny_en")
    prompts = short, long = texts()

    def library():  # all prompts in one call, which is compiled once
        return model.generate([*prompts], temperature=0.0, max_new_tokens=NEW_TOKENS)

    def cached():
        writes = own["writer"].write
        return [[*ids, *writes(ids, most=len(ids) + NEW_TOKENS)] for ids in prompts]

    theirs = [list(map(int, ids)) for ids in library()]
    mine = own["loop"].write(short, own["model"].read, len(short) + NEW_TOKENS)
    yield "the text of the introduction, token for token", _text(mine, theirs[0])
    start = time.perf_counter()
    both = cached()
    spent = time.perf_counter() - start
    for what, mine, expected in zip(("the same", "a text longer than the window"), both, theirs):
        yield f"{what}, with your cache", _text(mine, expected)
    tokens = own["vocabulary"].encode(PROMPT)
    same = None if tokens == short else f"your vocabulary makes {tokens} of the prompt"
    yield "the tokens of the prompt", same
    ids = np.array(long)
    yield _ratio("memory for reading", MEMORY, _peak(own["model"].read, ids), _peak(read, ids))
    mine, expected = _seconds(partial(own["model"].read, ids), partial(read, ids))
    yield _ratio("time for reading", TIME, mine, expected)
    yield _ratio("time for writing", WRITING, spent, *_seconds(library))


def _text(mine: Any, theirs: list[int]) -> str | None:
    """Where two texts differ, in words."""
    mine = [int(token) for token in mine]
    if mine == theirs:
        return None
    pairs = enumerate(zip(mine, theirs))
    place = next((place for place, (one, other) in pairs if one != other), None)
    if place is None:
        return f"yours has {len(mine)} tokens with the prompt, the library's {len(theirs)}"
    return f"token {place} is {mine[place]}, the library's {theirs[place]}"


def _ratio(what: str, limit: float, mine: float, theirs: float) -> tuple[str, str | None]:
    ratio = mine / theirs
    said = f"{what}: {ratio:.1f} × the reference's (at most {limit})"
    advice = "work on whole arrays, and make no copies that are larger than the scores"
    return said, None if ratio <= limit else advice


def _peak(function: Callable, *arguments: Any) -> int:
    """The most memory that NumPy held in a call, in bytes."""
    tracemalloc.start()
    try:
        function(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _seconds(*functions: Callable) -> list[float]:
    """The shortest of three times of each, taken in turn."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(3):
        for function, found in zip(functions, times):
            start = time.perf_counter()
            function()
            found.append(time.perf_counter() - start)
    return [min(found) for found in times]
