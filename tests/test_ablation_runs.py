"""training/ablations.py and what it runs: the variants, a run and its checkpoint, what comes next.

That a record says what was run is tested in test_ablations.py.
"""

import functools
import json
from dataclasses import replace

import ablations
import jax
import jax.numpy as jnp
import keras
import measure
import numpy as np
import paired_run
import paired_text
import pytest
import variants
from text_models import small_corpus
from variants import Settings, build_optimizer, build_variant

from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.teaching import corpus
from mistral_lib.teaching.ablations import by_rate

pytestmark = pytest.mark.slow

SMALL = Settings(
    sequences=1280,
    batch_size=32,
    length=16,
    vocabulary_size=320,
    num_layers=2,
    num_query_heads=2,
    num_key_value_heads=1,
    hidden_dim=16,
    intermediate_dim=12,
)
CHANGES = {
    variant: changes
    for several in ablations.QUESTIONS.values()
    for variant, changes in several.items()
}


@pytest.fixture(scope="module")
def text():
    return paired_text.encode_text(small_corpus(), SMALL.vocabulary_size)


def large(settings, seed=0):
    """A variant with weights that make a mistake show."""
    model, random = build_variant(settings), np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(random.normal(0.1, 0.2, variable.shape))
    return model


def library_model(model):
    """The library's own model with the same weights."""
    s = SMALL
    sizes = s.num_layers, s.num_query_heads, s.hidden_dim, s.intermediate_dim
    backbone = MistralBackbone(s.vocabulary_size, *sizes, s.num_key_value_heads)
    weights = {v.path.partition("/")[2]: v for v in model.trainable_variables}
    for variable in backbone.trainable_variables:
        variable.assign(weights.pop(variable.path).value)
    assert not weights
    return MistralCausalLM(backbone)


def tokens(rows=3, length=16):
    return np.random.default_rng(0).integers(0, SMALL.vocabulary_size, (rows, length + 1))


# The variants ------------------------------------------------------------------------------------


def test_the_baseline_is_the_librarys_model():
    model = large(SMALL)
    inputs = {"token_ids": tokens(), "padding_mask": np.ones((3, 17))}
    np.testing.assert_allclose(model(tokens()), library_model(model)(inputs), atol=1e-5)


@functools.cache
def first_model(variant):
    """Two layers of the real sizes."""
    return build_variant(replace(Settings(), num_layers=2, **CHANGES[variant]))


@pytest.mark.parametrize("variant", CHANGES)
def test_variants_have_equal_parameters_and_first_weights(variant):
    baseline, model = first_model("baseline"), first_model(variant)
    assert abs(model.count_params() / baseline.count_params() - 1) < 0.005
    known = {v.path: np.array(v.value) for v in baseline.trainable_variables}
    shared = [v for v in model.trainable_variables if v.shape == np.shape(known.get(v.path))]
    assert len(shared) > 10
    for variable in shared:
        same = np.array_equal(variable.value, known[variable.path])
        writes = variable.path.split("/")[-2] in ("attention_output", "down")
        assert same != (variant == "scaled_outputs" and writes), variable.path
        if not same:
            expected = known[variable.path] / 2  # 1 / sqrt(2 L) with two layers
            np.testing.assert_allclose(variable.value, expected, rtol=1e-6)


def test_a_seed_decides_the_first_weights():
    one, other = (build_variant(replace(SMALL, seed=seed)).trainable_variables for seed in (0, 1))
    for variable, another in zip(one, other, strict=True):
        assert np.array_equal(variable.value, another.value) == (len(variable.shape) == 1)
        if len(variable.shape) == 2:
            assert 0.015 < np.std(variable.value) < 0.025


def norm_of(kind, x, layer):
    if kind == "none":
        return x
    centred = x - x.mean(-1, keepdims=True) * (kind == "layer_norm")
    scale, *shift = (np.array(v.value) for v in layer.trainable_variables)
    normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return normal * scale + sum(shift)


