"""mistral_lib/presets/loading.py: from files to a model, a tensor at a time."""

import contextlib
import json
import pickle
import shutil
import subprocess
import sys
import warnings
from types import SimpleNamespace

import h5py
import jax
import keras
import numpy as np
import pytest
from reference.make_keras_preset import SINGLE
from small_presets import (
    INPUTS,
    assert_same_weights,
    small_backbone,
    small_causal_lm,
    weights,
    write_as_mistral,
)

from mistral_lib import (
    Backbone,
    MistralBackbone,
    MistralCausalLM,
    MistralCausalLMPreprocessor,
    MistralTokenizer,
    without_weights,
)
from mistral_lib.presets import memory
from mistral_lib.presets.preset import Preset


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A causal language model in float32."""
    folder = tmp_path_factory.mktemp("presets") / "small"
    small_causal_lm(dropout=0.1).save_to_preset(folder)
    return folder


@pytest.fixture
def copy(preset, tmp_path):
    return shutil.copytree(preset, tmp_path / "copy")


def edit_config(folder, **changes):
    content = json.loads((folder / "config.json").read_text())
    content["config"].update(changes)
    (folder / "config.json").write_text(json.dumps(content))


# --- What comes back -----------------------------------------------------------------------------


@pytest.mark.slow
def test_causal_lm_round_trip(preset):
    model = small_causal_lm(dropout=0.1)
    loaded = MistralCausalLM.from_preset(preset)
    assert_same_weights(model, loaded)
    assert (np.asarray(loaded(INPUTS)) == np.asarray(model(INPUTS))).all()
    assert loaded.preprocessor.get_config() == model.preprocessor.get_config()
    prompts = ["The window", "tokens slide out"]
    options = {"max_new_tokens": 6, "temperature": 1.0, "seed": 3}
    assert loaded.generate(prompts, **options) == model.generate(prompts, **options)


@pytest.mark.parametrize(
    "changes",
    [
        {"head_dim": 6, "num_key_value_heads": 1},
        {"tie_word_embeddings": True},
        {"sliding_window": None, "rope_max_wavelength": 1e6, "rope_scaling_factor": 4.0},
        {"layer_norm_epsilon": 1e-5, "num_layers": 12, "dropout": 0.2},
        {"name": "mine", "trainable": True},
        {"sliding_window": [3, None]},
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "mixed_bfloat16"])
def test_backbone_round_trip(tmp_path, changes, dtype):
    backbone = small_backbone(dtype=dtype, **changes)
    backbone.save_to_preset(tmp_path)
    loaded = MistralBackbone.from_preset(tmp_path, dtype=dtype)
    assert_same_weights(backbone, loaded)
    expected = backbone.get_config()
    if changes.get("name") is None:
        expected["name"] = loaded.name
    assert loaded.get_config() == expected
    assert loaded.count_params() == backbone.count_params()


@pytest.mark.slow
def test_loaded_dropout_draws(preset):
    """The state of its random numbers is in no file."""
    backbone = MistralBackbone.from_preset(preset)
    first, second = (np.asarray(backbone(INPUTS, training=True)) for _ in range(2))
    assert (first != second).any()


@pytest.mark.slow
def test_loaded_model_trains(preset):
    model = MistralCausalLM.from_preset(preset)
    before = weights(model)
    model.fit(["The window slides over the tokens."] * 4, batch_size=2, verbose=0)
    after = weights(model)
    assert all((after[path] != before[path]).any() for path in before)


@pytest.mark.slow
def test_keras_file_of_a_loaded_model(preset, tmp_path):
    model = MistralCausalLM.from_preset(preset)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same_weights(model, loaded)
    assert loaded.preprocessor.get_config() == model.preprocessor.get_config()
    model.backbone.save(tmp_path / "backbone.keras")
    backbone = keras.saving.load_model(tmp_path / "backbone.keras")
    assert isinstance(backbone, MistralBackbone)
    assert_same_weights(model.backbone, backbone)
    assert backbone.get_config() == model.backbone.get_config()


def test_class(preset):
    class Mine(MistralBackbone):
        pass

    assert type(Backbone.from_preset(preset)) is MistralBackbone
    assert type(Mine.from_preset(preset)) is Mine


def test_a_class_with_an_argument_of_its_own(preset):
    class Mine(MistralBackbone):
        def __init__(self, *args, extra=0, **kwargs):
            super().__init__(*args, **kwargs)
            self.extra = extra

    assert Mine.from_preset(preset, extra=3).extra == 3
    with pytest.raises(TypeError, match="has no argument 'extras'"):
        Mine.from_preset(preset, extras=3)


# --- dtypes --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bfloat16_preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "bfloat16"
    backbone = small_backbone(dtype="bfloat16")
    # Through float16, the first would become 0 and the second infinite.
    kernel = np.array(backbone.transformer_layers[0].feedforward.gate.kernel.value)
    kernel[0, :2] = 1e-9, 70000.0
    backbone.transformer_layers[0].feedforward.gate.kernel.assign(kernel)
    backbone.save_to_preset(folder)
    return folder, backbone


@pytest.mark.slow
def test_auto_is_what_the_files_hold(bfloat16_preset):
    folder, backbone = bfloat16_preset
    loaded = MistralBackbone.from_preset(folder, dtype="auto")
    assert loaded.dtype_policy.name == "bfloat16"
    assert_same_weights(backbone, loaded)
    random = MistralBackbone.from_preset(folder, load_weights=False, dtype="auto")
    assert random.dtype_policy.name == "bfloat16"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capability", "dtype"),
    [("7.5", "float16"), ("8.0", "bfloat16"), ("10.0", "bfloat16"), ("gfx90a", "bfloat16")],
)
def test_auto_on_gpus_without_bfloat16(tmp_path, monkeypatch, capability, dtype):
    backbone = small_backbone(dtype="bfloat16")
    backbone.save_to_preset(tmp_path)
    device = SimpleNamespace(platform="cpu", compute_capability=capability)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    for load_weights in (True, False):
        with contextlib.nullcontext() if load_weights else without_weights():
            loaded = MistralBackbone.from_preset(tmp_path, load_weights, dtype="auto")
        assert loaded.dtype_policy.name == dtype
    small_backbone(dtype="float32").save_to_preset(tmp_path)
    assert MistralBackbone.from_preset(tmp_path, dtype="auto").dtype_policy.name == "float32"


def test_numbers_that_float16_cannot_hold(bfloat16_preset, tmp_path):
    folder, _ = bfloat16_preset
    with pytest.raises(ValueError, match=r"feedforward_gate_dense.*beyond 65,504.*dtype='float32'"):
        MistralBackbone.from_preset(folder, dtype="float16")
    small_backbone(dtype="bfloat16").save_to_preset(tmp_path)
    assert MistralBackbone.from_preset(tmp_path, dtype="float16").variable_dtype == "float16"


@pytest.mark.parametrize("policy", ["float32", "bfloat16", "mixed_bfloat16"])
def test_none_is_keras_policy(bfloat16_preset, policy):
    folder, backbone = bfloat16_preset
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        loaded = MistralBackbone.from_preset(folder)
    finally:
        keras.config.set_dtype_policy(before)
    assert loaded.dtype_policy.name == policy
    for path, array in weights(loaded).items():
        assert array.dtype == loaded.variable_dtype
        assert (array.astype("float32") == weights(backbone)[path].astype("float32")).all()


def test_auto_of_other_files(preset, copy):
    assert MistralBackbone.from_preset(preset, dtype="auto").dtype_policy.name == "float32"
    rewrite(copy, lambda array: array.astype("float64"))
    assert MistralBackbone.from_preset(copy, dtype="auto").dtype_policy.name == "float32"
    rewrite(copy, lambda array: array if array.ndim == 1 else array.astype("float16"))
    assert MistralBackbone.from_preset(copy, dtype="auto").dtype_policy.name == "float16"


def rewrite(folder, change):
    with h5py.File(folder / "model.weights.h5", "a") as h5:
        paths = []
        h5.visititems(lambda path, item: paths.append(path) if hasattr(item, "shape") else None)
        for path in paths:
            array = change(h5[path][...])
            del h5[path]
            h5[path] = array


@pytest.mark.parametrize("dtype", ["int8", "float64", "autos", 3])
def test_other_dtypes_are_refused(preset, dtype):
    with pytest.raises((ValueError, TypeError), match="dtype must be 'float32', 'bfloat16'"):
        MistralBackbone.from_preset(preset, dtype=dtype)


# --- Arguments -----------------------------------------------------------------------------------


def test_arguments_replace_the_presets(preset):
    changes = {"sliding_window": 5, "dropout": 0.5, "rope_scaling_factor": 2.0, "name": "mine"}
    backbone = MistralBackbone.from_preset(preset, **changes)
    assert {name: backbone.get_config()[name] for name in changes} == changes
    assert_same_weights(backbone, small_backbone())
    model = MistralCausalLM.from_preset(preset, sliding_window=5, name="lm", trainable=False)
    assert (model.backbone.sliding_window, model.name, model.trainable) == (5, "lm", False)


def test_unknown_argument(preset):
    for cls in (MistralBackbone, MistralCausalLM):
        with pytest.raises(TypeError, match="MistralBackbone has no argument 'sliding_windows'"):
            cls.from_preset(preset, sliding_windows=5)


@pytest.mark.parametrize(
    "arguments",
    [
        {"hidden_size": 8},
        {"hidden_dim": 9},
        {"num_layers": 3},
        {"sliding_window": [3]},
        {"dtype": "flaot16"},
        {"quantization": "int3"},
        {"dtype": "float16", "quantization": "int8"},
    ],
    ids=str,
)
def test_a_mistake_is_found_before_any_weights(preset, monkeypatch, arguments):
    """On a hub, to look at the weights is to download them."""
    monkeypatch.setattr(Preset, "tensors", lambda self: pytest.fail("weights were looked at"))
    with pytest.raises((TypeError, ValueError)):
        MistralBackbone.from_preset(preset, **arguments)


def test_bad_argument_is_not_blamed_on_the_file(preset):
    with pytest.raises(ValueError, match=r"^dropout must be at least 0 and below 1, but is 2.$"):
        MistralBackbone.from_preset(preset, dropout=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"vocabulary_size": 301},
        {"num_layers": 1},
        {"num_layers": 3},
        {"num_query_heads": 2},
        {"hidden_dim": 16},
        {"intermediate_dim": 13},
        {"num_key_value_heads": 4},
        {"head_dim": 4},
        {"tie_word_embeddings": True},
    ],
)
def test_argument_that_does_not_fit_the_weights(preset, change):
    (name, value), *_ = change.items()
    with pytest.raises(ValueError, match=rf"{name}={value} does not fit the preset's weights"):
        MistralBackbone.from_preset(preset, **change)
    backbone = MistralBackbone.from_preset(preset, load_weights=False, **change)
    assert getattr(backbone, name) == value


def test_the_same_value_fits(preset):
    same = {"hidden_dim": 8, "head_dim": 2, "num_layers": 2, "tie_word_embeddings": False}
    assert_same_weights(MistralBackbone.from_preset(preset, **same), small_backbone())


def test_random_weights(preset):
    backbone = MistralBackbone.from_preset(preset, load_weights=False)
    stored, random = weights(small_backbone()), weights(backbone)
    assert stored.keys() == random.keys()
    assert all((stored[path] != random[path]).any() for path in stored)


def test_adapter_beside_a_checkpoint_of_transformers(tmp_path):
    """It comes back with the base, whatever the base's format."""
    backbone = small_backbone()
    backbone.export_to_transformers(tmp_path)
    backbone.enable_lora(2, ["key", "down"])
    backbone.transformer_layers[1].feedforward.down.lora_kernel_b.assign(np.ones((2, 8)))
    backbone.save_lora_weights(tmp_path / "adapter.lora.h5")
    loaded = MistralBackbone.from_preset(tmp_path)
    assert_same_weights(loaded, backbone)
    assert (np.asarray(loaded(INPUTS)) == np.asarray(backbone(INPUTS))).all()


