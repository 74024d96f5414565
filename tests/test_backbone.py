"""The backbone as a user meets it: built, called, masked, compiled, saved."""

import copy
import inspect
import json
import pickle
import resource
import sys

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from attention_loops import dtypes_of

import mistral_lib as keras_nlp
from mistral_lib import MistralBackbone, lora, without_weights
from mistral_lib.layers import attention

SIZES = dict(
    vocabulary_size=10,
    num_layers=2,
    num_query_heads=4,
    hidden_dim=8,
    intermediate_dim=12,
    num_key_value_heads=2,
)
POLICIES = ["float32", "bfloat16", "float16", "mixed_bfloat16", "mixed_float16"]
IDS = np.array([[1, 2, 3, 4, 5], [9, 8, 7, 6, 5]])
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
INPUTS = {"token_ids": IDS, "padding_mask": MASK}


def lively(seed=0, **settings):
    """A backbone with weights so large that every part of it matters."""
    random = np.random.default_rng(seed)
    with without_weights():
        backbone = MistralBackbone(**{**SIZES, **settings})
    for weight in backbone.weights:
        size = 1 if "norm" in weight.path else weight.shape[0] ** -0.5
        weight.assign(size * random.normal(size=weight.shape))
    return backbone


@pytest.fixture(scope="module")
def backbone():
    return lively(sliding_window=3)


@pytest.fixture(scope="module")
def hidden_states(backbone):
    return np.asarray(backbone(INPUTS))


def real_part(hidden_states):
    return np.asarray(hidden_states, "float32")[MASK.astype(bool)]


def assert_same(found, expected, atol=1e-5):
    np.testing.assert_allclose(real_part(found), real_part(expected), rtol=1e-5, atol=atol)


# The documented interface


def test_the_documented_signature():
    parameters = inspect.signature(MistralBackbone).parameters.values()
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    found = [p.name if p.default is p.empty else (p.name, p.default) for p in positional]
    assert found == [
        "vocabulary_size",
        "num_layers",
        "num_query_heads",
        "hidden_dim",
        "intermediate_dim",
        "num_key_value_heads",
        ("rope_max_wavelength", 10000),
        ("rope_scaling_factor", 1.0),
        ("layer_norm_epsilon", 1e-6),
        ("sliding_window", 512),
        ("dropout", 0),
        ("dtype", None),
    ]
    keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert keywords == {"head_dim": None, "tie_word_embeddings": False, "rope_scaling": None}


def test_the_documented_example():
    # As it stands in KerasNLP's documentation, with only the import changed.
    input_data = {
        "token_ids": np.ones(shape=(1, 12), dtype="int32"),
        "padding_mask": np.array([[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]]),
    }
    model = keras_nlp.models.MistralBackbone(
        vocabulary_size=10,
        hidden_dim=512,
        num_layers=2,
        num_query_heads=32,
        num_key_value_heads=8,
        intermediate_dim=1024,
        sliding_window=512,
        layer_norm_epsilon=1e-6,
        dtype="float32",
    )
    output = model(input_data)
    assert output.shape == (1, 12, 512)
    assert np.isfinite(output).all()


def test_positional_arguments_in_the_documented_order():
    with without_weights():
        backbone = MistralBackbone(10, 1, 4, 8, 12, 2, 500, 2.0, 1e-5, 7, 0.1, "bfloat16")
    config = backbone.get_config()
    expected = {
        "rope_max_wavelength": 500,
        "rope_scaling_factor": 2.0,
        "layer_norm_epsilon": 1e-5,
        "sliding_window": 7,
        "dropout": 0.1,
    }
    assert {name: config[name] for name in expected} == expected
    assert backbone.dtype_policy.name == "bfloat16"
    decoder = backbone.transformer_layers[0]
    assert decoder.self_attention.config.rope_max_wavelength == 500
    assert decoder.self_attention.config.rope_scaling_factor == 2.0
    assert decoder.self_attention.sliding_window == 7
    assert decoder.self_attention_dropout.rate == 0.1
    assert {decoder.config.layer_norm_epsilon, backbone.layer_norm.epsilon} == {1e-5}


