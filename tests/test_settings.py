"""mistral_lib/settings.py: whichever way a model is copied, it is set as it was.

The tables are doors (ways to copy) and states. A setting that no state changes fails, and so does
an attribute of the library's classes that is neither a setting nor among those named here.
"""

import json
import re
import warnings
import zipfile

import keras
import numpy as np
import pytest
from copies import COPIES, backbone_of, by_config, by_keras_file, described
from doors import IDS, SIZES, X, Y, fill
from test_doors import of_the_library

from mistral_lib import MistralBackbone, MistralCausalLM, lora, without_weights
from mistral_lib.keras_inside import optimizer_weights
from mistral_lib.settings import SETTINGS, get_settings, set_settings

# States ------------------------------------------------------------------------------------------


def each(*steps):
    """Calls of functions that take a backbone, one after the other."""

    def run(backbone):
        for step in steps:
            step(backbone)

    return run


def set_attribute(name, value, of=lambda backbone: backbone):
    return lambda backbone: setattr(of(backbone), name, value)


def freeze(of, value=False):
    return set_attribute("trainable", value, of)


def call(name, *arguments):
    def run(backbone):
        getattr(backbone, name)(*arguments)
        fill([v for v in backbone.variables if "lora" in v.path])

    return run


def itself(backbone):
    return backbone


def block(backbone):
    return backbone.transformer_layers[0]


def attention(backbone):
    return backbone.transformer_layers[-1].self_attention


def embedding(backbone):
    return backbone.token_embedding


def kernel(backbone):
    return attention(backbone).query.kernel


LORA = call("enable_lora", 2, ["query", "down"], 8)
INT8 = call("quantize", "int8")
FLOAT = call("dequantize")
STATES = {  # with the settings that each changes
    "nothing": (each(), ()),
    "attention_path": (set_attribute("attention_path", "banded"), ["attention_path"]),
    "attention_path of a layer": (
        set_attribute("attention_path", "dense", attention),
        ["attention_path"],
    ),
    "rematerialize": (set_attribute("rematerialize", True), ["rematerialize"]),
    "context_length": (set_attribute("context_length", 77), ["context_length"]),
    "frozen layers": (each(freeze(embedding), freeze(attention)), ["freezing"]),
    "frozen block, its part thawed": (
        each(freeze(block), freeze(lambda b: block(b).feedforward, True)),
        ["freezing"],
    ),
    "frozen weight": (freeze(kernel), ["freezing"]),
    "frozen backbone": (freeze(itself), ()),
    "frozen backbone, its part thawed": (each(freeze(itself), freeze(block, True)), ["freezing"]),
    "LoRA": (LORA, ()),
    "LoRA of a frozen backbone": (each(freeze(itself), LORA), ["before_lora"]),
    "LoRA after frozen layers": (each(freeze(embedding), freeze(block), LORA), ["before_lora"]),
    "LoRA after a frozen weight": (each(freeze(kernel), LORA), ["before_lora"]),
    "LoRA, something trained beside it": (
        each(LORA, freeze(lambda b: b.layer_norm, True)),
        ["freezing"],
    ),
    "LoRA, frozen in one layer": (each(LORA, freeze(attention)), ["freezing"]),
    "LoRA, frozen": (each(LORA, freeze(itself)), ["when_thawed"]),
    "LoRA, a part of it trained, frozen": (
        each(LORA, freeze(attention), freeze(itself)),
        ["when_thawed"],
    ),
    "LoRA, alpha of a layer": (
        each(LORA, set_attribute("lora_alpha", 3, lambda b: attention(b).query)),
        (),
    ),
    "int8": (INT8, ()),
    "int8 of frozen layers": (each(freeze(embedding), freeze(attention), INT8), ["freezing"]),
    "int8 of a frozen weight": (each(freeze(kernel), INT8), ["freezing"]),
    "int8, then frozen": (each(INT8, freeze(attention)), ["freezing"]),
    "int8, then LoRA": (each(INT8, LORA), ()),
    "LoRA, then int8": (each(LORA, INT8), ()),
    "int8, LoRA, float": (each(INT8, LORA, FLOAT), ()),
    "LoRA, int8, float": (each(freeze(kernel), LORA, INT8, FLOAT), ["before_lora"]),
    "LoRA, int8, merged": (each(LORA, INT8, call("merge_lora", True)), ()),
    "merged": (each(freeze(embedding), LORA, call("merge_lora")), ["freezing"]),
}