# --- Preprocessors -------------------------------------------------------------------------------


def test_own_preprocessor(preset):
    mine = MistralCausalLMPreprocessor(MistralTokenizer.from_preset(preset), 5)
    assert MistralCausalLM.from_preset(preset, preprocessor=mine).preprocessor is mine
    assert MistralCausalLM.from_preset(preset, preprocessor=None).preprocessor is None


def test_preprocessor_and_tokenizer_alone(preset, tmp_path):
    preprocessor = MistralCausalLMPreprocessor.from_preset(preset, sequence_length=5)
    expected = {"sequence_length": 5, "add_start_token": True, "add_end_token": False}
    assert expected.items() <= preprocessor.get_config().items()
    preprocessor.save_to_preset(tmp_path)
    loaded = MistralCausalLMPreprocessor.from_preset(tmp_path)
    assert loaded.get_config() == preprocessor.get_config()
    tokenizer = MistralTokenizer.from_preset(preset)
    assert tokenizer.proto == preprocessor.tokenizer.proto
    (tmp_path / "other").mkdir()
    tokenizer.save_to_preset(tmp_path / "other")
    assert MistralTokenizer.from_preset(tmp_path / "other").proto == tokenizer.proto
    with pytest.raises(TypeError, match="sequence_lengths"):
        MistralCausalLMPreprocessor.from_preset(preset, sequence_lengths=5)
    with pytest.raises(ValueError, match=r"^sequence_length must be at least 1"):
        MistralCausalLMPreprocessor.from_preset(preset, sequence_length=0)


