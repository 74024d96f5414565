"""Models on eight virtual devices beside one: a program that test_distribution.py runs once.

    python tests/eight_devices.py FOLDER

It writes what it found to FOLDER/results.json and asserts nothing. XLA must be told of the devices,
and to keep what it compiles in FOLDER/compiled, before it starts.
"""

import contextlib
import json
import sys
from collections import Counter
from pathlib import Path
from unittest import mock

import jax
import keras
import numpy as np
from small_presets import small_backbone
from vocabularies import trained_model

from mistral_lib import (
    MistralBackbone,
    MistralCausalLM,
    MistralCausalLMPreprocessor,
    MistralTokenizer,
)
from mistral_lib.checks import keras_knows
from mistral_lib.distribution import bytes_per_device
from mistral_lib.generation.cache import new_cache
from mistral_lib.presets.memory import weight_bytes
from mistral_lib.teaching.collectives import collectives

SIZES = {
    "vocabulary_size": 304,
    "num_query_heads": 16,
    "hidden_dim": 32,
    "intermediate_dim": 48,
    "num_key_value_heads": 8,
    "head_dim": 4,
    "sliding_window": 5,
}
ROWS, LENGTH, STEPS = 8, 12, 3
RANDOM = np.random.default_rng(0)
IDS = RANDOM.integers(0, SIZES["vocabulary_size"], (STEPS * ROWS, LENGTH))
MASK = np.arange(LENGTH) < RANDOM.integers(3, LENGTH + 1, (STEPS * ROWS, 1))
PROMPTS = [ids[: 1 + row].tolist() for row, ids in enumerate(IDS[:ROWS])]
TEXT = "The window slides"
POLICIES = [
    "float32",
    "mixed_bfloat16",
    "int8_from_bfloat16",
    "int4/128_from_float32",
    "int4/4_from_float16",
]
ADAPTED = ["query", "attention_output", "gate", "down"]


def model_parallel(shape, whole=""):
    """The distribution over a mesh; what has `whole` in its path is not split."""
    mesh = keras.distribution.DeviceMesh(shape, ("batch", "model"))
    layouts = MistralBackbone.get_layout_map(mesh)
    for path in [path for path in layouts if whole and whole in path]:
        del layouts[path]
    return keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")


def part(array):
    """The shape of what each device has of an array."""
    return list(array.sharding.shard_shape(array.shape))


def described(text):
    """The collectives of a compiled program, in a form that JSON holds."""
    return [
        {"kind": c.kind, "shapes": c.shapes, "devices": c.devices, "sent": c.sent, "scope": c.scope}
        for c in collectives(text)
    ]


@contextlib.contextmanager
def compiled(folder, found):
    """Adds to `found` the collectives of each program that Keras and the loop compile meanwhile."""
    before = set(folder.glob("*"))
    yield
    for path in sorted(set(folder.glob("*cpu_after_optimizations.txt")) - before):
        found[path.name.split(".")[1]] = described(path.read_text())


def forward(model, data_sharding=None, path="auto"):
    """Hidden states and logits of one compiled call, and its collectives."""
    model.backbone.attention_path = path

    def call(weights, inputs):
        with keras.StatelessScope(list(zip(model.variables, weights, strict=True))):
            hidden_states = model.backbone(inputs)
            return hidden_states, model.backbone.token_embedding(hidden_states, reverse=True)

    inputs = {"token_ids": IDS[:ROWS], "padding_mask": MASK[:ROWS]}
    inputs = {name: jax.device_put(value, data_sharding) for name, value in inputs.items()}
    weights = [variable.value for variable in model.variables]
    program = jax.jit(call).lower(weights, inputs).compile()
    return [np.asarray(x) for x in program(weights, inputs)], described(program.as_text())


def train(model, lora):
    """The loss of each step."""
    if lora:
        keras.utils.set_random_seed(0)  # for the factor A
        model.backbone.enable_lora(2, ADAPTED)
        model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(True))
    losses = []
    model.fit(
        {"token_ids": IDS, "padding_mask": MASK},
        np.roll(IDS, -1, axis=1),
        batch_size=ROWS,
        shuffle=False,
        sample_weight=MASK.astype("float32"),
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda _, logs: losses.append(float(logs["loss"]))
            )
        ],
        verbose=0,
    )
    return losses


@contextlib.contextmanager
def watched_devices(found):
    """Writes down the most bytes that one device held of what was made meanwhile."""
    put, most = jax.device_put, Counter()
    earlier = {id(array) for array in jax.live_arrays()}

    def watched(*args, **kwargs):
        result = put(*args, **kwargs)
        held = Counter()
        for array in jax.live_arrays():
            if id(array) not in earlier:
                size = int(np.prod(part(array))) * array.dtype.itemsize
                held.update({device.id: size for device in array.sharding.device_set})
        for device, size in held.items():
            most[device] = max(most[device], size)
        return result

    jax.device_put = watched
    try:
        yield
    finally:
        jax.device_put = put
    found["most bytes"] = max(most.values())