def make(kind="model", **changes):
    """A model, or its backbone alone, with two blocks."""
    with without_weights():
        backbone = MistralBackbone(**{**SIZES, "num_layers": 2, **changes})
    fill(backbone.variables)
    if kind == "backbone":
        backbone.compile("adam", "mse")
        return backbone
    model = MistralCausalLM(backbone, end_token_ids=[5])
    model.compile("adam", loss=model.loss)
    return model


# What may follow, and has to end in the same state.
LATER = {
    "nothing": each(),
    "dequantize": FLOAT,
    "merge_lora": lambda b: b.merge_lora(dequantize=True) if lora.settings(b) else None,
    "thaw": freeze(itself, True),
    "freeze and thaw": each(freeze(itself), freeze(itself, True)),
}


def assert_same_later(one, other):
    for name, step in LATER.items():
        step(backbone_of(one))
        step(backbone_of(other))
        ours, theirs = described(one), described(other)
        wrong = {key: (ours[key], theirs[key]) for key in ours if ours[key] != theirs[key]}
        assert wrong == {}, f"after {name}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["model", "backbone"])
@pytest.mark.parametrize("state", STATES)
def test_every_door_keeps_every_state(state, kind, tmp_path):
    change, _ = STATES[state]
    for copied, _ in COPIES.values():
        model = make(kind)
        change(backbone_of(model))
        assert_same_later(model, copied(model, tmp_path))


def test_the_config_keeps_every_state(tmp_path):
    """The quick part of the table. Each setting shows where it is changed, and only there."""
    for change, expected in STATES.values():
        model = make()
        change(model.backbone)
        assert [*get_settings(model.backbone)] == [*expected]
        assert ("settings" in model.backbone.get_config()) == bool(expected)
        assert_same_later(model, by_config(model, tmp_path))


def test_every_setting_is_in_a_state():
    assert {name for _, changed in STATES.values() for name in changed} == SETTINGS.keys()


ELSEWHERE = {
    *("config", "layer", "units", "input_dim", "projection_policy"),  # the architecture
    *("lora_kernel_a", "lora_kernel_b", "lora_rank", "lora_alpha", "lora_enabled"),  # the plan
    *("trainable", "untrained", "frozen_before_lora", "frozen_by_lora"),  # freezing, and more
    "distribution",  # where it lies
}


def keras_itself():
    """Layers and a model whose own configs keep what they have."""
    kernel, table = (
        keras.layers.EinsumDense("ab,bc->ac", 2),
        keras.layers.ReversibleEmbedding(2, 2, False),
    )
    kernel.build((1, 2))
    table.build()
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return kernel, table, model


@pytest.mark.parametrize(
    "owner",
    [itself, block, attention, embedding, lambda b: attention(b).query],
    ids=["backbone", "block", "attention", "embedding", "projection"],
)
def test_whatever_can_be_set_is_a_setting(owner):
    backbone = make("backbone")
    each(LORA, freeze(itself))(backbone)
    owner = owner(backbone)
    found = {
        name
        for name, value in of_the_library(type(owner)).items()
        if isinstance(value, property) and value.fset
    }
    for name, value in vars(owner).items():
        is_layer = isinstance(value, keras.layers.Layer | list)  # which are owners themselves
        if not (name.startswith("_") or is_layer):
            found.add(name)
    found -= {name for each in keras_itself() for name in (*vars(each), *dir(type(each)))}
    assert found - ELSEWHERE - SETTINGS.keys() == set()


def test_settings_of_a_newer_version_are_refused():
    backbone = make("backbone")
    with pytest.raises(ValueError, match=r"among attention_path, .* but one is 'speed'. A newer"):
        set_settings(backbone, {"speed": 2})


