"""Quantized models: what changes, what stays, what is refused."""

import os
import subprocess
import sys

import jax
import keras
import numpy as np
import pytest
from small_presets import INPUTS, small_backbone, small_causal_lm

from mistral_lib import MistralBackbone, MistralCausalLM, without_weights
from mistral_lib.generation.decoding import DecodingLoop
from mistral_lib.generation.protocol import Job
from mistral_lib.generation.reading import PromptReader
from mistral_lib.layers.projection import Projection
from mistral_lib.layers.quantizable import Quantizable
from mistral_lib.lora import projections
from mistral_lib.presets.memory import weight_bytes
from mistral_lib.quantization import quantized_policy

ERRORS = {"int8": 0.02, "int4": 0.25, "int4/4": 0.35}  # of the logits of random weights


def variables(model):
    return {variable.path: np.asarray(variable.value) for variable in model.variables}


def assert_same_variables(one, other):
    ours, theirs = variables(one), variables(other)
    assert ours.keys() == theirs.keys()
    for path, array in ours.items():
        assert array.dtype == theirs[path].dtype, path
        assert array.tobytes() == theirs[path].tobytes(), path


def backbone_and_outputs(**changes):
    backbone = small_backbone(**changes)
    return backbone, np.asarray(backbone(INPUTS), "float32")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "tie"), [("int8", False), ("int4", True), ("int4/4", False)])
def test_weights_are_quantized_and_nothing_else(kind, tie):
    backbone, before = backbone_and_outputs(tie_word_embeddings=tie)
    backbone.quantize(kind)
    for layer in backbone._flatten_layers():
        name = "float32"
        if isinstance(layer, Quantizable):
            name = f"{'int4/128' if kind == 'int4' else kind}_from_float32"
        assert layer.dtype_policy.name == name
    assert backbone.quantization == ("int4/128" if kind == "int4" else kind)
    assert all("scale" in variable.path for variable in backbone.trainable_variables)
    error = np.abs(np.asarray(backbone(INPUTS)) - before)
    assert 0 < error.mean() < ERRORS[kind] * np.abs(before).mean()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_what_was_compiled_follows(kind):
    model = small_causal_lm(None)
    model.predict(INPUTS, verbose=0)
    model.generate([1, 2, 3, 4, 5], max_new_tokens=2)
    model.quantize(kind)
    expected = np.asarray(model(INPUTS))
    np.testing.assert_allclose(model.predict(INPUTS, verbose=0), expected, atol=1e-4)
    tokens = model.generate([1, 2, 3, 4, 5], max_new_tokens=2)
    inputs = {"token_ids": np.array([tokens] * 2), "padding_mask": np.ones((2, 7), bool)}
    assert np.argmax(model(inputs)[0, 4:6], axis=-1).tolist() == tokens[5:]


def test_a_second_call():
    backbone = small_backbone()
    backbone.quantize("int4")
    before = variables(backbone)
    backbone.quantize("int4/128")
    with pytest.raises(ValueError, match="is quantized to int4/128 already; asked for was int8"):
        backbone.quantize("int8")
    for path, array in variables(backbone).items():
        np.testing.assert_array_equal(array, before[path])


@pytest.mark.parametrize(
    "kind",
    ["float8", "int3", "int4/3", "int4/0", "int4/-1", "int4/", "gptq/4/128", "INT8", 8, None],
)
def test_unknown_quantizations(kind):
    backbone = small_backbone()
    with pytest.raises(ValueError, match=r"must be one of 'int8', 'int4' or .*, but is"):
        backbone.quantize(kind)
    assert backbone.quantization is None


def test_kerass_name_for_the_argument():
    backbone = small_backbone()
    with pytest.raises(TypeError, match="give one of them, not 'int8' and 'int8'"):
        backbone.quantize("int8", mode="int8")
    backbone.quantize(mode="int8")
    assert backbone.quantization == "int8"


@pytest.mark.parametrize("dtype", ["float16", "mixed_float16"])
def test_float16(dtype):
    backbone = small_backbone(dtype=dtype)
    with pytest.raises(ValueError, match=f"int8 does not go with the dtype {dtype}"):
        backbone.quantize("int8")
    backbone.quantize("int4")
    assert backbone.compute_dtype == "float16"


@pytest.mark.parametrize(
    "dtype",
    ["int8_from_float16", "int4_from_float32", "int4/3_from_float32", "float8_from_float32"],
)
def test_dtypes_that_a_backbone_does_not_have(dtype):
    with pytest.raises(ValueError, match=r"dtype must be 'float32'.*, alone or after 'int8_from_'"):
        small_backbone(dtype=dtype)


def test_a_policy_with_another_quantization():
    with pytest.raises(ValueError, match=r"'int8_from_float32' contradicts .* 'int4/128'"):
        quantized_policy("int8_from_float32", "int4")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_config_and_keras_file(tmp_path, kind, dtype):
    model = small_causal_lm(None, dtype=dtype)
    model.quantize(kind)
    config = model.backbone.get_config()
    assert MistralBackbone.from_config(config).get_config() == config
    for part in (model, model.backbone):
        part.save(tmp_path / "saved.keras")
        loaded = keras.saving.load_model(tmp_path / "saved.keras")
        assert_same_variables(loaded, part)
        assert loaded.get_config() == part.get_config()
    np.testing.assert_array_equal(loaded(INPUTS), model.backbone(INPUTS))


