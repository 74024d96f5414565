"""mistral_lib/master_weights.py: weights of 16 bits are trained as well as those of 32."""

import copy
import inspect
import pickle
from unittest import mock

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from lora_models import INPUTS, make_backbone

from mistral_lib import MistralCausalLM
from mistral_lib.master_weights import MasterWeights, with_master_weights

WRAPPERS = ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
KINDS = {
    name: kind
    for name, kind in inspect.getmembers(keras.optimizers, inspect.isclass)
    if issubclass(kind, keras.optimizers.Optimizer) and name not in WRAPPERS
}
SETTINGS = {
    "clipnorm": {"clipnorm": 0.1},
    "clipvalue": {"clipvalue": 0.1},
    "global_clipnorm": {"global_clipnorm": 0.1},
    "weight decay": {"weight_decay": 0.1},
    "average": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3},
    "accumulation": {"gradient_accumulation_steps": 2},
    "schedule": {"learning_rate": keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)},
    "static scale": {"loss_scale_factor": 8.0},
}
SHAPES = {"kernel": (4, 6), "embeddings": (5, 4), "scale": (4,)}
STEPS = 7


def variables(dtype):
    """Three variables with paths; the last is float32 in any case, as LoRA's factors are."""
    random = np.random.default_rng(0)
    found = []
    for name, shape in SHAPES.items():
        value = random.normal(size=shape).astype("bfloat16").astype("float32")
        with keras.name_scope("block"):
            found.append(
                keras.Variable(value, dtype="float32" if name == "scale" else dtype, name=name)
            )
    return found


def gradients(step):
    random = np.random.default_rng(step)
    return [random.normal(size=shape).astype("bfloat16") for shape in SHAPES.values()]


def after_steps(optimizer, weights, steps=STEPS):
    """One step after the other, compiled, as the trainer does them."""
    optimizer.build(weights)
    step = jax.jit(optimizer.stateless_apply)
    state = [v.value for v in optimizer.variables], [v.value for v in weights]
    for index in range(steps):
        grads = [jnp.asarray(g, w.dtype) for g, w in zip(gradients(index), state[1], strict=True)]
        new, values = step(state[0], grads, state[1])
        state = values, new
    for variable, value in zip([*optimizer.variables, *weights], [*state[0], *state[1]]):
        variable.assign(value)


def as_float32(value):
    return np.asarray(value, "float32")


def compared(kind, settings, dtype="bfloat16"):
    """Masters and weights of 16 bits, and the weights of the same optimizer in float32."""
    low, high = variables(dtype), variables("float32")
    wrapped = MasterWeights(kind(**settings))
    after_steps(wrapped, low)
    after_steps(kind(**settings), high)
    masters = [v if m is None else m for v, m in zip(low, wrapped.masters, strict=True)]
    return masters, low, high


@pytest.mark.parametrize("name", KINDS)
def test_every_optimizer_computes_as_in_float32(name):
    masters, low, high = compared(KINDS[name], {"learning_rate": 0.01})
    for master, weight, expected in zip(masters, low, high, strict=True):
        assert (as_float32(expected) != as_float32(variables("float32")[0].value).flat[0]).any()
        np.testing.assert_allclose(master.value, expected.value, rtol=2e-6, atol=2e-7)
        np.testing.assert_array_equal(
            as_float32(weight), as_float32(jnp.asarray(master.value, weight.dtype))
        )


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_computes_as_in_float32(name):
    masters, _, high = compared(keras.optimizers.AdamW, {"learning_rate": 0.01, **SETTINGS[name]})
    for master, expected in zip(masters, high, strict=True):
        np.testing.assert_allclose(master.value, expected.value, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("by", ["variable", "name"])
def test_what_is_excluded_from_weight_decay_stays_excluded(by):
    low, high = variables("bfloat16"), variables("float32")
    optimizers = [keras.optimizers.AdamW(0.01, weight_decay=0.5) for _ in range(2)]
    for optimizer, weights in zip(optimizers, (low, high)):
        excluded = {"var_list": weights[:1]} if by == "variable" else {"var_names": ["kernel"]}
        optimizer.exclude_from_weight_decay(**excluded)
    wrapped = MasterWeights(optimizers[0])
    after_steps(wrapped, low)
    after_steps(optimizers[1], high)
    for master, expected in zip(wrapped.masters[:2], high):
        np.testing.assert_allclose(master.value, expected.value, rtol=2e-6, atol=2e-7)


def test_an_optimizer_for_each_kind_of_weight():
    def make():
        kinds = {".*kernel": keras.optimizers.SGD(0.1)}
        default = keras.optimizers.Adam(0.01)
        return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(default, kinds))

    masters, _, high = compared(make, {})
    for master, expected in zip(masters, high, strict=True):
        np.testing.assert_allclose(master.value, expected.value, rtol=2e-6, atol=2e-7)


