"""What all chapters share: the prompt, and numbers for the prose (used by all chapters).

`PROMPT` goes through the whole book: a docstring whose parameter is named early and has to come
back at its end.

A cell records a value; the prose writes it as `7,241,732,096<!-- =params_7b -->`, and
`tools/notebooks.py` keeps the two equal. So no number in the book is typed by hand.

Numbers are of three sorts, and each has its own function: `record` is for counts and arithmetic,
`example` for what a model did on one text, and `mistral_lib.teaching.claims.claim` for what holds
on many texts or runs.
"""

import re

from IPython import get_ipython
from IPython.display import display

# The shipped model goes on with "prefix* is not a string." and stops there; no choice on the way is
# closer than 0.4 in logits, so every machine writes the same. It was not trained on this text.
PROMPT = (
    "Return a copy of the text with *prefix* in front of every line.\n\n"
    "The text itself is not changed, and empty lines are left as they are.\n\n"
    "Raise TypeError if *"
)

MISTRAL_7B = 7_241_732_096  # parameters of version 0.1; chapter 12 counts them

# The form that papermill, scrapbook and MyST-NB share: stored in the notebook, shown nowhere.
PREFIX = "application/papermill.record/"
NAME = re.compile(r"[a-z][a-z0-9_]*")
NUMBER = re.compile(r"[-−]?\d[\d,.]*(e[-+]?\d+)?%?")


def record(**values: int | str) -> None:
    """Records counts and results of arithmetic under names, for the prose of any chapter.

    The values become part of the cell's stored output, which is compared whenever the notebook is
    run again. So record only what is the same on every machine: no times, no unrounded floats.
    Outside a notebook the values are checked, and nothing else happens.

    Args:
        **values: an int, written with thousands separated (7,241,732,096), or a str that holds the
            number as the prose shall show it (`f"{share:.1f}"`). Units stay in the prose.

    Raises:
        TypeError: if a value is neither an int nor a str.
        ValueError: if a name has a capital letter, or a str is not a number.

    >>> record(params_7b=7_241_732_096, bits_per_byte=f"{1.4766:.2f}")
    """
    written = {name: _written(name, value) for name, value in values.items()}
    for name, text in written.items():
        publish(name, text)


def example(**values: int | str) -> None:
    """Records numbers that a model gave on one example, as `record` does.

    They show how something works, and never that it holds. So their names say what they are, and
    the prose with them.

    Args:
        **values: as for `record`; the names begin with `example_`.

    Raises:
        TypeError, ValueError: as `record`; a ValueError also for a name that begins otherwise.

    >>> example(example_chance=f"{0.5961:.1%}")
    """
    if wrong := [name for name in values if not name.startswith("example_")]:
        raise ValueError(
            f"{wrong[0]} is a number measured on one example. Name it example_{wrong[0]}, or "
            "measure it on the panel and use claim."
        )
    record(**values)


def publish(name: str, text: str) -> None:
    """Stores a text under a name in the output of the cell, which shows nothing of it."""
    if get_ipython() is not None:
        display(
            {f"{PREFIX}text/plain": text, "text/plain": ""},
            metadata={"scrapbook": {"name": name, "mime_prefix": PREFIX}},
            raw=True,
        )


def _written(name: str, value: int | str) -> str:
    """A value as the prose shows it."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"The name {name!r} is not made of small letters, digits and underscores. "
            "Rename it, for example to 'params_7b'."
        )
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if not isinstance(value, str):
        raise TypeError(
            f"{name} is a {type(value).__name__}, but has to be an int or a str. "
            f'Round it as the prose shall show it: record({name}=f"{{value:.2f}}").'
        )
    if not NUMBER.fullmatch(value):
        raise ValueError(f"{name} is {value!r}, which is not a number. Leave units to the prose.")
    return value