def test_the_fixture_of_keras_hub():
    model = MistralBackbone(10, 2, 8, 16, 8, 4, sliding_window=2)
    ones = np.ones((2, 5), "int32")
    assert model({"token_ids": ones, "padding_mask": ones}).shape == (2, 5, 16)
    assert model.count_params() == 2704
    lines = []
    model.summary(print_fn=lines.append)
    assert "2,704" in "\n".join(lines)
    assert [layer.name for layer in model.layers if layer.weights] == [
        "token_embedding",
        "transformer_layer_0",
        "transformer_layer_1",
        "sequence_output_layernorm",
    ]


@pytest.mark.parametrize("settings", [{}, {"dropout": 0.1, "dtype": "mixed_bfloat16"}])
def test_mistral_7b_is_counted_without_memory(settings):
    def held():
        return sum(array.nbytes for array in jax.live_arrays())

    def peak():
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before, peak_before = held(), peak()
    # A small one first, so that a mistake costs megabytes and not 29 gigabytes.
    for sizes, count in (
        ((1000, 1, 8, 256, 512, 8), 1_168_128),
        ((32000, 32, 32, 4096, 14336, 8), 7_241_732_096),
    ):
        with without_weights():
            model = MistralBackbone(*sizes, sliding_window=4096, **settings)
        assert model.count_params() == count
        assert held() - before < 10_000
    # One kernel of the feed-forward network alone has 235 MB.
    assert peak() - peak_before < 150e6


def test_token_embedding_projects_back(backbone, hidden_states):
    logits = backbone.token_embedding(hidden_states, reverse=True)
    assert logits.shape == (2, 5, 10)
    expected = hidden_states @ np.asarray(backbone.token_embedding.reverse_embeddings.value)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_tied_embeddings_have_one_matrix():
    with without_weights():
        untied = MistralBackbone(**SIZES)
    tied = MistralBackbone(**SIZES, tie_word_embeddings=True)
    assert untied.count_params() - tied.count_params() == 10 * 8
    assert tied.token_embedding(np.ones((1, 1, 8)), reverse=True).shape == (1, 1, 10)


# Inputs


@pytest.mark.parametrize(
    ("ids", "mask"),
    [
        (IDS.tolist(), MASK.tolist()),
        (jnp.array(IDS), jnp.array(MASK)),
        (IDS.astype("uint8"), MASK.astype(bool)),
        (tuple(map(tuple, IDS)), MASK.astype("float32")),
        (IDS.astype("int64"), 3 * MASK),
    ],
)
def test_every_kind_of_input(backbone, hidden_states, ids, mask):
    inputs = {"token_ids": ids, "padding_mask": mask}
    assert_same(backbone(inputs), hidden_states, atol=0)
    assert_same(backbone.predict(inputs, verbose=0), hidden_states)


@pytest.mark.slow
def test_any_number_of_rows_and_tokens(backbone, hidden_states):
    long = {"token_ids": np.resize(IDS, (3, 8)), "padding_mask": np.ones((3, 8))}
    assert backbone(long).shape == (3, 8, 8)
    short = backbone({"token_ids": IDS[:, :3], "padding_mask": MASK[:, :3]})
    np.testing.assert_allclose(short, hidden_states[:, :3], rtol=1e-5, atol=1e-5)
    three = {name: np.concatenate([array, array[:1]]) for name, array in INPUTS.items()}
    found = backbone.predict(three, batch_size=2, verbose=0)
    np.testing.assert_allclose(found[2], hidden_states[0], rtol=1e-5, atol=1e-5)


def test_an_empty_batch(backbone):
    empty = {name: array[:0] for name, array in INPUTS.items()}
    assert backbone(empty).shape == (0, 5, 8)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"token_ids": IDS}, ValueError, "padding_mask"),
        ({**INPUTS, "padding_mask": MASK[:1]}, ValueError, r"\(2, 5\) and \(1, 5\)"),
        ({**INPUTS, "token_ids": IDS / 2}, TypeError, "must be integers"),
        ({**INPUTS, "token_ids": IDS + 1}, ValueError, "from 0 to 9 .* one is 10"),
        ({**INPUTS, "token_ids": [[1, 2], [3]]}, ValueError, "rows of different lengths"),
        (IDS, ValueError, "dictionary of token_ids and padding_mask"),
        ([IDS, MASK], ValueError, "dictionary of token_ids and padding_mask"),
    ],
)
def test_wrong_inputs(backbone, inputs, error, message):
    with pytest.raises(error, match=message):
        backbone(inputs)
    if isinstance(inputs, dict):
        with pytest.raises(error, match=message):
            backbone.predict(inputs, verbose=0)


