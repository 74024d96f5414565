"""The options that `generate` and `stream` share, checked (chapter 16, "Sampling")."""

import dataclasses
import math
import numbers
import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from mistral_lib.checks import check_boolean, check_choice, check_integer
from mistral_lib.generation.sampling import GREEDY, Sampler, make_sampler
from mistral_lib.generation.stopping import check_stop_strings
from mistral_lib.inputs import check_ids

# The samplers of KerasHub's `compile`, as options of `generate`.
SAMPLERS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "random": {"temperature": 1.0},
    "top_k": {"temperature": 1.0, "top_k": 5},
    "top_p": {"temperature": 1.0, "top_p": 0.1},
    "beam": {"num_beams": 5, "length_penalty": 0.0},
}

# The arguments of `generate` that a sampler sets, and their values if a call leaves them out.
UNCHOSEN: dict[str, Any] = {
    **dict.fromkeys(("temperature", "top_k", "top_p", "min_p")),
    "num_beams": 1,
    "length_penalty": 1.0,
}


class ModelWithSampler(keras.Model):
    """The part of `MistralCausalLM` that remembers the sampler of `compile`, as in KerasHub."""

    _sampler: str | None = None

    def compile(self, *args: Any, sampler: str | None = None, **kwargs: Any) -> None:
        """Keras's `compile`, with KerasHub's `sampler`, the default for calls that choose none.

        Args:
            *args: as in Keras.
            sampler: "greedy", "random", "top_k" (5 tokens), "top_p" (0.1) or "beam" (5 beams), as
                in KerasHub; `None` means "greedy".
            **kwargs: as in Keras.

        >>> from mistral_lib import MistralBackbone, MistralCausalLM
        >>> model = MistralCausalLM(MistralBackbone(10, 1, 2, 8, 16, 1))
        >>> model.compile(sampler="contrastive")
        Traceback (most recent call last):
        ValueError: sampler must be one of 'greedy', 'random', 'top_k', 'top_p', 'beam', but is ...
        """
        if not (sampler is None or (isinstance(sampler, str) and sampler in SAMPLERS)):
            raise ValueError(
                f"sampler must be one of {', '.join(map(repr, SAMPLERS))}, but is {sampler!r}. For "
                "another, leave it out and call generate with temperature, top_k, top_p, min_p or "
                "num_beams."
            )
        super().compile(*args, **kwargs)
        self._sampler = sampler

    def get_compile_config(self) -> dict[str, Any] | None:
        config = super().get_compile_config()
        return {**config, "sampler": self._sampler} if config and self._sampler else config

    def _options(self, **arguments: Any) -> "Options":
        return Options.of_call(self.backbone.vocabulary_size, self._sampler, **arguments)


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
        check_length_penalty(self.length_penalty)
        self._check_samples()
        self._check_beams()

    @classmethod
    def of_call(
        cls,
        vocabulary_size: int,
        compiled_sampler: str | None,
        *,
        stop_token_ids: Any,
        stop_strings: Any,
        repetition_penalty: float | None,
        **arguments: Any,
    ) -> "Options":
        """The options of a call of `generate` or `stream`.

        Args:
            vocabulary_size: every stop token must be below it.
            compiled_sampler: one of `SAMPLERS`, used if the call makes no choice of its own.
            stop_token_ids: as in the call.
            stop_strings: as in the call.
            repetition_penalty: as in the call.
            **arguments: the other arguments of the call.
        """
        choice = {name: arguments.pop(name, default) for name, default in UNCHOSEN.items()}
        if compiled_sampler is not None and choice == UNCHOSEN:
            choice |= SAMPLERS[compiled_sampler]
        steps = {name: choice.pop(name) for name in ("temperature", "top_k", "top_p", "min_p")}
        return cls(
            stop_tokens=check_stop_tokens(stop_token_ids, vocabulary_size),
            stop_strings=check_stop_strings(stop_strings),
            sampler=make_sampler(**steps, repetition_penalty=repetition_penalty),
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
