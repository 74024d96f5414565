"""mistral_lib/generation/jobs.py: batches, blocks, transcripts, the bar."""

import dataclasses
import io

import jax.numpy as jnp
import pytest

from mistral_lib.generation import jobs
from mistral_lib.generation.jobs import write
from mistral_lib.generation.protocol import Job


@dataclasses.dataclass(frozen=True)
class CountingState:
    """The state of a loop that writes 1, 2, 3, ... behind every prompt."""

    tokens: jnp.ndarray
    counts: jnp.ndarray
    finished: jnp.ndarray
    failed: jnp.ndarray
    log_probs: jnp.ndarray | None


class CountingLoop:
    """Notes every call; a row ends at its limit."""

    def __init__(self):
        self.calls = []

    def start(self, job):
        self.calls.append(job)
        self.limits = jnp.repeat(jnp.array(job.limits), job.num_samples)
        tokens = jnp.tile(jnp.arange(1, 101), (job.num_rows, 1))
        counts = jnp.ones(job.num_rows, int)
        return CountingState(
            tokens,
            counts,
            counts >= self.limits,
            jnp.zeros(job.num_rows, bool),
            -tokens * 0.5 if job.log_probs else None,
        )

    def run(self, state, job, steps=None):
        self.calls.append(steps)
        steps = 100 if steps is None else steps
        counts = jnp.minimum(state.counts + steps * ~state.finished, self.limits)
        return dataclasses.replace(state, counts=counts, finished=counts >= self.limits)


class Watcher:
    """A transcript that stops after a number of tokens."""

    def __init__(self, stop_after):
        self.stop_after, self.length = stop_after, 0

    @property
    def stopped(self):
        return self.length == self.stop_after

    def read(self, ids):
        new = ids[self.length : self.stop_after]
        self.length += len(new)
        return "".join(f"{id} " for id in new)

    def flush(self):
        return "."


def make_job(number=3, limits=(5, 2, 40), **options):
    seeds = list(range(number * options.get("num_samples", 1)))
    return Job([[0]] * number, list(limits)[:number], seeds, **options)


def test_rows_end_at_their_limits():
    done = write(CountingLoop(), make_job(log_probs=True), [], batch_size=8, verbose=None)
    assert [len(each.tokens) for each in done] == [5, 2, 40]
    assert done[1].tokens == [1, 2]
    assert done[1].log_probs == [-0.5, -1.0]
    assert done[0].text is None


def test_without_a_watcher_the_loop_runs_in_one_call():
    loop = CountingLoop()
    write(loop, make_job(), [], batch_size=8, verbose=None)
    assert loop.calls[1:] == [None]


def test_a_transcript_ends_its_row_and_no_other():
    loop, readers = CountingLoop(), [Watcher(3), Watcher(9), Watcher(10)]
    done = write(loop, make_job(log_probs=True), readers, 8, verbose=None, steps=4)
    assert [each.text for each in done] == ["1 2 3 .", "1 2 .", "1 2 3 4 5 6 7 8 9 10 ."]
    assert [each.tokens for each in done] == [[1, 2, 3], [1, 2], list(range(1, 11))]
    assert [len(each.log_probs) for each in done] == [3, 2, 10]
    assert loop.calls[1:] == [4, 4, 4]  # 1, 5, 9, 13 tokens: then the last one has stopped


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1, 1, 1]), (4, [2, 1]), (6, [3]), (8, [4])])
def test_batches(batch_size, sizes):
    """Two samples a prompt: half as many prompts as rows, and never less than one."""
    loop = CountingLoop()
    done = write(loop, make_job(num_samples=2), [], batch_size, verbose=None)
    starts = [call for call in loop.calls if isinstance(call, Job)]
    assert [len(job.prompts) for job in starts] == sizes
    assert [seed for job in starts for seed in job.seeds][:6] == [*range(6)]
    assert [len(each.tokens) for each in done] == [5, 5, 2, 2, 40, 40]


class Terminal(io.StringIO):
    """An stderr at which a person sits."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("verbose", "stderr", "delay", "number", "shown"),
    [
        (None, io.StringIO, 0, 3, False),
        (None, Terminal, 0, 3, True),
        (None, Terminal, 60, 3, False),  # over before the bar would come
        (None, Terminal, 0, 1, False),  # one text is no job
        (True, io.StringIO, 60, 1, True),
        (False, Terminal, 0, 3, False),
    ],
)
def test_bar(monkeypatch, verbose, stderr, delay, number, shown):
    stream = stderr()
    monkeypatch.setattr(jobs.sys, "stderr", stream)
    monkeypatch.setattr(jobs, "BAR_DELAY", delay)
    write(CountingLoop(), make_job(number), [], batch_size=2, verbose=verbose)
    assert (f"{number}/{number}" in stream.getvalue()) == shown