# Masks and windows


@pytest.mark.parametrize("mask", [[0, 0, 1, 1, 1], [1, 0, 1, 0, 1], [1, 1, 1, 0, 0], [0] * 5])
def test_padded_tokens_change_nothing(backbone, mask):
    mask = np.array([mask, [1] * 5])
    changed = np.where(mask, IDS, 0)
    outputs = [
        np.asarray(backbone({"token_ids": ids, "padding_mask": mask})) for ids in (IDS, changed)
    ]
    np.testing.assert_array_equal(outputs[0][mask == 1], outputs[1][mask == 1])
    assert np.isfinite(outputs).all()


def test_padding_on_the_left_only_moves_positions(backbone, hidden_states):
    # Rotary scores depend on distances, so the row comes out as without padding.
    ids = np.concatenate([[0, 0, 0], IDS[0]])[None]
    found = backbone({"token_ids": ids, "padding_mask": [[0, 0, 0, 1, 1, 1, 1, 1]]})
    np.testing.assert_allclose(found[0, 3:], hidden_states[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("window", "reach"), [(1, 0), (2, 2), (3, 4), (None, 9)])
def test_a_token_reaches_layers_times_window_minus_one(window, reach):
    model = lively(sliding_window=window)
    ids = np.arange(12)[None] % 10
    changed = ids.copy()
    changed[0, 2] = 9
    outputs = [
        np.asarray(model({"token_ids": each, "padding_mask": np.ones((1, 12))}))[0]
        for each in (ids, changed)
    ]
    differs = np.flatnonzero((outputs[0] != outputs[1]).any(-1))
    np.testing.assert_array_equal(differs, np.arange(2, 2 + reach + 1))


@pytest.mark.slow
def test_called_short_first_and_then_far_beyond_the_window():
    model = lively(sliding_window=4)
    assert model({"token_ids": IDS[:1, :3], "padding_mask": MASK[:1, :3]}).shape == (1, 3, 8)
    ids = np.random.default_rng(0).integers(0, 10, (1, 1100))
    long = {"token_ids": ids, "padding_mask": np.ones((1, 1100))}
    assert attention.choose_path(1100, "float32", 2) == "banded"
    banded = model(long)
    model.attention_path = "dense"
    np.testing.assert_allclose(banded, model(long), rtol=1e-3, atol=1e-4)


# Attention paths


@pytest.mark.slow
def test_a_forced_path_is_taken_even_after_predict_was_compiled(monkeypatch):
    taken = []

    def recorder(name, path):
        def record(*arguments):
            taken.append(name)
            return path(*arguments)

        return record

    paths = {name: recorder(name, path) for name, path in attention.PATHS.items()}
    monkeypatch.setattr(attention, "PATHS", paths)
    model = MistralBackbone(**{**SIZES, "num_layers": 1}, sliding_window=3)
    outputs = []
    for path in ("auto", "banded", "dense"):
        model.attention_path = path
        assert model.attention_path == path
        outputs.append(model.predict(INPUTS, verbose=0))
    assert taken == ["dense", "banded", "dense"]
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(outputs[0], outputs[2])


def test_paths_that_do_not_exist_here_are_refused(backbone):
    with pytest.raises(ValueError, match="attention_path must be one of 'auto', 'dense'"):
        backbone.attention_path = "flash"
    with pytest.raises(ValueError, match=r"attention_path cannot be 'fused' here: .*float32"):
        backbone.attention_path = "fused"
    assert backbone.attention_path == "auto"


# Precision


def test_softmax_and_norms_are_float32_in_a_bfloat16_model():
    with without_weights():
        model = MistralBackbone(**SIZES, dtype="bfloat16")
    state = [jax.ShapeDtypeStruct(weight.shape, weight.dtype) for weight in model.weights]
    traced = jax.make_jaxpr(lambda state: model.stateless_call(state, [], INPUTS)[0])(state)
    assert dtypes_of(traced, "exp") == {"float32"}
    assert dtypes_of(traced, "rsqrt") == {"float32"}
    assert dtypes_of(traced, "cos") == {"float32"}
    assert dtypes_of(traced, "logistic") == {"float32"}
    assert traced.out_avals[0].dtype == "bfloat16"


@pytest.fixture
def global_policy():
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.mark.slow
def test_the_global_policy_is_the_default(global_policy):
    global_policy("mixed_bfloat16")
    model = MistralBackbone(**SIZES)
    assert model.dtype_policy.name == "mixed_bfloat16"
    assert model(INPUTS).dtype == "bfloat16"
    global_policy("float32")
    assert model(INPUTS).dtype == "bfloat16"
    with without_weights():
        again = MistralBackbone.from_config(model.get_config())
    assert again.dtype_policy.name == "mixed_bfloat16"


@pytest.mark.parametrize(
    "dtype", [np.float16, jnp.float16, np.dtype("float16"), keras.DTypePolicy("float16")]
)
def test_every_way_to_write_a_dtype(dtype):
    with without_weights():
        assert MistralBackbone(**SIZES, dtype=dtype).compute_dtype == "float16"


# Config, copies and files


def test_config_round_trip():
    settings = dict(head_dim=6, tie_word_embeddings=True, sliding_window=None, name="mistral")
    with without_weights():
        model = MistralBackbone(**SIZES, **settings)
        again = MistralBackbone.from_config(json.loads(json.dumps(model.get_config())))
        plain = MistralBackbone(**SIZES)
    assert again.get_config() == model.get_config()
    assert settings.items() <= again.get_config().items()
    assert again.count_params() == model.count_params()
    # What was not given is not in the config either: hidden_dim and heads may change together.
    assert (plain.get_config()["head_dim"], plain.head_dim) == (None, 2)


def test_numpy_numbers_make_the_same_config():
    settings = dict(name="m", dropout=0.5, sliding_window=3, tie_word_embeddings=True)
    numpy = {name: np.int32(size) for name, size in SIZES.items()}
    numpy.update(
        name="m",
        dropout=np.float64(0.5),
        sliding_window=np.uint8(3),
        tie_word_embeddings=np.bool_(True),
    )
    with without_weights():
        configs = [MistralBackbone(**a).get_config() for a in (numpy, {**SIZES, **settings})]
    assert json.dumps(configs[0]) == json.dumps(configs[1])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", POLICIES)
def test_a_keras_file_holds_everything_exactly(tmp_path, dtype):
    model = lively(sliding_window=3, dropout=0.1, dtype=dtype)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is MistralBackbone
    assert again.get_config() == model.get_config()
    for ours, theirs in zip(model.weights, again.weights):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours.value, theirs.value)
    # Compiled, since each operation alone takes longer in a dtype that no other test uses.
    outputs = [jax.jit(lambda call=each: call(INPUTS))() for each in (model, again)]
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deepcopy", "pickle"],
)
def test_copies_are_whole_and_independent(backbone, hidden_states, copied):
    twin = copied(backbone)
    np.testing.assert_array_equal(twin(INPUTS), hidden_states)
    twin.layer_norm.scale.assign(np.zeros(8))
    np.testing.assert_array_equal(backbone(INPUTS), hidden_states)


