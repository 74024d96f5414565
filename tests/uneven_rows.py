"""Batches that four devices cannot share equally: a program that test_distribution.py runs once.

    python tests/uneven_rows.py FOLDER

It writes what every door gives on one device and on four to FOLDER/results.json and
asserts nothing. XLA must be told of the devices before it starts.
"""

import contextlib
import json
import re
import sys
from pathlib import Path

import jax
import keras
import numpy as np
from doors import fill
from small_presets import small_tokenizer

from mistral_lib import (
    MistralBackbone,
    MistralCausalLM,
    MistralCausalLMPreprocessor,
    without_weights,
)

SIZES = {
    "vocabulary_size": 300,
    "num_layers": 1,
    "num_query_heads": 4,
    "hidden_dim": 16,
    "intermediate_dim": 24,
    "num_key_value_heads": 2,
    "sliding_window": 4,
}
LENGTH = 6
ROWS = 11  # in batches of 6: a batch of six and one of five
IDS = np.random.default_rng(2).integers(1, 300, (ROWS, 7)).astype("int32")
MASK = np.arange(6) < np.arange(ROWS)[:, None] % 5 + 2
INPUTS = {"token_ids": IDS[:, :-1], "padding_mask": MASK}
TARGETS = np.where(MASK, IDS[:, 1:], -100)
PROMPTS = [ids[: 2 + row].tolist() for row, ids in enumerate(IDS[:3])]
WEIGHTS = np.random.default_rng(3).uniform(0, 2, MASK.shape).astype("float32")
TEXTS = ["the window", "a", "the window slides over"]
DEVICES = ("one", "data", "2x2")


def rows(number, start=0):
    """Some of the rows: inputs, labels and weights."""
    part = slice(start, start + number)
    return {name: value[part] for name, value in INPUTS.items()}, TARGETS[part], WEIGHTS[part]


class Dataset(keras.utils.PyDataset):
    """Batches of five, three and three rows."""

    sizes = (5, 3, 3)

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        return rows(self.sizes[index], sum(self.sizes[:index]))


def generator():
    dataset = Dataset()
    yield from (dataset[index] for index in range(len(dataset)))


def logs_and_weights(train):
    """What a way to train returns, and the weights that it makes; they are put back."""

    def run(model):
        before = [np.array(variable.value) for variable in model.variables]
        logs = train(model)
        after = [np.array(variable.value) for variable in model.variables]
        for variable, value in zip(model.variables, before, strict=True):
            variable.assign(value)
        return getattr(logs, "history", logs), after

    return run


def fit(*data, **options):
    options = {"shuffle": False, "verbose": 0, "batch_size": 6, **options}
    return logs_and_weights(lambda model: model.fit(*data, **options))


def evaluate(*data, **options):
    return lambda model: model.evaluate(*data, verbose=0, return_dict=True, **options)


WHOLE, FEW = rows(ROWS), rows(3)

