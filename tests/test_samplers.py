"""training/samplers.py: what is counted, and the record is of this script."""

import pytest
import samplers

from mistral_lib import MistralCausalLM
from mistral_lib.teaching import panel, sampler_sweep

RECORD = sampler_sweep.record()


def test_variety_counts_sequences_that_differ():
    assert samplers.variety([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]) == 0.5
    assert samplers.variety([[1, 2, 3, 4, 5], [2, 3, 4, 5, 6]]) == 0.75
    assert samplers.variety([[1], [1], [2], [3]]) == 0.75


def test_pairs_of_words_are_those_inside_a_text():
    known = samplers.known_pairs(["The text is not changed.", "A list of lines"])
    assert ("a", "list") in known
    assert samplers.share_known(["zzz the text is not yyy"], known) == 1
    assert samplers.share_known(["zzz the list of lines yyy"], known) == 2 / 3
    assert samplers.share_known([""], known) == 1


def test_the_other_half_begins_where_the_first_ends():
    first, second = samplers.halves_of(list(range(101)))
    assert (first, second) == (list(range(50)), list(range(50, 82)))


@pytest.mark.slow
def test_a_short_measurement():
    """A cut that leaves one token writes one text, whichever the sampler."""
    model = MistralCausalLM.from_preset("mistral_tiny_en")
    prompts = panel.docstrings(model.preprocessor.tokenizer).where([True] * 2 + [False] * 70)
    greedy = samplers.measure(model, prompts, set(), 2, top_k=1)
    for setting in ({"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 1e-6}):
        assert samplers.measure(model, prompts, set(), 2, **setting) == greedy
    assert max(greedy["variety"]) <= 0.5


def test_the_record_is_of_this_script():
    tried = [row["setting"] for row in RECORD["settings"]]
    plain = [{name: value} for name, values in samplers.SETTINGS.items() for value in values]
    hot = [s | {"temperature": samplers.HOT} for s in plain if s.keys() & set(samplers.CUTS)]
    assert tried == plain + hot
    assert (RECORD["texts"], RECORD["new"]) == (samplers.TEXTS, samplers.NEW)
    sizes = {"docstrings": 72, "documents": 52}
    assert {kind: len(half) for kind, half in RECORD["confirms"].items()} == sizes
    for row in RECORD["settings"]:
        for kind, size in sizes.items():
            for numbers in row[kind].values():
                assert len(numbers) == size
                assert 0 <= min(numbers) <= max(numbers) <= 1
