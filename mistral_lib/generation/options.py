"""The options that `generate` and `stream` share, checked (chapter 16, "Sampling")."""

import dataclasses
import math
import numbers
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from mistral_lib.checks import check_boolean, check_choice, check_integer
from mistral_lib.generation.compiled_sampler import as_options
from mistral_lib.generation.sampling import GREEDY, Sampler, make_sampler
from mistral_lib.generation.stopping import check_stop_strings
from mistral_lib.inputs import check_ids

# The arguments of `generate` that choose tokens, with the values of those that a call leaves out
# while it gives others. If it leaves out all of them, the sampler of `compile` chooses.
UNCHOSEN: dict[str, Any] = {
    **dict.fromkeys(("temperature", "top_k", "top_p", "min_p", "repetition_penalty")),
    "num_beams": 1,
    "length_penalty": 1.0,
}
BEAMS = ("num_beams", "length_penalty")  # the others are those of `make_sampler`


@dataclasses.dataclass(frozen=True)
class Options:
    """How to continue prompts; `TextGeneration.generate` says what each option means.

    What depends on the prompts or the model is checked with them: limits, seeds, the draft model.

    Attributes:
        stop_tokens: `None` for the tokenizer's end token and the model's `end_token_ids`.
        own_sampler: an object that chooses in place of all other options, or `None`.

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
    seed: int | Sequence[int] | np.ndarray | None = None
    num_samples: int | None = None
    num_beams: int = 1
    length_penalty: float = 1.0
    draft_model: Any = None
    num_draft_tokens: int = 4
    log_probs: bool = False
    own_sampler: Any = None

    def __post_init__(self):
        for name in ("num_beams", "num_draft_tokens"):
            check_integer(name, getattr(self, name))
        if self.num_samples is not None:
            check_integer("num_samples", self.num_samples)
        check_boolean("return_log_probs", self.log_probs)
        check_length_penalty(self.length_penalty)
        self._check_samples()
        self._check_beams()

    @classmethod
    def of_call(
        cls,
        vocabulary_size: int,
        compiled_sampler: Any,
        by_object: bool = False,
        *,
        stop_token_ids: Any,
        stop_strings: Any,
        seed: Any,
        **arguments: Any,
    ) -> "Options":
        """The options of a call of `generate` or `stream`.

        Args:
            vocabulary_size: every stop token must be below it.
            compiled_sampler: an object, used if the call makes no choice of its own.
            by_object: whether nothing but this object can choose.
            stop_token_ids: as in the call.
            stop_strings: as in the call.
            seed: as in the call.
            **arguments: the other arguments of the call.
        """
        choice = {name: arguments.pop(name, None) for name in UNCHOSEN}
        choice = {name: value for name, value in choice.items() if value is not None}
        own_sampler = None
        if choice and by_object:
            raise ValueError(
                "In this model call_with_cache, generate_step or make_generate_function is "
                "replaced, so that only the sampler of compile can choose tokens, but the call has "
                f"{', '.join(choice)}. Leave it out, and give compile a sampler that does the same."
            )
        if not choice:
            known = None if by_object else as_options(compiled_sampler)
            own_sampler = compiled_sampler if known is None else None
            choice = known or {}
            if known is not None and seed is None and hasattr(compiled_sampler, "next_seed"):
                seed = compiled_sampler.next_seed()
        choice = UNCHOSEN | choice
        steps = {name: choice.pop(name) for name in UNCHOSEN if name not in BEAMS}
        return cls(
            stop_tokens=check_stop_tokens(stop_token_ids, vocabulary_size),
            stop_strings=check_stop_strings(stop_strings),
            sampler=make_sampler(**steps),
            seed=seed,
            own_sampler=own_sampler,
            **choice,
            **arguments,
        )

    @property
    def lookahead(self) -> int:
        """The largest number of tokens that are written at once: see `new_cache`."""
        return 1 if self.draft_model is None else self.num_draft_tokens + 1

    @property
    def samples(self) -> int:
        """Rows for each prompt."""
        return self.num_samples or 1

    @property
    def has_no_limit(self) -> bool:
        """Whether neither `max_length` nor `max_new_tokens` is given."""
        return self.max_length is None and self.max_new_tokens is None

    def _check_samples(self) -> None:
        if self.own_sampler is not None:
            if self.draft_model is not None:
                raise ValueError(
                    "draft_model goes with the sampling of generate, but the sampler of compile is "
                    f"a {type(self.own_sampler).__name__}. Pass a temperature too, 0 for the "
                    "likeliest tokens."
                )
            return
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
    """The ids, or a single id, as a tuple, checked; `None` for "auto".

    >>> check_stop_tokens([2], 10), check_stop_tokens(None, 10), check_stop_tokens("auto", 10)
    ((2,), (), None)
    """
    if isinstance(stop_token_ids, str):
        check_choice("stop_token_ids", stop_token_ids, ("auto",))
        return None
    if stop_token_ids is None:
        return ()
    return check_ids("stop_token_ids", stop_token_ids, vocabulary_size)


def check_length_penalty(length_penalty: Any, longest: int = 1) -> None:
    """Refuses a length penalty if the scores of up to `longest` tokens could leave float32.

    >>> check_length_penalty(20.0, longest=1000)
    Traceback (most recent call last):
    ValueError: length_penalty must be from -10 to 10 for up to 1000 new tokens, but is 20.0: ...
    """
    if isinstance(length_penalty, bool) or not isinstance(length_penalty, numbers.Real):
        raise TypeError(f"length_penalty must be a number, but is {length_penalty!r}.")
    size: Any = abs(length_penalty)
    if not size <= sys.float_info.max:
        raise ValueError(f"length_penalty must be finite, but is {length_penalty}.")
    # 100 is below float32's 126, which leaves room for the scores.
    largest = int(100 / math.log2(max(2, longest)))
    if longest > 1 and size > largest:
        raise ValueError(
            f"length_penalty must be from -{largest} to {largest} for up to {longest} new tokens, "
            f"but is {length_penalty}: in float32, length ** length_penalty would overflow or "
            "underflow."
        )
