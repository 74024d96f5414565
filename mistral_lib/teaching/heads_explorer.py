"""The explorer of attention heads: where each one looks and what it writes (used by chapter 4).

`rows` says for each token of a text what every head does there, as the model in JavaScript does
(`book/_static/model/worker.js`). `record_heads` packs this for a page, and `draw_heads` draws it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mistral_lib import MistralCausalLM
from mistral_lib.teaching import head_plots, panel, plots
from mistral_lib.teaching.interventions import activations
from mistral_lib.teaching.next_token import token_label

MOST, NAMED = 128, 3  # tokens of a text, and tokens that a head favours
START = (2, 3)  # the block and the head that the explorer begins with
IN_ROWS = ("score", "drop", "written", "word", "effect")  # of each head, in this order
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def rows(model: MistralCausalLM, text: str) -> dict[str, Any]:
    """What every head does at each token of a text.

    Args:
        model: a model with a preprocessor; L blocks of H heads.
        text: at most 128 tokens, the start token among them.

    Returns:
        Arrays over the blocks, the S queries and the heads: `scores` and `weights` (L, S, H, S);
        `seen`, bool (L, S, S), what the mask lets a query see; `values` (L, S, H), the size of the
        value that the head finds at a token; `written` (L, S, H), the size of what it adds to the
        stream; `stream` (L, S), the size of the stream before the block; `effects` (L, S, H, V),
        what is added to the logits directly, with the last norm dividing as it does in the model;
        and `pieces`, the S tokens.

    Raises:
        ValueError: if the text is longer.
    """
    tokenizer = cast(Any, model.preprocessor).tokenizer
    one = panel.own(tokenizer, [text])
    ids = one.token_ids[0]
    if len(ids) > MOST:
        raise ValueError(f"text has {len(ids)} tokens, but at most {MOST} can be shown. Cut it.")
    sites = ("query", "key", "value", "weights", "heads", "stream")
    found = {site: array[:, 0] for site, array in activations(model, one, *sites).items()}
    backbone, stream = model.backbone, found["stream"]
    heads, size = found["query"].shape[2:]
    group = heads // found["key"].shape[2]  # query heads that share a key head
    key, value = (np.repeat(found[site], group, axis=2) for site in ("key", "value"))
    blocks = [block.self_attention for block in backbone.transformer_layers]
    kernels = np.stack([np.asarray(b.attention_output.kernel, "float32") for b in blocks])
    D = kernels.shape[-1]
    kernels = kernels.reshape(-1, heads, size, D)
    added = np.einsum("lshd,lhde->lshe", found["heads"], kernels)
    norm = backbone.layer_norm
    divisor = np.sqrt((stream[-1] ** 2).mean(axis=1) + norm.epsilon)[:, None, None]
    scaled = (added * np.asarray(norm.scale, "float32") / divisor).reshape(len(added), -1, D)
    effects = backbone.token_embedding(scaled, reverse=True)
    far = np.subtract.outer(np.arange(len(ids)), np.arange(len(ids)))
    windows = [b.sliding_window or len(ids) for b in blocks]
    return {
        "pieces": [tokenizer.id_to_token(int(i)) for i in ids],
        "scores": np.einsum("lshd,lthd->lsht", found["query"], key) / size**0.5,
        "weights": found["weights"].swapaxes(1, 2),
        "seen": np.stack([(far >= 0) & (far < window) for window in windows]),
        "values": np.linalg.norm(value, axis=-1),
        "written": np.linalg.norm(added, axis=-1),
        "stream": np.linalg.norm(stream[:-1], axis=-1),
        "effects": np.asarray(effects).reshape(*added.shape[:3], -1),
    }


def record_heads(model: MistralCausalLM, text: str) -> dict[str, Any]:
    """What the explorer "heads" shows without a model.

    Args:
        model: a model with a preprocessor.
        text: at most 128 tokens.

    Returns:
        `text`, its `pieces`, and `words`, all pieces that a head raises or lowers, with blanks
        between them; of the model the `windows` of its blocks, the number of `heads` in each and of
        those that share a key head (`group`), and the `size` of a head; the block and the head to
        `start` with; and, packed, the `values` and a text for each token, the `rows`. `ranges` says
        of each kind of number how it is packed: with how many digits to the base 64, and what the
        lowest and the highest of them mean.
    """
    found = rows(model, text)
    numbers, words = _numbers(found)
    ranges = {name: _range(name, array) for name, array in numbers.items()}
    pack = {name: _packer(*of) for name, of in ranges.items()}

    def row(query: int) -> str:
        parts = []
        for block, looks in enumerate(found["seen"][:, query]):
            parts.append(pack["size"](found["stream"][block, query]))
            for head in range(backbone.num_query_heads):
                of = {name: numbers[name][block, query, head] for name in IN_ROWS}
                parts += [
                    pack[name](of[name][looks] if name == "drop" else of[name]) for name in of
                ]
        return "".join(parts)

    tokenizer, backbone = cast(Any, model.preprocessor).tokenizer, model.backbone
    group = backbone.num_query_heads // backbone.num_key_value_heads
    blocks = [block.self_attention for block in backbone.transformer_layers]
    return {
        "text": text,
        "pieces": found["pieces"],
        "words": " ".join(tokenizer.id_to_token(int(i)).replace(" ", "▁") for i in words),
        "windows": [block.sliding_window for block in blocks],
        "heads": backbone.num_query_heads,
        "group": group,
        "size": backbone.head_dim,
        "start": [min(START[0], len(blocks) - 1), min(START[1], backbone.num_query_heads - 1)],
        "ranges": ranges,
        "values": pack["size"](found["values"][:, :, ::group]),
        "rows": [row(query) for query in range(len(found["pieces"]))],
    }


def _numbers(found: dict[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What is packed, by the name of its range, and the ids of the words.

    Of the scores, the highest of a row, and the roots of how far the others are below it: what is
    near the highest matters most, and is packed most exactly.
    """
    effects, seen = found["effects"], found["seen"][:, :, None]
    order = np.argsort(-effects, axis=-1)
    named = np.concatenate([order[..., :NAMED], order[..., : -NAMED - 1 : -1]], axis=-1)
    words = np.unique(named)
    highest = np.where(seen, found["scores"], -np.inf).max(axis=-1)
    below = np.where(seen, highest[..., None] - found["scores"], 0)
    sizes = [found[name].ravel() for name in ("values", "stream")]
    numbers = {
        "score": highest,
        "drop": np.sqrt(below),
        "written": found["written"],
        "word": np.searchsorted(words, named),
        "effect": np.take_along_axis(effects, named, axis=-1),
        "size": np.concatenate(sizes),
    }
    return numbers, words


