"""mistral_lib/presets/safetensors_files.py: every byte is a tensor's, and every tensor is whole."""

import json
import os

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from mistral_lib.presets import safetensors_files
from mistral_lib.presets.safetensors_files import in_file_order, list_tensors, write_tensors


def arrays(dtype="float32"):
    random = np.random.default_rng(0)
    shapes = {"a": (3, 4), "b": (5,), "c": (), "d": (2, 0), "e": (40, 6)}
    return {name: random.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def raw(header, data=b"", length=None):
    """The bytes of a file with any header at all."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(text) if length is None else length
    return length.to_bytes(8, "little") + text + data


def entry(shape=(2,), offsets=(0, 8), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


# --- Reading and writing -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_what_the_library_wrote(tmp_path, dtype):
    expected = arrays(dtype)
    safetensors.numpy.save_file(expected, tmp_path / "a.safetensors", {"format": "pt"})
    tensors = list_tensors(tmp_path / "a.safetensors")
    assert tensors.keys() == expected.keys()
    for name, array in expected.items():
        found = tensors[name].read()
        assert (found.shape, found.dtype) == (array.shape, array.dtype)
        assert found.tobytes() == array.tobytes()
        assert tensors[name].num_bytes == array.nbytes
        # JAX takes it over without a copy.
        assert found.size == 0 or found.ctypes.data % 64 == 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_library_reads_what_is_written(tmp_path, dtype):
    file, expected = tmp_path / "a.safetensors", arrays(dtype)
    write_tensors(
        file, {name: (a.shape, str(a.dtype)) for name, a in expected.items()}, expected.values()
    )
    found = safetensors.numpy.load_file(file)
    assert {n: a.tobytes() for n, a in found.items()} == {
        n: a.tobytes() for n, a in expected.items()
    }
    assert list_tensors(file)["a"].start % 8 == 0


def test_every_bit_pattern_survives(tmp_path):
    """NaNs with their payloads too, there and back, transposed or not."""
    file = tmp_path / "a.safetensors"
    bits = np.arange(2**16, dtype="uint16").reshape(256, 256)
    array = bits.view("bfloat16")
    write_tensors(file, {"a": ((256, 256), "bfloat16")}, [in_file_order(array, transposed=True)])
    stored = np.frombuffer(file.read_bytes()[-(2**17) :], "uint16").reshape(256, 256)
    assert (stored == bits.T).all()
    read = list_tensors(file)["a"].arranged(transposed=True).read()
    assert (read.view("uint16") == bits).all()


@settings(max_examples=30, deadline=None)
@given(
    heads=st.integers(1, 4),
    half=st.integers(1, 5),
    inputs=st.integers(1, 9),
    chunk=st.sampled_from([1, 50, 2**17]),
)
def test_interleaved_heads(tmp_path_factory, heads, half, inputs, chunk):
    """By loops: pair p of a head is rows 2p and 2p + 1 there, features p and p + h/2 here."""
    file = tmp_path_factory.mktemp("a") / "a.safetensors"
    stored = np.random.default_rng(heads).normal(size=(heads * 2 * half, inputs))
    safetensors.numpy.save_file({"a": stored}, file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(safetensors_files, "CHUNK", chunk)
        kernel = list_tensors(file)["a"].arranged(True, interleaved_heads=heads).read()
    for head in range(heads):
        for pair in range(half):
            for which in range(2):
                row = stored[head * 2 * half + 2 * pair + which]
                assert (kernel[:, head * 2 * half + which * half + pair] == row).all()


# --- Files that lie ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a safetensors file, or is cut off"),
        (b"\x00" * 7, "is not a safetensors file"),
        (raw({}, length=2 * 2**30), "the length of a header, 2,147,483,648 bytes"),
        (raw({}, length=2**64 - 1), "the length of a header, 18,446,744,073,709,551,615"),
        (raw(b"[]"), "must hold a JSON object"),
        (raw(b"{"), "is not valid JSON"),
        (raw(b"\xff\xff"), "is not valid JSON: 'utf-8'"),
        (raw(b'{"a": ' + b"[" * 5000), "is not valid JSON"),
        (
            raw(b'{"a": %s, "a": %s}' % ((json.dumps(entry()).encode(),) * 2), bytes(8)),
            "the key 'a' stands twice",
        ),
        (raw(b'{"a": {"dtype": NaN}}'), "NaN is no number"),
        (raw({"a": None}), "which no tensor can have"),
        (raw({"a": entry([-1, -2])}, bytes(8)), "which no tensor can have"),
        (raw({"a": entry([True, 2])}, bytes(8)), "which no tensor can have"),
        (raw({"a": entry([2.0])}, bytes(8)), "which no tensor can have"),
        (raw({"a": entry(offsets=[0])}, bytes(8)), "which no tensor can have"),
        (raw({"a": entry(offsets=["0", "8"])}, bytes(8)), "which no tensor can have"),
        (raw({"a": entry(dtype="F8_E5M2", shape=[8])}, bytes(8)), "the dtype 'F8_E5M2'"),
        (raw({"a": entry(dtype="I64", shape=[1])}, bytes(8)), "weights must be one of F64, F32"),
        (raw({"a": entry(dtype=["F32"])}, bytes(8)), r"the dtype \['F32'\]"),
        (raw({"a": entry([3])}, bytes(8)), "needs 12 bytes, but has the offsets"),
        (raw({"a": entry([2**62, 2**62])}, bytes(8)), "bytes, but has the offsets"),
        (raw({"a": entry(offsets=[8, 0])}, bytes(8)), "needs 8 bytes, but has the offsets"),
        (raw({"a": entry(), "b": entry()}, bytes(16)), "'b' overlaps with the tensor before it"),
        (raw({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(16)), "'b' overlaps"),
        (raw({"a": entry(), "b": entry(offsets=[12, 20])}, bytes(20)), "'b' leaves a gap"),
        (raw({"a": entry(offsets=[4, 12])}, bytes(12)), "'a' leaves a gap"),
        (raw({"a": entry()}, bytes(7)), "but its tensors need"),
        (raw({"a": entry()}, bytes(9)), "but its tensors need"),
        (raw({"a": entry(offsets=[2**62, 2**62 + 8])}, bytes(8)), "'a' leaves a gap"),
    ],
)
def test_refused(tmp_path, content, message):
    file = tmp_path / "a.safetensors"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        list_tensors(file)
    assert str(file) in str(caught.value)


def test_cut_off_at_every_byte(tmp_path):
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    safetensors.numpy.save_file({"a": np.ones((2, 3), "float32"), "b": np.ones(2)}, whole)
    content = whole.read_bytes()
    for size in range(len(content)):
        cut.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"cut\.safetensors"):
            list_tensors(cut)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_damaged_byte(tmp_path_factory, data):
    """A file whose header was changed is refused, or gives the bytes that stand in it."""
    content = bytearray(safetensors.numpy.save({"a": np.ones((2, 3), "float32"), "b": np.ones(2)}))
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.mktemp("a") / "a.safetensors"
    file.write_bytes(content)
    try:
        tensors = list_tensors(file)
    except ValueError:
        return
    read = b"".join(tensor.read().tobytes() for tensor in tensors.values())
    assert len(read) == sum(tensor.num_bytes for tensor in tensors.values()) < len(content)


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    file = tmp_path / "a.safetensors"
    safetensors.numpy.save_file({"a": np.ones((200, 300), "float32")}, file)
    tensor = list_tensors(file)["a"]
    os.truncate(file, 1000)
    with pytest.raises(ValueError, match="ends inside 'a'"):
        tensor.read()


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        list_tensors(tmp_path / "a.safetensors")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        list_tensors(tmp_path / "pipe")


def test_nothing_is_overwritten(tmp_path):
    """Another folder may share the old file by a hard link."""
    (tmp_path / "a.safetensors").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        write_tensors(tmp_path / "a.safetensors", {}, [])