def compiled_with(model, rate):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("first", ["quantized", "adapted"])
@pytest.mark.parametrize(("kind", "dtype"), [("int8", "mixed_bfloat16"), ("int4", "float32")])
def test_lora_learns_on_quantized_weights(first, kind, dtype):
    model = small_causal_lm(None, dtype=dtype)
    if first == "quantized":
        model.quantize(kind)
    model.backbone.enable_lora(2)
    if first == "adapted":
        model.quantize(kind)
    compiled_with(model, 1e-2)
    before = variables(model)
    labels = np.full_like(INPUTS["token_ids"], 5)
    losses = model.fit(INPUTS, labels, epochs=4, verbose=0).history["loss"]
    assert losses == sorted(losses, reverse=True)
    for path, array in variables(model).items():
        assert ("lora" in path) == (array != before[path]).any(), path
    state = {id(v) for v in model.trainable_variables}
    assert len(state) == 8
    assert len(model.optimizer.variables) == 2 + 2 * 8  # step, rate, two moments for each factor

    expected = np.asarray(model(INPUTS))
    model.dequantize()
    assert len(model.trainable_variables) == 8
    np.testing.assert_allclose(model(INPUTS), expected, atol=1e-4 if dtype == "float32" else 0.5)
    model.backbone.merge_lora()
    np.testing.assert_allclose(model(INPUTS), expected, atol=1e-4 if dtype == "float32" else 0.5)
    assert len(model.trainable_variables) == 2 + 2 * 9 + 1


@pytest.mark.slow
def test_a_trained_model_must_be_compiled_again():
    model = compiled_with(small_causal_lm(None), 1e-3)
    labels = INPUTS["token_ids"]
    model.fit(INPUTS, labels, verbose=0)
    model.quantize("int8")
    with pytest.raises(ValueError, match="Call compile again"):
        model.fit(INPUTS, labels, verbose=0)
    compiled_with(model, 1e-3).fit(INPUTS, labels, verbose=0)


def test_dequantized_without_quantization():
    backbone, before = backbone_and_outputs()
    backbone.dequantize()
    np.testing.assert_array_equal(backbone(INPUTS), before)


def test_models_of_the_class_are_what_is_quantized():
    """Keras wraps the method of every model that it makes, with checks of its own."""
    assert MistralCausalLM.quantize is type(small_causal_lm(None)).quantize
    assert "quantize" not in vars(small_backbone())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int8", "int4/128"])
def test_no_more_than_one_block_is_float_at_a_time(kind):
    """Eight blocks; without tiles the decoding loop keeps all of them in float."""
    sizes = {"num_query_heads": 4, "hidden_dim": 256, "intermediate_dim": 1024}
    backbone = MistralBackbone(
        **sizes,
        vocabulary_size=2048,
        num_layers=8,
        num_key_value_heads=2,
        sliding_window=32,
        dtype=f"{kind}_from_float32",
    )
    block = 4 * sum(layer.input_dim * layer.units for layer in projections(backbone).values()) / 8
    loop, job, length = DecodingLoop(PromptReader(backbone)), Job([[1, 2, 3]], [40], [0]), 32
    state = jax.eval_shape(lambda: loop.start(job))
    steps = loop.run_steps.lower(state, job.sampler, job.stop_ids, np.int32(9))
    hidden = jax.ShapeDtypeStruct((1, 256), "float32")
    ids, counts = np.zeros((1, length), "int32"), np.array([length], "int32")
    read = loop.reader.read_chunk.lower(state.cache, hidden, ids, counts, counts, None)
    steps, read = (program.compile().memory_analysis() for program in (steps, read))
    held = sum(np.asarray(variable.value).nbytes for variable in backbone.variables)
    assert held < (0.30 if kind == "int8" else 0.16) * 4 * (8 * block / 4 + 2 * 2048 * 256)
    assert steps.argument_size_in_bytes < 1.1 * held
    assert steps.temp_size_in_bytes < block / 3
    activations = 4 * length * (256 + 1024)
    assert read.temp_size_in_bytes < block + 2 * activations


@pytest.fixture(scope="module")
def presets(tmp_path_factory):
    """The same weights in KerasHub's format and in that of transformers."""
    folder = tmp_path_factory.mktemp("presets")
    backbone = small_backbone()
    backbone.save_to_preset(folder / "keras")
    backbone.export_to_transformers(folder / "transformers")
    return folder


