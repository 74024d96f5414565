"""mistral_lib/generation/loops.py: what has been compiled is kept, and shared where it can be."""

from decoding_models import make_backbone, make_job, write

from mistral_lib.generation.compiled import watch
from mistral_lib.generation.loops import Loops


def test_prompts_are_read_by_one_compiled_function():
    loops, draft = Loops(make_backbone()), Loops(make_backbone(1, layers=1))
    with watch() as calls:
        write(loops.decoding, [[1, 2, 3]], [4])
        write(loops.beam_search, [[1, 2, 3]], [4], num_beams=2)
        write(loops.speculative(draft.reader, 2), [[1, 2, 3]], [13])
    reading = [call for call in calls if call.name == "read_chunk"]
    assert [call.function is loops.reader.read_chunk for call in reading] == [True] * 3 + [False]
    # With the lookahead of speculation there are more slots; the draft has weights of its own.
    assert [call.compiled for call in reading] == [True, False, True, True]


def test_loops_are_kept():
    loops, draft = Loops(make_backbone()), Loops(make_backbone(1, layers=1))
    assert loops.beam_search is loops.beam_search
    first = loops.speculative(draft.reader, 2)
    assert loops.speculative(draft.reader, 2) is first
    assert loops.speculative(draft.reader, 3) is not first
    assert loops.speculative(loops.reader, 3).draft is loops.reader


def test_one_batch_of_every_kind_is_what_generate_writes():
    """The job that `generate` makes has no more to say than this one."""
    from mistral_lib import MistralCausalLM

    backbone = make_backbone()
    loops, model = Loops(backbone), MistralCausalLM(backbone)
    got = write(loops.beam_search, [[1, 2, 3]], [6], num_beams=3, length_penalty=0.5)
    options = {"num_beams": 3, "length_penalty": 0.5, "strip_prompt": True}
    assert got == [model.generate([1, 2, 3], max_new_tokens=6, **options)]
    job = make_job([[1, 2, 3]], [6], [5], num_samples=1)
    assert write(loops.decoding, job.prompts, job.limits) == [
        model.generate([1, 2, 3], max_new_tokens=6, strip_prompt=True)
    ]