def test_a_loop_of_ones_own():
    """`apply` takes the variables in any order, and changes them in place."""
    low, high = variables("bfloat16"), variables("bfloat16")
    one, other = (MasterWeights(keras.optimizers.Adam(0.01)) for _ in range(2))
    one.build(low)
    for step in range(STEPS):
        one.apply_gradients(list(zip(gradients(step), low))[::-1])
    after_steps(other, high)
    for ours, theirs in zip(one.variables[2:], other.variables[2:], strict=True):
        np.testing.assert_allclose(ours.value, theirs.value, rtol=1e-6, atol=1e-7)
    with pytest.raises(ValueError, match="built for other variables"):
        one.apply(gradients(0), high)


def test_state_is_float32_and_only_for_what_is_trained_in_16_bits():
    weights = variables("bfloat16")
    optimizer = MasterWeights(keras.optimizers.Adam())
    optimizer.build(weights)
    assert optimizer.masters[2] is None  # the weight is float32 itself
    assert {str(v.dtype) for v in optimizer.variables} == {"float32", "int32"}
    sizes = [int(np.prod(shape)) for shape in SHAPES.values()]
    scalars = sum(v.ndim == 0 for v in optimizer.variables)
    state = sum(int(np.prod(v.shape)) for v in optimizer.variables) - scalars
    assert 4 * state == 12 * sum(sizes[:2]) + 8 * sizes[2]  # the bytes that the docstring states


def test_what_is_written_from_outside_is_kept():
    """And what is not, keeps the digits that its master has."""
    weights = variables("bfloat16")
    optimizer = MasterWeights(keras.optimizers.SGD(0.0001))
    after_steps(optimizer, weights)
    master = np.array(optimizer.masters[1].value)
    loaded = np.random.default_rng(5).normal(size=SHAPES["kernel"]).astype("bfloat16")
    weights[0].assign(loaded)
    optimizer.learning_rate = 0.0
    after_steps(optimizer, weights, steps=1)
    np.testing.assert_array_equal(weights[0].value, loaded)
    np.testing.assert_array_equal(optimizer.masters[0].value, as_float32(loaded))
    np.testing.assert_array_equal(optimizer.masters[1].value, master)
    assert (master != as_float32(weights[1])).any()


def test_averages_replace_masters_at_the_end():
    weights = variables("bfloat16")
    optimizer = MasterWeights(keras.optimizers.SGD(0.01, use_ema=True))
    after_steps(optimizer, weights)
    optimizer.finalize_variable_values(weights)
    high = variables("float32")
    plain = keras.optimizers.SGD(0.01, use_ema=True)
    after_steps(plain, high)
    plain.finalize_variable_values(high)
    for master, weight, expected in zip(optimizer.masters[:2], weights, high):
        np.testing.assert_allclose(master.value, expected.value, rtol=2e-6, atol=2e-7)
        np.testing.assert_array_equal(weight.value, jnp.asarray(master.value, "bfloat16"))


# Models ------------------------------------------------------------------------------------------


def data(rows=8):
    ids = np.random.default_rng(0).integers(1, 20, (rows, 13)).astype("int32")
    return {"token_ids": ids[:, :-1], "padding_mask": np.ones((rows, 12), bool)}, ids[:, 1:]


def make_model(dtype, optimizer=None, lora=False, **changes):
    keras.utils.set_random_seed(0)
    model = MistralCausalLM(make_backbone(dtype, num_layers=1, **changes))
    if lora:
        model.backbone.enable_lora(2)
    if optimizer is not None:
        model.compile(optimizer, loss=model.loss)
    return model


def losses(model, epochs=10, name="loss", **settings):
    x, y = data()
    return model.fit(
        x, y, epochs=epochs, batch_size=8, shuffle=False, verbose=0, **settings
    ).history[name]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_loss_falls_as_in_float32(dtype):
    ours, theirs = (losses(make_model(d, keras.optimizers.Adam(0.02))) for d in (dtype, "float32"))
    assert theirs[-1] < theirs[0] - 1
    np.testing.assert_allclose(ours, theirs, rtol=0.03)


def test_the_constructors_own_optimizer_moves_the_weights():
    """Its rate, 2e-5, is far below a step of bfloat16 at most weights."""
    model = make_model("bfloat16")
    before = [np.array(m.value) for m in model.trainable_variables]
    losses(model, epochs=2)
    for master, old in zip(model.optimizer.masters, before, strict=True):
        moved = np.asarray(master.value) - as_float32(old)
        assert 1e-5 < np.abs(moved).max() < 1e-4


