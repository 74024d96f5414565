"""mistral_lib/lora.py: what the paper promises, and what saving must not lose."""

import math

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from lora_models import (
    CONFIG,
    INPUTS,
    adapted_backbone,
    base_bytes,
    make_backbone,
    outputs,
    set_factors,
)
from reference import plain
from reference.keras_models import our_variables

from mistral_lib import MistralBackbone, MistralCausalLM, lora, without_weights
from mistral_lib.layers.projection import Projection
from mistral_lib.layers.quantized import dequantize
from mistral_lib.presets.peft_config import MODULES as LAYERS


def test_the_papers_number_of_parameters():
    """Rank 4 on the query and value of 32 layers: 4 (4096 + 4096) and 4 (4096 + 1024) each."""
    with without_weights():
        backbone = MistralBackbone(32000, 32, 32, 4096, 14336, 8)
        backbone.enable_lora(4)
    trainable = sum(math.prod(v.shape) for v in backbone.trainable_variables)
    assert trainable == 1_703_936 == 32 * 4 * (4096 + 4096 + 4096 + 1024)


def test_logits_are_identical_at_the_start():
    backbone = make_backbone()
    before = outputs(backbone)
    backbone.enable_lora(3)
    np.testing.assert_array_equal(outputs(backbone), before)


@pytest.mark.parametrize("alpha", [None, 8])
def test_the_formula_against_float64(alpha):
    backbone = make_backbone()
    backbone.enable_lora(3, lora_alpha=alpha)
    set_factors(backbone)
    layer = backbone.transformer_layers[0].self_attention.query
    x = np.random.default_rng(1).normal(size=(2, 3, 16))
    kernel, a, b = (
        np.asarray(v.value, "float64")
        for v in (layer._kernel, layer.lora_kernel_a, layer.lora_kernel_b)
    )
    expected = x @ kernel + (alpha or 3) / 3 * (x @ a) @ b
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)


def test_bfloat16_rounds_the_sum_once():
    """A kernel of ones and an update of 1/512 of it: bfloat16 kernels would lose the update."""
    backbone = make_backbone("bfloat16")
    backbone.enable_lora(1)
    layer = backbone.transformer_layers[0].self_attention.query
    layer._kernel.assign(jnp.ones((16, 16)))
    layer.lora_kernel_a.assign(jnp.full((16, 1), 2.0**-9))
    layer.lora_kernel_b.assign(jnp.ones((1, 16)))
    x = np.zeros((1, 1, 16))
    x[..., 0], x[..., 1] = 1, -1 + 2**-5  # the kernel's part nearly cancels
    layer.lora_kernel_a.assign(layer.lora_kernel_a.value.at[1].set(0.0))
    expected = 2**-5 + 2**-9
    np.testing.assert_allclose(np.array(layer(x), "float32"), expected, rtol=2**-8)


MANY = {
    "token_ids": np.random.default_rng(3).integers(0, 20, (8, 24)),
    "padding_mask": np.ones((8, 24), "int32"),
}


def float64_logits(backbone):
    """Logits by loops in float64, from the numbers in a backbone's variables."""
    weights = {
        name: np.asarray(variable.value, "float64")
        for name, variable in our_variables(backbone).items()
    }
    layers = lora.projections(backbone)
    for index, (path, layer) in enumerate(layers.items()):
        if layer.lora_enabled:
            a, b = (np.asarray(factor.value, "float64") for factor in layer.lora_factors())
            part = path.rpartition("/")[2].replace("attention_output", "output")
            weights[f"layers.{index // 7}.{part}"] += layer.lora_alpha / layer.lora_rank * a @ b
    mask = MANY["padding_mask"].astype("bool")
    hidden_states = plain.hidden_states(CONFIG, weights, MANY["token_ids"], mask)
    return hidden_states @ weights["reverse_embeddings"]


def logits(backbone):
    return np.asarray(backbone.token_embedding(backbone(MANY), reverse=True), "float64")


@pytest.mark.slow
def test_logits_in_bfloat16_are_rounded_like_the_bases():
    """Each hidden state is rounded to 8 bits a few times. LoRA adds no error of its own."""
    errors = []
    for size in (None, 0.03, 0.1, 0.2):
        backbone = make_backbone("bfloat16")
        if size is not None:
            backbone.enable_lora(3, list(LAYERS), 6)
            set_factors(backbone, size)
        exact = float64_logits(backbone)
        errors.append(np.sqrt(((logits(backbone) - exact) ** 2).mean() / (exact**2).mean()))
    assert errors[0] < 4 * 2**-8
    assert max(errors[1:]) < 1.25 * errors[0]


