"""The exercises of chapter 15, "The rolling cache"."""

from __future__ import annotations

import numpy as np

from mistral_lib.generation.cache import attend_cached
from mistral_lib.masks import can_see
from mistral_lib.teaching.exercises.answers import numbers, whole
from mistral_lib.teaching.exercises.kinds import (
    BreakingInput,
    Estimate,
    Explanation,
    Function,
    Line,
    Value,
)
from mistral_lib.teaching.facts import MISTRAL_7B

BYTES_A_TOKEN = 2 * 32 * 8 * 128 * 2  # Mistral 7B in bfloat16: 128 KiB
WEIGHTS_7B = 2 * MISTRAL_7B  # bytes


def _readings():
    """How many tokens were read, and into how many slots; smallest first."""
    for slots in range(1, 5):
        for length in range(2 * slots + 2):
            yield length, slots


def _held(length, slots):
    newest = length - 1
    return np.maximum(newest - (newest - np.arange(slots)) % slots, -1)


def _rings():
    """A query's position, what the slots hold after its own key was written, and a window."""
    for slots in range(1, 6):
        for window in range(1, slots + 1):
            for position in range(2 * slots):
                yield position, _held(position + 1, slots), window


def _visible(position, held, window):
    return (held >= 0) & can_see(position, held, window)


def _chunks(window, sizes):
    """Which positions each query of a prompt read in chunks looks at, bool (S, S)."""
    positions = np.arange(int(sizes.sum()))
    return can_see(positions[:, None], positions, window)


def _written_first(window, sizes):
    """As `_chunks`, if each chunk is written into `window` slots before its queries look."""
    visible = np.zeros((int(sizes.sum()),) * 2, bool)
    start = 0
    for size in sizes.astype(int):
        held = _held(start + size, window)
        for query in range(start, start + size):
            visible[query, held[_visible(query, held, window)]] = True
        start += size
    return visible


def _allowed(window, sizes):
    """Whether a prompt can be read in such chunks."""
    if not 1 <= window <= 100:
        return "The window is a whole number, from 1 to 100."
    if sizes.ndim != 1 or not sizes.size or (sizes % 1).any() or not (sizes >= 1).all():
        return "The chunks are a list of whole numbers, each at least 1."
    return "A prompt of a hundred tokens is long enough." if sizes.sum() > 100 else None


