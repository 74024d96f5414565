"""mistral_lib/presets/dequantizing.py: eight bits and their scales, against the definition."""

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from mistral_lib.presets.dequantizing import Quantization, ScaledTensor, read_quantization, scaled
from mistral_lib.presets.safetensors_files import list_tensors

FP8 = ml_dtypes.float8_e4m3fn
STEM = "layers.0.wq."
NAME = STEM + "weight"


def numbers(shape, dtype=FP8):
    """All bit patterns of eight bits that are numbers, again and again."""
    bits = np.arange(np.prod(shape), dtype="uint8").reshape(shape)
    if dtype == FP8:
        bits = np.where(bits & 127 == 127, 0, bits)  # which is no number
    return bits.view(dtype)


def scales(shape):
    return np.random.default_rng(0).uniform(0.01, 1, shape).astype("float32")


def stored(tmp_path, **tensors):
    file = tmp_path / "model.safetensors"
    save_file({STEM + name: array for name, array in tensors.items()}, file)
    return list_tensors(file)


def expected(weight, scale, block):
    """Number times scale, one by one."""
    result = np.zeros(weight.shape, "float32")
    for row, column in np.ndindex(weight.shape):
        factor = scale[row // block[0], column // block[1]]
        result[row, column] = np.float32(weight[row, column]) * np.float32(factor)
    return result


LAYOUTS = {
    "whole": ((), (12, 20), None),
    "whole, one entry": ((1,), (12, 20), None),
    "whole, two axes": ((1, 1), (12, 20), None),
    "rows": ((12,), (1, 20), None),
    "rows, two axes": ((12, 1), (1, 20), None),
    "groups of columns": ((12, 4), (1, 5), None),
    "blocks": ((3, 5), (4, 4), (4, 4)),
    "blocks, not said": ((3, 5), (4, 4), None),
    "blocks that do not fit": ((2, 3), (8, 8), (8, 8)),
    "blocks larger than the matrix": ((1, 1), (12, 20), (128, 128)),
}


@pytest.mark.parametrize("dtype", [FP8, np.dtype("int8")], ids=["fp8", "int8"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("end", ["weight_scale_inv", "weight_scale", "qscale_weight"])
def test_layouts(tmp_path, dtype, layout, end):
    shape, block, said = LAYOUTS[layout]
    weight, scale = numbers((12, 20), dtype), scales(shape)
    found = scaled(stored(tmp_path, weight=weight, **{end: scale}), Quantization(said))
    assert found.keys() == {NAME}
    tensor = found[NAME]
    assert (tensor.dtype, tensor.shape, tensor.num_bytes) == ("float32", (12, 20), 960)
    grid = (-(-12 // block[0]), -(-20 // block[1]))
    want = expected(weight, scale.reshape(grid), block)
    assert np.abs(want).max() > 50
    read = tensor.read()
    assert read.dtype == "float32"
    assert np.array_equal(read, want)
    assert np.array_equal(tensor.arranged(transposed=True).read(), want.T)


@pytest.mark.parametrize("shape", [(), (12, 1), (3, 5)])
def test_rotary_pairs_are_put_apart_after_scaling(tmp_path, shape):
    """Each row keeps its scale wherever it goes."""
    weight, scale = numbers((12, 20)), scales(shape)
    (tensor,) = scaled(stored(tmp_path, weight=weight, weight_scale=scale), Quantization()).values()
    rows = tensor.read().reshape(2, 3, 2, 20).swapaxes(1, 2).reshape(12, 20)
    assert np.array_equal(tensor.arranged(True, interleaved_heads=2).read(), rows.T)


def test_many_chunks(tmp_path, monkeypatch):
    """A large matrix is read a few rows at a time."""
    monkeypatch.setattr("mistral_lib.presets.safetensors_files.CHUNK", 200)
    weight, scale = numbers((12, 20)), scales((3, 5))
    (tensor,) = scaled(stored(tmp_path, weight=weight, weight_scale=scale), Quantization()).values()
    assert np.array_equal(tensor.read(), expected(weight, scale, (4, 4)))


def test_scales_of_bfloat16(tmp_path):
    """Their product with a number is exact, where transformers rounds it to bfloat16."""
    weight, scale = numbers((12, 20)), scales((12, 1)).astype(ml_dtypes.bfloat16)
    (tensor,) = scaled(stored(tmp_path, weight=weight, weight_scale=scale), Quantization()).values()
    assert np.array_equal(tensor.read(), expected(weight, scale, (1, 20)))


def test_what_is_not_quantized_stays(tmp_path):
    tensors = stored(
        tmp_path,
        weight=numbers((4, 4)),
        weight_scale=scales(()),
        norm=np.ones(4, "float32"),
        input_scale=scales(()),
        activation_scale=scales(()),
        qscale_act=scales(()),
        k_scale=scales(()),
    )
    found = scaled(tensors, Quantization())
    assert found.keys() == {NAME, STEM + "norm"}
    assert isinstance(found[NAME], ScaledTensor)
    assert found[STEM + "norm"] == tensors[STEM + "norm"]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": numbers((4, 4))}, r"has the dtype float8_e4m3fn, but there is no scale .*Load"),
        ({"weight": numbers((4, 4)), "scale": scales(())}, "there is no scale"),
        (
            {"kernel": numbers((4, 4), np.dtype("int8"))},
            "the dtype int8, but there is no scale",
        ),
        ({"weight": numbers((4, 4)), "weight_scale": scales((3, 1))}, r"has the shape \(3, 1\)"),
        ({"weight": numbers((4, 4)), "weight_scale": scales((2, 2, 2))}, r"shape \(2, 2, 2\)"),
        ({"weight": numbers((4, 4)), "weight_scale": scales((0, 1))}, r"shape \(0, 1\)"),
        ({"weight": numbers((4,)), "weight_scale": scales(())}, r"of the shape \(4,\)"),
        ({"weight": numbers((4, 4)), "weight_scale": numbers((4, 1))}, "the dtype float8_e4m3fn"),
    ],
)
def test_refused(tmp_path, tensors, message):
    with pytest.raises(ValueError, match=message) as caught:
        scaled(stored(tmp_path, **tensors), Quantization())
    assert str(tmp_path) in str(caught.value)


def test_a_grid_that_is_not_the_one_said(tmp_path):
    tensors = stored(tmp_path, weight=numbers((12, 20)), weight_scale=scales((5, 5)))
    with pytest.raises(ValueError, match=r"of the shape \(12, 20\) in blocks of \(4, 4\)"):
        scaled(tensors, Quantization((4, 4)))


# --- What configs say ----------------------------------------------------------------------------


def compressed(form="int-quantized", **changes):
    weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", **changes}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }


@pytest.mark.parametrize(
    ("config", "block"),
    [
        ({"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None}, None),
        ({"quant_method": "fp8", "weight_block_size": [64, 32]}, (64, 32)),
        ({"quant_method": "fp8"}, (128, 128)),
        ({"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"}, None),
        ({"qformat_weight": "fp8_e4m3", "qscheme_act": "NO_SCALES"}, None),
        (compressed(), None),
        (compressed("float-quantized", type="float"), None),
        (compressed("naive-quantized"), None),
        (compressed(strategy="block", block_structure=[128, 64]), (128, 64)),
        ({**compressed(), "sparsity_config": {"format": "dense"}, "transform_config": {}}, None),
    ],
)
def test_plain_scales(tmp_path, config, block):
    assert read_quantization(config, tmp_path) == Quantization(block)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "by 'bitsandbytes'"),
        ({"load_in_4bit": True}, "by 'bitsandbytes'"),
        ({"quant_method": "awq"}, "by 'awq'"),
        ({"quant_method": "gptq"}, "by 'gptq'"),
        ({"qformat_weight": "nvfp4"}, "by 'nvfp4'"),
        ({}, "by None"),
        ([], r"by \[\]"),
        (compressed("pack-quantized"), "in the format 'pack-quantized' of compressed-tensors"),
        (compressed("nvfp4-pack-quantized"), "in the format 'nvfp4-pack-quantized'"),
        (compressed(None), "in the format None"),
        (compressed(num_bits=4), "num_bits = 4 and symmetric = True, but only 8 and true"),
        (compressed(symmetric=False), "num_bits = 8 and symmetric = False"),
        ({**compressed(), "config_groups": {"a": "int-quantized"}}, "num_bits = None"),
        ({**compressed(), "config_groups": {"a": {"format": "pack-quantized"}}}, "pack-quantized"),
        (
            {**compressed(), "sparsity_config": {"format": "sparse-24-bitmask"}},
            "sparsity_config is",
        ),
        ({**compressed(), "transform_config": {"R1": {"type": "hadamard"}}}, "transform_config is"),
    ],
)
def test_others_are_refused_with_advice(tmp_path, config, message):
    with pytest.raises(ValueError, match=rf"{message}.*Load the checkpoint from which it was quan"):
        read_quantization(config, tmp_path / "config.json")


@pytest.mark.parametrize("size", [128, [128], [128, 0], [128, 128.0], "all"])
def test_sizes_of_blocks(tmp_path, size):
    with pytest.raises(ValueError, match=r"blocks have the size .*must be two numbers"):
        read_quantization({"quant_method": "fp8", "weight_block_size": size}, tmp_path)


@pytest.mark.peer
@pytest.mark.parametrize("layout", ["whole", "rows, two axes", "groups of columns", "blocks"])
def test_as_transformers_makes_them_float(tmp_path, layout):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    fp8 = pytest.importorskip(
        "transformers.integrations.finegrained_fp8", reason="transformers is not installed"
    )
    shape, _, said = LAYOUTS[layout]
    weight, scale = numbers((12, 20)), scales(shape)
    tensors = stored(tmp_path, weight=weight, weight_scale=scale)
    (tensor,) = scaled(tensors, Quantization(said)).values()
    theirs = fp8.Fp8Dequantize(None)._dequantize_one(
        torch.from_numpy(weight.view("uint8")).view(torch.float8_e4m3fn), torch.tensor(scale)
    )
    assert np.array_equal(tensor.read(), theirs.numpy())
