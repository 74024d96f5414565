"""A job of many prompts, written in batches (chapter 16, "Sampling")."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence

import jax
import numpy as np
import tqdm

from mistral_lib.generation.protocol import Job, Loop, LoopState, State
from mistral_lib.generation.stopping import Transcript

STEPS_WATCHED = 16  # after so many steps the progress is shown
BAR_DELAY = 3.0  # seconds after which a job is long enough for a bar


def blocks(
    loop: Loop[State], job: Job, steps: int | None = None, transcripts: Sequence[Transcript] = ()
) -> Iterator[tuple[list[list[int]], State]]:
    """Writes a job, and looks at it from time to time.

    Args:
        loop: writes it.
        job: what to write.
        steps: how many steps are run in between; by default all.
        transcripts: one for each row, which read along; one that stops ends its row.

    Yields:
        The new tokens of every row so far, and the state.
    """
    state = loop.start(job)
    while True:
        yield _rows(state.tokens, state.counts), state
        stopped = np.array([transcript.stopped for transcript in transcripts], bool)
        if stopped.any():
            state = dataclasses.replace(state, finished=state.finished | stopped)
        if state.finished.all():
            return
        state = loop.run(state, job, steps)


@dataclasses.dataclass(frozen=True)
class Continuation:
    """One finished row: its tokens, their log-probabilities or `None`, its text or `None`."""

    tokens: list[int]
    log_probs: list[float] | None
    text: str | None


def write(
    loop: Loop,
    job: Job,
    transcripts: Sequence[Transcript],
    batch_size: int,
    verbose: bool | None,
    steps: int | None = None,
) -> list[Continuation]:
    """Writes a job to its end.

    Args:
        loop: writes it.
        job: what to write.
        transcripts: one for each row if texts are wanted, else none.
        batch_size: how many rows are written at once.
        verbose: whether to show a progress bar on stderr. `None` shows one on a terminal, if there
            are several rows and they take longer than three seconds.
        steps: how many steps are run before the transcripts look for stop strings; `None` if there
            are none to look for.
    """
    total = job.num_rows
    shown = verbose or (verbose is None and total > 1 and sys.stderr.isatty())
    delay = 0 if verbose else BAR_DELAY
    steps = steps or (STEPS_WATCHED if shown else None)
    done = []
    with tqdm.tqdm(total=total, unit="text", disable=not shown, delay=delay) as bar:
        for batch in job.batches(batch_size):
            readers = transcripts[len(done) : len(done) + batch.num_rows]
            texts = [""] * len(readers)
            for rows, state in blocks(loop, batch, steps, readers):
                for index, (reader, row) in enumerate(zip(readers, rows)):
                    texts[index] += reader.read(row)
                bar.update(len(done) + int(state.finished.sum()) - bar.n)
            finished = rows, state  # pyright: ignore[reportPossiblyUnboundVariable]  # blocks yields
            done += _continuations(*finished, readers, texts)
            bar.update(len(done) - bar.n)
    return done


def _continuations(
    rows: list[list[int]], state: LoopState, readers: Sequence[Transcript], texts: list[str]
) -> list[Continuation]:
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