def test_a_clone_has_new_weights_and_the_same_layers(backbone, hidden_states):
    # Keras makes it a plain functional model.
    clone = keras.models.clone_model(backbone)
    assert np.abs(clone(INPUTS) - hidden_states).max() > 0.1
    clone.set_weights(backbone.get_weights())
    np.testing.assert_array_equal(clone(INPUTS), hidden_states)


def test_two_models_in_one_process(backbone, hidden_states):
    other = MistralBackbone(**{**SIZES, "num_layers": 1}, sliding_window=1)
    assert other(INPUTS).shape == (2, 5, 8)
    assert other.name != backbone.name
    np.testing.assert_array_equal(backbone(INPUTS), hidden_states)


# Inside other programs


def test_inside_a_functional_model(backbone, hidden_states):
    inputs = {
        "token_ids": keras.Input((None,), dtype="int32", name="token_ids"),
        "padding_mask": keras.Input((None,), dtype="int32", name="padding_mask"),
    }
    hidden = backbone(inputs)
    assert (hidden.shape, hidden.dtype) == ((None, None, 8), "float32")
    model = keras.Model(inputs, keras.layers.Rescaling(2.0)(hidden))
    assert_same(model.predict(INPUTS, verbose=0) / 2, hidden_states)


@pytest.mark.slow
def test_a_pure_function_for_jax(backbone, hidden_states):
    state = [variable.value for variable in backbone.trainable_variables]
    random = np.random.default_rng(0)
    towards = random.normal(size=hidden_states.shape) * MASK[..., None]

    @jax.jit
    def loss_and_gradient(state):
        def loss(state):
            output, _ = backbone.stateless_call(state, [], INPUTS)
            return (output * towards).sum(), output

        return jax.value_and_grad(loss, has_aux=True)(state)

    (_, output), gradient = loss_and_gradient(state)
    assert_same(output, hidden_states)
    assert all(np.isfinite(each).all() for each in gradient)
    direction = [random.normal(size=each.shape) for each in state]
    around = [
        loss_and_gradient([s + step * d for s, d in zip(state, direction)])[0][0]
        for step in (1e-3, -1e-3)
    ]
    predicted = sum((g * d).sum() for g, d in zip(gradient, direction))
    np.testing.assert_allclose(predicted, (around[0] - around[1]) / 2e-3, rtol=0.02)


