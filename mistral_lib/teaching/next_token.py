"""Figures of next tokens: bars, and the loop that writes (used by all chapters)."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from mistral_lib.teaching import plots
from mistral_lib.teaching.plots import Looks

MONOSPACE: Looks = {"family": "DejaVu Sans Mono", "size": 10}
MONOSPACE_WIDTH = 0.602 * MONOSPACE["size"]  # points from one character to the next


def _line_width() -> int:
    """How many of these characters fit in a line."""
    return 36 if plots.narrow() else 76


# Where `writing_steps` places a row's text, in its axes. It stands above the top bar, so that a
# line comes in over the one that goes out.
_TEXT_END, _GUTTER, _LEVEL, _CHARACTERS = 0.92, 0.985, 1.1, 33


def token_label(piece: str) -> str:
    """A piece of a vocabulary as one line can show it: a line feed as ⏎.

    >>> token_label("▁the"), token_label(chr(10))
    ('▁the', '⏎')
    """
    return piece.replace("\n", "⏎")


def next_token_bars(
    ax: Axes, tokens: Sequence[str], probabilities: Sequence[float], *, title: str | None = None
) -> None:
    """Draws the likeliest next tokens as bars, the first one filled: it is the one that is taken.

    Args:
        ax: the axes to draw on; its ticks and limits are replaced.
        tokens: the pieces, the one that is taken first.
        probabilities: as many numbers from 0 to 1.
        title: what the picture shows, as a finding.

    >>> figure, ax = plt.subplots()
    >>> next_token_bars(ax, ["▁the", "▁a"], [0.75, 0.125])
    >>> [text.get_text() for text in ax.texts]
    ['75.0%', '12.5%']
    """
    places = range(len(tokens))
    bars = ax.barh(places, probabilities, height=0.72, color=plots.PALE, edgecolor=plots.GREY)
    bars[0].set(facecolor=plots.BLUE, edgecolor=plots.BLUE)
    ax.set_yticks(places, [token_label(token) for token in tokens], **MONOSPACE)
    ax.get_yticklabels()[0].set(color=plots.BLUE, weight="bold")
    for place, probability in zip(places, probabilities, strict=True):
        ax.text(probability + 0.02, place, f"{probability:.1%}", va="center", fontsize=9)
    ax.set(xlim=(0, 1.17), ylim=(len(tokens) - 0.5, -0.5), xticks=[])
    ax.tick_params(length=0)
    ax.spines["bottom"].set_visible(False)
    if title:
        ax.set_title(title)


def writing_steps(
    texts: Sequence[str],
    tokens: Sequence[Sequence[str]],
    probabilities: Sequence[Sequence[float]],
    *,
    title: str,
) -> Figure:
    """Draws a model that writes: one row a step, the taken token led back into the next text.

    Args:
        texts: what the model has read at each step; the end of it is shown.
        tokens: for each step the likeliest next tokens, the one that is taken first.
        probabilities: theirs.
        title: what the picture shows, as a finding.

    Returns:
        The figure.

    >>> figure = writing_steps(
    ...     ["If", "If it"],
    ...     [["▁it", "▁the"], ["▁is", "▁has"]],
    ...     [[0.5, 0.2], [0.9, 0.05]],
    ...     title="On",
    ... )
    >>> len(figure.axes)
    4
    """
    count = len(texts)
    if plots.narrow():  # each text above its bars
        shape: Looks = {"figsize": (3.7, 0.3 + 1.5 * count), "height_ratios": (1, 4) * count}
        axes = plt.subplots(2 * count, 1, **shape)[1].reshape(count, 2)
    else:
        shape = {"figsize": (7, 0.3 + 1.1 * count), "width_ratios": (5, 4)}
        axes = plt.subplots(count, 2, squeeze=False, **shape)[1]
    figure = axes[0, 0].figure
    for row, (left, right) in enumerate(axes):
        next_token_bars(right, tokens[row], probabilities[row])
        taken = _text_so_far(left, texts[row], tokens[row - 1][0] if row else "")
        if row and not plots.narrow():
            _lead_back(axes[row - 1, 1].get_yticklabels()[0], left, taken)
    _figure_title(figure, title)
    return figure


def _text_so_far(ax: Axes, text: str, taken: str) -> Text:
    """Writes the end of a text, its last token in a box; returns that token's artist."""
    text, taken = (token_label(part).replace("▁", " ") for part in (text, taken))
    ax.set_axis_off()
    place = {"ha": "right", "va": "center", **MONOSPACE}
    level = 0.5 if plots.narrow() else _LEVEL
    start = text.removesuffix(taken)
    if len(start) + len(taken) > _CHARACTERS:  # cut in front, at a space where there is one
        start = start[len(taken) - _CHARACTERS + 2 :]
        start = "… " + (start.partition(" ")[2] or start)
    gap = 3 if taken else 0  # points: the box is a little wider than its text
    ax.annotate(
        start,
        (_TEXT_END, level),
        (-MONOSPACE_WIDTH * len(taken) - gap, 0),
        xycoords="axes fraction",
        textcoords="offset points",
        **place,
    )
    box = (
        {"boxstyle": "square,pad=0.15", "facecolor": plots.BLUE, "edgecolor": plots.BLUE}
        if taken
        else None
    )
    return ax.text(
        *(_TEXT_END, level, taken),
        transform=ax.transAxes,
        color=plots.PAPER,
        weight="bold",
        bbox=box,
        **place,
    )


