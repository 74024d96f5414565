"""What every loop that writes tokens takes, returns and runs (chapter 16, "Sampling")."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mistral_lib.arrays import Bool, Float, Int
from mistral_lib.generation.compiled import bucket, power_of_two
from mistral_lib.generation.sampling import GREEDY, Sampler


@dataclasses.dataclass(frozen=True)
class Job:
    """What to write: continuations of some prompts, as token ids.

    Attributes:
        prompts: token ids, at least one in each prompt.
        limits: how many tokens may follow each prompt, at least 1.
        seeds: one for each row: equal seeds on equal prompts draw equal tokens.
        sampler: how tokens are chosen.
        stop_tokens: token ids that end a row.
        num_samples: rows for each prompt, which is read once; they stand one after another.
        num_beams: for `BeamSearch`, how many beams each prompt has.
        length_penalty: for `BeamSearch`; above 0 favours long texts, below 0 short ones.
        log_probs: whether to keep the tokens' log-probabilities.

    >>> job = Job([[1, 2, 3], [4]], limits=[5, 5], seeds=[0, 1])
    >>> job.num_rows, job.longest
    (2, 8)
    """

    prompts: list[list[int]]
    limits: list[int]
    seeds: list[int]
    sampler: Sampler = GREEDY
    stop_tokens: tuple[int, ...] = ()
    num_samples: int = 1
    num_beams: int = 1
    length_penalty: float = 1.0
    log_probs: bool = False

    @property
    def num_rows(self) -> int:
        """How many continuations are written."""
        return len(self.prompts) * self.num_samples

    @property
    def longest(self) -> int:
        """The most tokens that a row can have, prompt and continuation together."""
        return max(len(p) + n for p, n in zip(self.prompts, self.limits, strict=True))

    @property
    def capacity(self) -> int:
        """Room for the new tokens of a row: the largest limit, rounded up."""
        return bucket(max(self.limits))

    @property
    def stop_ids(self) -> Int[np.ndarray, " n"]:
        """The stop tokens as an array, filled up with -1, which no token is, to a power of two."""
        number = len(self.stop_tokens)
        filling = [-1] * (max(4, power_of_two(number)) - number)
        return np.array([*self.stop_tokens, *filling], "int32")

    def used_tokens(self, vocabulary_size: int, repeats: int) -> Bool[Array, "rows V"] | None:
        """Which tokens each prompt holds, for `repeats` rows each.

        Only the repetition penalty asks for them: without one `None`.
        """
        if self.sampler.repetition_penalty is None:
            return None
        used = np.zeros((len(self.prompts), vocabulary_size), bool)
        for row, prompt in zip(used, self.prompts, strict=True):
            row[prompt] = True
        return jnp.repeat(jnp.array(used), repeats, axis=0)

    def batches(self, batch_size: int) -> Iterator["Job"]:
        """The job in parts of at most `batch_size` rows, or of one prompt."""
        number = max(1, batch_size // self.num_samples)
        for begin in range(0, len(self.prompts), number):
            prompts = slice(begin, begin + number)
            rows = slice(begin * self.num_samples, (begin + number) * self.num_samples)
            yield dataclasses.replace(
                self,
                prompts=self.prompts[prompts],
                limits=self.limits[prompts],
                seeds=self.seeds[rows],
            )

    def filled_up(self, most: int) -> tuple["Job", Int[np.ndarray, " rows"]]:
        """The job with as many rows as the next power of two, and which of them are its own.

        So one compilation serves all numbers of rows in between.

        Args:
            most: how many rows there may be, but for those that there are.

        >>> filled, own = Job([[1, 2], [3], [4]], limits=[5, 6, 7], seeds=[0, 1, 2]).filled_up(32)
        >>> filled.prompts, own.tolist()
        ([[1, 2], [3], [4], [1]], [0, 1, 2])
        """
        number, samples = len(self.prompts), power_of_two(self.num_samples)
        if number * samples > most:
            samples = self.num_samples
        added = max(0, min(power_of_two(number), most // samples) - number)
        rows = np.arange((number + added) * samples).reshape(-1, samples)
        own = rows[:number, : self.num_samples].ravel()
        seeds = np.zeros(rows.size, int)
        seeds[own] = self.seeds
        filled = dataclasses.replace(
            self,
            prompts=[*self.prompts, *[self.prompts[0][:1]] * added],
            limits=[*self.limits, *[1] * added],
            seeds=seeds.tolist(),
            num_samples=samples,
        )
        return filled, own


@runtime_checkable
class LoopState(Protocol):
    """What can be read of a job that is being written; a frozen dataclass and a JAX tree."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    def tokens(self) -> Int[Array, "B capacity"]:
        """The new tokens of each row."""
        ...

    @property
    def counts(self) -> Int[Array, " B"]:
        """How many new tokens each row has."""
        ...

    @property
    def finished(self) -> Bool[Array, " B"]:
        """Which rows get no more."""
        ...

    @property
    def failed(self) -> Bool[Array, " B"]:
        """Which rows had logits that are no finite numbers, and so get no more."""
        ...

    @property
    def log_probs(self) -> Float[Array, "B capacity"] | None:
        """The log-probabilities of the new tokens, if the job asks for them."""
        ...


State = TypeVar("State", bound=LoopState)


class Loop(Protocol[State]):
    """A way to write: `DecodingLoop`, `BeamSearch` or `SpeculativeLoop`."""

    def start(self, job: Job) -> State:
        """Reads the prompts, and chooses the first token of every row."""
        ...

    def run(self, state: State, job: Job, steps: int | None = None) -> State:
        """Goes on with every unfinished row, for some steps or, by default, to the end.

        The state that is passed in is used up: its memory becomes that of the returned one.
        """
        ...


def step_until_finished(
    step: Callable[[State], State], state: State, steps: Int[Array, ""]
) -> State:
    """Repeats a step until every row has finished, `steps` times at most; to be compiled."""

    def unfinished(carry):
        state, done = carry
        return (done < steps) & ~state.finished.all()

    def count(carry):
        state, done = carry
        return step(state), done + 1

    return jax.lax.while_loop(unfinished, count, (state, 0))[0]


def watched(
    state: State,
    logits: Float[Array, "B *steps V"],
    likeliest: Int[Array, "B *steps"] | None = None,
) -> State:
    """The state, where unfinished rows whose logits are NaN or infinite have failed.

    The largest logit is NaN if any is, and it is the likeliest token's, whose number saves a look
    at the whole vocabulary. Filtered logits of -inf do no harm.
    """
    if likeliest is None:
        largest = logits.max(axis=-1)
    else:
        largest = jnp.take_along_axis(logits, likeliest[..., None], axis=-1)
    finite = jnp.isfinite(largest).reshape(len(logits), -1).all(axis=1)
    failed = state.failed | ~(finite | state.finished)
    return dataclasses.replace(state, failed=failed, finished=state.finished | failed)


def mark_used(used_tokens: Bool[Array, "B V"], tokens: Int[Array, " B"]) -> Bool[Array, "B V"]:
    """Which tokens each row holds, after one more."""
    return used_tokens.at[jnp.arange(len(tokens)), tokens].set(True)