@pytest.mark.slow
def test_files_from_before_there_were_settings_load(tmp_path):
    """Their configs lack two keys; all of such a model was trainable when it was loaded."""
    model = make(num_layers=1)
    model.train_on_batch(X, Y)
    model.save(tmp_path / "new.keras")
    with zipfile.ZipFile(tmp_path / "new.keras") as new:
        files = {name: new.read(name) for name in new.namelist()}
    config = json.loads(files["config.json"])
    assert "settings" not in config["config"]["backbone"]["config"]
    assert config["compile_config"].pop("built_for")
    files["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(tmp_path / "old.keras", "w") as old:
        for name, content in files.items():
            old.writestr(name, content)
    loaded = keras.saving.load_model(tmp_path / "old.keras")
    for ours, theirs in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours.value, theirs.value)


def test_a_path_that_the_device_lacks_is_not_forced():
    backbone = make("backbone")
    with pytest.warns(UserWarning, match="'auto' where it was 'fused'"):
        set_settings(backbone, {"attention_path": ["fused", "dense"]})
    paths = [each.self_attention.attention_path for each in backbone.transformer_layers]
    assert paths == ["auto", "dense"]


@pytest.mark.slow
def test_presets_know_no_settings(tmp_path):
    """They are architecture and weights, in KerasHub's format."""
    model = make()
    STATES["frozen layers"][0](model.backbone)
    model.backbone.rematerialize = True
    model.save_to_preset(tmp_path / "set")
    make().save_to_preset(tmp_path / "new")
    for name in ("config.json", "task.json"):
        one, other = ((tmp_path / kind / name).read_text() for kind in ("set", "new"))
        assert strip_names(one) == strip_names(other)
    loaded = MistralCausalLM.from_preset(tmp_path / "set")
    assert get_settings(loaded.backbone).keys() <= {"context_length"}


def strip_names(text):
    return re.sub(r'"name": "[^"]*"', "", text)


# Optimizers --------------------------------------------------------------------------------------


def state(model):
    return [(v.path.rpartition("/")[2], np.array(v.value)) for v in model.optimizer.variables]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("door", [name for name, (_, whole) in COPIES.items() if whole])
def test_a_copy_trains_on_as_the_model_does(door, dtype, tmp_path):
    """With its steps, moments and master weights; the layers that were frozen stay so."""
    model = make(dtype=dtype, num_layers=1)
    freeze(embedding)(model.backbone)
    model.compile(keras.optimizers.Adam(0.01), loss=model.loss)
    model.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    again = COPIES[door][0](model, tmp_path)
    assert int(again.optimizer.iterations) == 2
    for _ in range(2):
        for (_, ours), (_, theirs) in zip(state(model), state(again), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        ours, theirs = (
            m.fit(X, Y, epochs=2, shuffle=False, verbose=0).history["loss"] for m in (model, again)
        )
        assert ours == theirs
        for ours, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (each(), True),
        (freeze(attention), True),
        (LORA, True),
        (INT8, False),  # the matrices that it trained are gone
        (each(LORA, call("merge_lora")), True),
    ],
    ids=["nothing", "frozen", "LoRA", "int8", "merged"],
)
def test_an_optimizer_knows_its_weights_again(change, kept, tmp_path, recwarn):
    model = make(num_layers=1)
    model.train_on_batch(X, Y)
    change(model.backbone)
    again = by_keras_file(model, tmp_path)
    known = [[v.path for v in optimizer_weights(m.optimizer)] for m in (model, again)]
    assert known[1] == (known[0] if kept else [])
    assert int(again.optimizer.iterations) == int(kept)
    assert kept == ("Skipping variable loading" not in str([w.message for w in recwarn]))
    changed = known[0] != [v.path for v in model.trainable_variables]
    for each_model in (model, again):
        if changed and optimizer_weights(each_model.optimizer):
            with pytest.raises(ValueError, match="Call compile again"):
                each_model.train_on_batch(X, Y)
        else:
            each_model.train_on_batch(X, Y)


