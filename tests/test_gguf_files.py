"""mistral_lib/presets/gguf_files.py: what the package gguf reads, and nothing of what is false."""

import builtins
import contextlib
import struct
import tracemalloc

import gguf
import numpy as np
import pytest
from reference.make_gguf import FOLDER, KINDS

from mistral_lib.presets.gguf_files import library, read_gguf, stored_bytes

FILES = sorted(file.name for file in FOLDER.glob("*.gguf"))


def text(value):
    value = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(value)) + value


def value(key, kind, content):
    return text(key) + struct.pack("<I", kind) + content


def info(name="a", shape=(32,), kind=0, offset=0):
    axes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + axes + struct.pack("<IQ", kind, offset)


def raw(values=(), infos=(), data=b"", version=3, counts=None):
    """The bytes of a file with any header at all."""
    counts = (len(infos), len(values)) if counts is None else counts
    header = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join([*values, *infos])
    return header + b"\0" * (-len(header) % 32) + data


def written(tmp_path, content):
    file = tmp_path / "a.gguf"
    file.write_bytes(content)
    return file


# --- Reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_what_the_package_reads(name):
    """Its own reader finds the same metadata, and the same numbers in the same tensors."""
    file, peer = read_gguf(FOLDER / name), gguf.GGUFReader(FOLDER / name)
    found = {key: field.contents() for key, field in peer.fields.items() if key[:4] != "GGUF"}
    assert file.metadata.keys() == found.keys()
    for key, expected in found.items():
        if isinstance(expected, float):
            expected = pytest.approx(expected, rel=1e-7)
        assert file.metadata[key] == expected, key
    tensors = file.tensors()
    assert [*tensors] == [tensor.name for tensor in peer.tensors]
    for tensor in peer.tensors:
        mine = tensors[tensor.name]
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert mine.shape == expected.shape
        assert (mine.read().astype("float32") == expected).all()
        assert file.kinds[tensor.name] == tensor.tensor_type.name
        assert mine.is_quantized == (tensor.tensor_type.name[0] == "Q")


def test_every_kind_is_among_them():
    kinds = {*read_gguf(FOLDER / "kinds.gguf").kinds.values()}
    assert kinds == {*KINDS.values(), "F32"}
    assert len(kinds) == 7


@pytest.mark.parametrize("name", ["blk.0.attn_q.weight", "blk.0.ffn_up.weight"])
def test_arrangements(monkeypatch, name):
    """Transposed, and with the features of a rotary pair brought apart; by few rows at a time."""
    monkeypatch.setattr("mistral_lib.presets.gguf_files.CHUNK", 700)
    tensor = read_gguf(FOLDER / "kinds.gguf").tensors()[name]
    plain = tensor.read()
    assert (tensor.arranged(transposed=True).read() == plain.T).all()
    heads = plain.reshape(2, 8, 2, -1).swapaxes(1, 2).reshape(plain.shape)
    assert (tensor.arranged(True, interleaved_heads=2).read() == heads.T).all()
    assert tensor.arranged(True).read().ctypes.data % 64 == 0
    assert tensor.num_bytes == plain.nbytes


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K", "Q6_K"])
def test_a_tensor_is_never_there_twice(tmp_path, kind):
    """Beside the numbers as they are read there are only those of a few rows."""
    code, shape = int(gguf.GGMLQuantizationType[kind]), (1024, 2048)
    content = raw(infos=[info(shape=shape, kind=code)], data=bytes(stored_bytes(shape, kind)))
    tensor = read_gguf(written(tmp_path, content)).tensors()["a"].arranged(transposed=True)
    tracemalloc.start()
    assert not tensor.read().any()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tensor.num_bytes < peak < 1.4 * tensor.num_bytes


def test_numbers_are_those_that_were_meant(tmp_path):
    """A float32 has seven digits or so, and no more are made of it."""
    content = raw([value("a", 6, struct.pack("<f", 1e-5)), value("b", 12, struct.pack("<d", 0.1))])
    assert read_gguf(written(tmp_path, content)).metadata == {"a": 1e-5, "b": 0.1}


def test_every_type_of_value(tmp_path):
    numbers = [(0, "B", 200), (1, "b", -3), (2, "H", 60000), (3, "h", -9), (4, "I", 2**31)]
    numbers += [(5, "i", -(2**31)), (7, "?", True), (10, "Q", 2**63), (11, "q", -(2**63))]
    values = [value(str(kind), kind, struct.pack("<" + c, n)) for kind, c, n in numbers]
    values.append(value("s", 8, text("▁é")))
    values.append(value("l", 9, struct.pack("<IQ", 8, 2) + text("a") + text("")))
    values.append(value("n", 9, struct.pack("<IQ2i", 5, 2, -1, 7)))
    values.append(value("e", 9, struct.pack("<IQ", 5, 0)))
    expected = {str(kind): n for kind, _, n in numbers} | {"s": "▁é", "l": ["a", ""]}
    file = read_gguf(written(tmp_path, raw(values, version=2)))
    assert file.metadata == expected | {"n": [-1, 7], "e": []}