@pytest.mark.parametrize("size", [1e-3, 0.1, 3])
def test_a_projection_in_bfloat16_is_rounded_once(size):
    backbone = make_backbone("bfloat16")
    backbone.enable_lora(3)
    set_factors(backbone, size)
    layer = backbone.transformer_layers[1].self_attention.value
    x = jax.random.normal(jax.random.key(0), (4, 5, 16), "bfloat16")
    kernel, a, b, exact_x = (
        np.asarray(array, "float64") for array in (layer._kernel.value, *layer.lora_factors(), x)
    )
    exact = exact_x @ kernel + exact_x @ a @ b
    error = np.abs(np.asarray(layer(x), "float64") - exact)
    half_a_step = 2.0 ** (np.floor(np.log2(np.abs(exact))) - 8)  # to the next bfloat16 number
    assert (error <= half_a_step + 1e-5).all()


def workspace(run, dtype, lora_on, backward):
    """Bytes of workspace of one compiled call of a projection 512 × 512, or of its gradients."""
    layer = Projection(512, dtype=dtype)
    layer.build((None, None, 512))
    if lora_on:
        layer.enable_lora(4)
    x = jnp.ones((1, 4, 512))

    def loss(factors, x, kernel):
        values = zip(layer.variables, [kernel, *factors], strict=True)
        with keras.StatelessScope(list(values)):
            return run(layer, x).astype("float32").sum()

    if backward:
        loss = jax.grad(loss, argnums=(0, 1))
    kernel, *factors = (v.value for v in layer.variables)
    return jax.jit(loss).lower(factors, x, kernel).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "mixed_float16"])
def test_no_second_copy_of_a_kernel(dtype, backward):
    """Beyond what the base needs LoRA needs very little.

    On CPUs XLA widens a kernel of 16 bits, with some versions in one of the two programs only.
    """

    def as_keras_does(layer, x):
        update = (layer.lora_kernel_a @ layer.lora_kernel_b).astype(layer.compute_dtype)
        return x.astype(layer.compute_dtype) @ (layer._kernel + update)

    widened = 0 if dtype == "float32" else 4 * 512 * 512
    base = max(widened, workspace(Projection.__call__, dtype, False, backward))
    assert workspace(Projection.__call__, dtype, True, backward) < base + 512 * 512 / 4
    if dtype == "float32" or backward:
        assert workspace(as_keras_does, dtype, True, backward) >= base + 512 * 512 * 3


def test_merged_equals_unmerged():
    backbone = make_backbone()
    backbone.enable_lora(3, ["query", "down"], lora_alpha=6)
    set_factors(backbone)
    unmerged = outputs(backbone)
    backbone.merge_lora()
    np.testing.assert_allclose(outputs(backbone), unmerged, atol=1e-5)
    assert not [v.path for v in backbone.variables if "lora" in v.path]
    assert all(v.trainable for v in backbone.variables)
    backbone.enable_lora(2)  # and again
    assert len(backbone.trainable_variables) == 2 * 2 * 2


def test_merging_leaves_what_was_frozen_frozen():
    """The state of dropout's random numbers, too, which no gradient can change."""
    backbone = make_backbone(dropout=0.1)
    backbone.token_embedding.trainable = False
    before = [(v.path, v.trainable) for v in backbone.variables]
    assert {trainable for _, trainable in before} == {True, False}
    backbone.enable_lora(2)
    backbone.merge_lora()
    assert [(v.path, v.trainable) for v in backbone.variables] == before


def test_a_frozen_backbone_gets_trainable_factors():
    backbone = make_backbone()
    backbone.trainable = False
    backbone.enable_lora(2)
    assert len(backbone.trainable_variables) == 8
    backbone.merge_lora()
    assert not backbone.trainable_variables


@pytest.fixture(scope="module")
def trained():
    """A causal language model, its base before training, its factors before training."""
    model = MistralCausalLM(make_backbone())
    model.backbone.enable_lora(2, ["query", "value", "gate"], 3)
    before = base_bytes(model.backbone)
    factors = [np.asarray(v.value) for v in model.backbone.trainable_variables]
    fit(model, epochs=3)
    return model, before, factors


