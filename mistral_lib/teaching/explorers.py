"""Explorers: figures that readers can use (used by all chapters).

`show` puts one into a cell: a still picture, a sentence, recorded values, and the script that makes
them live in JupyterLab and Colab. A committed notebook keeps no script, since `make notebooks`
takes it out; the rendered book brings its own (`book/_ext/live.py`), and there the shipped model
runs in the page. The scripts are in `static/explorer`, one file for each explorer.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML, display

from mistral_lib import MistralCausalLM
from mistral_lib.teaching import heads_explorer, next_token
from mistral_lib.teaching.facts import PROMPT

FOLDER = Path(__file__).parent / "static" / "explorer"
SENTENCE = (
    "In the rendered book you can use this figure, and in a notebook as soon as you run the cell."
)
# What is recorded: the tokens along the greedy text, and along ways that leave it.
LENGTH, WAYS, WAY_LENGTH, LIKELIEST = 12, 3, 3, 8
PLACES = 64  # lengths are rounded up to a multiple of it, so that few programs are compiled
DRAWN = 5  # bars of the still picture
NAMED, BARS = 40, 12  # pieces that are recorded for "sampling", and bars of its picture


def show(name: str, *, model: MistralCausalLM | None = None, text: str = PROMPT) -> None:
    """Shows an explorer under the cell.

    Args:
        name: "write", in which the model goes on with a text, token by token; "heads", where each
            head looks in a text, and what it writes; or "sampling", in which the settings of a
            sampler change what could come next.
        model: a model with a preprocessor; by default the shipped one, which is also the one that
            runs in the rendered book.
        text: what the model reads first.

    Raises:
        ValueError: if there is no explorer of that name.

    >>> show("read")
    Traceback (most recent call last):
    ValueError: name must be one of ['heads', 'sampling', 'write'], but is 'read'.
    """
    if name not in EXPLORERS:
        raise ValueError(f"name must be one of {sorted(EXPLORERS)}, but is {name!r}.")
    record, draw = EXPLORERS[name]
    model = _shipped() if model is None else model
    recorded = {"megabytes": _megabytes(model), **record(model, text)}
    draw(recorded)
    plt.show()
    display(HTML(html(name, recorded)))


def html(name: str, recorded: dict[str, Any]) -> str:
    """An explorer as HTML that needs nothing else.

    Args:
        name: of the explorer.
        recorded: what its script shows until there is a model.

    >>> html("write", {"text": "</script>"}).startswith('<div class="explorer write-explorer"><p>')
    True
    """
    data = json.dumps(recorded, ensure_ascii=False).replace("<", "\\u003c")
    code = [(FOLDER / f"{part}.js").read_text() for part in ("common", name)]
    return "".join(
        [
            f'<div class="explorer {name}-explorer"><p>{SENTENCE}</p>',
            f'<script type="application/json">{data}</script></div>',
            f"<style>{(FOLDER / 'explorer.css').read_text()}</style>",
            *(f"<script>{part}</script>" for part in code),
        ]
    )


def record_writing(model: MistralCausalLM, text: str) -> dict[str, Any]:
    """What the explorer "write" shows without a model.

    Args:
        model: a model with a preprocessor.
        text: what the model reads first.

    Returns:
        `text`; `end`, the id of the end token; `megabytes`, what the model's files have in the
        rendered book; and `steps`: for tokens after the text, as their ids with commas between
        them, the likeliest next ones, each with its id, its piece and its probability. It has all
        steps of the greedy text, up to `LENGTH` tokens, and some of the ways that leave it.

    >>> recorded = record_writing(_shipped(), "Return the name of the")
    >>> [piece for _, piece, _ in recorded["steps"][""]][:2]
    ['▁file', '▁object']
    """
    tokenizer = _tokenizer(model)
    prompt = [int(i) for i in tokenizer.encode(text, add_bos=True)]
    start, end = len(prompt), tokenizer.end_token_id
    places = -(-(start + LENGTH + WAY_LENGTH) // PLACES) * PLACES
    written = model.generate(prompt, max_length=places)[: start + LENGTH]
    rows = [[int(i) for i in written]]
    for path, likeliest in _steps(model, rows, start, places).items():
        before = [int(i) for i in path.split(",") if path]
        rows += [[*prompt, *before, token] for token, _, _ in likeliest[1 : 1 + WAYS]]
    for _ in range(WAY_LENGTH):
        steps = _steps(model, rows, start, places)
        for row in rows[1:]:
            if row[-1] != end:
                row.append(steps[_path(row[start:])][0][0])
    steps = _steps(model, rows, start, places)
    return {"text": text, "end": end, "megabytes": _megabytes(model), "steps": steps}


def _tokenizer(model: MistralCausalLM) -> Any:
    """The tokenizer of a model that can read text."""
    if model.preprocessor is None:
        raise ValueError("model has no preprocessor, so it cannot read text. Give it one.")
    return model.preprocessor.tokenizer


def _megabytes(model: MistralCausalLM) -> float:
    """What the files of a model have: two bytes a parameter, and the vocabulary."""
    size = 2 * model.count_params() + len(_tokenizer(model).proto or b"")
    return round(size / 1e6, 1)


def _path(ids: list[int]) -> str:
    """The key of a step."""
    return ",".join(map(str, ids))


def _steps(
    model: MistralCausalLM, rows: list[list[int]], start: int, places: int
) -> dict[str, list[tuple[int, str, float]]]:
    """The likeliest tokens after each beginning of the rows, from `start` tokens on."""
    tokenizer = _tokenizer(model)
    lengths = np.array([[len(row)] for row in rows])
    ids = np.array([row + [0] * (places - len(row)) for row in rows])
    inputs = {"token_ids": ids, "padding_mask": np.arange(places) < lengths}
    steps = {}
    for row, logits in zip(rows, model.predict(inputs, batch_size=len(rows), verbose=0)):
        for count in range(start, len(row) + 1):
            weights = np.exp(logits[count - 1].astype("float64") - logits[count - 1].max())
            ended = count > start and row[count - 1] == tokenizer.end_token_id
            best = [] if ended else np.argsort(-weights, kind="stable")[:LIKELIEST]
            chances = (weights / weights.sum()).round(4)
            steps[_path(row[start:count])] = [
                (int(i), tokenizer.id_to_token(int(i)), float(chances[i])) for i in best
            ]
    return steps


def record_sampling(model: MistralCausalLM, text: str) -> dict[str, Any]:
    """What the explorer "sampling" shows without a model.

    Args:
        model: a model with a preprocessor.
        text: what the model reads.

    Returns:
        `text` and `megabytes`; `logits` of all V tokens that could come next, rounded; the ids
        that are `used` in the text; and `pieces`, the likeliest ids with their pieces.
    """
    tokenizer = _tokenizer(model)
    ids = [int(i) for i in tokenizer.encode(text, add_bos=True)]
    places = -(-len(ids) // PLACES) * PLACES
    token_ids = np.array([ids + [0] * (places - len(ids))])
    inputs = {"token_ids": token_ids, "padding_mask": np.arange(places)[None] < len(ids)}
    logits = model.predict(inputs, verbose=0)[0, len(ids) - 1].astype("float64").round(3)
    best = np.argsort(-logits, kind="stable")[:NAMED]
    return {
        "text": text,
        "megabytes": _megabytes(model),
        "logits": logits.tolist(),
        "used": sorted({*ids}),
        "pieces": [(int(i), tokenizer.id_to_token(int(i))) for i in best],
    }


def draw_sampling(recorded: dict[str, Any]) -> None:
    """Draws what the explorer "sampling" shows at its start: the likeliest next tokens.

    Args:
        recorded: as `record_sampling` makes it.
    """
    weights = np.exp(np.array(recorded["logits"]) - max(recorded["logits"]))
    best, names = zip(*recorded["pieces"][:BARS])
    title = "Before any setting: the likeliest next tokens"
    chances = (weights / weights.sum())[list(best)]
    next_token.next_token_bars(plt.subplots(figsize=(7, 3.4))[1], names, chances, title=title)


def draw_writing(recorded: dict[str, Any]) -> None:
    """Draws what the explorer "write" shows at its start: the greedy text, and the first step.

    Args:
        recorded: as `record_writing` makes it.
    """
    steps, path, pieces = recorded["steps"], "", []
    while steps.get(path):
        token, piece, _ = steps[path][0]
        path = f"{path},{token}".lstrip(",")
        pieces += [piece] if token != recorded["end"] else []
    _, (above, below) = plt.subplots(2, figsize=(7, 3), height_ratios=(4, 5))
    next_token.written_text(above, recorded["text"], "".join(pieces).replace("▁", " "))
    _, names, chances = zip(*steps[""][:DRAWN])
    title = "Before the first blue letter: the likeliest next tokens"
    next_token.next_token_bars(below, names, chances, title=title)


@lru_cache(maxsize=1)
def _shipped() -> MistralCausalLM:
    """The model that comes with the library."""
    return MistralCausalLM.from_preset("mistral_tiny_en")


EXPLORERS = {
    "write": (record_writing, draw_writing),
    "heads": (heads_explorer.record_heads, heads_explorer.draw_heads),
    "sampling": (record_sampling, draw_sampling),
}