# Training


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_fit_evaluate_predict(dtype):
    model = MistralBackbone(**{**SIZES, "num_layers": 1}, sliding_window=3, dtype=dtype)
    model.compile(keras.optimizers.Adam(0.05), "mse")
    goal = np.random.default_rng(0).normal(size=(2, 5, 8))
    before = model.evaluate(INPUTS, goal, verbose=0)
    model.fit(INPUTS, goal, epochs=12, verbose=0)
    assert model.evaluate(INPUTS, goal, verbose=0) < 0.7 * before
    assert model.predict(INPUTS, verbose=0).shape == (2, 5, 8)


def test_a_frozen_backbone_has_nothing_to_train():
    with without_weights():
        model = MistralBackbone(**SIZES, trainable=False)
        again = MistralBackbone.from_config(model.get_config())
    assert model.trainable_weights == again.trainable_weights == []


@pytest.mark.slow
def test_dropout_is_on_in_training_only_and_repeats_with_the_seed():
    def outputs(seed):
        keras.utils.set_random_seed(seed)
        model = lively(num_layers=1, dropout=0.5)
        return [np.asarray(model(INPUTS, training=mode)) for mode in (True, True, False, False)]

    first, second, dry, again = outputs(1)
    np.testing.assert_array_equal(dry, again)
    assert np.abs(first - dry).max() > 0.1
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_array_equal(first, outputs(1)[0])
    assert np.abs(first - outputs(2)[0]).max() > 0.1


# Arguments