def test_no_tokenizer(tmp_path):
    small_backbone().save_to_preset(tmp_path)
    for cls in (MistralTokenizer, MistralCausalLMPreprocessor):
        with pytest.raises(FileNotFoundError, match=r"has no file tokenizer\.json"):
            cls.from_preset(tmp_path)


def test_model_without_preprocessor(tmp_path):
    small_causal_lm(preprocessor=None).save_to_preset(tmp_path)
    assert MistralCausalLM.from_preset(tmp_path).preprocessor is None
    # A tokenizer that lies in the folder does not belong to it.
    small_causal_lm().preprocessor.save_to_preset(tmp_path)
    assert MistralCausalLM.from_preset(tmp_path).preprocessor is None


def test_backbone_preset_opens_as_causal_lm(copy):
    """Older presets have neither task.json nor preprocessor.json."""
    (copy / "task.json").unlink()
    (copy / "preprocessor.json").unlink()
    preprocessor = MistralCausalLM.from_preset(copy).preprocessor
    assert (preprocessor.sequence_length, preprocessor.add_end_token) == (1024, True)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (279, "280 tokens, but the backbone's vocabulary_size is 279: they belong to different"),
        (
            793,
            "has only 280 tokens, but the backbone's vocabulary_size is 793: .*=None",
        ),
        (131072, "has only 280 tokens, but the backbone's vocabulary_size is 131,072"),
    ],
)
def test_tokenizer_of_another_model(copy, size, message):
    """Its ids would mean other tokens, or have no embedding."""
    take_small_vocabulary(copy, size)
    with pytest.raises(ValueError, match=message):
        MistralCausalLM.from_preset(copy, load_weights=False)
    assert MistralCausalLM.from_preset(copy, False, preprocessor=None).preprocessor is None


