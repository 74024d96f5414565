"""mistral_lib/presets/tensors.py: every tensor has one place, every place one tensor."""

from pathlib import Path

import numpy as np
import pytest
from small_presets import small_backbone

from mistral_lib.presets.tensors import (
    ALIGNMENT,
    Messages,
    Place,
    Tensor,
    aligned_empty,
    match,
    owner_of,
)

FILE = Path("weights")
MESSAGES = Messages(missing="{where}: no {name!r} {expected}", unexpected="{file}: {name!r}{more}")
PLACES = [Place("norm.scale", "n", (3,)), Place("up.kernel", "u", (2, 3), "int8", "{}.up.kernel")]
STORED = {"n": Tensor(FILE, "n", (3,), "bfloat16"), "u": Tensor(FILE, "u", (2, 3), "int8")}


def test_tensors_by_the_names_of_variables():
    found = match(PLACES, STORED, FILE, MESSAGES)
    assert found == {"norm.scale": STORED["n"], "up.kernel": STORED["u"]}
    assert [tensor.num_bytes for tensor in found.values()] == [6, 6]
    assert len(STORED) == 2  # which stays as it was


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("n", None, r"weights: no 'n' \(3,\)"),
        ("n", Tensor(FILE, "n", (4,), "float32"), r"'n' has the shape \(4,\), .* asks for \(3,\)"),
        ("n", Tensor(FILE, "n", (3,), "int8"), "'n' has the dtype int8, but .* asks for float"),
        ("u", Tensor(FILE, "u", (2, 3), "float16"), "'u' has the dtype float16, .* for int8"),
        ("x", Tensor(FILE, "x", (3,), "float32"), "weights: 'x'$"),
    ],
)
def test_what_does_not_match(name, tensor, message):
    stored = {**STORED, name: tensor}
    if tensor is None:
        del stored[name]
    with pytest.raises(ValueError, match=message):
        match(PLACES, stored, FILE, MESSAGES)


def test_the_first_of_several_without_a_place_is_named():
    stored = {**STORED, **{n: Tensor(FILE, n, (1,), "float32") for n in ("z", "x", "y")}}
    with pytest.raises(ValueError, match="weights: 'x' and 2 others"):
        match(PLACES, stored, FILE, MESSAGES)


def test_places_are_looked_at_until_one_has_no_tensor():
    """A config may ask for a billion blocks."""

    def endless():
        yield from PLACES
        yield Place("more", "m", (1,))
        raise AssertionError("looked further")

    with pytest.raises(ValueError, match="no 'm'"):
        match(endless(), STORED, FILE, MESSAGES)


def test_owner_of():
    backbone = small_backbone()
    gate = backbone.transformer_layers[1].feedforward.gate
    assert owner_of(backbone, "transformer_layer_1.feedforward.gate.kernel") == (gate, "kernel")
    assert owner_of(backbone, "token_embedding.embeddings")[0] is backbone.token_embedding


@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (1, 7, 2)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_aligned(shape, dtype):
    array = aligned_empty(shape, dtype)
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert array.ctypes.data % ALIGNMENT == 0 or not array.size
