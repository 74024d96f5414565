"""mistral_lib/distribution.py: layouts, what they refuse, and models on eight virtual devices."""

import itertools
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from eight_devices import LENGTH, ROWS, SIZES
from uneven_rows import DOORS

from mistral_lib import MistralBackbone
from mistral_lib.config import WEIGHTS, MistralConfig
from mistral_lib.distribution import SPLIT_AXES, check_sizes
from mistral_lib.teaching.collectives import sent_per_block

TESTS = Path(__file__).parent
MESHES = ["data", "8x1", "1x8", "4x2", "2x4"]
PROJECTIONS = {
    "transformer_layer_1/self_attention/query": 1,
    "transformer_layer_1/self_attention/key": 1,
    "transformer_layer_1/self_attention/value": 1,
    "transformer_layer_1/self_attention/attention_output": 0,
    "transformer_layer_1/feedforward/gate": 1,
    "transformer_layer_1/feedforward/up": 1,
    "transformer_layer_1/feedforward/down": 0,
}


def named_mesh(shape=(2, 4), names=("batch", "model")):
    """A mesh of devices that need not exist, as long as nothing is put on them."""
    devices = [f"cpu:{number}" for number in range(8)]
    return keras.distribution.DeviceMesh(shape, names, devices)


def make_under(layouts, **changes):
    with keras.distribution.ModelParallel(layout_map=layouts).scope():
        return MistralBackbone(num_layers=2, **{**SIZES, **changes})


# The map -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("projection", "axis"), PROJECTIONS.items(), ids=str)
def test_kernels_and_factors_are_split_on_the_side_of_heads_and_features(projection, axis):
    layouts = MistralBackbone.get_layout_map(named_mesh())
    split = {0: ("model", None), 1: (None, "model")}[axis]
    assert layouts[f"{projection}/kernel"].axes == split
    a, b = (layouts[f"{projection}/lora_kernel_{name}"] for name in "ab")
    whole, shared = (a, b) if axis else (b, a)
    assert whole is None
    assert shared.axes == split


def test_embeddings_are_split_by_the_vocabulary_and_norms_are_whole():
    layouts = MistralBackbone.get_layout_map(named_mesh())
    assert layouts["token_embedding/embeddings"].axes == ("model", None)
    assert layouts["token_embedding/reverse_embeddings"].axes == (None, "model")
    for norm in ("self_attention_layernorm", "feedforward_layernorm"):
        assert layouts[f"transformer_layer_0/{norm}/scale"] is None
    assert layouts["sequence_output_layernorm/scale"] is None


def test_axes_can_have_other_names():
    layouts = MistralBackbone.get_layout_map(named_mesh(names=("rows", "heads")), "heads", "rows")
    assert layouts["token_embedding/embeddings"].axes == ("heads", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ("batch", "heads")}, "model_parallel_dim_name is 'model', but .* 'batch', 'h"),
        ({"names": ("rows", "model")}, "data_parallel_dim_name is 'batch', but .* 'rows', 'mod"),
        ({"shape": (8,), "names": ("model",)}, r"DeviceMesh\(\(1, 8\), \('batch', 'model'\)\)"),
    ],
)
def test_a_mesh_without_the_axis_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MistralBackbone.get_layout_map(named_mesh(**arguments))


def test_one_axis_for_both_is_refused():
    with pytest.raises(ValueError, match="both are 'batch'"):
        MistralBackbone.get_layout_map(named_mesh(), "batch")


def test_anything_but_a_mesh_is_refused():
    with pytest.raises(TypeError, match=r"must be a keras\.distribution\.DeviceMesh, .* tuple"):
        MistralBackbone.get_layout_map((2, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_key_value_heads": 2}, "num_key_value_heads is 2, which the 4 devices .*'model'"),
        ({"num_query_heads": 2, "num_key_value_heads": 2}, "num_query_heads is 2, which the 4"),
        ({"intermediate_dim": 50}, "intermediate_dim is 50, which .* keep feedforward/gate/kernel"),
        ({"vocabulary_size": 301}, "vocabulary_size is 301, which .* keep embeddings whole"),
    ],
)
def test_a_size_that_the_devices_cannot_share_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        make_under(MistralBackbone.get_layout_map(named_mesh()), **change)


# On eight virtual devices ------------------------------------------------------------------------