@pytest.mark.parametrize("size", [280, 288, 320, 792])
def test_rows_that_only_round_a_number_up(copy, size):
    take_small_vocabulary(copy, size)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = MistralCausalLM.from_preset(copy, load_weights=False)
    assert model.preprocessor.tokenizer.vocabulary_size() == 280


def test_rows_of_tokens_that_were_added(copy):
    """Without a word only if the files say which."""
    take_small_vocabulary(copy, 282)
    with pytest.warns(UserWarning, match=r"has 2 more rows .* than its tokenizer has tokens \(280"):
        MistralCausalLM.from_preset(copy, load_weights=False)
    file = copy / "tokenizer.json"
    extras = {"added_tokens": {"<|im_start|>": 280, "<|im_end|>": 281}}
    file.write_text(json.dumps({**json.loads(file.read_text()), "extras": extras}))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        MistralCausalLM.from_preset(copy, load_weights=False)


def take_small_vocabulary(folder, size):
    """Has a preset 280 tokens and a number of rows in its embedding."""
    shutil.rmtree(folder / "assets")
    shutil.copytree(SINGLE / "assets", folder / "assets")
    edit_config(folder, vocabulary_size=size)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("preprocessor.json", {"sequence_length": 0}, "preprocessor.json: sequence_length must"),
        ("preprocessor.json", {"add_end_token": 3}, "preprocessor.json: .*add_end_token"),
        ("tokenizer.json", {"add_bos": "yes"}, "tokenizer.json: .*add_bos"),
        ("task.json", {"name": "a/b"}, "task.json: 'a/b' is no name"),
        ("task.json", {"name": [1]}, r"task.json: \[1\] is no name"),
    ],
)
def test_bad_config_of_a_part(copy, name, change, message):
    content = json.loads((copy / name).read_text())
    content["config"].update(change)
    (copy / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        MistralCausalLM.from_preset(copy)


def test_vocabulary_that_is_something_else(copy):
    (copy / "assets/tokenizer/vocabulary.spm").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match=r"vocabulary\.spm") as caught:
        MistralCausalLM.from_preset(copy)
    assert "tokenizer.json" not in str(caught.value)