def fit(model, epochs):
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=model.loss)
    ids = np.array(INPUTS["token_ids"])
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    return model.fit(inputs, ids, epochs=epochs, verbose=0).history["loss"]


@pytest.mark.slow
def test_training_changes_the_factors_alone(trained):
    model, before, factors = trained
    assert base_bytes(model.backbone) == before
    for old, variable in zip(factors, model.backbone.trainable_variables, strict=True):
        assert (np.asarray(variable.value) != old).any()


@pytest.mark.slow
def test_the_optimizer_keeps_the_factors_moments_alone(trained):
    model, _, factors = trained
    sizes = [math.prod(v.shape) for v in model.optimizer.variables]
    # Two numbers for each trained one; the step and the learning rate.
    assert sum(sizes) == 2 * sum(factor.size for factor in factors) + 2


@pytest.mark.slow
@pytest.mark.parametrize("optimized", [True, False])
def test_keras_file_of_a_trained_model(tmp_path, trained, optimized):
    model, before, _ = trained
    model.save(tmp_path / "model.keras", include_optimizer=optimized)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert lora.settings(loaded.backbone) == lora.settings(model.backbone)
    assert base_bytes(loaded.backbone) == before
    np.testing.assert_array_equal(outputs(loaded.backbone), outputs(model.backbone))
    trainable = [v.path for v in model.trainable_variables]
    assert [v.path for v in loaded.trainable_variables] == trainable
    if optimized:
        moments = [np.asarray(v.value) for v in loaded.optimizer.variables]
        for one, other in zip(moments, model.optimizer.variables, strict=True):
            np.testing.assert_array_equal(one, other.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "dtype", ["float32", "bfloat16", "float16", "mixed_bfloat16", "mixed_float16"]
)
def test_every_policy_trains(dtype):
    model = MistralCausalLM(make_backbone(dtype, num_layers=1))
    model.backbone.enable_lora(2)
    before = base_bytes(model.backbone)
    loss = fit(model, epochs=4)
    assert loss[-1] < loss[0]
    assert base_bytes(model.backbone) == before
    assert {str(v.dtype) for v in model.backbone.trainable_variables} == {"float32"}


@pytest.mark.slow
def test_training_goes_on_after_a_change_only_when_compiled_again():
    model = MistralCausalLM(make_backbone())
    fit(model, epochs=1)
    model.backbone.enable_lora(2)
    inputs = {name: np.array(value) for name, value in INPUTS.items()}
    with pytest.raises(ValueError, match=r"trainable weights have changed.*Call compile again"):
        model.fit(inputs, inputs["token_ids"], verbose=0)
    fit(model, epochs=1)


# On quantized weights (QLoRA) --------------------------------------------------------------------


def quantized_backbone(quantization, first, **changes):
    """With LoRA that was enabled first, or after the weights had been quantized."""
    backbone = make_backbone(**changes)
    if first == "quantized":
        backbone.quantize(quantization)
    backbone.enable_lora(2, ["query", "value", "down"])
    if first == "adapted":
        backbone.quantize(quantization)
    return backbone


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quantization", "dtype", "first"),
    [
        ("int8", "mixed_bfloat16", "adapted"),
        ("int4/8", "float32", "quantized"),
        ("int4/8", "float16", "adapted"),
    ],
)
def test_quantized_weights_train(quantization, dtype, first):
    model = MistralCausalLM(quantized_backbone(quantization, first, dtype=dtype, num_layers=1))
    before = base_bytes(model.backbone)
    trainable = [v.path for v in model.trainable_variables]
    assert len(trainable) == 2 * 3
    loss = fit(model, epochs=4)
    assert loss[-1] < loss[0]
    assert base_bytes(model.backbone) == before
    assert [v.path for v in model.trainable_variables] == trainable
    kept = sum(math.prod(v.shape) for v in without_scaling(model.optimizer).variables)
    assert kept == 2 * sum(math.prod(v.shape) for v in model.trainable_variables) + 2


def without_scaling(optimizer):
    """Without the wrappers for float16: factors have no masters, and their loss is scaled."""
    optimizer = getattr(optimizer, "optimizer", optimizer)
    return getattr(optimizer, "inner_optimizer", optimizer)