def test_bytes_in_a_file():
    assert stored_bytes((3, 256), "Q4_K") == 3 * 144
    assert stored_bytes((3, 256), "Q6_K") == 3 * 210
    assert stored_bytes((), "F32") == 4


# --- What is wrong with a file -------------------------------------------------------------------

MANY = 2**60
WRONG = {
    "empty": (b"", "is not a GGUF file: it begins with b''"),
    "another file": (b"PK\3\4" + bytes(60), r"begins with b'PK\\x03\\x04'"),
    "version 1": (raw(version=1), "of version 1, but only versions 2 and 3"),
    "another byte order": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "gguf-convert-endian"),
    "many tensors": (raw(counts=(MANY, 0)), "what begins at byte"),
    "many values": (raw(counts=(0, MANY)), "what begins at byte"),
    "a long text": (raw([struct.pack("<Q", MANY)]), f"needs {MANY:,} bytes"),
    "a long list": (raw([value("a", 9, struct.pack("<IQ", 5, MANY))]), "needs .* bytes"),
    "many texts": (raw([value("a", 9, struct.pack("<IQ", 8, MANY))]), "has .* texts"),
    "a list of lists": (raw([value("a", 9, struct.pack("<IQ", 9, 2))]), "list of the type 9"),
    "an unknown type": (raw([value("a", 99, b"")]), "no type 99 of values"),
    "not UTF-8": (raw([value(b"\xff", 4, b"1234")]), "is no UTF-8"),
    "a key twice": (raw([value("a", 7, b"\1")] * 2), "the key 'a' stands twice"),
    "alignment 0": (raw([value("general.alignment", 4, bytes(4))]), "is no power of two"),
    "alignment 48": (raw([value("general.alignment", 4, b"0\0\0\0")]), "is no power of two"),
    "alignment as text": (raw([value("general.alignment", 8, text("32"))]), "no power of two"),
    "many axes": (raw(infos=[info(shape=(1,) * 5)]), "has 5 axes"),
    "a huge tensor": (raw(infos=[info(shape=(2**32, 2**32))]), "would end at byte"),
    "half a tensor": (raw(infos=[info()], data=bytes(64)), "would end at byte"),
    "half a block": (raw(infos=[info(shape=(33,), kind=8)], data=bytes(99)), "blocks of 32"),
    "a gap": (raw(infos=[info(offset=64)], data=bytes(999)), "must begin at"),
    "beyond the end": (raw(infos=[info(offset=2**63)], data=bytes(999)), "must begin at"),
    "an overlap": (raw(infos=[info(), info("b")], data=bytes(999)), "must begin at"),
    "a tensor twice": (
        raw(infos=[info(), info(offset=128)], data=bytes(999)),
        "the tensor 'a' stands twice",
    ),
    "a type from the future": (raw(infos=[info(kind=999)], data=bytes(999)), "upgrade gguf"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_at_once(tmp_path, name):
    content, message = WRONG[name]
    file = written(tmp_path, content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=message) as caught:
        read_gguf(file)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert str(file) in str(caught.value)


def test_cut_off_anywhere(tmp_path):
    whole = (FOLDER / "adapter.gguf").read_bytes()
    for length in range(0, len(whole), 13):
        with pytest.raises(ValueError, match=r"a\.gguf"):
            read_gguf(written(tmp_path, whole[:length]))


def test_any_byte_may_be_wrong(tmp_path):
    """A changed header is read or refused: there is no other error, and no end without one."""
    whole = bytearray((FOLDER / "adapter.gguf").read_bytes()[:1500])
    random = np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(whole)
        for place in random.integers(0, len(content), 3):
            content[place] = random.integers(256)
        with contextlib.suppress(ValueError):
            read_gguf(written(tmp_path, bytes(content) + bytes(4000))).tensors()


@pytest.mark.parametrize("kind", ["Q5_K", "IQ4_XS", "F64", "I32"])
def test_kinds_that_are_not_read(tmp_path, kind):
    code = int(gguf.GGMLQuantizationType[kind])
    content = raw(infos=[info(shape=(256,), kind=code)], data=bytes(2048))
    file = read_gguf(written(tmp_path, content))
    assert file.kinds == {"a": kind}
    with pytest.raises(
        ValueError, match=f"of the type {kind}, which is not read here.*llama-quant"
    ):
        file.tensors()


def test_cut_off_while_it_is_read(tmp_path):
    file = written(tmp_path, (FOLDER / "kinds.gguf").read_bytes())
    tensors = read_gguf(file).tensors()
    last = max(tensors, key=lambda name: tensors[name].start)
    assert tensors[last].is_quantized
    with file.open("r+b") as opened:
        opened.truncate(tensors[last].start + 9)
    with pytest.raises(ValueError, match="was cut off while it was read"):
        tensors[last].read()


def test_without_the_package(monkeypatch):
    real = builtins.__import__

    def fake(name, *args, **kwargs):
        if name == "gguf":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    library.cache_clear()
    monkeypatch.setattr(builtins, "__import__", fake)
    with pytest.raises(ImportError, match=r"install mistral-lib\[gguf\], or gguf"):
        library()
