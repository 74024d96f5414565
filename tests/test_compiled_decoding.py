"""What the compiled programs of generation do not do: copy a cache, repeat a key, sort, grow."""

import contextlib
import re
from functools import cache

import jax
import numpy as np
import pytest
from decoding_models import make_job, make_loop, write
from text_models import make_model

from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.generation.beam import BeamSearch
from mistral_lib.generation.compiled import watch
from mistral_lib.generation.reading import PromptReader
from mistral_lib.generation.sampling import GREEDY, make_sampler

pytestmark = pytest.mark.slow

# Sizes by which every kind of array can be told from the others.
VOCABULARY, HIDDEN, INTERMEDIATE, HEADS, KEY_HEADS, HEAD = 500, 96, 160, 6, 3, 16
WINDOW, CHUNK = 64, 32
CACHE = KEY_HEADS * WINDOW * HEAD  # numbers in the keys of one block and row
SMALLEST_WEIGHT = HIDDEN * KEY_HEADS * HEAD


@cache
def backbone(lora=False):
    model = MistralBackbone(
        VOCABULARY, 2, HEADS, HIDDEN, INTERMEDIATE, KEY_HEADS, sliding_window=WINDOW, head_dim=HEAD
    )
    if lora:
        model.enable_lora(2)
    return model


@cache
def compiled_steps(batch=1, sampler="greedy", lora=False):
    """The decoding loop, as XLA compiled it."""
    sampler = GREEDY if sampler == "greedy" else make_sampler(1.0, top_k=5)
    loop, job = (
        make_loop(backbone(lora)),
        make_job([[1, 2, 3]] * batch, [100] * batch, None, sampler),
    )
    with watch() as calls:
        loop.run(loop.start(job), job, steps=9)
    assert calls[-1].name == "run_steps"
    return calls[-1].lower().compile()


def instructions(compiled):
    """Name of the operation and number of numbers in its result, of every instruction."""
    pattern = re.compile(r"= \w+\[([\d,]*)\]\S* ([\w-]+)\(")
    for shape, operation in pattern.findall(compiled.as_text()):
        yield operation, np.prod([int(size) for size in shape.split(",") if size], dtype=int)


@pytest.mark.parametrize(("batch", "lora"), [(1, False), (2, False), (1, True)])
def test_a_decoding_step_copies_neither_cache_nor_weights(batch, lora):
    found = list(instructions(compiled_steps(batch, lora=lora)))
    assert ("dot", batch * VOCABULARY) in found  # the text is read as it should be
    largest = max(size for operation, size in found if operation in ("copy", "transpose"))
    assert 0 < largest < min(CACHE, SMALLEST_WEIGHT) / 2
    for operation, size in found:
        if operation in ("convert", "concatenate", "pad", "broadcast", "gather", "reverse"):
            assert size < min(CACHE, SMALLEST_WEIGHT), operation


@pytest.mark.parametrize("batch", [1, 2])
def test_a_decoding_step_repeats_no_key(batch):
    """Of all results none has the cached keys of six heads, or both blocks at once."""
    repeated = CACHE * batch * HEADS // KEY_HEADS
    weights = {int(np.prod(variable.shape)) for variable in backbone().variables}
    assert not {size for _, size in instructions(compiled_steps(batch))} & ({repeated} - weights)


@pytest.mark.parametrize(("batch", "lora"), [(1, False), (2, False), (1, True)])
def test_workspace_of_decoding_is_smaller_than_any_weight_or_cache(batch, lora):
    memory = compiled_steps(batch, lora=lora).memory_analysis()
    scores = 4 * batch * HEADS * WINDOW
    assert memory.temp_size_in_bytes < 20 * scores
    assert memory.temp_size_in_bytes < 4 * min(CACHE * 4, SMALLEST_WEIGHT * 4)
    # The state is passed on in its own memory, cache included.
    state = memory.output_size_in_bytes
    assert memory.alias_size_in_bytes > 0.99 * state > 2 * 2 * batch * CACHE * 4


def test_greedy_decoding_sorts_no_vocabulary():
    def sorts(sampler):
        names = {operation for operation, _ in instructions(compiled_steps(1, sampler))}
        return names & {"sort", "topk", "rng-bit-generator", "custom-call"}

    assert not sorts("greedy")
    assert sorts("top_k")