@pytest.mark.slow
def test_gradients_on_quantized_weights():
    """Those of the float model that has the same numbers."""

    def gradients(backbone):
        factors = backbone.trainable_variables

        def loss(values):
            with keras.StatelessScope(list(zip(factors, values, strict=True))):
                return (backbone(INPUTS) ** 2).sum()

        compiled = jax.jit(jax.grad(loss), compiler_options={"xla_backend_optimization_level": 0})
        return compiled([v.value for v in factors])

    backbone = quantized_backbone("int4/8", "quantized", num_layers=1)
    set_factors(backbone)
    quantized = gradients(backbone)
    backbone.dequantize()
    for one, other in zip(quantized, gradients(backbone), strict=True):
        assert np.abs(other).max() > 0.1
        np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max())


@pytest.mark.slow
@pytest.mark.parametrize(("quantization", "first"), [("int8", "adapted"), ("int4/8", "quantized")])
def test_merging_into_quantized_kernels_is_refused(quantization, first):
    backbone = quantized_backbone(quantization, first, num_layers=1)
    set_factors(backbone)
    layer = backbone.transformer_layers[0].feedforward.down
    a, b = (np.asarray(factor.value, "float64") for factor in layer.lora_factors())
    expected = np.asarray(dequantize(layer.quantized_matrix("kernel"))) + a @ b
    variables = base_bytes(backbone)
    with pytest.raises(
        ValueError, match=rf"quantized to {quantization}.*merge_lora\(dequantize=True\)"
    ):
        backbone.merge_lora()
    assert base_bytes(backbone) == variables
    backbone.merge_lora(dequantize=True)
    assert backbone.quantization is None
    assert lora.settings(backbone) is None
    np.testing.assert_allclose(layer.kernel.value, expected, atol=1e-6)
    assert {v.path: v.trainable for v in backbone.variables} == {
        v.path: v.trainable for v in make_backbone(num_layers=1).variables
    }


def test_adapters_of_quantized_weights(tmp_path):
    """QLoRA's adapter is one like any other, for the same base in any precision."""
    backbone = quantized_backbone("int8", "quantized", num_layers=1)
    set_factors(backbone)
    backbone.save_lora_weights(tmp_path / "a.lora.h5")
    backbone.export_lora_to_peft(tmp_path / "peft")
    for adapter in (tmp_path / "a.lora.h5", tmp_path / "peft"):
        for quantization in ("int8", "int4/8", None):
            again = make_backbone(num_layers=1)
            if quantization is not None:
                again.quantize(quantization)
            again.load_lora_weights(adapter)
            assert lora.settings(again) == lora.settings(backbone)
            for name, factor in lora.factors(backbone).items():
                np.testing.assert_array_equal(lora.factors(again)[name], factor)
    with pytest.raises(ValueError, match="trained on another base model: the norms"):
        make_backbone(seed=1, num_layers=1).load_lora_weights(tmp_path / "a.lora.h5")


# Using and keeping it ----------------------------------------------------------------------------


@pytest.mark.slow
def test_generation_uses_the_adapter():
    model = MistralCausalLM(make_backbone())
    base = model.generate([1, 2, 3], 20)
    model.backbone.enable_lora(2)
    assert model.generate([1, 2, 3], 20) == base
    set_factors(model.backbone, size=1.0)
    adapted = model.generate([1, 2, 3], 20)
    assert adapted != base
    model.backbone.merge_lora()
    assert model.generate([1, 2, 3], 20) == adapted


def test_a_second_call():
    backbone = make_backbone()
    backbone.enable_lora(2)
    set_factors(backbone)
    before = outputs(backbone)
    backbone.enable_lora(2)
    backbone.enable_lora(2, ["value", "query"], 2)
    for arguments in (
        {"rank": 3},
        {"rank": 2, "lora_alpha": 4},
        {"rank": 2, "target_layer_names": "key"},
    ):
        with pytest.raises(ValueError, match="has LoRA already, with rank 2 and alpha 2 on query"):
            backbone.enable_lora(**arguments)
    np.testing.assert_array_equal(outputs(backbone), before)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rank": 0}, ValueError, "rank must be at least 1"),
        ({"rank": 1.5}, TypeError, "rank must be an integer"),
        (
            {"rank": 2, "target_layer_names": ["querry"]},
            ValueError,
            "'querry'. The layers are: att",
        ),
        ({"rank": 2, "target_layer_names": []}, ValueError, "it is empty"),
        ({"rank": 2, "lora_alpha": -1}, ValueError, "lora_alpha must be above 0"),
    ],
)
def test_what_is_refused_changes_nothing(arguments, error, message):
    backbone = make_backbone()
    with pytest.raises(error, match=message):
        backbone.enable_lora(**arguments)
    assert all(v.trainable for v in backbone.variables)
    with pytest.raises(ValueError, match="has no LoRA"):
        backbone.merge_lora()
    with pytest.raises(ValueError, match="has no LoRA"):
        backbone.save_lora_weights("x.lora.h5")


