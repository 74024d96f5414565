"""Loops that write with the sampler objects of `compile` (chapter 16, "Sampling")."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax import Array

from mistral_lib.arrays import Bool, Float, Int
from mistral_lib.checks import check_integer
from mistral_lib.generation.compiled import array_tree
from mistral_lib.generation.decoding import DecodingLoop, DecodingState, append
from mistral_lib.generation.full_cache import CachedCalls
from mistral_lib.generation.protocol import Job, watched
from mistral_lib.generation.reading import PromptReader, logits_of
from mistral_lib.generation.sampling import Sampler, token_log_probs

# Packages whose `Sampler` has a loop that `ObjectLoop` can take over.
PACKAGES = ("mistral_lib", "keras_hub", "keras_nlp")


@array_tree
class ObjectState(DecodingState):
    """The state of a loop whose sampler has variables.

    Attributes:
        variables: their values, the states of its seeds.
    """

    variables: list[Int[Array, "..."]]


class ObjectLoop(DecodingLoop):
    """The loop of `generate`, in which an object's `get_next_token` chooses.

    The object is traced, so a change to it takes effect only after the next `compile`.

    Args:
        reader: reads the prompts, with the backbone that writes.
        sampler: a `mistral_lib.samplers.Sampler`, or KerasHub's, with a `get_next_token`.
    """

    def __init__(self, reader: PromptReader, sampler: Any):
        super().__init__(reader)
        self.sampler = sampler

    def start(self, job: Job, lookahead: int = 1) -> ObjectState:
        """Reads the prompts and chooses the first token of every row."""
        state, hidden = self.begin(job, lookahead)
        fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
        state = ObjectState(**fields, variables=[jnp.copy(v.value) for v in self._variables])
        state = self.choose(state, hidden, job.sampler, job.stop_ids)
        return self._moved_on(state)

    def run(self, state: ObjectState, job: Job, steps: int | None = None) -> ObjectState:  # pyright: ignore[reportIncompatibleMethodOverride]  # its own state
        """Adds up to `steps` tokens to every unfinished row; by default as many as it may have."""
        return self._moved_on(super().run(state, job, steps))  # pyright: ignore[reportArgumentType]  # the same kind of state

    @property
    def _variables(self) -> list[keras.Variable]:
        return self.sampler.variables

    def _moved_on(self, state: ObjectState) -> ObjectState:
        """The state, after its values have been assigned to the object's own variables."""
        for variable, value in zip(self._variables, state.variables, strict=True):
            variable.assign(np.asarray(value))  # a copy: the state is donated later
        return state

    def _choose(  # pyright: ignore[reportIncompatibleMethodOverride]  # its own state
        self,
        state: ObjectState,
        hidden: Float[Array, "B D"],
        sampler: Sampler,
        stop_tokens: Int[Array, " n"],
    ) -> ObjectState:
        """Chooses the next token of every unfinished row and stores it."""
        logits = logits_of(self.backbone, hidden[:, None])[:, 0]
        with keras.StatelessScope(
            list(zip(self._variables, state.variables, strict=True))
        ) as scope:
            probabilities = self.sampler.compute_probabilities(logits)
            token = jnp.asarray(self.sampler.get_next_token(probabilities), "int32")
            values = [jnp.asarray(scope.get_current_value(v)) for v in self._variables]
        log_probs = None if state.log_probs is None else token_log_probs(logits, token)[:, None]
        state = watched(dataclasses.replace(state, variables=values), logits)
        return append(state, token[:, None], 1, stop_tokens, log_probs)


@array_tree
class WrittenState:
    """Rows that were written all at once; see `LoopState`."""

    tokens: Int[Array, "B capacity"]
    counts: Int[Array, " B"]
    finished: Bool[Array, " B"]
    failed: Bool[Array, " B"]
    log_probs: Float[Array, "B capacity"] | None = None


class WholeLoop:
    """A loop in which a model's `generate_function` writes whole rows, from prompt to end.

    Args:
        model: its `sampler` is called once for each batch, and runs the loop.
    """

    def __init__(self, model: CachedCalls):
        self.model = model

    def start(self, job: Job) -> WrittenState:
        """Writes all rows of the job.

        Raises:
            ValueError: the job asks for log-probabilities, which the sampler does not return.
        """
        if job.log_probs:
            raise ValueError(
                "return_log_probs must be False with a sampler that has a loop of its own, but is "
                "True. Pass a temperature, 0 for the likeliest tokens."
            )
        prompts = [row for row in job.prompts for _ in range(job.num_samples)]
        limits = np.repeat(job.limits, job.num_samples)
        token_ids = np.zeros((job.num_rows, job.longest), "int32")
        lengths = np.array([len(row) for row in prompts])
        for padded_row, row in zip(token_ids, prompts, strict=True):
            padded_row[: len(row)] = row
        inputs = {"token_ids": token_ids, "padding_mask": np.arange(job.longest) < lengths[:, None]}
        function = self.model.make_generate_function()
        outputs = jax.device_get(function(inputs, stop_token_ids=job.stop_tokens or None))
        ends = np.minimum(outputs["padding_mask"].sum(axis=1), lengths + limits)
        tokens = np.zeros((job.num_rows, job.capacity), "int32")
        for row, new, begin, end in zip(outputs["token_ids"], tokens, lengths, ends, strict=True):
            new[: end - begin] = row[begin:end]
        done = np.ones(job.num_rows, bool)
        return WrittenState(*(jnp.array(array) for array in (tokens, ends - lengths, done, ~done)))

    def run(self, state: WrittenState, job: Job, steps: int | None = None) -> WrittenState:
        """Nothing is left to write."""
        return state


def has_own_loop(sampler: Any) -> bool:
    """Whether an object chooses in a loop of its own, and not by `get_next_token` alone.

    >>> from mistral_lib import samplers
    >>> has_own_loop(samplers.TopKSampler()), has_own_loop(samplers.ContrastiveSampler())
    (False, True)
    """
    for method in ("__call__", "run_loop"):
        owner = next(
            (each for each in type(sampler).__mro__ if method in vars(each)), type(sampler)
        )
        package = owner.__module__.partition(".")[0]
        if owner.__name__ != "Sampler" or package not in PACKAGES:
            return True
    return False


@contextlib.contextmanager
def seeded(sampler: Any, seed: Any) -> Iterator[None]:
    """Makes an object draw from a seed inside a `with` block, and restores its own seeds.

    Args:
        sampler: any object, or `None`. Only its `variables`, which are the states of its seeds, are
            changed.
        seed: an integer, or `None` to change nothing.
    """
    variables = []
    if sampler is not None and seed is not None:
        seed = check_integer("seed of a sampler object", seed, minimum=0)
        variables = getattr(sampler, "variables", [])
    before = [np.asarray(variable.value) for variable in variables]
    for variable in variables:
        variable.assign(np.array([seed, 0], before[0].dtype))
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