def _lead_back(label: Text, ax: Axes, taken: Text) -> None:
    """Draws the line from a bar's label down to the same token at the end of the next text."""
    line = {"color": plots.BLUE, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}
    corner = {"arrowstyle": "-", "connectionstyle": "angle,angleA=180,angleB=90,rad=6"}
    head = {"arrowstyle": "-|>", "mutation_scale": 12}
    gutter = (_GUTTER, _LEVEL)
    out = ax.annotate("", gutter, (-0.1, 0.5), "axes fraction", label, arrowprops=line | corner)
    back = ax.annotate("", (1, 0.5), gutter, taken, "axes fraction", arrowprops=line | head)
    for annotation in (out, back):
        annotation.set_annotation_clip(False)
        annotation.set_in_layout(False)


def written_text(ax: Axes, prompt: str, continuation: str) -> None:
    """Writes a prompt on the axes, and in blue and bold how it goes on.

    Args:
        ax: the axes to write on; only the text is left of it.
        prompt: what the model was given.
        continuation: what it wrote.

    >>> figure, ax = plt.subplots()
    >>> written_text(ax, "One", " two")
    >>> [text.get_text() for text in ax.texts]
    ['One', ' two']
    """
    ax.set_axis_off()
    prompt_style: Looks = {"color": plots.INK}
    own_style: Looks = {"color": plots.BLUE, "weight": "bold"}
    row, column = 0, 0
    for part, looks in ((prompt, prompt_style), (continuation, own_style)):
        for index, line in enumerate(_broken(part, column)):
            row, column = (row + 1, 0) if index else (row, column)
            if line:
                shift = (column * MONOSPACE_WIDTH, -row * 1.5 * MONOSPACE["size"])
                where: Looks = {
                    "xycoords": "axes fraction",
                    "textcoords": "offset points",
                    "va": "top",
                }
                ax.annotate(line, (0, 1), shift, **where, **MONOSPACE, **looks)
            column += len(line)


def _broken(text: str, column: int) -> list[str]:
    """The lines of a text that begins in a column, each short enough for the page."""
    lines: list[str] = []
    for line in text.split("\n"):
        while len(line) + (0 if lines else column) > _line_width():
            room = _line_width() - (0 if lines else column)
            end = line.rfind(" ", 0, room) + 1 or room
            lines.append(line[:end])
            line = line[end:]
        lines.append(line)
    return lines


def surprise_strips(
    pieces: Sequence[str], bits: Sequence[float], *, marked: Sequence[int] = (), title: str
) -> Figure:
    """Draws a text line by line, above each token a bar for what it cost the model.

    Args:
        pieces: the tokens; a line feed ends a line.
        bits: as many numbers, the surprise of each.
        marked: indices of tokens whose bars are hatched and carry their number.
        title: what the picture shows, as a finding.

    Returns:
        The figure, with one axes for each line.

    >>> figure = surprise_strips(
    ...     ["Re", "turn", "\\n", "it"], [9, 0.5, 3, 6], marked=[3], title="On"
    ... )
    >>> [len(ax.patches) for ax in figure.axes]
    [3, 1]
    """
    lines = _lines(pieces)
    figure, axes = plt.subplots(
        len(lines), figsize=(7, 0.4 + 0.78 * len(lines)), sharex=True, sharey=True, squeeze=False
    )
    highest = max(bits)
    for ax, line in zip(axes[:, 0], lines):
        column = 0
        for index in line:
            label = token_label(pieces[index]).replace("▁", " ")
            middle, size = column + len(label) / 2, len(label)
            special = {"facecolor": plots.ORANGE, "hatch": "////", "edgecolor": plots.INK}
            looks = (
                special if index in marked else {"facecolor": plots.PALE, "edgecolor": plots.GREY}
            )
            ax.bar(middle, bits[index], size - 0.2, linewidth=0.8, **looks)
            ax.text(column, -0.12 * highest, label, va="top", **MONOSPACE)
            if index in marked:
                above = (middle, bits[index] + 0.05 * highest)
                ax.text(*above, f"{bits[index]:.1f}", ha="center", va="bottom", fontsize=9)
            column += size
        ax.set(xlim=(-0.3, _line_width()), ylim=(0, 1.45 * highest), xticks=[])
        ax.set_ylabel("bits", fontsize=9)
        ax.tick_params(axis="y", labelsize=9)
    _figure_title(figure, title)
    return figure


def _lines(pieces: Sequence[str]) -> list[list[int]]:
    """The indices of the pieces in lines: an empty line joins the one before it."""
    lines, column = [[]], 0
    for index, piece in enumerate(pieces):
        ended = index and pieces[index - 1].endswith("\n") and not piece.startswith("\n")
        if ended or column + len(piece) > _line_width():
            lines.append([])
            column = 0
        lines[-1].append(index)
        column += len(piece)
    return lines


def _figure_title(figure: Figure, title: str) -> None:
    size, weight = plt.rcParams["axes.titlesize"], plt.rcParams["axes.titleweight"]
    figure.suptitle(title, x=0.01, ha="left", fontsize=size, weight=weight)