def test_keras_file_of_a_backbone(tmp_path):
    backbone = adapted_backbone(3, ["query", "down"], 6)
    backbone.save(tmp_path / "backbone.keras")
    again = keras.saving.load_model(tmp_path / "backbone.keras")
    assert lora.settings(again) == lora.settings(backbone)
    assert base_bytes(again) == base_bytes(backbone)
    np.testing.assert_array_equal(outputs(again), outputs(backbone))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_preset_keeps_base_and_adapter(tmp_path, dtype):
    backbone = make_backbone(dtype)
    backbone.save_to_preset(tmp_path / "base")
    backbone.enable_lora(3, ["query", "down"], 6)
    set_factors(backbone)
    backbone.save_to_preset(tmp_path / "adapted")
    again = MistralBackbone.from_preset(tmp_path / "adapted", dtype=dtype)
    assert lora.settings(again) == lora.settings(backbone)
    assert base_bytes(again) == base_bytes(backbone)
    np.testing.assert_array_equal(outputs(again), outputs(backbone))
    for name in ("model.weights.h5", "config.json"):  # which is all that KerasHub reads
        assert (tmp_path / "base" / name).stat().st_size == (
            tmp_path / "adapted" / name
        ).stat().st_size
    again.merge_lora()
    again.save_to_preset(tmp_path / "adapted")
    assert not (tmp_path / "adapted" / "adapter.lora.h5").exists()
    merged = MistralBackbone.from_preset(tmp_path / "adapted", dtype=dtype)
    np.testing.assert_array_equal(outputs(merged), outputs(again))


# Freezing ----------------------------------------------------------------------------------------


def trainable_paths(model):
    return [v.path for v in model.trainable_variables]


@pytest.mark.parametrize("frozen", ["model", "backbone"])
def test_a_frozen_model_trains_its_factors(frozen):
    model = MistralCausalLM(make_backbone(), trainable=frozen != "model")
    if frozen == "backbone":
        model.backbone.trainable = False
    assert not model.trainable
    assert not model.trainable_variables
    model.backbone.enable_lora(2)
    assert model.trainable
    assert len(trainable_paths(model)) == 8
    assert all("lora" in path for path in trainable_paths(model))


@pytest.mark.parametrize("switched", ["model", "backbone", "model around them"])
def test_freezing_and_thawing_gives_back_the_factors(switched):
    model = MistralCausalLM(make_backbone())
    model.backbone.enable_lora(2)
    around = keras.Model(model.input, model.backbone(model.input))
    part = {"model": model, "backbone": model.backbone, "model around them": around}[switched]
    before = trainable_paths(model)
    for value in (True, False, False):
        part.trainable = value
    assert not model.trainable_variables
    assert not model.backbone.trainable_variables
    for value in (True, True):
        part.trainable = value
    assert trainable_paths(model.backbone) == before
    model.backbone.trainable = False
    model.backbone.merge_lora()
    assert not model.trainable_variables
    model.trainable = True  # without LoRA everything is thawed, as Keras does it
    assert len(model.trainable_variables) == len(model.weights)


def test_what_is_trained_beside_the_factors_comes_back_too():
    backbone = make_backbone()
    backbone.enable_lora(2)
    backbone.layer_norm.trainable = True
    before = trainable_paths(backbone)
    assert len(before) == 9
    backbone.trainable = False
    backbone.trainable = True
    assert trainable_paths(backbone) == before


def test_a_frozen_adapter_is_loaded_frozen(tmp_path):
    backbone = make_backbone()
    backbone.enable_lora(2)
    before = trainable_paths(backbone)
    backbone.trainable = False
    backbone.save(tmp_path / "backbone.keras")
    loaded = keras.saving.load_model(tmp_path / "backbone.keras")
    assert not loaded.trainable_variables
    loaded.trainable = True
    assert trainable_paths(loaded) == before
