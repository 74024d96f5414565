"""Every way to use a model and every way to change one, for tests that what is compiled follows."""

import functools

import numpy as np
import pytest
from small_presets import small_tokenizer

from mistral_lib import (
    MistralBackbone,
    MistralCausalLM,
    MistralCausalLMPreprocessor,
    without_weights,
)
from mistral_lib.keras_inside import optimizer_weights

# In blocks of 60 and of 64 rows, 100 rows have two scales; and LoRA of rank 100 has square factors.
SIZES = {
    "vocabulary_size": 300,
    "num_layers": 1,
    "num_query_heads": 5,
    "hidden_dim": 100,
    "intermediate_dim": 20,
    "num_key_value_heads": 5,
    "sliding_window": 4,
}
IDS = np.random.default_rng(1).integers(1, 300, (3, 7)).astype("int32")
X = {"token_ids": IDS[:, :-1], "padding_mask": np.ones((3, 6), bool)}
Y = IDS[:, 1:]
PROMPT = IDS[0, :5].tolist()
BATCH = {"token_ids": X["token_ids"], "padding_mask": np.arange(6) < np.array([[3], [4], [5]])}
CACHE = np.zeros((3, 1, 2, 6, 5, 20), "float32")  # of KerasHub's form


def fill(variables, seed=0):
    """Weights that differ everywhere and are large enough to matter, by their paths."""
    for variable in variables:
        rng = np.random.default_rng([seed, *variable.path.encode()])
        is_norm = len(variable.shape) == 1
        variable.assign(rng.normal(is_norm, 0.1 if is_norm else 0.3, variable.shape))


def make_model(seed=0) -> MistralCausalLM:
    with without_weights():
        backbone = MistralBackbone(**SIZES)
    fill(backbone.variables, seed)
    return causal_lm(backbone)


def causal_lm(backbone) -> MistralCausalLM:
    model = MistralCausalLM(backbone, MistralCausalLMPreprocessor(small_tokenizer(), 12))
    model.compile("sgd", loss=model.loss)
    return model


def fresh(model) -> MistralCausalLM:
    """A model that has never been used, of the same weights and settings."""
    config = {**model.backbone.get_config(), "trainable": True}
    config.pop("settings", None)  # which are set here another way
    with without_weights():
        backbone = MistralBackbone.from_config(config)
    known = {variable.path: variable for variable in model.backbone.variables}
    assert [*known] == [variable.path for variable in backbone.variables]
    for variable in backbone.variables:
        variable.assign(np.array(known[variable.path].value))  # training uses its arrays up
        variable.trainable = known[variable.path].trainable
    backbone.rematerialize = model.backbone.rematerialize
    for block, other in zip(backbone.transformer_layers, model.backbone.transformer_layers):
        block.self_attention.attention_path = other.self_attention.attention_path
    return causal_lm(backbone)


# Ways to use it ----------------------------------------------------------------------------------


def trained(train):
    """The loss of a way to train, and what the weights become; they are put back.

    Where other weights are to be trained than before, training is refused until `compile`.
    """

    def run(model):
        before = [np.array(variable.value) for variable in model.variables]
        known = optimizer_weights(model.optimizer)
        if known and [*map(id, known)] != [*map(id, model.trainable_variables)]:
            with pytest.raises(ValueError, match="Call compile again"):
                train(model)
            model.compile("sgd", loss=model.loss)
        loss = train(model)
        after = {v.path: np.array(v.value, "float32") for v in model.variables}
        for variable, value in zip(model.variables, before, strict=True):
            variable.assign(value)
        return [np.float32(loss), *(after[path] for path in sorted(after))]

    return run


@functools.cache
def main_model() -> MistralCausalLM:
    """Writes with another model's drafts."""
    return make_model(seed=9)


def written(**options):
    return lambda model: model.generate(PROMPT, max_new_tokens=6, stop_token_ids=None, **options)