def unpack(recorded: dict[str, Any], place: int) -> list[dict[str, Any]]:
    """What was recorded of one token: for each block the size of the `stream`, and its `heads`.

    Args:
        recorded: as `record_heads` makes it.
        place: of the token.

    Returns:
        The blocks. A head has the `first` key that is seen, the `scores` from there on, the size of
        what is `written`, and the tokens that are `raised` and `lowered`, with their logits.
    """
    row, at = recorded["rows"][place], 0
    words = recorded["words"].split(" ")

    def take(name: str, count: int) -> np.ndarray:
        nonlocal at
        digits, low, high = recorded["ranges"][name]
        part = row[at : at + count * digits]
        at += len(part)
        whole = np.array([DIGITS.index(digit) for digit in part]).reshape(-1, digits)
        return low + whole @ 64 ** np.arange(digits)[::-1] * (high - low) / (64**digits - 1)

    def head(first: int) -> dict[str, Any]:
        (highest,), drops = take("score", 1), take("drop", place + 1 - first)
        (written,) = take("written", 1)
        named = [words[round(word)] for word in take("word", 2 * NAMED)]
        effects = [*zip(named, take("effect", 2 * NAMED).tolist())]
        found = {"first": first, "scores": highest - drops**2, "written": written}
        return {**found, "raised": effects[:NAMED], "lowered": effects[NAMED:]}

    blocks = []
    for window in recorded["windows"]:
        (stream,) = take("size", 1)
        first = max(0, place + 1 - (window or place + 1))
        blocks.append({"stream": stream, "heads": [head(first) for _ in range(recorded["heads"])]})
    return blocks


