"""mistral_lib/generation/protocol.py: what a job says, and a loop that stops in time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mistral_lib.generation.compiled import array_tree
from mistral_lib.generation.protocol import Job, step_until_finished
from mistral_lib.generation.sampling import make_sampler

JOB = Job([[1, 2, 3], [4], [5, 6]], [7, 20, 3], [0, 1, 2, 3, 4, 5], num_samples=2)


def test_sizes():
    assert JOB.num_rows == 6
    assert JOB.longest == 21
    assert JOB.capacity == 32
    with pytest.raises(ValueError, match="shorter"):
        _ = Job([[1], [2]], [3], [0, 0]).longest


def test_stop_ids():
    assert Job([[1]], [1], [0], stop_tokens=(2, 5)).stop_ids.tolist() == [2, 5, -1, -1]
    assert (JOB.stop_ids.tolist(), str(JOB.stop_ids.dtype)) == ([-1] * 4, "int32")
    assert len(Job([[1]], [1], [0], stop_tokens=(1, 2, 3, 4, 5)).stop_ids) == 8


def test_used_tokens():
    assert JOB.used_tokens(8, 2) is None
    job = Job([[1, 2, 1], [4]], [1, 1], [0, 0], make_sampler(repetition_penalty=1.5))
    used = np.array(job.used_tokens(6, repeats=2))
    assert [np.flatnonzero(row).tolist() for row in used] == [[1, 2], [1, 2], [4], [4]]


def test_batches_keep_rows_and_seeds_together():
    parts = list(JOB.batches(4))
    assert [part.prompts for part in parts] == [[[1, 2, 3], [4]], [[5, 6]]]
    assert [part.limits for part in parts] == [[7, 20], [3]]
    assert [part.seeds for part in parts] == [[0, 1, 2, 3], [4, 5]]
    assert [part.prompts for part in JOB.batches(1)] == [[prompt] for prompt in JOB.prompts]


@pytest.mark.parametrize(
    ("prompts", "samples", "most", "rows"),
    [(1, 1, 32, 1), (3, 1, 32, 4), (5, 3, 32, 32), (5, 3, 16, 15), (5, 1, 6, 6), (3, 1, 1, 3)],
)
def test_jobs_are_filled_up(prompts, samples, most, rows):
    job = Job([[7, 8]] * prompts, [9] * prompts, [*range(prompts * samples)], num_samples=samples)
    filled, own = job.filled_up(most)
    assert (filled.num_rows, len(filled.seeds), len(filled.limits)) == (
        rows,
        rows,
        len(filled.prompts),
    )
    assert [filled.seeds[row] for row in own] == job.seeds
    assert [filled.prompts[row // filled.num_samples] for row in own] == [[7, 8]] * job.num_rows
    assert filled.longest == job.longest


@array_tree
class Countdown:
    """A state whose rows are finished when they have no token left."""

    tokens: jax.Array
    counts: jax.Array
    log_probs: None = None

    @property
    def finished(self):
        return self.counts <= 0

    @property
    def failed(self):
        return jnp.zeros_like(self.finished)


@pytest.mark.parametrize(("steps", "counts"), [(0, [2, 5]), (3, [-1, 2]), (100, [-3, 0])])
def test_steps_end_with_the_last_row(steps, counts):
    def step(state):
        return Countdown(state.tokens, state.counts - 1)

    state = Countdown(jnp.zeros((2, 16), int), jnp.array([2, 5]))
    run = jax.jit(lambda state, steps: step_until_finished(step, state, steps))
    assert run(state, np.int32(steps)).counts.tolist() == counts