def run(program, folder, devices, *flags):
    """What a program found on so many devices: one process for all tests, since it takes long."""
    options = (
        os.environ.get("XLA_FLAGS", ""),  # how tests compile: see conftest.py
        f"--xla_force_host_platform_device_count={devices}",
        *flags,
    )
    environment = {
        **os.environ,
        "XLA_FLAGS": " ".join(options),
        "JAX_ENABLE_COMPILATION_CACHE": str(not flags),  # what is kept is not dumped
        "JAX_PLATFORMS": "cpu",
        "KERAS_BACKEND": "jax",
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
    }
    command = [sys.executable, str(TESTS / program), str(folder)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eight_devices")
    return run(
        "eight_devices.py",
        folder,
        8,
        f"--xla_dump_to={folder / 'compiled'}",
        "--xla_dump_hlo_as_text",
        "--xla_dump_hlo_module_re=train_step|run_steps|read_chunk",
    )


def shares(mesh):
    """Over how many devices rows are split, and heads."""
    return (8, 1) if mesh == "data" else tuple(map(int, mesh.split("x")))


def numbers(collective):
    """How many numbers a device has after a collective; its matrices may have been flattened."""
    return sum(map(math.prod, collective["shapes"]))


def split_parts(parts, count):
    """The expected parts of variables by path, when `count` devices share what can be shared."""
    whole = {path: list(shape) for path, shape in parts.items()}
    for path, shape in whole.items():
        axis = next((a for p, a in SPLIT_AXES.items() if re.fullmatch(p, path)), None)
        if axis is not None:
            shape[axis] //= count
    return whole


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_hidden_states_and_logits_are_those_of_one_device(results, mesh):
    for call in results["forward"][mesh]["calls"]:
        for error, largest in zip(call["errors"], results["largest"], strict=True):
            assert error < 1e-5 * largest


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_a_block_costs_two_all_reduces_over_the_devices_that_share_it(results, mesh):
    data, model = shares(mesh)
    rows = ROWS // data
    for call in results["forward"][mesh]["calls"]:
        if model == 1:
            assert call["collectives"] == []
            continue
        lookup, *in_blocks = call["collectives"]
        assert "token_embedding" in lookup["scope"]
        places = [("transformer_layer_0", "transformer_layer_1"), ("attention_output", "down")]
        for found, names in zip(in_blocks, itertools.product(*places), strict=True):
            assert all(name in found["scope"] for name in names)
        for found in (lookup, *in_blocks):
            assert found["kind"] == "all-reduce"
            assert numbers(found) == rows * LENGTH * SIZES["hidden_dim"]
            assert found["devices"] == model
        sent = sum(found["sent"] for found in in_blocks)
        assert sent == 2 * sent_per_block(rows, LENGTH, SIZES["hidden_dim"], model)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_each_device_holds_its_part_of_the_weights(results, mesh):
    found, (whole,) = results["forward"][mesh], results["one"]["bytes"].values()
    count = shares(mesh)[1]
    norms = 4 * SIZES["hidden_dim"] * 5  # bytes: two in each of two blocks, and the last
    assert list(found["bytes"]) == [f"cpu:{number}" for number in range(8)]
    assert set(found["bytes"].values()) == {(whole - norms) // count + norms}


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_variables_are_split_where_the_map_says(results, mesh):
    whole = results["forward"]["data"]["parts"]
    assert results["forward"][mesh]["parts"] == split_parts(whole, shares(mesh)[1])


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_no_device_holds_more_while_a_preset_is_loaded(results, mesh):
    found = results["forward"][mesh]
    assert found["most bytes"] <= found["bytes"]["cpu:0"] + 64  # of counters and learning rates


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_memory_is_counted_where_it_is(results, mesh):
    """And without a model: what is counted from the config is what a built model holds."""
    for policy, by_tie in results["forward"][mesh]["counted"].items():
        for tied, found in by_tie.items():
            held = found["built"].values()
            assert set(held) == {found["on an accelerator"]}, (policy, tied)
            assert sum(held) == found["on a CPU"], (policy, tied)
    (whole,) = results["one"]["bytes"].values()
    loaded = results["forward"][mesh]["bytes"]
    assert sum(loaded.values()) >= whole


@pytest.mark.slow
def test_the_cache_is_split_by_rows_and_heads(results):
    heads = SIZES["num_key_value_heads"]
    for whole, part in results["writing"]["cache"]:
        expected = [
            size // 4 if size == heads and axis else size for axis, size in enumerate(whole)
        ]
        assert part == [ROWS // 2, *expected[1:]]
    for whole, part in results["writing"]["cache of one row"]:
        assert whole[0] == part[0] == 1
        assert math.prod(part) == math.prod(whole) // 4


@pytest.mark.slow
def test_many_devices_write_the_same_tokens(results):
    assert results["writing"]["tokens"] == results["one"]["tokens"]
    assert results["writing"]["text"] == results["one"]["text"]
    assert results["writing"]["stream"] == results["one"]["text"]


@pytest.mark.slow
@pytest.mark.parametrize(("program", "length"), [("jit_read_chunk", 16), ("jit_run_steps", 1)])
def test_writing_costs_two_all_reduces_a_block_and_moves_no_cache(results, program, length):
    found = results["writing"]["programs"][program]
    stream = ROWS // 2 * length * SIZES["hidden_dim"]
    large = [each for each in found if each["devices"] == 4 and numbers(each) == stream]
    assert [each["kind"] for each in large] == ["all-reduce"] * 5  # the lookup, two in each block
    for each in found:
        if each not in large:  # who finished, which token: some numbers for each row
            assert each["sent"] <= 4 * ROWS * SIZES["hidden_dim"]


@pytest.mark.slow
def test_keys_and_values_can_be_whole_on_every_device(results):
    found = results["few heads"]
    assert found["key"] == [SIZES["hidden_dim"], 2 * 4]
    assert found["many"] == found["one"]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "mesh"), [("fit", "data"), ("fit", "2x4"), ("lora", "2x4")])
def test_training_goes_as_on_one_device(results, kind, mesh):
    losses = results[kind]["one"]
    assert results[kind][mesh]["losses"] == pytest.approx(losses, rel=1e-5)
    assert len(set(losses)) == len(losses) == 3


@pytest.mark.slow
def test_master_weights_are_split_as_their_weights(results):
    one, many = results["16 bits"]["one"], results["16 bits"]["2x4"]
    assert many["losses"] == pytest.approx(one, rel=2e-3)
    assert many["masters"] == list(many["parts"].values())
    assert many["masters"] == list(results["fit"]["2x4"]["parts"].values())
    assert results["fit"]["2x4"]["masters"] == []


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "mesh"), [("fit", "data"), ("fit", "2x4"), ("lora", "2x4")])
def test_gradients_and_nothing_else_are_summed_over_the_rows(results, kind, mesh):
    found = results[kind][mesh]
    data, _ = shares(mesh)
    over_rows = [each for each in found["programs"]["jit_train_step"] if each["devices"] == data]
    assert {each["kind"] for each in over_rows} == {"all-reduce"}
    # XLA joins what it can, and may keep a gradient transposed.
    summed = [sorted(shape) for each in over_rows for shape in each["shapes"] if shape]
    assert sorted(summed) == sorted(sorted(part) for part in found["parts"].values())


