"""The models that are timed: sizes, and the same random weights for every contender."""

import zlib

import numpy as np

SIZES = {
    "full": {  # 229 M parameters
        "vocabulary_size": 32000,
        "num_layers": 12,
        "num_query_heads": 16,
        "hidden_dim": 1024,
        "intermediate_dim": 3584,
        "num_key_value_heads": 4,
        "sliding_window": 512,
    },
    "tiny": {
        "vocabulary_size": 64,
        "num_layers": 2,
        "num_query_heads": 4,
        "hidden_dim": 32,
        "intermediate_dim": 48,
        "num_key_value_heads": 2,
        "sliding_window": 8,
    },
}
EPSILON = 1e-6
LORA_RANK = 4
NORMS = ("self_attention_layernorm", "feedforward_layernorm")


def shapes(size: dict) -> dict[str, tuple[int, ...]]:
    """Every tensor of a model and its shape; matrices are (in, out)."""
    hidden, wide = size["hidden_dim"], size["intermediate_dim"]
    head = hidden // size["num_query_heads"]
    keys = size["num_key_value_heads"] * head
    block = {
        "query": (hidden, hidden),
        "key": (hidden, keys),
        "value": (hidden, keys),
        "attention_output": (hidden, hidden),
        "gate": (hidden, wide),
        "up": (hidden, wide),
        "down": (wide, hidden),
    }
    named = {"embeddings": (size["vocabulary_size"], hidden)}
    for layer in range(size["num_layers"]):
        named |= {f"{layer}.{name}": shape for name, shape in block.items()}
        named |= {f"{layer}.{name}": (hidden,) for name in NORMS}
    return {**named, "norm": (hidden,), "head": (hidden, size["vocabulary_size"])}


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 values of one tensor: scales near 1, matrices that keep a vector's size."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) == 1:
        return random.uniform(0.5, 1.5, shape).astype("float32")
    deviation = 1.0 if name == "embeddings" else shape[0] ** -0.5
    return random.standard_normal(shape, dtype="float32") * np.float32(deviation)


def token_ids(size: dict, length: int, rows: int = 1) -> np.ndarray:
    """Random token ids (rows, length), the same for every contender."""
    return np.random.default_rng(length).integers(0, size["vocabulary_size"], (rows, length))


def matrix_flops(size: dict, length: int) -> int:
    """Floating-point operations of the blocks' kernels and of attention inside the window."""
    kernels = sum(np.prod(s) for name, s in shapes(size).items() if "." in name and len(s) == 2)
    window = min(size["sliding_window"], length)
    seen = window * length - window * (window - 1) // 2
    return int(2 * kernels * length + 4 * seen * size["hidden_dim"] * size["num_layers"])


def decoding_bytes(size: dict) -> int:
    """Bytes of float32 weights that one token reads: all but the embedding table."""
    return int(4 * sum(np.prod(s) for name, s in shapes(size).items() if name != "embeddings"))
