"""mistral_lib/lora.py: what the paper promises, and what saving must not lose."""

import math

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from lora_models import INPUTS, base_bytes, make_backbone, outputs, set_factors

from mistral_lib import MistralBackbone, MistralCausalLM, lora, without_weights
from mistral_lib.layers.projection import Projection


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


def test_no_second_copy_of_a_kernel():
    wide = Projection(512)
    wide.build((None, None, 512))
    wide.enable_lora(4)
    weights = [v.value for v in wide.variables]

    def run(weights, x):
        with keras.StatelessScope(list(zip(wide.variables, weights, strict=True))):
            return wide(x)

    compiled = jax.jit(run).lower(weights, jnp.ones((1, 1, 512))).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 512 * 512 * 4 / 8


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


def test_training_changes_the_factors_alone():
    model = MistralCausalLM(make_backbone())
    model.backbone.enable_lora(2, ["query", "value", "gate"])
    before = base_bytes(model.backbone)
    factors = [np.asarray(v.value) for v in model.backbone.trainable_variables]
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=model.loss)
    ids = np.array(INPUTS["token_ids"])
    model.fit({"token_ids": ids, "padding_mask": np.ones_like(ids)}, ids, epochs=3, verbose=0)
    assert base_bytes(model.backbone) == before
    for old, variable in zip(factors, model.backbone.trainable_variables, strict=True):
        assert (np.asarray(variable.value) != old).any()
    # Adam keeps two numbers for each trained one, and nothing else of that size.
    kept = [v for v in model.optimizer.variables if len(v.shape) == 2]
    assert len(kept) == 2 * len(factors)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "mixed_bfloat16", "mixed_float16"])
def test_every_policy_trains(dtype):
    model = MistralCausalLM(make_backbone(dtype))
    model.backbone.enable_lora(2)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=model.loss)
    ids = np.array(INPUTS["token_ids"])
    data = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    loss = model.fit(data, ids, epochs=5, verbose=0).history["loss"]
    assert loss[-1] < loss[0]
    assert {str(v.dtype) for v in model.backbone.trainable_variables} == {"float32"}


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


@pytest.mark.parametrize("wrap", [lambda backbone: backbone, MistralCausalLM])
def test_keras_file_keeps_base_and_adapter(tmp_path, wrap):
    model = wrap(make_backbone())
    backbone = getattr(model, "backbone", model)
    backbone.enable_lora(3, ["query", "down"], 6)
    set_factors(backbone)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    again = getattr(loaded, "backbone", loaded)
    assert lora.settings(again) == lora.settings(backbone)
    assert base_bytes(again) == base_bytes(backbone)
    np.testing.assert_array_equal(outputs(again), outputs(backbone))
    assert len(again.trainable_variables) == len(backbone.trainable_variables)


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
