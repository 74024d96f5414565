"""The options that `generate` and `stream` share, checked (chapter 16, "Sampling")."""

import dataclasses
import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from mistral_lib.checks import check_boolean, check_choice, check_integer
from mistral_lib.generation.sampling import GREEDY, Sampler
from mistral_lib.inputs import check_ids


@dataclasses.dataclass(frozen=True)
class Options:
    """How to continue prompts; `TextGeneration.generate` says what each option means.

    What depends on the prompts or the model is checked with them: limits, seeds, the draft model.

    Attributes:
        stop_tokens: `None` for the tokenizer's end token and the model's `end_token_ids`.

    Raises:
        ValueError, TypeError: an option is out of range or of the wrong type, or two of them
            exclude one another; the message names it.

    >>> Options(num_beams=2, num_samples=2)
    Traceback (most recent call last):
    ValueError: num_beams must be 1 where there is a num_samples, but is 2: a beam search returns
    the likeliest text that it finds. Leave out one of the two.
    """

    max_length: int | None = None
    max_new_tokens: int | None = None
    stop_tokens: tuple[int, ...] | None = None
    stop_strings: tuple[str, ...] = ()
    sampler: Sampler = GREEDY
    seed: int | Sequence[int] | np.ndarray | None = 0
    num_samples: int | None = None
    num_beams: int = 1
    length_penalty: float = 1.0
    draft_model: Any = None
    num_draft_tokens: int = 4
    log_probs: bool = False

    def __post_init__(self):
        for name in ("num_beams", "num_draft_tokens"):
            check_integer(name, getattr(self, name))
        if self.num_samples is not None:
            check_integer("num_samples", self.num_samples)
        check_boolean("return_log_probs", self.log_probs)
        _check_length_penalty(self.length_penalty)
        self._check_samples()
        self._check_beams()

    @property
    def samples(self) -> int:
        """Rows for each prompt."""
        return self.num_samples or 1

    def _check_samples(self) -> None:
        if self.samples > 1 and self.num_beams == 1 and self.sampler.temperature is None:
            raise ValueError(
                f"num_samples must be 1 at a temperature of 0, but is {self.num_samples}: nothing "
                "is drawn, and all would be the same. Pass a temperature such as 1.0."
            )

    def _check_beams(self) -> None:
        if self.num_beams == 1:
            if self.length_penalty != 1:
                raise ValueError(
                    f"length_penalty must be 1 where num_beams is 1, but is {self.length_penalty}: "
                    "it compares finished beams. Pass num_beams."
                )
            return
        others = {
            "temperature": self.sampler.temperature,
            "num_samples": self.num_samples,
            "stop_strings": self.stop_strings or None,
            "draft_model": self.draft_model,
        }
        for name, value in others.items():
            if value is not None:
                raise ValueError(
                    f"num_beams must be 1 where there is a {name}, but is {self.num_beams}: a beam "
                    "search returns the likeliest text that it finds. Leave out one of the two."
                )


def check_stop_tokens(stop_token_ids: Any, vocabulary_size: int) -> tuple[int, ...] | None:
    """The ids as a tuple, checked; a single one is understood. `None` for "auto".

    >>> check_stop_tokens([2], 10), check_stop_tokens(None, 10), check_stop_tokens("auto", 10)
    ((2,), (), None)
    """
    if isinstance(stop_token_ids, str):
        check_choice("stop_token_ids", stop_token_ids, ("auto",))
        return None
    if stop_token_ids is None:
        return ()
    return check_ids("stop_token_ids", stop_token_ids, vocabulary_size)


def _check_length_penalty(length_penalty: Any) -> None:
    if isinstance(length_penalty, bool) or not isinstance(length_penalty, numbers.Real):
        raise TypeError(f"length_penalty must be a number, but is {length_penalty!r}.")
    if not math.isfinite(length_penalty):
        raise ValueError(f"length_penalty must be finite, but is {length_penalty}.")
