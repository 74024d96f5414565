"""A job of many prompts, written in batches (chapter 16, "Sampling")."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from mistral_lib.backbone import MistralBackbone
from mistral_lib.generation.cache import num_slots
from mistral_lib.generation.compiled import bucket
from mistral_lib.generation.protocol import Job, Loop, State
from mistral_lib.generation.stopping import Transcript
from mistral_lib.presets.memory import available_bytes

STEPS_WATCHED = 16  # after so many steps the progress is shown
LARGE_JOB = 2**28  # bytes; for smaller jobs the free memory is not looked up
BAR_DELAY = 3.0  # seconds after which a job is long enough for a bar


@dataclasses.dataclass(frozen=True)
class Block:
    """The state of a job after some steps.

    Attributes:
        rows: the new tokens of every row so far.
        finished: how many rows are finished.
        log_probs: of the tokens, if the job asks for them; also for rows that were added.
        own: which of those rows belong to the job.
    """

    rows: list[list[int]]
    finished: int
    log_probs: jax.Array | None
    own: np.ndarray


def blocks(
    loop: Loop[State],
    job: Job,
    steps: int | None = None,
    transcripts: Sequence[Transcript] = (),
    batch_size: int = 1,
) -> Iterator[Block]:
    """Writes a job, and looks at it from time to time.

    Args:
        loop: writes it.
        job: what to write.
        steps: how many steps are run in between; by default all.
        transcripts: one for each row, which read along; one that stops ends its row.
        batch_size: rows are added to the job up to this number: see `Job.filled_up`.

    Yields:
        The rows so far.

    Raises:
        ValueError: the model's logits are not finite.
    """
    filled, own = job.filled_up(batch_size)
    state = loop.start(filled)
    stopped = np.ones(filled.num_rows, bool)  # the added rows stop at once
    while True:
        seen = jax.device_get((state.tokens, state.counts, state.finished, state.failed))
        tokens, counts, finished, failed = (array[own] for array in seen)
        if failed.any():
            raise ValueError(
                "The logits must be finite numbers, but are NaN or infinite: no token can be "
                "chosen. Either some weights are NaN or infinite (check model.variables with "
                "numpy.isfinite, and those of a draft model), or float16 is too small for this "
                "model: load it with dtype='bfloat16' or 'float32'."
            )
        yield Block(_rows(tokens, counts), int(finished.sum()), state.log_probs, own)
        stopped[own] = [transcript.stopped for transcript in transcripts] or False
        if stopped.any():
            state = dataclasses.replace(state, finished=state.finished | stopped)
        if state.finished.all():
            return
        state = loop.run(state, job, steps)


def check_memory(backbone: MistralBackbone, job: Job, batch_size: int, lookahead: int) -> None:
    """Refuses a job that does not fit in memory, before anything is allocated for it.

    Args:
        backbone: the model that writes it.
        job: what to write.
        batch_size: how many rows are written at once.
        lookahead: the largest number of tokens that are written at once.

    Raises:
        ValueError: the job is longer than int32 positions allow.
        MemoryError: cache, tokens and logits need more memory than is available.
    """
    config, longest = backbone.config, job.longest + lookahead
    if longest > 2**30:
        raise ValueError(
            f"Prompt and continuation together must be at most {2**30:,} tokens, but could be "
            f"{longest:,}. Lower max_new_tokens, max_length or num_draft_tokens."
        )
    slots = sum(num_slots(config, bucket(longest), lookahead))
    features = 2 * config.num_key_value_heads * config.head_dim  # keys and values
    row = slots * features * jnp.dtype(backbone.compute_dtype).itemsize
    kept = 1 if job.num_beams == 1 else 2  # the running beams and the finished ones
    row += 4 * (kept * job.capacity * (1 + job.log_probs) + lookahead * config.vocabulary_size)
    rows = min(job.num_rows, max(batch_size, job.num_samples)) * job.num_beams
    if rows * row > LARGE_JOB and rows * row > (available := available_bytes()):
        raise MemoryError(
            f"Writing up to {job.longest:,} tokens in {rows:,} rows at once needs "
            f"{rows * row / 2**30:,.1f} GiB, but only {available / 2**30:,.1f} GiB are available. "
            "Lower max_new_tokens or max_length, batch_size, num_samples or num_beams."
        )


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
            for block in blocks(loop, batch, steps, readers, batch_size):
                for index, (reader, row) in enumerate(zip(readers, block.rows)):
                    texts[index] += reader.read(row)
                bar.update(len(done) + block.finished - bar.n)
            done += _continuations(block, readers, texts)  # pyright: ignore[reportPossiblyUnboundVariable]  # blocks yields
            bar.update(len(done) - bar.n)
    return done


def _continuations(
    block: Block, readers: Sequence[Transcript], texts: list[str]
) -> list[Continuation]:
    log_probs = [None] * len(block.rows)
    if block.log_probs is not None:
        log_probs = _rows(jax.device_get(block.log_probs)[block.own], map(len, block.rows))
    done = []
    for index, (tokens, values) in enumerate(zip(block.rows, log_probs, strict=True)):
        text, length = None, len(tokens)
        if readers:
            text, length = texts[index] + readers[index].flush(), readers[index].length
        values = None if values is None else values[:length]
        done.append(Continuation(tokens[:length], values, text))
    return done


def _rows(values, counts) -> list[list]:
    return [row[:count].tolist() for row, count in zip(values, counts, strict=True)]