DOORS = {
    "fit": fit(*WHOLE[:2]),
    "fit, weights": fit(*WHOLE[:2], sample_weight=WHOLE[2]),
    "fit, weights of rows": fit(*WHOLE[:2], sample_weight=WHOLE[2][:, 0]),
    "fit, few rows": fit(*FEW[:2]),
    "fit, one row": fit(*rows(1)[:2]),
    "fit, text": fit(TEXTS),
    "fit, shuffled": fit(*WHOLE[:2], shuffle=True, epochs=2),
    "fit, generator": logs_and_weights(lambda model: model.fit(generator(), verbose=0)),
    "fit, PyDataset": fit(Dataset(), batch_size=None),
    "fit, validation_data": fit(*rows(6)[:2], validation_data=WHOLE, validation_batch_size=4),
    "fit, validation_split": fit(*WHOLE[:2], validation_split=0.3),
    "train_on_batch": logs_and_weights(lambda model: model.train_on_batch(*FEW[:2])),
    "train_on_batch, weights": logs_and_weights(lambda model: model.train_on_batch(*WHOLE)),
    "evaluate": evaluate(*WHOLE[:2], batch_size=6),
    "evaluate, weights": evaluate(*WHOLE[:2], sample_weight=WHOLE[2], batch_size=6),
    "evaluate, generator": lambda model: evaluate(generator())(model),
    "evaluate, PyDataset": evaluate(Dataset()),
    "evaluate, few rows": evaluate(*FEW[:2], sample_weight=FEW[2]),
    "test_on_batch": lambda model: model.test_on_batch(*FEW[:2]),
    "test_on_batch, weights": lambda model: model.test_on_batch(*WHOLE),
    "predict": lambda model: model.predict(INPUTS, batch_size=6, verbose=0),
    "predict, few rows": lambda model: model.predict(FEW[0], verbose=0),
    "predict, text": lambda model: model.predict(TEXTS, verbose=0),
    "predict, PyDataset": lambda model: model.predict(Dataset(), verbose=0),
    "predict_on_batch": lambda model: model.predict_on_batch(FEW[0]),
    "__call__": lambda model: model(FEW[0]),
    "score": lambda model: model.score(**FEW[0]),
    "score, loss": lambda model: model.score(**INPUTS, scoring_mode="loss"),
    "generate": lambda model: model.generate(PROMPTS, max_new_tokens=6),
    "generate, drawn": lambda model: model.generate(
        PROMPTS, max_new_tokens=6, temperature=1.0, seed=0
    ),
    "generate, beams": lambda model: model.generate(PROMPTS, max_new_tokens=6, num_beams=2),
    "generate, five at a time": lambda model: model.generate(
        IDS[:, :3].tolist(), max_new_tokens=4, batch_size=5
    ),
    "stream": lambda model: list(model.stream("the window", max_new_tokens=6)),
    "backbone.predict": lambda model: model.backbone.predict(INPUTS, batch_size=6, verbose=0),
    "backbone.predict_on_batch": lambda model: model.backbone.predict_on_batch(FEW[0]),
}


def make_model():
    with without_weights():
        backbone = MistralBackbone(**SIZES)
    fill(backbone.variables)
    model = MistralCausalLM(backbone, MistralCausalLMPreprocessor(small_tokenizer(), 7))
    accuracy = keras.metrics.SparseCategoricalAccuracy
    model.compile(
        keras.optimizers.SGD(0.5),
        model.loss,
        metrics=[accuracy("plain")],
        weighted_metrics=[accuracy("weighted")],
    )
    return model


def distribution_of(devices):
    if devices == "data":
        return keras.distribution.DataParallel()
    mesh = keras.distribution.DeviceMesh(tuple(map(int, devices.split("x"))), ("batch", "model"))
    layouts = MistralBackbone.get_layout_map(mesh)
    return keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")


def results_of(door, model):
    """Numbers and texts, one after the other; of an error its words."""
    keras.utils.set_random_seed(0)  # for the order of shuffled rows
    try:
        return [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(DOORS[door](model))]
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]


def largest_parts(model):
    """How many rows a device computes, of five and of six, in a step of `predict`."""
    state = [[v.value for v in each] for each in (model.trainable_variables, model.variables[:0])]
    mesh = keras.distribution.distribution().device_mesh.backend_mesh
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    found = {}
    for number in (5, 6):
        inputs = jax.device_put(rows(number)[0], whole)
        step = jax.jit(lambda state, data: model.predict_step(state, data)[0])
        text = step.lower(state, (inputs,)).compile().as_text()
        products = re.findall(
            r"= f32\[(\d+),(?:24|12)\]\S* (?:dot|custom-call)\(", text
        )  # into gate and up
        found[number] = max(map(int, products)) // LENGTH
    return found


def main(folder):
    results = {"largest": {}}
    for devices in DEVICES:
        scope = contextlib.nullcontext() if devices == "one" else distribution_of(devices).scope()
        with scope:
            model = make_model()
            results[devices] = {door: results_of(door, model) for door in DOORS}
            if devices != "one":
                results["largest"][devices] = largest_parts(model)
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