@pytest.mark.parametrize("form", ["keras", "transformers"])
@pytest.mark.parametrize(("kind", "dtype"), [("int8", "bfloat16"), ("int4", "float32")])
def test_quantized_while_loading_is_quantized_later(presets, form, kind, dtype):
    later = MistralBackbone.from_preset(presets / form, dtype=dtype)
    later.quantize(kind)
    loaded = MistralBackbone.from_preset(presets / form, dtype=dtype, quantization=kind)
    assert_same_variables(loaded, later)
    policy = later.get_config()["dtype"]
    assert loaded.get_config()["dtype"] == policy
    named = MistralBackbone.from_preset(presets / form, dtype=later.projection_policy.name)
    assert_same_variables(named, later)
    random = MistralBackbone.from_preset(
        presets / form, load_weights=False, dtype=dtype, quantization=kind
    )
    assert random.get_config()["dtype"] == policy
    assert np.asarray(random.token_embedding._embeddings.value).any()


def test_causal_lm_takes_a_quantization(presets):
    model = MistralCausalLM.from_preset(presets / "keras", quantization="int8", preprocessor=None)
    assert model.backbone.quantization == "int8"
    with pytest.raises(ValueError, match="quantization must be one of"):
        MistralCausalLM.from_preset(presets / "keras", quantization="int2", preprocessor=None)
    with pytest.raises(ValueError, match="contradicts"):
        MistralBackbone.from_preset(
            presets / "keras", dtype="int8_from_float32", quantization="int4"
        )


def test_numbers_that_are_not_finite(tmp_path):
    backbone = small_backbone()
    backbone.get_layer("transformer_layer_1").feedforward.up.kernel.assign(np.full((8, 12), 1e30))
    backbone.save_to_preset(tmp_path)
    with pytest.raises(ValueError, match=r"up cannot be quantized: in float16 its kernel are not"):
        MistralBackbone.from_preset(tmp_path, dtype="float16", quantization="int4")


PEAK = """
import ctypes, gc, math, sys, threading
from mistral_lib import MistralBackbone

def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

def watch():
    global peak
    while not done.wait(0.001):
        peak = max(peak, anonymous())

large, quantization = sys.argv[1:]
options = {"dtype": "bfloat16", "quantization": quantization}
MistralBackbone.from_preset(large, **options)  # so that everything is imported and compiled
gc.collect()
ctypes.CDLL(None).malloc_trim(0)
before, peak, done = anonymous(), 0, threading.Event()
thread = threading.Thread(target=watch)
thread.start()
backbone = MistralBackbone.from_preset(large, **options)
done.set()
thread.join()
sizes = [math.prod(v.shape) * v.value.dtype.itemsize for v in backbone.weights]
print(peak - before, sum(sizes))
"""


@pytest.fixture(scope="module")
def large_presets(tmp_path_factory):
    """51 million parameters in bfloat16, 101 MB, of which 25 MB are one block."""
    folder = tmp_path_factory.mktemp("large")
    with without_weights():
        backbone = MistralBackbone(4000, 4, 8, 1024, 3072, 2, dtype="bfloat16")
    random = np.random.default_rng(0).normal(size=4000 * 1024).astype("bfloat16")
    for variable in backbone.weights:
        variable.assign(np.resize(random, variable.shape))
    backbone.save_to_preset(folder / "keras")
    backbone.export_to_transformers(folder / "transformers")
    block = backbone.transformer_layers[0]
    return folder, 2 * block.count_params()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("form", "kind"), [("keras", "int8"), ("transformers", "int4")])
def test_peak_of_memory_while_loading(large_presets, form, kind):
    """The quantized model and one block in float."""
    folder, block = large_presets
    command = [sys.executable, "-c", PEAK, folder / form, kind]
    # glibc gives back at once what is freed, as it does with the kernels of larger models.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "262144"}
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    peak, size = map(int, result.stdout.split())
    assert size * 0.9 < peak <= size + block


SERIALIZED = {
    "module": "keras.dtype_policies",
    "class_name": "Int4DTypePolicy",
    "config": {"mode": "int4/128", "source_name": "float32"},
    "registered_name": None,
}


@pytest.mark.parametrize(
    "ask",
    [
        lambda: small_backbone().quantize("int4"),
        lambda: small_backbone(dtype="int4/128_from_bfloat16"),
        lambda: small_backbone(dtype=SERIALIZED),
        lambda: MistralBackbone.from_preset("mistral_tiny_en", quantization="int4/64"),
        lambda: MistralCausalLM.from_preset("mistral_tiny_en", dtype="int4/64_from_float32"),
        lambda: Projection(4, dtype="int4/2_from_float32"),
        lambda: weight_bytes(small_backbone().config, "int4/128_from_float32"),
    ],
    ids=["quantize", "dtype", "serialized", "preset", "dtype of a preset", "layer", "memory"],
)
def test_on_an_older_keras_int4_is_refused_in_one_sentence(ask, monkeypatch):
    monkeypatch.delattr(keras.dtype_policies, "Int4DTypePolicy", raising=False)
    monkeypatch.setattr(keras, "version", lambda: "3.13.2")
    sentence = "^int4 needs Keras 3.14 or newer, but this is Keras 3.13.2. Upgrade it .*int8.$"
    with pytest.raises(ValueError, match=sentence):
        ask()