def calls_of_reading(prompt_lengths, chunk_size=CHUNK):
    """Reads prompts, and returns the calls of the compiled function."""
    prompts = [[1 + i % 9 for i in range(length)] for length in prompt_lengths]
    reader = PromptReader(backbone(), chunk_size)
    with watch() as calls:
        reader.read(prompts, max_length=max(prompt_lengths) + 4)
    return calls


def test_workspace_of_a_long_prompt_is_that_of_a_short_one():
    """Prompts of 4 and of 40 chunks: the same compiled program, and one chunk's workspace."""
    workspaces = {}
    for chunks in (4, 40):
        calls = calls_of_reading([chunks * CHUNK])
        assert len(calls) == chunks
        assert sum(call.compiled for call in calls) == 1
        memory = calls[-1].lower().compile().memory_analysis()
        workspaces[chunks] = memory.temp_size_in_bytes
    assert workspaces[4] == workspaces[40]
    scores = HEADS * CHUNK * (WINDOW + CHUNK)
    hidden = CHUNK * (2 * INTERMEDIATE + 8 * HIDDEN)
    assert workspaces[40] < 4 * (4 * scores + hidden + 4 * 2 * CACHE)


def test_a_new_prompt_length_in_the_same_bucket_compiles_nothing():
    loop = make_loop(backbone())
    with watch() as calls:
        for length in (40, 33, 60, 57):
            write(loop, [[1] * length], [16])
    assert [call.name for call in calls if call.compiled] == ["read_chunk", "choose", "run_steps"]
    # Past the window only the last chunk differs: three more buckets for 2,000 lengths.
    reader = PromptReader(backbone(), chunk_size=64)
    with watch() as calls:
        for length in (100, 400, 1000, 1017, 2005):
            reader.read([[1] * length], max_length=length + 16)
    assert sum(call.compiled for call in calls) <= 3


def test_beams_past_the_window_need_no_more_memory():
    """The cache of a search is N windows, at 10 and at 1,000 tokens."""
    sizes = {}
    for limit in (100, 1000):
        search = BeamSearch(PromptReader(backbone()))
        state = search.start(make_job([[1, 2, 3]], [limit], num_beams=4))
        sizes[limit] = {array.shape for pair in state.cache.layers for array in pair}
    assert sizes[100] == sizes[1000] == {(4, KEY_HEADS, WINDOW, HEAD)}


@contextlib.contextmanager
def counted_compilations():
    """The names of all events in which XLA compiles, single operations too."""
    found, active = [], True

    def listen(event, seconds, **keywords):
        if active and event == "/jax/core/compile/backend_compile_duration":
            found.append(keywords.get("fun_name", event))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        active = False


def small_model():
    return MistralCausalLM(MistralBackbone(40, 1, 2, 8, 16, 1))


WAYS = {
    "greedy": {},
    "drawn": {"temperature": 1.0, "top_k": 5},
    "samples": {"temperature": 1.0, "num_samples": 2},
    "beams": {"num_beams": 2},
    "log probs": {"return_log_probs": True},
    "draft": {"draft_model": small_model},
    "stream": {},
}


def writer(way):
    """A function of rows, the tokens of a prompt, new tokens, stop tokens and a seed."""
    options = {name: value() if callable(value) else value for name, value in WAYS[way].items()}
    model = make_model() if way == "stream" else small_model()

    def write(rows, length, new, stops=(), seed=0):
        options.update(max_new_tokens=new, stop_token_ids=list(stops), seed=seed)
        if way == "stream":  # one text
            return list(model.stream("a" * length, **options))
        return model.generate([[1] * length, *([[2]] * (rows - 1))], **options)

    return write


@pytest.mark.parametrize("way", WAYS)
def test_one_compilation_serves_a_bucket(way):
    """Many numbers of rows, stop tokens and tokens compile nothing, not a single operation."""
    write, random = writer(way), np.random.default_rng(0)
    for rows in (1, 2, 3):  # buckets of 1, 2 and 4 rows; of 16 tokens of a prompt; of 32 in all
        write(rows, 8, 20)
    with counted_compilations() as found:
        for _ in range(30):
            length = int(random.integers(1, 9))
            new = int(random.integers(17, 29 - length))
            stops = random.integers(1, 40, random.integers(0, 4)).tolist()
            write(int(random.integers(1, 5)), length, new, stops, int(random.integers(100)))
    assert found == []
    with counted_compilations() as found:
        write(1, 8, 60)  # another bucket
    assert found