def draw_heads(recorded: dict[str, Any]) -> None:
    """Draws what the explorer "heads" shows at its start: one head, and all, at the last token.

    Args:
        recorded: as `record_heads` makes it.
    """
    pieces, (block, head) = recorded["pieces"], recorded["start"]
    looks = [
        [weights_of(found["scores"]) for found in each["heads"]]
        for each in unpack(recorded, len(pieces) - 1)
    ]
    _, (above, below) = plt.subplots(2, figsize=(7, 4.6), height_ratios=(5, 6))
    mine = looks[block][head]
    most = pieces[len(pieces) - len(mine) + int(mine.argmax())]
    names = (token_label(piece) for piece in (pieces[-1], most))
    title = "Head {}.{} at the last {}: {:.0%} of its weight is on {}"
    title = title.format(block, head, next(names), mine.max(), next(names))
    head_plots.draw_bars(above, pieces[len(pieces) - len(mine) :], mine, title=title)
    draw_patterns(below, looks, title="All heads at this token, from the first key to the last")


def weights_of(scores: np.ndarray) -> np.ndarray:
    """The softmax of one row of scores."""
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def draw_patterns(ax: Axes, looks: Sequence[Sequence[np.ndarray]], *, title: str) -> None:
    """Draws a small picture of the weights of each head: blocks from above, heads from the left.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        looks: for each block and head the weights of one query.
        title: what the picture shows.

    >>> figure, ax = plt.subplots()
    >>> draw_patterns(ax, [[np.array([0.25, 0.75]), np.array([1.0])]], title="Two heads")
    >>> len(ax.patches)  # a frame for each head, and a bar for each weight
    5
    """
    for block, row in enumerate(looks):
        for head, weights in enumerate(row):
            corner = (head - 0.45, block + 0.4)
            ax.add_patch(Rectangle(corner, 0.9, -0.8, facecolor=plots.PALE, edgecolor="none"))
            width = 0.9 / max(len(weights), 24)
            for key in np.flatnonzero(weights > 0.02):
                left = corner[0] + 0.9 * key / len(weights)
                bar = Rectangle((left, corner[1]), width, -0.8 * float(weights[key]), ec="none")
                bar.set_facecolor(plots.BLUE)
                ax.add_patch(bar)
    ax.set(xlim=(-0.5, len(looks[0]) - 0.5), ylim=(len(looks) - 0.5, -0.5))
    ax.set_xticks(range(len(looks[0])), [f"head {head}" for head in range(len(looks[0]))])
    ax.set_yticks(range(len(looks)), [f"block {block}" for block in range(len(looks))])
    ax.tick_params(length=0, labelsize=plots.SMALL, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    ax.set_title(title, pad=8)


def _range(name: str, numbers: np.ndarray) -> tuple[int, float, float]:
    """How numbers are packed: the digits of one, and what the lowest and the highest mean."""
    if name == "word":  # whole numbers
        digits = 2 if numbers.max() < 64**2 else 3
        return digits, 0, 64**digits - 1
    digits = 3 if name in ("score", "size") else 2
    return digits, float(np.floor(numbers.min())), float(np.ceil(numbers.max()))


def _packer(digits: int, low: float, high: float) -> Callable[[Any], str]:
    """A function that writes numbers, each with some digits to the base 64."""
    most = 64**digits - 1

    def pack(numbers: Any) -> str:
        whole = np.round((np.ravel(numbers) - low) / (high - low) * most).astype(int)
        powers = 64 ** np.arange(digits)[::-1]
        return "".join(DIGITS[i] for i in (whole[:, None] // powers % 64).ravel())

    return pack