@pytest.mark.slow
def test_a_backward_pass_sums_five_arrays_a_block(results):
    """One for each projection that reads the stream, which `sent_per_block` tells its readers."""
    stream = [ROWS // 2, LENGTH, SIZES["hidden_dim"]]
    summed = [
        math.prod(shape)
        for each in results["fit"]["2x4"]["programs"]["jit_train_step"]
        if each["devices"] == 4 and each["kind"] == "all-reduce"
        for shape in each["shapes"]
    ]
    forward, backward = 2 * 2 + 1, 2 * 5 + 1  # the lookup, and the logits' gradient
    assert summed.count(math.prod(stream)) == forward + backward


@pytest.mark.slow
def test_low_rank_factors_and_moments_are_split_as_their_kernel(results):
    found = results["lora"]["2x4"]
    assert len(found["parts"]) == 16  # A and B of four layers in two blocks
    assert found["parts"]["transformer_layer_0/self_attention/query/lora_kernel_a"] == [32, 2]
    assert found["parts"]["transformer_layer_0/self_attention/query/lora_kernel_b"] == [2, 16]
    assert found["parts"]["transformer_layer_1/feedforward/down/lora_kernel_a"] == [12, 2]
    assert found["parts"]["transformer_layer_1/feedforward/down/lora_kernel_b"] == [2, 32]
    for kind in ("fit", "lora"):
        parts = results[kind]["2x4"]["parts"].values()
        assert results[kind]["2x4"]["optimizer"] == [part for part in parts for _ in range(2)]


# Batches that four devices cannot share equally --------------------------------------------------


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    return run("uneven_rows.py", tmp_path_factory.mktemp("uneven_rows"), 4)


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("devices", ["data", "2x2"])
def test_rows_that_cannot_be_shared_equally_count_as_on_one_device(uneven, door, devices):
    ones, others = uneven["one"][door], uneven[devices][door]
    assert len(ones) == len(others)
    for one, other in zip(ones, others):
        if isinstance(one, str):
            assert other == one
            assert "Error" not in one
        else:
            np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_rows_are_shared_though_not_equally(uneven):
    """Of five rows each of four devices computes two at most, and of six none computes all."""
    assert uneven["largest"] == {"data": {"5": 2, "6": 2}, "2x2": {"5": 3, "6": 3}}


def test_a_key_of_the_map_is_for_whole_paths():
    """On Keras before 3.14 too: a kernel's is not for its scales. Each key finds its own entry."""
    layouts = MistralBackbone.get_layout_map(named_mesh())
    assert None not in layouts.values()
    path = "transformer_layer_0/self_attention/query/kernel"
    assert layouts[path] is not None
    assert layouts[f"{path}_scale"] is None


def test_sizes_are_checked_once_however_many_blocks_there_are(monkeypatch):
    """A preset may claim a billion."""
    asked = []
    layouts = MistralBackbone.get_layout_map(named_mesh((8, 1)))
    parallel = keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")
    layout_of = parallel.get_tensor_layout
    monkeypatch.setattr(
        parallel, "get_tensor_layout", lambda path: asked.append(path) or layout_of(path)
    )
    with parallel.scope():
        check_sizes(MistralConfig(10, 1000, 2, 8, 16, 1))
    assert 0 < len(asked) <= len(WEIGHTS)
