"""A job of many prompts, written in batches (chapter 16, "Sampling")."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence

import jax
import numpy as np
import tqdm

from mistral_lib.generation.sampling import Sampler
from mistral_lib.generation.stopping import Transcript

STEPS_WATCHED = 16  # after so many steps the progress is shown
BAR_DELAY = 3.0  # seconds after which a job is long enough for a bar


@dataclasses.dataclass(frozen=True)
class Job:
    """What to write.

    Attributes:
        loop: a `DecodingLoop`, `SpeculativeLoop` or `BeamSearch`.
        prompts: token ids, one list for each prompt.
        limits: how many tokens may follow each prompt.
        seeds: one for each row.
        sampler: how tokens are chosen.
        stop_tokens: ids that end a row.
        num_samples: rows for each prompt.
        log_probs: whether the tokens' log-probabilities are wanted.
        options: further arguments of the loop's `start`.
    """

    loop: object
    prompts: list[list[int]]
    limits: list[int]
    seeds: list[int]
    sampler: Sampler
    stop_tokens: tuple[int, ...] = ()
    num_samples: int = 1
    log_probs: bool = False
    options: dict = dataclasses.field(default_factory=dict)

    def blocks(self, steps: int | None = None, transcripts: Sequence[Transcript] = ()) -> Iterator:
        """Writes, and yields the new tokens of every row so far, a list of lists, and the state.

        Args:
            steps: how many steps are run in between; by default all.
            transcripts: one for each row, which read along; one that stops ends its row.
        """
        options = dict(self.options)
        if self.num_samples > 1:
            options["num_samples"] = self.num_samples
        state = self.loop.start(
            self.prompts,
            self.limits,
            self.seeds,
            self.sampler,
            self.stop_tokens,
            log_probs=self.log_probs,
            **options,
        )
        while True:
            rows = _rows(state.tokens, state.counts)
            yield rows, state
            stopped = np.array([transcript.stopped for transcript in transcripts], bool)
            if stopped.any():
                state = dataclasses.replace(state, finished=state.finished | stopped)
            if state.finished.all():
                return
            state = self.loop.run(state, self.sampler, self.stop_tokens, steps)

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


@dataclasses.dataclass(frozen=True)
class Continuation:
    """One finished row: its tokens, their log-probabilities or `None`, its text or `None`."""

    tokens: list[int]
    log_probs: list[float] | None
    text: str | None


def write(
    job: Job, transcripts: Sequence[Transcript], batch_size: int, verbose: bool | None, steps: int
) -> list[Continuation]:
    """Writes a job to its end.

    Args:
        job: the job.
        transcripts: one for each row if texts are wanted, else none.
        batch_size: how many rows are written at once.
        verbose: whether to show a progress bar on stderr. `None` shows one on a terminal, if there
            are several rows and they take longer than three seconds.
        steps: how many steps are run before the transcripts look for stop strings; 0 if there are
            none to look for.
    """
    total = len(job.prompts) * job.num_samples
    shown = verbose or (verbose is None and total > 1 and sys.stderr.isatty())
    delay = 0 if verbose else BAR_DELAY
    steps = steps or (STEPS_WATCHED if shown else None)
    done = []
    with tqdm.tqdm(total=total, unit="text", disable=not shown, delay=delay) as bar:
        for batch in job.batches(batch_size):
            size = len(batch.prompts) * job.num_samples
            readers = transcripts[len(done) : len(done) + size]
            texts = [""] * len(readers)
            for rows, state in batch.blocks(steps, readers):
                for index, (reader, row) in enumerate(zip(readers, rows)):
                    texts[index] += reader.read(row)
                bar.update(len(done) + int(state.finished.sum()) - bar.n)
            done += _continuations(rows, state, readers, texts)
            bar.update(len(done) - bar.n)
    return done


def _continuations(rows, state, readers, texts) -> list[Continuation]:
    log_probs = [None] * len(rows)
    if state.log_probs is not None:
        log_probs = _rows(state.log_probs, state.counts)
    done = []
    for index, (tokens, values) in enumerate(zip(rows, log_probs, strict=True)):
        text, length = None, len(tokens)
        if readers:
            text, length = texts[index] + readers[index].flush(), readers[index].length
        values = None if values is None else values[:length]
        done.append(Continuation(tokens[:length], values, text))
    return done


def _rows(values, counts) -> list[list]:
    values, counts = jax.device_get((values, counts))
    return [row[:count].tolist() for row, count in zip(values, counts, strict=True)]
