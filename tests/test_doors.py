"""Whatever is done to a model, every way to use it agrees with a model that is new.

The tables are in `doors.py`. A public method or setting that is in neither of them, nor among those
here that compute nothing and change nothing, fails.
"""

import jax
import numpy as np
import pytest
from doors import CHANGES, DOORS, START, change, first_attention, fresh, make_model

from mistral_lib import MistralBackbone, MistralCausalLM

NEUTRAL = {
    *("export_lora_to_peft", "export_to_transformers", "save_lora_weights", "save_to_preset"),
    *("from_config", "from_preset", "get_config", "get_layout_map", "traced_settings"),
    *("get_compile_config", "preprocessor"),  # text becomes arrays before anything is compiled
    *("export_to_gguf", "export_lora_to_gguf", "get_quantization_layer_structure"),
    "sampler",  # of `compile`, looked up at each call
    # Called by what is in the tables.
    *(
        "call",
        "check_batch",
        "compute_loss",
        "compute_loss_and_updates",
        "compute_metrics",
        "compiled_with",
    ),
    *(
        "compile",
        "compile_from_config",
        "get_compile_config",
        "make_train_function",
        "make_test_function",
        "make_predict_function",
        "predict_step",
        "stateless_call",
        "test_step",
        "train_step",
        "jax_state_sync",
    ),
}


PLAIN = ("__dict__", "__weakref__")  # of Python's own making


def of_the_library(cls):
    """What the library's own classes define in a class, by name."""
    own = [base for base in cls.__mro__ if base.__module__.startswith("mistral_lib")]
    found = {name: value for base in reversed(own) for name, value in vars(base).items()}
    return {name: value for name, value in found.items() if name not in PLAIN}


def names(table):
    return {name.partition(",")[0].partition(" of ")[0].removeprefix("backbone.") for name in table}


@pytest.mark.parametrize("cls", [MistralBackbone, MistralCausalLM])
def test_every_method_and_setting_is_in_a_table(cls):
    found = set()
    for name, value in of_the_library(cls).items():
        settable = isinstance(value, property) and value.fset is not None
        if not name.startswith("_") and (settable or callable(getattr(cls, name))):
            found.add(name)
    found -= {"presets", "backbone", "config", "preprocessor"}  # a table, and three objects
    assert {"generate", "quantize"} & found
    assert found - names(DOORS) - names(CHANGES) - NEUTRAL == set()


def test_what_has_no_change_cannot_be_set():
    model = make_model()
    checked = 0
    for owner in (
        model,
        model.backbone,
        model.backbone.transformer_layers[0],
        first_attention(model),
    ):
        for name, value in of_the_library(type(owner)).items():
            if hasattr(type(value), "__set__") and getattr(value, "fset", None) is None:
                checked += 1
                with pytest.raises(AttributeError):
                    setattr(owner, name, getattr(owner, name))
    assert checked > 15


def assert_same(one, other):
    ones, others = jax.tree.leaves(one), jax.tree.leaves(other)
    assert len(ones) == len(others)
    for a, b in zip(ones, others):
        if isinstance(a, str | int):
            assert a == b
        else:
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_every_door_sees_every_change(name, tmp_path):
    start, run = CHANGES[name]
    model = make_model()
    change(*START[start])(model, tmp_path)
    for door in DOORS.values():
        door(model)
    run(model, tmp_path)
    new, wrong = fresh(model), {}
    for door, use in DOORS.items():
        try:
            assert_same(use(model), use(new))
        except AssertionError as error:
            wrong[door] = str(error)
    assert wrong == {}


@pytest.mark.slow
def test_the_comparison_can_fail():
    one, other = make_model(0), make_model(1)
    for use in DOORS.values():
        results = use(one), use(other)
        with pytest.raises(AssertionError):
            assert_same(*results)


def test_a_change_of_alpha_is_seen(tmp_path):
    """The quick part of the table."""
    model = make_model()
    for alpha in (1, 32):
        change(("enable_lora", 4, None, alpha))(model, tmp_path)
        for door in ("predict", "generate"):
            assert_same(DOORS[door](model), DOORS[door](fresh(model)))
        model.backbone.merge_lora()