@pytest.mark.parametrize("door", [name for name, (_, whole) in COPIES.items() if whole])
def test_a_model_that_was_never_trained_is_copied_without_a_warning(door, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        again = COPIES[door][0](make(num_layers=1), tmp_path)
    assert not optimizer_weights(again.optimizer)


# Clones ------------------------------------------------------------------------------------------

KINDS = {
    "float32": each(),
    "tied": each(),
    "dropout": each(),
    "LoRA": LORA,
    "int8": INT8,
    "int8, LoRA": each(INT8, LORA),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("kind", ["model", "backbone"])
def test_a_clone_is_of_the_same_class_and_takes_the_weights(kind, name):
    more = {"tied": {"tie_word_embeddings": True}, "dropout": {"dropout": 0.1}}
    model = make(kind, **more.get(name, {}))
    KINDS[name](backbone_of(model))
    clone = keras.models.clone_model(model)
    assert type(clone) is type(model)
    assert clone.compiled
    assert not {id(v) for v in clone.variables} & {id(v) for v in model.variables}
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone(X), model(X))


def test_a_clone_writes_and_is_cloned_again():
    clone = keras.models.clone_model(keras.models.clone_model(make()))
    assert len(clone.generate(IDS[0, :3].tolist(), max_new_tokens=3, stop_token_ids=None)) == 6


def test_a_model_around_a_backbone_is_cloned():
    backbone = make("backbone")
    around = keras.Model(backbone.input, keras.layers.Dense(2)(backbone(backbone.input)))
    clone = keras.models.clone_model(around)
    clone.set_weights(around.get_weights())
    np.testing.assert_array_equal(clone(X), around(X))
    assert isinstance(clone.layers[2], MistralBackbone)


@pytest.mark.parametrize(
    "arguments",
    [
        {"clone_function": lambda layer: layer},
        {"call_function": lambda layer, *args, **kwargs: layer(*args, **kwargs)},
        {"input_tensors": {name: keras.Input((3,)) for name in X}},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
@pytest.mark.parametrize("kind", ["model", "backbone"])
def test_a_clone_of_other_layers_is_refused(kind, arguments):
    with pytest.raises(ValueError, match=r"clone_model takes a Mistral.* alone, without"):
        keras.models.clone_model(make(kind), **arguments)


# Orders ------------------------------------------------------------------------------------------


def load_lora(backbone, folder):
    other = by_config(backbone, folder)
    other.enable_lora(3, ["key", "up"])
    other.save_lora_weights(folder / "a.lora.h5")
    backbone.load_lora_weights(folder / "a.lora.h5")


def possible(backbone):
    """The steps that a backbone can take now, by their names."""
    adapted, quantized = lora.settings(backbone), backbone.quantization
    steps = {"freeze": freeze(itself), "thaw": freeze(itself, True)}
    if quantized:
        steps["dequantize"] = FLOAT
    else:
        steps["int8"] = INT8
        if hasattr(keras.dtype_policies, "Int4DTypePolicy"):
            steps["int4"] = call("quantize", "int4/4")
    if adapted:
        steps["merge"] = call("merge_lora", bool(quantized))
    else:
        steps["enable"] = LORA
        steps["load"] = None
    return steps


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True])
def test_weights_are_in_the_order_of_a_new_model_after_any_steps(tied, tmp_path):
    backbone = make("backbone", num_layers=1, tie_word_embeddings=tied)
    rng, done = np.random.default_rng(0), []
    for _ in range(60):
        steps = possible(backbone)
        name = rng.choice([*steps])
        done.append(str(name))
        if name == "load":
            load_lora(backbone, tmp_path)
        else:
            steps[name](backbone)
        with without_weights():
            new = MistralBackbone.from_config(backbone.get_config())
        paths = [(v.path, v.shape, v.dtype) for v in backbone.variables]
        assert [(v.path, v.shape, v.dtype) for v in new.variables] == paths, done
        new.set_weights(backbone.get_weights())
    assert {"int8", "dequantize", "enable", "merge", "load"} <= set(done)
