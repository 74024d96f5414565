"""mistral_lib/teaching/ablations.py: best rates, paired differences, intervals; and the records."""

import json
from dataclasses import asdict
from pathlib import Path

import ablations as script
import numpy as np
import pytest
from scipy.stats import t as student
from variants import Settings

from mistral_lib.teaching import ablations

GROUP_BYTES = [100, 300, 600]


def run(variant, rate, seed, groups, step=(5, 9, 10)):
    bits = None if groups is None else round(float(np.average(groups, weights=GROUP_BYTES)), 4)
    curve = {"step": list(step), "held_out": [3.0, 2.0 + seed / 100, 2.0]}
    return {
        "variant": variant,
        "learning_rate": rate,
        "seed": seed,
        "held_out_bits_per_byte": bits,
        "held_out_groups": groups,
        "curve": curve,
    }


@pytest.fixture
def folder(tmp_path):
    """Two variants: the baseline is best at 0.1, the other at 0.3, where it is worse by 0.2."""
    random = np.random.default_rng(0)
    base = {seed: (2 + 0.01 * random.normal(size=3)).tolist() for seed in range(5)}
    baseline = [run("baseline", 0.1, seed, base[seed]) for seed in (4, 3, 2, 1, 0)]
    baseline += [run("baseline", 0.3, seed, [3.0, 3.0, 3.0]) for seed in range(3)]
    worse = {seed: np.add(base[seed], [0.1, 0.2, 0.3]).tolist() for seed in base}
    other = [run("other", 0.1, seed, [2.9, 2.9, 2.9] if seed else None) for seed in range(3)]
    other += [run("other", 0.3, seed, worse[seed]) for seed in range(5)]
    record = {"text": {"held_out_group_bytes": GROUP_BYTES}, "runs": baseline}
    (tmp_path / "baseline.json").write_text(json.dumps(record))
    (tmp_path / "question.json").write_text(json.dumps({"runs": other}))
    return tmp_path


def test_each_variant_is_judged_at_its_best_rate(folder):
    found = ablations.outcomes("question", folder)
    assert list(found) == ["baseline", "other"]
    assert {name: each.learning_rate for name, each in found.items()} == {
        "baseline": 0.1,
        "other": 0.3,
    }
    assert [each["seed"] for each in found["baseline"].runs] == list(range(5))


def test_differences_are_paired(folder):
    found = ablations.outcomes("question", folder)["other"]
    shift = np.average([0.1, 0.2, 0.3], weights=GROUP_BYTES)  # the same for each seed
    assert found.difference == pytest.approx((shift, shift, shift, 5), abs=2e-4)
    assert found.bits.high - found.bits.low > 0.005  # the seeds themselves differ
    share = np.array(GROUP_BYTES) / sum(GROUP_BYTES)
    noise = share * (np.array([0.1, 0.2, 0.3]) - shift)
    assert found.documents_error == pytest.approx(np.sqrt(1.5 * (noise**2).sum()), abs=2e-4)
    assert ablations.outcomes("question", folder)["baseline"].difference == (0, 0, 0, 5)


def test_a_run_that_came_to_no_number_is_worse_than_any_other(folder):
    runs = ablations.read_runs("question", folder)["other"]
    assert ablations.best_rate(runs) == 0.3
    lost = [run("lost", 0.1, seed, None) for seed in range(3)]
    (folder / "question.json").write_text(json.dumps({"runs": lost}))
    found = ablations.outcomes("question", folder)["lost"]
    assert found.bits == found.difference == (np.inf, np.inf, np.inf, 3)
    assert found.documents_error == np.inf


def test_a_rate_with_more_seeds_is_compared_on_those_that_both_have():
    runs = [run("a", 0.1, 0, [2.0] * 3), run("a", 0.3, 0, [1.9] * 3), run("a", 0.3, 1, [9.0] * 3)]
    assert ablations.best_rate(runs) == 0.3


@pytest.mark.parametrize("count", ablations.T_95)
def test_the_interval_is_students(count):
    values = np.random.default_rng(count).normal(size=count).tolist()
    found = ablations.t_interval(values)
    error = np.std(values, ddof=1) / np.sqrt(count)
    expected = student.interval(0.95, count - 1, np.mean(values), error)
    np.testing.assert_allclose(found[:3], [np.mean(values), *expected], rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("values", [[1.0], [1.0] * 11])
def test_an_interval_needs_2_to_10_values(values):
    with pytest.raises(ValueError, match=f"must be 2 to 10 numbers, but there are {len(values)}"):
        ablations.t_interval(values)


def test_an_unknown_question_is_told_the_known_ones(folder):
    with pytest.raises(ValueError, match=r"has a record \(question\), but is 'gates'"):
        ablations.read_runs("gates", folder)


def test_curves_are_averaged_and_the_last_tenth_is_measured(folder):
    runs = ablations.by_rate(ablations.read_runs("question", folder)["baseline"])[0.1]
    assert ablations.mean_curve(runs, "held_out").tolist() == pytest.approx([3.0, 2.02, 2.0])
    assert [ablations.last_tenth(each) for each in runs] == [0.0, 0.005, 0.01, 0.015, 0.02]
    between = run("a", 0.1, 0, None, step=(8, 10, 12))  # nine tenths are at 10.8
    assert ablations.last_tenth(between) == 0.0


# The records that come with the library ----------------------------------------------------------


def recorded_runs(question):
    names = script.QUESTIONS[question]
    return {name: script.known_runs(ablations.RECORDS, question, name) for name in names}


RECORDED = [path.stem for path in sorted(ablations.RECORDS.glob("*.json"))]
NOTEBOOKS = [
    path.read_text() for path in sorted((Path(__file__).parents[1] / "book").glob("*.ipynb"))
]
# The runs of a question take days. What there is of the others is committed, so that they go on.
READ = [
    question
    for question in script.QUESTIONS
    if any(rf"ablations.outcomes(\"{question}\")" in notebook for notebook in NOTEBOOKS)
]


def test_every_variant_that_a_chapter_shows_is_complete():
    assert "norm" in READ
    for question in ("baseline", *READ):
        for variant, runs in recorded_runs(question).items():
            assert script.next_runs(question, runs) == [], variant
            assert len(ablations.by_rate(runs)[ablations.best_rate(runs)]) >= 3


def test_all_runs_of_a_seed_read_the_same_text_in_the_same_order():
    settings = {k: v for k, v in asdict(Settings()).items() if k not in ("learning_rate", "seed")}
    for question in RECORDED:
        record = json.loads((ablations.RECORDS / f"{question}.json").read_text())
        baseline = json.loads((ablations.RECORDS / "baseline.json").read_text())
        assert record["text"] == baseline["text"]
        assert record["variants"] == json.loads(json.dumps(script.QUESTIONS[question]))
        assert record["settings"] == settings
        finished = [run for run in baseline["runs"] if run["batches"] is not None]
        read = {run["seed"]: run["batches"] for run in finished}
        for run in record["runs"]:
            assert run["batches"] in (read[run["seed"]], None)
            if run["batches"] is not None:
                assert 0.99 < run["parameters"] / baseline["runs"][0]["parameters"] < 1.01
                assert len(run["curve"]["held_out"]) == 20


def test_the_curve_of_the_baseline_has_flattened():
    for question in READ:
        best = ablations.outcomes(question)["baseline"]
        assert max(map(ablations.last_tenth, best.runs)) < 0.005