EXERCISES = [
    Value(
        name="cache.slot",
        kind="trace by hand",
        minutes=3,
        difficulty=1,
        solution=[8, 9, 10, 7],
        mistakes=(
            ([7, 8, 9, 10], "these are the four, but in the order of the text. Where is each?"),
            ([8, 9, 10, 11], "the first token is at position 0, so the eleventh is at 10."),
            ([9, 10, 11, 8], "the first token is at position 0, so the eleventh is at 10."),
            ([0, 1, 2, 3], "seven tokens came after these four, and each took a slot."),
        ),
        hints=(
            "Position p lives in slot p % 4, and the newest token in a slot is the one there.",
            "The positions are 0 to 10. Position 8 goes to slot 0. Where do 9, 10 and 7 go?",
            "[8, 9, 10, 7]",
        ),
    ),
    Function(
        name="cache.held",
        kind="missing lines",
        minutes=6,
        difficulty=2,
        solution=_held,
        cases=_readings,
        mistakes={
            "forgets that slots can be empty: before the first round there is no older token.": (
                lambda length, slots: (length - 1) - (length - 1 - np.arange(slots)) % slots
            ),
            "is one position late: after `length` tokens the newest is at length - 1.": (
                lambda length, slots: np.maximum(length - (length - np.arange(slots)) % slots, -1)
            ),
            "gives the tokens in the order of the text: position p is in slot p % slots.": (
                lambda length, slots: np.maximum(np.arange(length - slots, length), -1)
            ),
            "never overwrites: it holds the first tokens of the text.": (
                lambda length, slots: np.where(np.arange(slots) < length, np.arange(slots), -1)
            ),
        },
        hints=(
            "How far back from the newest token is the one in slot s?",
            "The newest is at n = length - 1. Going back (n - s) % slots tokens leads to slot s.",
            "np.maximum(n - (n - np.arange(slots)) % slots, -1)",
        ),
    ),
    Function(
        name="cache.mask",
        kind="missing lines",
        minutes=4,
        difficulty=2,
        solution=_visible,
        cases=_rings,
        mistakes={
            "shows every slot that is not empty: there may be more slots than the window.": (
                lambda position, held, window: held >= 0
            ),
            "hides the query's own key: distance 0 is one of the W.": (
                lambda position, held, window: (
                    (held >= 0) & (held < position) & (position - held < window)
                )
            ),
            "lets one key too many through: distances 0 to W - 1 are W.": (
                lambda position, held, window: (held >= 0) & (position - held <= window)
            ),
            "shows empty slots: -1 is a position for can_see, and a near one for early queries.": (
                lambda position, held, window: can_see(position, held, window)
            ),
            "takes the slots for positions: what a slot holds decides, not its number.": (
                lambda position, held, window: can_see(position, np.arange(len(held)), window)
            ),
        },
        hints=(
            "The question of chapter 7 is asked about what a slot holds.",
            "can_see(position, held, window) answers it for real tokens. Which slots have none?",
            "(held >= 0) & can_see(position, held, window)",
        ),
    ),
    BreakingInput(
        name="cache.break_it",
        kind="break this function",
        minutes=5,
        difficulty=2,
        right=_chunks,
        broken=_written_first,
        solution=(3, [3, 2]),
        form="A pair (window, [size, size, ...]), such as (4, [2, 1]),",
        readers=(whole, numbers),
        valid=_allowed,
        mistakes={
            "The prompt fits into the window, and nothing is overwritten in the first round.": (
                lambda window, sizes: sizes.sum() <= window
            ),
            "Single tokens overwrite only what they cannot see.": (
                lambda window, sizes: (sizes == 1).all()
            ),
            "No chunk of two or more tokens goes beyond the first round.": (
                lambda window, sizes: True
            ),
        },
        hints=(
            "When does a chunk overwrite a key that one of its own queries still wants?",
            "Fill the slots first. The next chunk's first query looks back window - 1 tokens.",
            "A window of 3, and the chunks [3, 2]: position 4 takes the slot of position 1.",
        ),
    ),
    Line(
        name="cache.library",
        kind="read the library",
        minutes=5,
        difficulty=3,
        function=attend_cached,
        line="keep = real",
        wrong={
            "slots, new": "this line only counts slots and new tokens.",
            "real = jnp": (
                "this tells real tokens from padding. All tokens of a long chunk may be real."
            ),
            "write_slots": "this line writes what it is told to keep. Who decides that?",
            "if window": "this line chooses what to look at; the writing is done by then.",
        },
        hints=(
            "Two tokens of a chunk fall into one slot if they are `slots` apart. Which may stay?",
            "Look for the line that compares positions with the total, less the slots.",
            "keep = real & (positions >= total - slots)",
        ),
    ),
    Estimate(
        name="cache.million",
        kind="estimate",
        minutes=3,
        difficulty=1,
        solution=BYTES_A_TOKEN * 10**6 / 2**30,
        factor=1.2,
        unit="GiB",
        mistakes=(
            (0.5, "that is the rolling cache: 4,096 tokens of 128 KiB."),
            (4 * BYTES_A_TOKEN * 10**6 / 2**30, "query heads counted? There are 8 key heads."),
            (BYTES_A_TOKEN * 10**6 / 2**31, "keys or values? Both are kept."),
        ),
        hints=(
            "How many KiB does a token take in Mistral 7B?",
            "A million tokens of 128 KiB, and 2**20 KiB in a GiB.",
            "128 * 10**6 / 2**20",
        ),
    ),
    Estimate(
        name="cache.milliseconds",
        kind="estimate",
        minutes=4,
        difficulty=2,
        solution=(WEIGHTS_7B + 4096 * BYTES_A_TOKEN) / 4.8e12 * 1e3,
        factor=1.15,
        unit="ms",
        mistakes=(
            (2 * WEIGHTS_7B / 4.8e12 * 1e3, "four bytes a weight? bfloat16 has two."),
            (WEIGHTS_7B / 989e12 * 1e3, "that is the arithmetic. Reading takes far longer."),
            (
                (WEIGHTS_7B + 32_768 * BYTES_A_TOKEN) / 4.8e12 * 1e3,
                "that cache holds all tokens. The window keeps 4,096.",
            ),
            (WEIGHTS_7B / 4.8e12 * 1e3, "the cache is read, too: half a GB."),
            (4096 * BYTES_A_TOKEN / 4.8e12 * 1e3, "the weights are read, too."),
        ),
        hints=(
            "Which two things are read from memory once for every token?",
            "14.5 GB of weights and half a GB of keys and values, at 4,800 GB a second.",
            "(2 * 7.24e9 + 4096 * 128 * 1024) / 4.8e12 * 1000",
        ),
    ),
    Estimate(
        name="cache.rows",
        kind="estimate",
        minutes=3,
        difficulty=2,
        solution=WEIGHTS_7B / (4096 * BYTES_A_TOKEN),
        factor=1.15,
        unit="rows",
        mistakes=(
            (WEIGHTS_7B / BYTES_A_TOKEN, "that is how many tokens weigh as much. Rows have 4,096."),
            (206, "that is FLOPs a byte of the GPU. Weights are shared by rows, caches are not."),
            (200, "that is FLOPs a byte of the GPU. Weights are shared by rows, caches are not."),
            (2 * WEIGHTS_7B / (4096 * BYTES_A_TOKEN), "four bytes a weight? bfloat16 has two."),
            (WEIGHTS_7B / (32_768 * BYTES_A_TOKEN), "with a window no row keeps 32,768 tokens."),
        ),
        hints=(
            "The weights are read once for all rows together, a cache once for each row.",
            "13.5 GiB of weights, and half a GiB for each row.",
            "13.5 / 0.5",
        ),
    ),
    Explanation(
        name="cache.explain",
        kind="explain",
        minutes=5,
        difficulty=2,
        points=(
            "while the text is no longer than the slots, nothing is ever overwritten",
            "so a test of short prompts cannot tell the right cache from any of the wrong ones",
            "test with a small window instead: every split of a short text into chunks",
            "compare logits with an uncached reading; text may stay the same by luck",
        ),
        hints=(
            "What does a rolling cache do differently before its first round is over?",
            "Look at the rows of the film in which no cell is framed.",
            "Name a window, a prompt and two chunks that would have shown it.",
        ),
    ),
]