@pytest.mark.parametrize("kind", variants.NORMS)
@pytest.mark.parametrize("placement", ["pre_norm", "post_norm"])
def test_a_block_is_its_formula(kind, placement):
    block = large(replace(SMALL, norm=kind, placement=placement)).blocks[0]
    x = np.random.default_rng(1).normal(1, 2, (2, 16, 16)).astype("float32")
    positions = np.arange(16)
    hidden = x
    for part, norm in (
        (lambda y: block.self_attention(y, positions=positions), block.self_attention_layernorm),
        (block.feedforward, block.feedforward_layernorm),
    ):
        if placement == "pre_norm":
            hidden = hidden + np.array(part(norm_of(kind, hidden, norm)))
        else:
            hidden = norm_of(kind, hidden + np.array(part(hidden)), norm)
    np.testing.assert_allclose(block(x, positions), hidden, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("placement", ["pre_norm", "post_norm"])
@pytest.mark.parametrize("kind", variants.NORMS)
def test_logits_are_read_from_a_norm_in_pre_norm_alone(kind, placement):
    model = large(replace(SMALL, norm=kind, placement=placement))
    hidden = np.array(model.token_embedding(tokens()))
    for block in model.blocks:
        hidden = np.array(block(hidden, np.arange(17)))
    if placement == "pre_norm":
        hidden = norm_of(kind, hidden, model.layer_norm)
    logits = hidden @ np.array(model.token_embedding.reverse_embeddings.value)
    np.testing.assert_allclose(model(tokens()), logits, rtol=1e-4, atol=1e-2)


def test_feedforward_networks_are_their_formulas():
    activations = {
        "swiglu": lambda x: x / (1 + np.exp(-x)),
        "silu": lambda x: x / (1 + np.exp(-x)),
        "relu": lambda x: np.maximum(x, 0),
    }
    assert activations.keys() == variants.FEEDFORWARDS.keys()
    x = np.random.default_rng(1).normal(size=(2, 5, 16))
    for name, activation in activations.items():
        layer = large(replace(SMALL, feedforward=name)).blocks[0].feedforward
        up, down = np.array(layer.up.kernel.value), np.array(layer.down.kernel.value)
        gated = name.endswith("glu")
        assert up.shape == (16, 12 if gated else 18)
        inner = activation(x @ np.array(layer.gate.kernel.value)) * (x @ up) if gated else None
        expected = (inner if gated else activation(x @ up)) @ down
        np.testing.assert_allclose(layer(x.astype("float32")), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("positions", ["rotary", "none"])
def test_without_positions_one_layer_sees_a_set(positions):
    model = large(replace(SMALL, num_layers=1, positions=positions))
    swapped = tokens()[:, [3, 0, 2, 1, *range(4, 17)]]
    difference = np.abs(np.array(model(swapped) - model(tokens())))[:, 4:].max()
    assert (difference < 1e-4) == (positions == "none")


# Optimizer and step ------------------------------------------------------------------------------


@pytest.mark.parametrize("warmup", [0.1, 0.0])
def test_the_rate_rises_and_falls_to_zero(warmup):
    settings = replace(SMALL, warmup=warmup, sequences=3200)  # 100 steps
    model = build_variant(settings)
    schedule = build_optimizer(settings, model).get_config()["learning_rate"]
    rate = keras.optimizers.schedules.deserialize(schedule)
    found = [float(rate(step)) / settings.learning_rate for step in (0, 5, 10, 55, 100)]
    halfway = 0.5 if warmup else (1 + np.cos(0.55 * np.pi)) / 2
    if warmup:
        np.testing.assert_allclose(found, [0, 0.5, 1, halfway, 0], atol=1e-6)
    else:
        np.testing.assert_allclose([found[i] for i in (0, 3, 4)], [1, halfway, 0], atol=1e-6)


@pytest.mark.parametrize("decayed", variants.DECAYED)
def test_what_decays(decayed):
    settings = replace(SMALL, decayed=decayed, warmup=0.0, norm="layer_norm")
    model = build_variant(settings)
    optimizer = build_optimizer(settings, model)
    before = [jnp.ones(v.shape) for v in model.trainable_variables]
    nothing = [jnp.zeros(v.shape) for v in model.trainable_variables]
    after, _ = optimizer.stateless_apply([v.value for v in optimizer.variables], nothing, before)
    kinds = {
        "everything": {"kernel", "embeddings", "reverse_embeddings", "gamma", "beta"},
        "matrices": {"kernel", "embeddings", "reverse_embeddings"},
        "kernels": {"kernel"},
        "nothing": set(),
    }
    for variable, value in zip(model.trainable_variables, after, strict=True):
        shrunk = 1 - 0.1 * settings.learning_rate if variable.name in kinds[decayed] else 1
        np.testing.assert_allclose(value, shrunk, rtol=1e-6, err_msg=variable.path)


def test_steps_are_those_of_fit_with_the_librarys_model():
    settings = replace(SMALL, warmup=0.0)
    model = build_variant(settings)
    library = library_model(model)
    optimizer = build_optimizer(settings, model)
    step = paired_run.make_step(model, optimizer)
    values = [[v.value for v in each.variables] for each in (model, optimizer)]
    rows = [np.roll(tokens(rows=4), i) for i in range(3)]
    for token_ids in rows:
        *values, loss, _ = step(*jax.tree.map(jnp.copy, values), token_ids)

    own = keras.optimizers.AdamW.from_config(optimizer.get_config())
    own.exclude_from_weight_decay(var_names=["scale"])
    library.compile(own, loss=library.loss)
    for token_ids in rows:
        inputs = {"token_ids": token_ids[:, :-1], "padding_mask": np.ones((4, 16), bool)}
        library.reset_metrics()  # Keras 3.13 would give the mean over all calls
        logs = library.train_on_batch(inputs, token_ids[:, 1:], return_dict=True)
    assert float(loss) == pytest.approx(logs["loss"], rel=1e-5)
    found = dict(zip((v.path.partition("/")[2] for v in model.variables), values[0], strict=True))
    for variable in library.trainable_variables:
        expected = np.array(variable.value)
        np.testing.assert_allclose(found[variable.path], expected, atol=2e-5, rtol=1e-4)


def test_the_gradient_of_each_part_is_measured_before_clipping():
    model = large(SMALL)
    optimizer = build_optimizer(replace(SMALL, global_clipnorm=0.01), model)
    weights = [v.value for v in model.variables]

    def loss(weights):
        logits, _ = model.stateless_call(weights, [], tokens()[:, :-1])
        chances = jax.nn.log_softmax(logits)
        return -jnp.take_along_axis(chances, tokens()[:, 1:, None], -1).mean()

    gradients = jax.grad(loss)(weights)
    expected = dict.fromkeys(paired_run.parts(model), 0.0)
    assert list(expected) == [
        "embedding",
        "transformer_layer_0",
        "transformer_layer_1",
        "output",
    ]
    for variable, gradient in zip(model.variables, gradients, strict=True):
        part = variable.path.split("/")[1]
        if not part.startswith("transformer"):
            part = "embedding" if variable.name == "embeddings" else "output"
        expected[part] += float(jnp.sum(gradient**2))
    copies = jax.tree.map(jnp.copy, (weights, [v.value for v in optimizer.variables]))
    *_, norms = paired_run.make_step(model, optimizer)(*copies, tokens())
    np.testing.assert_allclose(norms, np.sqrt(list(expected.values())), rtol=1e-4)


def test_documents_are_judged_as_the_shipped_model_is(text):
    model = large(SMALL)
    found = paired_run.make_judge(model, SMALL, text)([v.value for v in model.variables])
    expected = measure.document_bits(library_model(model), text.held_out, 16, 16)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


# The text ----------------------------------------------------------------------------------------


def test_every_batch_size_reads_the_same_sequences(text):
    rows = paired_text.Sequences(text.training, 16, seed=1)
    wanted = np.concatenate([rows.batch(step, 64) for step in range(3)])
    for size in (4, 16, 32):
        read = np.concatenate([rows.batch(step, size) for step in range(192 // size)])
        np.testing.assert_array_equal(read, wanted)
    other = paired_text.Sequences(text.training, 16, seed=2)
    assert (other.batch(0, 64) != wanted[:64]).any()


def test_a_text_is_kept_for_all_runs(tmp_path, monkeypatch, text):
    monkeypatch.setattr(corpus, "build_corpus", small_corpus)
    path = tmp_path / "text.npz"
    paired_text.prepare_text(path, 320)
    monkeypatch.setattr(corpus, "build_corpus", lambda: pytest.fail("the text is there"))
    kept = paired_text.prepare_text(path, 320)
    assert kept.description == text.description
    assert kept.description["held_out_text"] == corpus.fingerprint(small_corpus().held_out[::3])
    assert kept.bytes_per_token == text.bytes_per_token
    for name in ("training", "held_out"):
        rows = zip(getattr(kept, name), getattr(text, name), strict=True)
        assert all(np.array_equal(one, other) for one, other in rows)


# A run -------------------------------------------------------------------------------------------


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def twenty_documents(text):
    """A text with a document for each group."""
    documents = (text.held_out * 20)[:20]
    sizes = np.resize(text.held_out_bytes, 20)
    description = {**text.description, "held_out_group_bytes": sizes.tolist()}
    return replace(text, held_out=documents, held_out_bytes=sizes, description=description)


def test_groups_hold_all_documents(twenty_documents):
    three_times = replace(
        twenty_documents,
        held_out=3 * twenty_documents.held_out,
        held_out_bytes=np.arange(1, 61),
    )
    bits = np.random.default_rng(0).random(60)
    found = three_times.group_bits_per_byte(bits)
    expected = [bits[g::20].sum() / np.arange(1, 61)[g::20].sum() for g in range(20)]
    np.testing.assert_allclose(found, expected)


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(
    twenty_documents, tmp_path, monkeypatch
):
    weights = []
    save = paired_run.save

    def keep(checkpoint, identity, values, run):
        weights.append([np.array(value) for value in values[0]])
        save(checkpoint, identity, values, run)

    monkeypatch.setattr(paired_run, "SECONDS", 0)  # a checkpoint after every step
    monkeypatch.setattr(paired_run, "save", keep)
    whole = paired_run.train(SMALL, twenty_documents, tmp_path / "a.npz", lambda line: None)
    assert len(weights) == 40

    def stop(line):
        if "'step': 24" in line:
            raise Interrupted

    with pytest.raises(Interrupted):
        paired_run.train(SMALL, twenty_documents, tmp_path / "b.npz", stop)
    checkpoint = tmp_path / "b.npz"
    other = replace(SMALL, seed=1)
    with pytest.raises(ValueError, match=r"differs in seed\. Remove it"):
        paired_run.train(other, twenty_documents, checkpoint, lambda line: None)
    resumed = paired_run.train(SMALL, twenty_documents, checkpoint, lambda line: None)
    assert len(weights) == 40 + 23 + 17  # from the step before the interruption
    for one, again in zip(weights[39], weights[-1], strict=True):
        np.testing.assert_array_equal(one, again)
    assert resumed | {"cpu_seconds": 0} == whole | {"cpu_seconds": 0}

    assert whole["curve"]["step"] == list(range(2, 41, 2))
    assert whole["held_out_bits_per_byte"] == whole["curve"]["held_out"][-1]
    assert whole["curve"]["held_out"][-1] < whole["curve"]["held_out"][0]
    assert np.array(whole["first_gradient_norms"]).shape == (6, 4)  # steps 0, 1, 3, 7, 15, 31


def test_a_run_ends_when_its_loss_is_no_number(twenty_documents, tmp_path):
    wild = replace(SMALL, learning_rate=1e30, global_clipnorm=None)
    run = paired_run.train(wild, twenty_documents, tmp_path / "c.npz", lambda line: None)
    assert run["steps"] < 40
    assert run["held_out_bits_per_byte"] is run["held_out_groups"] is run["batches"] is None
    json.dumps(run, allow_nan=False)


# What comes next ---------------------------------------------------------------------------------


def made(pairs, bits):
    return [
        {"learning_rate": rate, "seed": seed, "held_out_bits_per_byte": bits(rate)}
        for rate, seed in pairs
    ]


def finish(question, bits):
    """The runs of a variant that costs `bits(rate)` at each rate."""
    runs = []
    while pairs := ablations.next_runs(question, runs):
        runs += made(pairs[:1], bits)
        assert len(runs) < 40
    return {rate: [r["seed"] for r in each] for rate, each in by_rate(runs).items()}


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (2e-3, (1e-3, 2e-3, 4e-3)),
        (8e-3, (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)),
        (1.28e-1, ablations.RATES[2:]),
    ],
)
def test_rates_are_tried_until_the_best_has_neighbours(best, tried):
    found = finish("norm", lambda rate: abs(np.log(rate / best)))
    assert tuple(found) == tried
    assert found.pop(best) == [0, 1, 2]
    assert all(seeds == [0] for seeds in found.values())


def test_a_rate_that_diverges_is_never_the_best():
    found = finish("norm", lambda rate: None if rate > 5e-4 else 2.0)
    assert found.pop(2.5e-4) == [0, 1, 2]  # the lowest of two that are equal
    assert found == {rate: [0] for rate in (5e-4, 1e-3, 2e-3, 4e-3)}


def test_the_question_on_rates_has_all_of_them():
    found = finish("learning_rate", lambda rate: 2.0)
    assert found == {rate: [0, 1, 2] for rate in (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 3.2e-2, 1.28e-1)}


@pytest.fixture
def script(monkeypatch, tmp_path, text):
    """The script with two small questions, and with runs that cost nothing."""
    trained = []

    def train(settings, text, checkpoint):
        trained.append((settings, checkpoint.name))
        checkpoint.touch()
        bits = 2.0 + settings.seed / 100 + abs(np.log(settings.learning_rate / 2e-3))
        return {"held_out_bits_per_byte": bits, "cpu_seconds": 1}

    questions = {name: ablations.QUESTIONS[name] for name in ("baseline", "norm", "learning_rate")}
    monkeypatch.setattr(ablations, "QUESTIONS", questions)
    monkeypatch.setattr(ablations, "train", train)
    monkeypatch.setattr(ablations, "prepare_text", lambda path, size: text)

    def run(*arguments, settings=SMALL):
        trained.clear()
        folders = "--work", str(tmp_path / "work"), "--records", str(tmp_path / "records")
        ablations.main([*folders, *arguments], settings)
        return list(trained)

    return run


def test_questions_are_answered_once_and_the_baseline_first(script, tmp_path, capsys):
    names = [name for _, name in script("norm")]
    assert [name.startswith("baseline-") for name in names] == 5 * [True] + 10 * [False]
    assert names[-1] == "norm-no_norm-0.002-2.npz"
    assert list((tmp_path / "work").iterdir()) == []
    record = json.loads((tmp_path / "records" / "norm.json").read_text())
    assert record["variants"]["no_norm"] == {"norm": "none"}
    assert len(record["runs"]) == 10
    assert {run["variant"] for run in record["runs"]} == {"layer_norm", "no_norm"}
    assert script("norm") == []
    capsys.readouterr()
    script("--list")
    assert capsys.readouterr().out.split("\n")[:3] == [
        f"{'baseline':24}   5 runs, complete",
        f"{'norm':24}  10 runs, complete",
        f"{'learning_rate':24}   5 runs, 16 or more to come",
    ]
    assert len(script()) == 16  # the rates that the baseline was not tried at


def test_what_was_interrupted_is_taken_up(script, tmp_path):
    script("norm")
    path = tmp_path / "records" / "norm.json"
    record = json.loads(path.read_text())
    ablations.write_record(path, record | {"runs": record["runs"][:7]})
    left = script("norm")
    assert len(left) == 3
    assert all(settings.norm == "none" for settings, _ in left)
    assert json.loads(path.read_text()) == record


def test_runs_of_other_settings_are_not_mixed(script):
    script("norm")
    with pytest.raises(ValueError, match=r"baseline\.json must be .* its settings differ"):
        script("norm", settings=replace(SMALL, num_layers=3))


def test_an_unknown_question_is_refused(script, capsys):
    with pytest.raises(SystemExit):
        script("norms")
    assert "question must be one of baseline, norm, learning_rate, but is norms" in (
        capsys.readouterr().err
    )