def counted(policy):
    """Bytes of a model that is built, and what is counted from its config without building one."""
    sizes = {}
    for tied in (False, True):
        backbone = MistralBackbone(
            num_layers=2, dtype=policy, tie_word_embeddings=tied, **{**SIZES, "head_dim": 8}
        )
        with mock.patch("mistral_lib.distribution._devices_in_one_memory", return_value=1):
            on_accelerator = weight_bytes(backbone.config, policy, whole=False)
        sizes[str(tied)] = {
            "built": bytes_per_device(backbone),
            "on an accelerator": on_accelerator,
            "on a CPU": weight_bytes(backbone.config, policy, whole=False),
            "whole": weight_bytes(backbone.config, policy),
        }
    return sizes


def run_forward(distribution, preset, expected, paths=("auto",)):
    """A model loaded and called once, in each attention path."""
    found = {"calls": []}
    with distribution.scope():
        with watched_devices(found):
            model = MistralCausalLM.from_preset(preset)
        found["bytes"] = bytes_per_device(model.backbone)
        found["parts"] = {v.path: part(v.value) for v in model.backbone.variables}
        found["counted"] = {p: counted(p) for p in filter(keras_knows, POLICIES)}
        sharding = distribution.get_data_layout((ROWS, LENGTH)).backend_layout
        for path in paths:
            outputs, sent = forward(model, sharding, path)
            errors = [float(abs(a - b).max()) for a, b in zip(outputs, expected, strict=True)]
            found["calls"].append({"path": path, "errors": errors, "collectives": sent})
    return model, found


def run_writing(model, folder):
    """Written outside the distribution's scope, as anyone might."""
    cache, single = (new_cache(model.backbone, rows, 100).layers[0] for rows in (ROWS, 1))
    found = {
        "cache": [[list(array.shape), part(array)] for array in cache],
        "cache of one row": [[list(array.shape), part(array)] for array in single],
        "programs": {},
    }
    with compiled(folder, found["programs"]):
        found["tokens"] = model.generate(PROMPTS, max_new_tokens=20)
    found["text"] = model.generate(TEXT, max_new_tokens=12)
    found["stream"] = "".join(model.stream(TEXT, max_new_tokens=12))
    return found


def run_training(distribution, preset, folder, lora, dtype=None):
    found = {"programs": {}}
    with distribution.scope():
        model = MistralCausalLM.from_preset(preset, dtype=dtype)
        with compiled(folder, found["programs"]):
            found["losses"] = train(model, lora)
    found["parts"] = {v.path: part(v.value) for v in model.trainable_variables}
    # Without the number of steps and the learning rate: two for each variable.
    found["optimizer"] = [part(v.value) for v in model.optimizer.variables[2:]]
    masters = getattr(model.optimizer, "masters", [])  # of weights in 16 bits
    found["masters"] = [part(master.value) for master in masters]
    return found


def few_heads():
    """Two key-value heads for four devices: keys and values are whole on each of them."""
    sizes = {**SIZES, "num_key_value_heads": 2}
    one = small_backbone(**sizes)
    with model_parallel((2, 4), whole="(key|value)").scope():
        many = small_backbone(**sizes)
    found = {"key": part(many.transformer_layers[0].self_attention.key.kernel.value)}
    for name, backbone in (("one", one), ("many", many)):
        for variable in backbone.variables:
            variable.assign(variable.value * 0.4)
        found[name] = MistralCausalLM(backbone).generate(PROMPTS, max_new_tokens=20)
    return found


def main(folder):
    compiled_folder, preset = folder / "compiled", folder / "preset"
    tokenizer = MistralTokenizer(trained_model(vocab_size=SIZES["vocabulary_size"]))
    one = MistralCausalLM(small_backbone(**SIZES), MistralCausalLMPreprocessor(tokenizer, 32))
    for variable in one.backbone.variables:
        variable.assign(variable.value * 0.4)
    one.save_to_preset(preset)
    expected = forward(one)[0]
    results = {
        "largest": [float(abs(array).max()) for array in expected],
        "one": {
            "bytes": bytes_per_device(one.backbone),
            "tokens": one.generate(PROMPTS, max_new_tokens=20),
            "text": one.generate(TEXT, max_new_tokens=12),
        },
        "forward": {},
        "fit": {"one": train(MistralCausalLM.from_preset(preset), lora=False)},
        "lora": {"one": train(MistralCausalLM.from_preset(preset), lora=True)},
        "few heads": few_heads(),
    }
    two_by_four = model_parallel((2, 4))
    for name, distribution, paths in (
        ("data", keras.distribution.DataParallel(), ["auto"]),
        ("8x1", model_parallel((8, 1)), ["auto"]),
        ("1x8", model_parallel((1, 8)), ["auto"]),
        ("4x2", model_parallel((4, 2)), ["auto"]),
        ("2x4", two_by_four, ["auto", "banded"]),
    ):
        model, results["forward"][name] = run_forward(distribution, preset, expected, paths)
    results["writing"] = run_writing(model, compiled_folder)
    data = keras.distribution.DataParallel()
    results["fit"]["data"] = run_training(data, preset, compiled_folder, lora=False)
    results["16 bits"] = {
        "one": train(MistralCausalLM.from_preset(preset, dtype="bfloat16"), lora=False),
        "2x4": run_training(two_by_four, preset, compiled_folder, False, "bfloat16"),
    }
    for kind in ("fit", "lora"):
        results[kind]["2x4"] = run_training(two_by_four, preset, compiled_folder, kind == "lora")
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