# --- Memory --------------------------------------------------------------------------------------


def test_nothing_is_built_that_does_not_fit(copy):
    """hidden_dim 10**9 would abort the process; a billion blocks would never end."""
    for change in ({"hidden_dim": 10**9, "intermediate_dim": 10**9}, {"num_layers": 10**9}):
        edit_config(copy, **change)
        with pytest.raises(MemoryError, match=r"parameters in .* blocks and needs"):
            MistralBackbone.from_preset(copy, load_weights=False)
        with pytest.raises(ValueError, match="config asks for"):
            MistralBackbone.from_preset(copy)


def test_weights_that_do_not_fit(preset, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 350_000)
    with pytest.raises(MemoryError, match=r"pass dtype='bfloat16'|No dtype fits"):
        MistralBackbone.from_preset(preset)


PEAK = """
import math, sys, threading
from mistral_lib import MistralBackbone

def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

def watch():
    global peak
    while not done.wait(0.001):
        peak = max(peak, anonymous())

small, large, dtype = sys.argv[1:]
MistralBackbone.from_preset(small, dtype=dtype)  # so that everything is imported
before, peak, done = anonymous(), 0, threading.Event()
thread = threading.Thread(target=watch)
thread.start()
backbone = MistralBackbone.from_preset(large, dtype=dtype)
done.set()
thread.join()
sizes = [math.prod(v.shape) * v.value.dtype.itemsize for v in backbone.weights]
print(peak - before, sum(sizes), max(sizes))
"""


@pytest.fixture(scope="module")
def large_presets(tmp_path_factory):
    """58 million parameters in bfloat16: 116 MB, of which 31 MB are one tensor; in each format."""
    folder = tmp_path_factory.mktemp("presets")
    with without_weights():
        backbone = MistralBackbone(30_000, 4, 4, 512, 4096, 4, dtype="bfloat16")
    for variable in backbone.weights:
        variable.assign(np.ones(variable.shape, "bfloat16"))
    backbone.save_to_preset(folder / "keras")
    backbone.export_to_transformers(folder / "transformers")
    write_as_mistral(folder / "transformers", folder / "mistral")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("form", "dtype"),
    [
        ("keras", "bfloat16"),
        ("keras", "float32"),
        ("transformers", "bfloat16"),
        ("transformers", "float32"),
        ("mistral", "bfloat16"),
    ],
)
def test_peak_of_memory(bfloat16_preset, large_presets, form, dtype):
    """At most the model, its largest tensor, and 5 %."""
    command = [sys.executable, "-c", PEAK, bfloat16_preset[0], large_presets / form, dtype]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, size, largest = map(int, result.stdout.split())
    assert size * 0.9 < peak <= (size + largest) * 1.05
