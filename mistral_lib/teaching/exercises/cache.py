"""The exercises of chapter 15, "The rolling cache"."""

from __future__ import annotations

import numpy as np

from mistral_lib.generation.reading import PromptReader
from mistral_lib.masks import can_see
from mistral_lib.teaching.exercises.answers import numbers, whole
from mistral_lib.teaching.exercises.kinds import (
    BreakingInput,
    Estimate,
    Experiment,
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
            "Position p is kept in slot p % 4, and a newer token replaces an older one.",
            "The first of the eleven tokens is at position 0, the last at 10.",
            "Write the positions 0 to 10 in rows of four, and read the last entry of each column.",
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
            "The newest is at n = length - 1, in slot n % slots. Go back from there to slot s, "
            "modulo slots.",
            "np.arange(slots) has all slots at once. What does your formula say for length = 1?",
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
            "Ask about the position that a slot holds, not about the slot's number.",
            "can_see(position, held, window) takes -1 for a position like any other.",
            "Two conditions, joined by &: one about empty slots, one about the distance.",
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
            "With a window of 3 and full slots, how long must the next chunk be to overwrite "
            "position 1 or 2?",
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
            "7.24 billion weights of two bytes, and the keys and values of 4,096 tokens.",
            "Add the bytes and divide by the bytes a second. The arithmetic is done much sooner.",
        ),
    ),
    Line(
        name="cache.prompt",
        kind="read the library",
        minutes=4,
        difficulty=2,
        function=PromptReader._read_chunk,
        line="last = states",
        wrong={
            "before, part": (
                "this line takes out the rows that still have tokens, and nothing of a row."
            ),
            "states, part": (
                "this line reads the whole chunk: it returns hidden states for all of it."
            ),
            "last = jnp": (
                "this line keeps the old state of rows that are done. All are single by now."
            ),
        },
        hints=(
            "Each hidden state that is left gives V logits. How many are left?",
            "Follow the name `states`. Which line leaves one position of each row?",
            "In NumPy, array[[0, 1], [5, 7]] takes two entries and not a square of four.",
        ),
    ),
    Experiment(
        name="cache.rewind",
        kind="run an experiment",
        minutes=10,
        difficulty=2,
        solution=((0.0, 1.59), "b"),
        within=0.02,
        claims={
            "a": "a cache must never be rewound.",
            "b": "a ring may be rewound until it has come round, and then it must not.",
            "c": "a rewound ring is off, but not by much.",
        },
        refusals={
            "a": "after the short prefix the costs are equal to the last digit.",
            "c": "after the long prefix each token costs more than one bit more.",
        },
        others=(
            ((1.59, 0.0), "the short prefix comes first."),
            ((0.0, -1.59), "the price is the cost after the rewind less the right cost."),
            ((0.0, 0.0), "is the second prefix longer than the window? Take 192 tokens."),
            ((0.0, 0.04), "that is a first request of 16 tokens. Take 64."),
            ((0.0, 0.36), "that is a first request of 32 tokens. Take 64."),
        ),
        hints=(
            "Have more than 128 tokens been read before the cache is rewound?",
            "price_of_rewinding returns one number for each document. Take their mean.",
            "Call it with prefix=32 and with prefix=192.",
        ),
    ),
    Experiment(
        name="cache.sinks",
        kind="run an experiment",
        minutes=12,
        difficulty=3,
        solution=((0.26, 0.41, 0.40), "b"),
        within=0.02,
        claims={
            "a": "the first tokens rescue the model.",
            "b": "to this model the first tokens are worth no more than empty slots.",
            "c": "the first tokens do harm, because heads look at them too much.",
        },
        refusals={
            "a": "with the first four the loss is larger than with sixteen recent tokens.",
            "c": "without them, and with nothing in their place, the loss is about as large.",
        },
        others=(
            ((0.26, 0.27, 0.26), "four first and sixteen recent tokens are twenty slots."),
            ((0.26, 0.41, 0.26), "the third cache holds 12 tokens, and four slots are empty."),
            ((0.225, 0.35, 0.35), "count only the tokens that come after 16 others, no padding."),
            ((0.26, 0.46, 0.40), "that keeps the first eight tokens."),
            ((0.26, 0.32, 0.40), "that keeps the first token alone."),
        ),
        hints=(
            "The second cache holds other tokens than the first, and four more than the third.",
            "in_cache(recent, first) says what is seen. How many recent and how many first tokens "
            "are kept in each case?",
            "The fair comparison has 16 slots: first and recent tokens together.",
        ),
    ),
    Experiment(
        name="cache.serve",
        kind="run an experiment",
        minutes=8,
        difficulty=2,
        solution=((15.0, 24.3), "b"),
        within=0.3,
        claims={
            "a": "the colleague is right.",
            "b": "the gain shrinks long before, because every row has a cache of its own.",
            "c": "more rows bring nothing, because memory is the limit either way.",
        },
        refusals={
            "a": "then 203 rows would write about 200 times as much as one.",
            "c": "32 rows write 15 times as much as one, in a step that takes twice as long.",
        },
        others=(
            ((31.9, 202), "those rows have hardly any cache. Give each a context of 4,096."),
            ((2.1, 8.4), "that is how much longer a step takes. How many tokens come out of it?"),
            ((4892, 7909), "those are tokens a second. How many times those of one row are they?"),
            ((0.47, 0.12), "that is the gain of each row. What is it for all together?"),
            ((3.9, 4.2), "those rows keep 32,768 tokens. With the window a row keeps 4,096."),
        ),
        hints=(
            "A step of B rows writes B tokens.",
            "step.seconds(rate, bandwidth) is the time of a step.",
            "Divide rows by seconds for 1, 32 and 203 rows, and the last two by the first.",
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
            "What does a rolling cache do in its first round that a list does not?",
            "Look at the rows of the film in which no cell is framed.",
            "Which window, how short a prompt and which chunks would be a better test?",
        ),
    ),
]
