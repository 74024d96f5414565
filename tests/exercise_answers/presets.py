"""Answers to the exercises of chapter 17, "Presets and checkpoints": files and layouts."""

import io
import json
import struct

import jax.numpy as jnp
import numpy as np

DTYPES = {"F32": "float32", "F16": "float16"}


def header_of(data):
    length = int.from_bytes(data[:8], "little")
    return length, json.loads(data[8 : 8 + length])


def tensor_from(begin, data, name, shape=True, dtype=None):
    length, header = header_of(data)
    start, end = header[name]["data_offsets"]
    part = data[begin(length) + start : begin(length) + end]
    array = np.frombuffer(part, dtype or DTYPES[header[name]["dtype"]])
    return array.reshape(header[name]["shape"]) if shape else array


def with_a_stream(data, name):
    stream = io.BytesIO(data)
    (length,) = struct.unpack("<Q", stream.read(8))
    entry = json.loads(stream.read(length))[name]
    start, end = entry["data_offsets"]
    stream.seek(8 + length + start)
    return np.frombuffer(stream.read(end - start), DTYPES[entry["dtype"]]).reshape(entry["shape"])


def by_offset(data, name):
    length, header = header_of(data)
    entry = header[name]
    count = int(np.prod(entry["shape"]))
    dtype = DTYPES[entry["dtype"]]
    return np.frombuffer(data, dtype, count, 8 + length + entry["data_offsets"][0]).reshape(
        entry["shape"]
    )


def by_hand(data, name):
    length, header = header_of(data)
    entry, body = header[name], data[8 + length :]
    start, end = entry["data_offsets"]
    code = {"F32": "f", "F16": "e"}[entry["dtype"]]
    numbers = [x for (x,) in struct.iter_unpack("<" + code, body[start:end])]
    return np.array(numbers).reshape(entry["shape"])


def first_tensor(data, name):
    _, header = header_of(data)
    return tensor_from(lambda length: 8 + length, data, next(iter(header)))


def start_and_length(data, name):
    length, header = header_of(data)
    start, size = header[name]["data_offsets"]
    part = data[8 + length + start : 8 + length + start + size]
    return np.frombuffer(part, DTYPES[header[name]["dtype"]]).reshape(header[name]["shape"])


def side_by_side(weight, heads):
    halves = weight.reshape(heads, 2, -1, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def rows_by_head(weight, heads):
    parts = np.split(weight, heads)
    return np.concatenate([half for part in parts for half in (part[::2], part[1::2])])


def rows_by_index(weight, heads):
    size = len(weight) // heads
    index = [h * size + i for h in range(heads) for start in (0, 1) for i in range(start, size, 2)]
    return weight[index]


def rows_by_einsum(weight, heads):
    pairs = jnp.asarray(weight).reshape(heads, -1, 2, weight.shape[1])
    return jnp.einsum("npcd->ncpd", pairs).reshape(weight.shape)


ANSWERS = {
    "presets.read": (
        [
            first_tensor,
            start_and_length,
            lambda data, name: tensor_from(lambda length: 0, data, name),
            lambda data, name: tensor_from(lambda length: length, data, name),
            lambda data, name: tensor_from(lambda length: 8, data, name),
            lambda data, name: tensor_from(lambda length: 8 + length, data, name, shape=False),
            lambda data, name: tensor_from(lambda length: 8 + length, data, name, dtype="float32"),
            lambda data, name: tensor_from(lambda length: 8 + length, data, name, dtype="int32"),
            lambda data, name: tensor_from(lambda length: 8 + length, data, name).T,
            lambda data, name: data[8 + header_of(data)[0] :],
            lambda data, name: {name: tensor_from(lambda length: 8 + length, data, name)},
            lambda data: data,
        ],
        [with_a_stream, by_offset, by_hand],
    ),
    "presets.rows": (
        [
            side_by_side,
            lambda weight, heads: rows_by_head(weight, 1),
            lambda weight, heads: weight,
            lambda weight, heads: weight.reshape(heads, 2, -1, weight.shape[1]).reshape(
                weight.shape
            ),
            lambda weight, heads: np.concatenate([weight[1::2], weight[::2]]),
            lambda weight, heads: weight.reshape(heads, -1, 2, weight.shape[1]).swapaxes(1, 2),
            lambda weight, heads: weight[::-1],
            lambda weight, heads: np.concatenate(np.split(weight, heads)[::-1]),
            lambda weight, heads: rows_by_head(weight.T, heads).T,
            lambda weight, heads: [w for pair in zip(weight[::2], weight[1::2]) for w in pair],
            lambda weight: weight,
        ],
        [rows_by_head, rows_by_index, rows_by_einsum],
    ),
    "presets.break_it": (
        [
            ("model.safetensors",),
            "../secret.safetensors",
            "..",
            "a/../model.safetensors",
            ".",
            "./a/..",
            "..hidden",
            "...",
            "~/.ssh/id_rsa",
            "%2e%2e/secret",
            "file://etc/passwd",
            "a\\..\\..\\b",
            "",
            7,
            ["a", "b"],
            None,
        ],
        [
            ("shards/../../secret.safetensors",),
            "/etc/passwd",
            ["a/../../b"],
            "./../secret.safetensors",
            ("//server/share",),
        ],
    ),
    "presets.layouts": (
        [
            ((0.81, 0.70, 0.0), "a"),
            ((0.81, 0.70, 0.0), "c"),
            ((0.70, 0.81, 0.0), "b"),
            ((2.17, 2.06, 1.36), "b"),
            ((0.0, 0.70, 0.81), "b"),
            ((0.0, 0.81, 0.70), "b"),
            ((0.0, 0.0, 0.0), "b"),
            ((0.81, 0.81, 0.0), "b"),
            ((0.81, 0.70), "b"),
            ((81, 70, 0), "b"),
            (0.81, 0.70, 0.0),
            ((0.81, 0.70, 0.0), "the same"),
            "b",
        ],
        [
            ((0.81, 0.70, 0.0), "b"),
            ([0.8123, 0.7044, 0.0000012], "(b)"),
            (np.array([0.81, 0.7, 0.0], "float32"), "B"),
            ("0.81, 0.7, 0", "b"),
        ],
    ),
    "presets.suspects": (
        [
            (((1, 0), (0, 1), (128, 0)), "a"),
            (((1, 0), (0, 1), (128, 0)), "c"),
            (((2, 0), (1, 1), (129, 0)), "b"),
            (((0, 1), (1, 0), (0, 128)), "b"),
            (((1, 57), (0, 57), (128, 57)), "b"),
            (((1, 57), (0, 56), (128, 57)), "b"),
            (((0, 0), (0, 1), (0, 0)), "b"),
            (((1, 0), (0, 1), (127, 0)), "b"),
            ((1, 0, 128), "b"),
            (((1, 0), (0, 1)), "b"),
            [(1, 0), (0, 1), (128, 0)],
            (((1, 0), (0, 1), (128, 0)), "the config"),
            "b",
        ],
        [
            (((1, 0), (0, 1), (128, 0)), "b"),
            ([[1, 0], [0, 1], [128, 0]], "(b)"),
            (np.array([[1, 0], [0, 1], [128, 0]]), "B"),
            [([1, 0.0], (np.int64(0), 1), (128, 0)), " b"],
        ],
    ),
}