@pytest.mark.parametrize(
    ("name", "wrong", "error"),
    [
        *[(name, 0, ValueError) for name in SIZES],
        *[(name, -4, ValueError) for name in SIZES],
        *[(name, 4.0, TypeError) for name in SIZES],
        *[(name, "4", TypeError) for name in SIZES],
        *[(name, None, TypeError) for name in SIZES],
        *[(name, True, TypeError) for name in SIZES],
        ("hidden_dim", 10, ValueError),  # not a multiple of 4 heads
        ("hidden_dim", 12, ValueError),  # heads of 3 features
        ("num_query_heads", 3, ValueError),  # not a multiple of 2 key-value heads
        ("num_key_value_heads", 3, ValueError),
        ("rope_max_wavelength", 0, ValueError),
        ("rope_max_wavelength", -1, ValueError),
        ("rope_max_wavelength", float("nan"), ValueError),
        ("rope_max_wavelength", "10000", TypeError),
        ("rope_max_wavelength", None, TypeError),
        ("rope_scaling_factor", 0.0, ValueError),
        ("rope_scaling_factor", float("inf"), ValueError),
        ("rope_scaling_factor", None, TypeError),
        ("layer_norm_epsilon", 0, ValueError),
        ("layer_norm_epsilon", -1e-6, ValueError),
        ("layer_norm_epsilon", "1e-6", TypeError),
        ("sliding_window", 0, ValueError),
        ("sliding_window", -1, ValueError),
        ("sliding_window", 2.5, TypeError),
        ("sliding_window", 2**31, ValueError),
        ("dropout", 1, ValueError),
        ("dropout", -0.1, ValueError),
        ("dropout", None, TypeError),
        ("dtype", "float", ValueError),
        ("dtype", "int32", ValueError),
        ("dtype", "float64", ValueError),
        ("dtype", 3.5, ValueError),
        ("head_dim", 3, ValueError),
        ("head_dim", 0, ValueError),
        ("head_dim", 2.0, TypeError),
        ("tie_word_embeddings", "yes", TypeError),
        ("tie_word_embeddings", None, TypeError),
        ("name", 5, ValueError),
        ("trainable", "no", TypeError),
    ],
)
def test_wrong_arguments_are_named(name, wrong, error):
    with pytest.raises(error, match=rf"\b{name}\b"):
        MistralBackbone(**{**SIZES, name: wrong})


@pytest.mark.parametrize("name", ["num_heads", "window", "rope_theta", "trainble"])
def test_unknown_arguments_are_refused(name):
    with pytest.raises(TypeError, match=rf"MistralBackbone has no argument '{name}'. It takes"):
        MistralBackbone(**SIZES, **{name: 1})


def test_missing_and_surplus_arguments():
    with pytest.raises(TypeError, match="num_key_value_heads"):
        MistralBackbone(10, 1, 4, 8, 12)
    # head_dim and tie_word_embeddings are for keywords only.
    with pytest.raises(TypeError, match="positional"):
        MistralBackbone(10, 1, 4, 8, 12, 2, 10000, 1.0, 1e-6, 512, 0, None, 2)


# Rematerialisation


def training_step(backbone):
    """A function of the weights: the loss and its gradients, in training."""

    frozen = [v.value for v in backbone.non_trainable_variables]

    def loss(weights, inputs):
        outputs, _ = backbone.stateless_call(weights, frozen, inputs, training=True)
        return (outputs.astype("float32") ** 2).sum()

    return jax.jit(jax.value_and_grad(loss)), [v.value for v in backbone.trainable_variables]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "rank"), [({}, None), ({"dtype": "mixed_bfloat16"}, None), ({}, 2)]
)
def test_rematerialized_training_gives_the_same_gradients(settings, rank):
    model = lively(sliding_window=3, **settings)
    if rank:
        model.enable_lora(rank)
        for projection in lora.projections(model).values():
            for factor in projection.lora_factors():
                factor.assign(np.random.default_rng(0).normal(size=factor.shape))
    results = []
    for on in (False, True):
        model.rematerialize = on
        step, weights = training_step(model)
        results.append(step(weights, INPUTS))
    tolerance = 3e-2 if settings else 1e-5

    def close(a, b):
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max()

    jax.tree.map(close, *results)


@pytest.mark.slow
def test_rematerialized_training_keeps_one_block():
    sizes = {**SIZES, "num_layers": 8, "intermediate_dim": 512}
    ids = np.zeros((1, 255), "int32")
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    needs = []
    for on in (False, True):
        model = MistralBackbone(**sizes)
        model.rematerialize = on
        step, weights = training_step(model)
        needs.append(step.lower(weights, inputs).compile().memory_analysis().temp_size_in_bytes)
    assert needs[1] < needs[0] / 3, needs


def test_rematerialize_is_checked_and_seen_by_fit(backbone):
    with pytest.raises(TypeError, match="rematerialize"):
        backbone.rematerialize = 1
    with pytest.raises(ValueError, match="needs a dropout of 0"):
        lively(dropout=0.5).rematerialize = True
    model = lively()
    before = model.compiled_with()
    model.rematerialize = True
    assert model.compiled_with() != before  # so that `fit` compiles its step anew
    assert model.rematerialize