def test_float32_is_left_alone():
    optimizer = keras.optimizers.Adam()
    for dtype in ("float32", "mixed_bfloat16"):
        assert make_model(dtype, optimizer).optimizer is optimizer


def test_the_callers_optimizer_is_the_one_at_work():
    optimizer = keras.optimizers.AdamW(0.02, clipnorm=1.0)
    config = optimizer.get_config()
    model = make_model("bfloat16", optimizer)
    losses(model, epochs=3)
    assert optimizer.get_config() == config
    assert int(optimizer.iterations) == int(model.optimizer.iterations) == 3
    optimizer.learning_rate = 0.5
    assert float(model.optimizer.learning_rate) == 0.5
    masters = model.optimizer.masters
    model.compile(optimizer, loss=model.loss)  # the same once more, as one does for other metrics
    assert model.optimizer.masters is masters
    losses(model, epochs=1)
    assert int(optimizer.iterations) == 4


def test_factors_of_lora_have_no_masters():
    model = make_model("bfloat16", lora=True)
    losses(model, epochs=1)
    assert model.optimizer.masters == [None] * 4


@pytest.mark.slow
def test_loaded_weights_stay(tmp_path):
    model, other = (make_model("bfloat16", keras.optimizers.Adam(0.05)) for _ in range(2))
    losses(other, epochs=1)
    other.save_weights(tmp_path / "other.weights.h5")
    losses(model, epochs=3)
    model.load_weights(tmp_path / "other.weights.h5")
    model.optimizer.learning_rate = 0.0
    losses(model, epochs=1)
    for ours, theirs in zip(model.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_array_equal(ours.value, theirs.value)


def other_values(model):
    random = np.random.default_rng(5)
    return [random.normal(size=v.shape).astype("float32") for v in model.weights]


def assign_one(model):
    weight = model.backbone.transformer_layers[0].feedforward.up.kernel
    weight.assign(np.random.default_rng(5).normal(size=weight.shape))


CHANGES = {  # each after training with LoRA, and the norms beside it
    "set_weights": lambda model: model.set_weights(other_values(model)),
    "assign": assign_one,
    "merge_lora": lambda model: model.backbone.merge_lora(),
    "quantize": lambda model: model.quantize("int8"),
    "dequantize": lambda model: [model.quantize("int8"), model.dequantize()],
    "quantize, merge_lora": lambda model: [
        model.quantize("int8"),
        model.backbone.merge_lora(dequantize=True),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_step_at_rate_0_changes_nothing_that_was_set(change):
    optimizer = keras.optimizers.Adam(0.05)
    model = make_model("bfloat16", optimizer, lora=True)
    model.backbone.transformer_layers[0].trainable = True  # base and factors
    model.compile(optimizer, loss=model.loss)
    losses(model, epochs=2)
    CHANGES[change](model)
    expected = [as_float32(v.value) for v in model.weights]
    optimizer.learning_rate = 0.0
    if change not in ("set_weights", "assign"):  # other weights are trained now
        with pytest.raises(ValueError, match="Call compile again"):
            losses(model, epochs=1)
        model.compile(keras.optimizers.Adam(0.0), loss=model.loss)
    losses(model, epochs=1)
    for variable, value in zip(model.weights, expected, strict=True):
        np.testing.assert_array_equal(as_float32(variable.value), value)


def averaged(dtype, callbacks=(), kind=keras.optimizers.Adam):
    """A model trained with averages, and its losses in evaluations meanwhile."""
    model = make_model(dtype, kind(0.02, use_ema=True, ema_momentum=0.5))
    return model, losses(
        model, epochs=3, name="val_loss", validation_data=data(), callbacks=[*callbacks]
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("swapped", ["not", "for tests", "for epochs"])
def test_averages_are_swapped_as_in_float32(dtype, swapped):
    """Evaluation sees averages, training goes on from the masters, which have lost no digit."""
    names, results = {"for tests": False, "for epochs": True}, []
    for each in (dtype, "float32"):
        callbacks = [keras.callbacks.SwapEMAWeights(names[swapped])] if swapped in names else []
        results.append(averaged(each, callbacks))
    (model, ours), (_, theirs) = results
    np.testing.assert_allclose(ours, theirs, rtol=0.02)
    for variable, master in zip(model.trainable_variables, model.optimizer.masters, strict=True):
        rounded = jnp.asarray(master.value, variable.dtype)
        np.testing.assert_array_equal(as_float32(variable.value), as_float32(rounded))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("door", ["keras", "pickle", "deepcopy"])
def test_a_copy_keeps_averages_and_masters(door, dtype, tmp_path):
    model, _ = averaged(dtype)
    if door == "keras":
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
    else:
        again = pickle.loads(pickle.dumps(model)) if door == "pickle" else copy.deepcopy(model)
    for ours, theirs in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours.value, theirs.value)
    assert losses(again, epochs=2) == losses(model, epochs=2)


def one_average_of_two():
    some = {".*kernel": keras.optimizers.SGD(0.01, use_ema=True)}
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.01), some)
    )