DOORS = {
    "__call__": lambda model: model(X),
    "predict": lambda model: model.predict(X, verbose=0),
    "predict_on_batch": lambda model: model.predict_on_batch(X),
    "evaluate": lambda model: model.evaluate(X, Y, verbose=0)[:1],
    "test_on_batch": lambda model: np.ravel(model.test_on_batch(X, Y))[:1],
    "score": lambda model: model.score(**X, scoring_mode="loss"),
    "generate": written(),
    "generate, drawn": written(temperature=2.0, seed=0),
    "generate, beams": written(num_beams=2),
    "generate, with a draft": lambda model: written(draft_model=main_model())(model),
    "generate, as a draft": lambda model: written(draft_model=model, temperature=2.0, seed=0)(
        main_model()
    ),
    "stream": lambda model: list(model.stream("the window", max_new_tokens=9)),
    "call_with_cache": lambda model: model.call_with_cache(X["token_ids"], CACHE, 0)[0],
    "generate_step": lambda model: model.generate_step(BATCH)["token_ids"],
    "make_generate_function": lambda model: model.make_generate_function()(BATCH)["token_ids"],
    "fit": trained(lambda model: model.fit(X, Y, verbose=0).history["loss"][0]),
    "train_on_batch": trained(lambda model: np.ravel(model.train_on_batch(X, Y))[0]),
    "backbone.__call__": lambda model: model.backbone(X),
    "backbone.predict": lambda model: model.backbone.predict(X, verbose=0),
    "backbone.predict_on_batch": lambda model: model.backbone.predict_on_batch(X),
}

# Ways to change it -------------------------------------------------------------------------------


def change(*steps):
    """Calls of the backbone's methods, one after the other; what they add is filled."""

    def run(model, folder):
        for name, *arguments in steps:
            getattr(model.backbone, name)(*arguments)
            fill([v for v in model.variables if "lora" in v.path])

    return run


def set_attribute(name, value, owner=lambda model: model.backbone):
    return lambda model, folder: setattr(owner(model), name, value)


def first_attention(model):
    return model.backbone.transformer_layers[0].self_attention


def load_lora(model, folder):
    other = make_model()
    other.backbone.enable_lora(4, "query", 8)
    fill(other.backbone.trainable_variables, seed=1)
    other.backbone.save_lora_weights(folder / "a.lora.h5")
    model.backbone.load_lora_weights(folder / "a.lora.h5")


def load_weights(model, folder):
    make_model(seed=1).save_weights(folder / "all.weights.h5")
    model.load_weights(folder / "all.weights.h5")


ALL = ["query", "key", "value", "attention_output", "gate", "up", "down"]
START = {  # what was there when everything was compiled
    "nothing": (),
    "LoRA": (("enable_lora", 4, None, 1),),
    "LoRA everywhere": (("enable_lora", 4, ALL, 1),),
    "square LoRA": (("enable_lora", 100),),
    "int4/60": (("quantize", "int4/60"),),
}
CHANGES = {
    "enable_lora": ("nothing", change(("enable_lora", 4, None, 32))),
    "enable_lora, another alpha": (
        "LoRA",
        change(("merge_lora",), ("enable_lora", 4, None, 32)),
    ),
    "enable_lora, other layers": (
        "LoRA",
        change(("merge_lora",), ("enable_lora", 4, ["query", "key"], 1)),
    ),
    "merge_lora": ("LoRA", change(("merge_lora",))),
    "load_lora_weights": ("nothing", load_lora),
    "load_weights": ("nothing", load_weights),
    "quantize": ("LoRA everywhere", change(("quantize", "int8"))),
    "dequantize, another order of variables": (
        "square LoRA",
        change(("quantize", "int8"), ("dequantize",)),
    ),
    "quantize, another block size": ("int4/60", change(("dequantize",), ("quantize", "int4/64"))),
    "dequantize": ("int4/60", change(("dequantize",))),
    "attention_path": ("nothing", set_attribute("attention_path", "banded")),
    "attention_path of a layer": (
        "nothing",
        set_attribute("attention_path", "banded", first_attention),
    ),
    "rematerialize": ("nothing", set_attribute("rematerialize", True)),
    "lora_alpha of a layer": (
        "LoRA",
        set_attribute("lora_alpha", 32, lambda model: first_attention(model).query),
    ),
    "trainable": ("nothing", set_attribute("trainable", False, first_attention)),
    "trainable, another layer": (
        "nothing",
        lambda model, folder: [
            set_attribute("trainable", on, first_attention)(model, folder) for on in (False, True)
        ],
    ),
}