@pytest.mark.parametrize(
    "inside",
    [lambda: keras.optimizers.SGD(0.01, use_ema=True), one_average_of_two],
    ids="one two".split(),
)
def test_a_swap_and_back_loses_no_digit(inside):
    """Each weight's master and average change places, and the weight is the master rounded."""
    weights = variables("bfloat16")
    optimizer = MasterWeights(inside())
    after_steps(optimizer, weights)
    before = [np.array(v.value) for v in (*optimizer.variables, *weights)]
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(optimizer)
    callback = keras.callbacks.SwapEMAWeights()
    callback.set_model(model)
    with mock.patch.object(keras.Model, "trainable_variables", weights):
        callback.on_test_begin()
        during = [np.array(v.value) for v in (*optimizer.variables, *weights)]
        callback.on_test_end()
    assert any((a != b).any() for a, b in zip(before, during, strict=True))
    for variable, value in zip((*optimizer.variables, *weights), before, strict=True):
        np.testing.assert_array_equal(np.array(variable.value), value)


def test_swapping_without_averages_is_refused_in_keras_words():
    callbacks = [keras.callbacks.SwapEMAWeights()]
    model = make_model("bfloat16", keras.optimizers.Adam())
    with pytest.raises(ValueError, match="must be used when `use_ema=True`"):
        losses(model, epochs=1, validation_data=data(), callbacks=callbacks)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_keras_file_goes_on_where_training_stopped(tmp_path, dtype):
    model = make_model(dtype, keras.optimizers.Adam(0.02))
    losses(model, epochs=3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for ours, theirs in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours.value, theirs.value)
    assert losses(loaded, epochs=3) == losses(model, epochs=3)
    for ours, theirs in zip(loaded.optimizer.masters, model.optimizer.masters, strict=True):
        np.testing.assert_array_equal(ours.value, theirs.value)


@pytest.mark.slow
def test_a_file_without_masters_goes_on_from_the_weights():
    model = make_model("bfloat16")
    losses(model, epochs=1)
    masters = [np.array(master.value) for master in model.optimizer.masters]
    with pytest.warns(UserWarning, match=r"has 1 master weights, but this model trains \d+"):
        model.optimizer.load_own_variables({"0": 1})
    for master, old in zip(model.optimizer.masters, masters, strict=True):
        np.testing.assert_array_equal(master.value, old)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"jit_compile": False, "run_eagerly": True}, {"steps_per_execution": 2}],
    ids="eager two-steps".split(),
)
def test_other_ways_to_run_a_step(settings):
    usual, other = (make_model("bfloat16") for _ in range(2))
    usual.compile(keras.optimizers.Adam(0.02), loss=usual.loss)
    other.compile(keras.optimizers.Adam(0.02), loss=other.loss, **settings)
    np.testing.assert_allclose(losses(other, epochs=3), losses(usual, epochs=3), rtol=0.02)


@pytest.mark.slow
def test_rematerialized_blocks_train_the_same():
    usual, other = (make_model("bfloat16", keras.optimizers.Adam(0.02)) for _ in range(2))
    other.backbone.rematerialize = True
    np.testing.assert_allclose(losses(other), losses(usual), rtol=0.02)


def test_float16_is_scaled_once():
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    static = keras.optimizers.Adam(loss_scale_factor=128.0)
    backbone = make_backbone("float16", num_layers=1)
    for optimizer in (scaled, static):
        assert with_master_weights(optimizer, backbone).optimizer is optimizer
    assert static.loss_scale_factor == 128.0
    plain = with_master_weights("adam", backbone).optimizer
    assert isinstance(plain, keras.optimizers.LossScaleOptimizer)


def test_a_backbone_of_its_own_is_trained_too():
    backbone = make_backbone("bfloat16", num_layers=1)
    backbone.compile("adam", "mse")
    assert isinstance(backbone.optimizer, MasterWeights)
    x = {name: np.array(value) for name, value in INPUTS.items()}
    backbone.fit(x, np.ones((1, 6, 16)), verbose=0)
    assert (as_float32(backbone.optimizer.masters[0]) != 0).any()
